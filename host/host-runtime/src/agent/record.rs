//! The flight recorder: what a device's agent did lately, in a few bounded files.
//!
//! ```text
//! DIR/000007.trace   whole, begins with a start
//! DIR/000008.trace   being written
//! ```
//!
//! Each file begins with a start of the agent, from its journal or from a snapshot, so that each can be replayed by
//! itself. When one is full, the agent is started anew from its snapshot (as in a swap) and the next file begins with
//! that; the oldest goes. Lines are written to the page cache together, before the device waits for anything: a crash of
//! the process loses what it was about, a power cut the last seconds. A medium that takes no more ends the recording, not
//! the agent. What is left out is in `redact.rs`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::redact::Veil;
use super::tap::{Ask, End, Exchange, Listener};
use super::trace::{Header, LINE_MAX_BYTES, Writer};

/// Bytes after which a file is full: some 40 MiB of an image in blocks of 4 KiB.
pub const FILE_FULL_BYTES: u64 = 2 * 1024 * 1024;

/// Files that are kept: together at most 8 × (2 MiB + one line of 1 MiB) = 24 MiB a device.
pub const FILES_MAX: usize = 8;

/// Bytes of lines that are written together at most, as far as whole lines go.
const GATHERED_MAX_BYTES: usize = 32 * 1024;

/// What a file's name ends in.
const SUFFIX: &str = ".trace";

/// Records one device's agent. Give it to [`tapped`](super::tap::tapped).
#[derive(Debug)]
pub struct Recorder {
    dir: PathBuf,
    header: Header,
    veil: Salt,
    full_bytes: u64,
    file: Option<Open>,
    /// More lines come before the device waits.
    gathers: bool,
    /// Nothing is recorded until the next start: this happened.
    broken: bool,
}

/// Kept apart, so that it is printed nowhere.
struct Salt(Veil);

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt")
    }
}

#[derive(Debug)]
struct Open {
    file: File,
    writer: Writer,
    /// Lines that are not written yet.
    gathered: Vec<u8>,
    /// Of all lines.
    bytes: u64,
}

impl Open {
    fn write(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let end = self.file.write_all(&self.gathered);
        self.gathered.clear();
        self.gathered.shrink_to(2 * GATHERED_MAX_BYTES);
        end
    }
}

impl Recorder {
    /// A recorder into a directory of its own, made with mode 0700 if it does not exist. `salt` makes its tokens: another
    /// one each time. Files of earlier processes stay, as far as their number allows.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn new(dir: &Path, header: Header, salt: [u8; 16]) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        numbers(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            header,
            veil: Salt(Veil::new(salt)),
            full_bytes: FILE_FULL_BYTES,
            file: None,
            gathers: false,
            broken: false,
        })
    }

    /// Files are full after so many bytes.
    #[must_use]
    pub fn with_files_of(mut self, bytes: u64) -> Self {
        self.full_bytes = bytes;
        self
    }

    fn write(&mut self, mut exchange: Exchange) -> io::Result<()> {
        let is_start = matches!(exchange.ask, Ask::Start(_));
        let fails = !matches!(exchange.end, End::Turn(_));
        let full = self
            .file
            .as_ref()
            .is_none_or(|open| open.bytes >= self.full_bytes);
        if is_start && full {
            if let Some(open) = &mut self.file {
                open.write()?;
            }
            self.file = Some(self.begin()?);
        }
        let Some(open) = &mut self.file else {
            return Ok(());
        };
        if open.bytes >= self.full_bytes.saturating_add(LINE_MAX_BYTES as u64) {
            let text = "the file is full, and the agent could not be started anew";
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        let bulk = self.veil.0.cover(&mut exchange);
        let before = open.gathered.len();
        if !open.writer.line(exchange, bulk, &mut open.gathered) {
            let text = format!("an exchange of more than {LINE_MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        open.bytes += (open.gathered.len() - before) as u64;
        if !self.gathers || fails || open.gathered.len() >= GATHERED_MAX_BYTES {
            open.write()?;
        }
        if is_start && fails {
            // What comes now is another instance's, if anything comes.
            self.give_up(&"this start did not work");
        }
        Ok(())
    }

    fn give_up(&mut self, why: &dyn std::fmt::Display) {
        self.broken = true;
        if let Some(mut open) = self.file.take() {
            // What was heard before is good; a medium that does not take it is what is told of already, or as bad.
            drop(open.write());
        }
        let (device, dir) = (&self.header.device, self.dir.display());
        tracing::warn!(%device, "nothing more is recorded to {dir} until the agent is started anew: {why}");
    }

    fn begin(&mut self) -> io::Result<Open> {
        let mut writer = Writer::default();
        let line = writer.header(&self.header);
        // Another recorder, of the build before or after this one, may have made files meanwhile.
        let last = numbers(&self.dir)?.into_iter().max();
        let next = last.map_or(1, |last| last.saturating_add(1));
        let path = self.dir.join(format!("{next:06}{SUFFIX}"));
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&line)?;
        self.forget()?;
        let bytes = line.len() as u64;
        Ok(Open {
            file,
            writer,
            gathered: Vec::new(),
            bytes,
        })
    }

    /// Delete the oldest files.
    fn forget(&self) -> io::Result<()> {
        let mut numbers = numbers(&self.dir)?;
        numbers.sort_unstable();
        let over = numbers.len().saturating_sub(FILES_MAX);
        for number in numbers.into_iter().take(over) {
            fs::remove_file(self.dir.join(format!("{number:06}{SUFFIX}")))?;
        }
        Ok(())
    }
}

/// Numbers of the files in a directory; what has another name is somebody else's.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        let number = number
            .filter(|n| n.len() >= 6)
            .and_then(|n| n.parse::<u64>().ok());
        numbers.extend(number);
    }
    Ok(numbers)
}

