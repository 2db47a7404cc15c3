//! The file of a trace: one line an exchange, versioned, each line checked and chained to the one before.
//!
//! ```text
//! otad-trace 2 {"agent":"otad-agent","version":"0.1.0","digest":"9f86…","device":"pump-1"}
//! 1c2d3e4f {"exchange":{"at":{…},"ask":{"event":"Timeout"},"calls":[],"end":{"turn":{…}}},"bulk":[]}
//! ```
//!
//! The number before a line is the CRC-32C of all lines so far, so that none can be taken out or moved; a file that
//! ends within a line was cut off there, by a crash or a full disk, and is good up to it. A trace is hostile until it is
//! parsed: every line is bounded before and after it is read, and lines are read one at a time. Not here: what is done
//! with exchanges.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

use super::octets;
use super::tap::{Ask, Bulk, Exchange};

/// Format of the lines; another one is refused.
pub const FORMAT: u32 = 2;

/// What a trace begins with.
const MAGIC: &str = "otad-trace";

/// Most bytes of a trace that is read: four times the longest that is written.
pub const TRACE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Most bytes of a line: a snapshot of 256 KiB in hexadecimal, and what else may stand in a start.
pub const LINE_MAX_BYTES: usize = 1024 * 1024;

/// Most bytes that a line may become in memory: its runs of one byte are short to write.
const LINE_EXPANDED_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Whose trace it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Name of the agent build.
    pub agent: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its component, zeros for one in the process.
    pub digest: String,
    /// The device.
    pub device: String,
}

/// One line.
#[derive(Serialize, Deserialize)]
struct Line {
    exchange: Exchange,
    /// What stood where zeros stand now.
    #[serde(default)]
    bulk: Vec<Bulk>,
}

/// Why a trace is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Too long.
    #[error("a trace of {0} bytes; at most {TRACE_MAX_BYTES} are read")]
    TooLarge(usize),
    /// It does not begin like one.
    #[error("it is not a trace: it does not begin with `{MAGIC}`")]
    Magic,
    /// Not even its first line is whole.
    #[error("it was cut off within its first line: nothing can be told from it")]
    Cut,
    /// Of another format.
    #[error("a trace of format {0}; this build reads {FORMAT}")]
    Format(String),
    /// A line is not what it was written as.
    #[error("line {line} is damaged: {why}")]
    Damaged {
        /// Which, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// It begins in the middle.
    #[error("line 2 is no start of an agent: a trace begins with one")]
    NoStart,
}

/// Writes lines.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    chain: u32,
}

impl Writer {
    /// The first line.
    pub(crate) fn header(&mut self, header: &Header) -> Vec<u8> {
        let words = serde_json::to_string(header).unwrap_or_default();
        let line = format!("{MAGIC} {FORMAT} {words}\n");
        self.chain = crc32c::crc32c(line.as_bytes());
        line.into_bytes()
    }

    /// Append the next line; false, and nothing, for an exchange that is longer than a line may be.
    pub(crate) fn line(&mut self, exchange: Exchange, bulk: Vec<Bulk>, out: &mut Vec<u8>) -> bool {
        const PREFIX: &[u8] = b"         ";
        let start = out.len();
        out.extend_from_slice(PREFIX);
        let written = serde_json::to_writer(&mut *out, &Line { exchange, bulk });
        let line = out.get_mut(start..).unwrap_or_default();
        let bytes = line.len();
        if let Some((mut sum, body)) = line.split_at_mut_checked(PREFIX.len())
            && written.is_ok()
            && bytes <= LINE_MAX_BYTES
        {
            let chain = crc32c::crc32c_append(self.chain, body);
            if write!(sum, "{chain:08x}").is_ok() {
                self.chain = chain;
                out.push(b'\n');
                return true;
            }
        }
        out.truncate(start);
        false
    }
}

/// Reads a trace, an exchange at a time.
#[derive(Clone, Debug)]
pub struct Trace<'b> {
    header: Header,
    rest: &'b [u8],
    chain: u32,
    line: u64,
    cut: bool,
}

impl<'b> Trace<'b> {
    /// Read the first line.
    ///
    /// # Errors
    /// [`TraceError`], of the first line.
    pub fn open(bytes: &'b [u8]) -> Result<Self, TraceError> {
        if bytes.len() > TRACE_MAX_BYTES {
            return Err(TraceError::TooLarge(bytes.len()));
        }
        let Some((line, rest)) = split(bytes) else {
            return Err(match bytes.starts_with(MAGIC.as_bytes()) {
                true => TraceError::Cut,
                false => TraceError::Magic,
            });
        };
        let text = std::str::from_utf8(line).map_err(|_| TraceError::Magic)?;
        let words = text.strip_prefix(MAGIC).ok_or(TraceError::Magic)?;
        let words = words.strip_prefix(' ').ok_or(TraceError::Magic)?;
        let (format, words) = words.split_once(' ').ok_or(TraceError::Magic)?;
        if format != FORMAT.to_string() {
            return Err(TraceError::Format(format.chars().take(16).collect()));
        }
        let header = serde_json::from_str(words).map_err(|error| damaged(1, &error))?;
        let with_end = bytes.get(..=line.len()).unwrap_or(line);
        Ok(Self {
            header,
            rest,
            chain: crc32c::crc32c(with_end),
            line: 1,
            cut: false,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether it was cut off within its last line; known when all of it was read.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether secrets were replaced in what is left of it.
    pub(crate) fn has_tokens(&self) -> bool {
        let mark = super::redact::MARK.as_bytes();
        self.rest.windows(mark.len()).any(|window| window == mark)
    }

    /// The next exchange; none at the end.
    ///
    /// # Errors
    /// [`TraceError`]; nothing more is read after it.
    pub fn next_exchange(&mut self) -> Result<Option<Exchange>, TraceError> {
        let Some((line, rest)) = split(self.rest) else {
            self.cut = !self.rest.is_empty();
            self.rest = &[];
            return Ok(None);
        };
        self.rest = rest;
        self.line += 1;
        let parsed = self.parse(line);
        if parsed.is_err() {
            self.rest = &[];
        }
        parsed.map(Some)
    }

    fn parse(&mut self, line: &[u8]) -> Result<Exchange, TraceError> {
        let number = self.line;
        let wrong = |why: &str| TraceError::Damaged {
            line: number,
            why: why.to_owned(),
        };
        if line.len() > LINE_MAX_BYTES {
            return Err(wrong("it is too long"));
        }
        let parts = (line.get(..8), line.get(8), line.get(9..));
        let (Some(sum), Some(b' '), Some(body)) = parts else {
            return Err(wrong("it has no sum"));
        };
        let chain = crc32c::crc32c_append(self.chain, body);
        if sum != format!("{chain:08x}").as_bytes() {
            return Err(wrong("its sum is another one"));
        }
        self.chain = chain;
        let read = || serde_json::from_slice::<Line>(body);
        let line = octets::within(LINE_EXPANDED_MAX_BYTES, read);
        let exchange = line.map_err(|error| damaged(number, &error))?.exchange;
        if number == 2 && !matches!(exchange.ask, Ask::Start(_)) {
            return Err(TraceError::NoStart);
        }
        Ok(exchange)
    }
}

fn damaged(line: u64, error: &serde_json::Error) -> TraceError {
    TraceError::Damaged {
        line,
        why: super::clean(&error.to_string(), super::text::FAULT_MAX_BYTES),
    }
}

/// The first line, without its end, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|b| *b == b'\n')?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}
