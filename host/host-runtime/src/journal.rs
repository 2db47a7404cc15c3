//! The agent's journal: one small record a device, replaced as a whole.
//!
//! Stores run on [`Workers`], one at a time, and end by token. A store that comes while another one runs waits; of
//! several that wait only the last is written, and it ends the tokens of all. Not here: what is in a journal.

use std::io;
use std::sync::Arc;

use crate::desk::Desk;
use crate::ports::workers::Errand;
use crate::types::{Blob, Failure, Outcome, Token};

/// Most bytes of a journal; the contract's limit. Some 10 phases and 16 files are a few hundred.
pub(crate) const JOURNAL_MAX_BYTES: usize = 64 * 1024;

/// First bytes of the file; another layout gets another number.
const MAGIC: &[u8; 8] = b"OTADJNL1";

/// Magic, schema, length, and a CRC-32C over the two numbers and the bytes.
const HEADER_BYTES: usize = 8 + 4 + 4 + 4;

/// What is in the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No journal: a new device.
    Nothing,
    /// A journal.
    Whole(Blob),
    /// Something that is not a journal; it was put aside.
    Damaged,
}

/// The journal of one device.
pub(crate) struct Journal {
    desk: Arc<Desk>,
    /// What was stored last, whether it is durable yet or not.
    current: Option<Blob>,
    /// Counts the stores asked for: a snapshot taken before the last one is too old.
    generation: u64,
    /// The store under way, and its tokens.
    writing: Option<(Vec<Token>, Errand<io::Result<()>>)>,
    /// What waits for it.
    waiting: Option<Box<Waiting>>,
}

/// A store that waits for another one.
struct Waiting {
    tokens: Vec<Token>,
    blob: Option<Blob>,
}

/// Name of the file in the state directory.
const FILE: &str = "journal";

impl Journal {
    /// Read the journal of a device.
    ///
    /// # Errors
    /// What the medium says.
    pub(crate) fn load(desk: Arc<Desk>) -> io::Result<(Self, Found)> {
        let name = desk.file(FILE);
        let found = match desk.state.load(&name)? {
            None => Found::Nothing,
            Some(bytes) => match decode(&bytes) {
                Some(blob) => Found::Whole(blob),
                None => {
                    // Kept for whoever wants to know what happened; the next damaged one replaces it.
                    desk.state.store(&format!("{name}.damaged"), &bytes)?;
                    Found::Damaged
                }
            },
        };
        let current = match &found {
            Found::Whole(blob) => Some(blob.clone()),
            Found::Nothing | Found::Damaged => None,
        };
        let journal = Self {
            desk,
            current,
            generation: 0,
            writing: None,
            waiting: None,
        };
        Ok((journal, found))
    }

    /// Replace the journal; empty bytes delete it. Its token ends in a later [`poll`](Self::poll).
    pub(crate) fn store(&mut self, token: Token, blob: Blob) {
        let blob = (!blob.bytes.is_empty()).then_some(blob);
        self.replace(Some(token), blob);
    }

    /// Have it say again what it said before: what an agent has stored that did not get through its start.
    pub(crate) fn put_back(&mut self, blob: Option<Blob>) {
        self.replace(None, blob);
    }

    fn replace(&mut self, token: Option<Token>, blob: Option<Blob>) {
        self.generation += 1;
        self.current = blob;
        let waiting = self.waiting.take();
        let mut tokens = waiting.map_or_else(Vec::new, |waiting| waiting.tokens);
        tokens.extend(token);
        let blob = self.current.clone();
        self.waiting = Some(Box::new(Waiting { tokens, blob }));
        self.start();
    }

    /// Collect the store that ended, and begin the next.
    pub(crate) fn poll(&mut self, out: &mut Vec<(Token, Outcome)>) {
        let end = self.writing.as_ref().and_then(|(_, errand)| errand.end());
        if let Some(end) = end {
            let outcome = match end {
                Ok(()) => Outcome::Nothing,
                Err(e) => Outcome::Failed(Failure::storage("journal not stored", &e)),
            };
            let tokens = self
                .writing
                .take()
                .map_or_else(Vec::new, |(tokens, _)| tokens);
            out.extend(tokens.into_iter().map(|token| (token, outcome.clone())));
        }
        self.start();
    }

    /// Whose it is.
    pub(crate) fn device(&self) -> &str {
        &self.desk.device
    }

    /// The last journal that was stored, durable yet or not.
    pub(crate) fn current(&self) -> Option<&Blob> {
        self.current.as_ref()
    }

    /// How many stores were asked for.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether nothing is to be stored.
    pub(crate) fn is_quiet(&self) -> bool {
        self.writing.is_none() && self.waiting.is_none()
    }

    fn start(&mut self) {
        if self.writing.is_some() {
            return;
        }
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        let Waiting { tokens, blob } = *waiting;
        let desk = Arc::clone(&self.desk);
        let lost = io::Error::other("the worker that writes it has died");
        let errand =
            Errand::start(
                &*self.desk.workers,
                &self.desk.wake,
                Err(lost),
                move || match blob {
                    Some(blob) => desk.state.store(&desk.file(FILE), &encode(&blob)),
                    None => desk.state.remove(&desk.file(FILE)),
                },
            );
        self.writing = Some((tokens, errand));
    }
}

fn encode(blob: &Blob) -> Vec<u8> {
    let length = u32::try_from(blob.bytes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + blob.bytes.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&blob.schema.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..]), &blob.bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&blob.bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Blob> {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let word = |at: usize| {
        header
            .get(at..at + 4)
            .and_then(|word| word.try_into().ok())
            .map(u32::from_le_bytes)
    };
    let (schema, length, crc) = (word(8)?, word(12)?, word(16)?);
    let whole = header.starts_with(MAGIC)
        && usize::try_from(length).ok() == Some(body.len())
        && body.len() <= JOURNAL_MAX_BYTES
        && crc32c::crc32c_append(crc32c::crc32c(&header[8..16]), body) == crc;
    whole.then(|| Blob {
        schema,
        bytes: body.to_vec(),
    })
}

#[cfg(test)]
mod tests;