impl Listener for Recorder {
    fn hear(&mut self, exchange: Exchange) {
        if matches!(exchange.ask, Ask::Start(_)) {
            self.broken = false;
        }
        if self.broken {
            return;
        }
        if let Err(error) = self.write(exchange) {
            self.give_up(&error);
        }
    }

    fn miss(&mut self) {
        if !self.broken {
            self.give_up(&"the agent handed over more in one call than is kept");
        }
    }

    fn gather(&mut self, more_comes: bool) {
        self.gathers = more_comes;
        if !more_comes
            && let Some(open) = &mut self.file
            && let Err(error) = open.write()
        {
            self.give_up(&error);
        }
    }

    fn wants_start(&self) -> bool {
        self.file
            .as_ref()
            .is_some_and(|open| open.bytes >= self.full_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{header, start_info};
    use super::super::{Context, Event};
    use super::*;

    fn exchange(ask: Ask, end: End) -> Exchange {
        let (at, calls) = (Context::default(), Vec::new());
        Exchange {
            at,
            ask,
            calls,
            end,
        }
    }

    #[test]
    fn lines_of_one_poll_are_written_at_its_end_and_those_before_a_break_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(dir.path(), header(), [1; 16]).unwrap();
        let lines = || {
            let text = fs::read_to_string(dir.path().join("000001.trace"));
            text.map_or(0, |text| text.lines().count())
        };
        let turn = || End::Turn(Box::default());
        recorder.hear(exchange(Ask::Start(Box::new(start_info())), turn()));
        assert_eq!(lines(), 2, "nobody has said that more comes");
        recorder.gather(true);
        recorder.hear(exchange(Ask::Event(Event::Timeout), turn()));
        recorder.hear(exchange(Ask::Event(Event::Timeout), turn()));
        assert_eq!(lines(), 2);
        recorder.gather(false);
        assert_eq!(lines(), 4);
        recorder.gather(true);
        recorder.hear(exchange(Ask::Event(Event::Timeout), turn()));
        let broken = End::Broken("unreachable".to_owned());
        recorder.hear(exchange(Ask::Event(Event::Timeout), broken));
        assert_eq!(lines(), 6);
        recorder.hear(exchange(Ask::Event(Event::Timeout), turn()));
        recorder.miss();
        assert_eq!(lines(), 7, "what was heard before something was missed");
    }
}
