//! What happened in a world, in order: a list that two runs of one seed share to the byte.
//!
//! Payloads stand as length and CRC-32C: enough to tell two runs apart, and small enough to print. Nothing here decides
//! anything.

use std::fmt;

use host_crypto::Hasher;

use crate::ground::{Cut, Verb};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process under test was started, for the `n`-th time.
    Started(u32),
    /// It called a port.
    Call {
        /// Number of the call in this run, from 1.
        number: u64,
        /// What.
        verb: Verb,
        /// Where: region, state file, topic, command.
        place: String,
        /// First byte, where there is one.
        offset: u64,
        /// Bytes.
        length: u64,
        /// CRC-32C of the bytes.
        crc: u32,
    },
    /// A call was answered with an error by a fault.
    Refused(String),
    /// A message reached it.
    Heard {
        /// Topic.
        topic: String,
        /// Bytes.
        length: u64,
        /// CRC-32C of the payload.
        crc: u32,
    },
    /// The process or the power was cut.
    Cut(Cut),
    /// So many changes that were not synced did not reach the medium.
    Lost(usize),
    /// A launcher started a slot of a target.
    Launched {
        /// The target.
        target: String,
        /// 0 = a, 1 = b.
        slot: u8,
    },
    /// Anything else, in words.
    Note(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(n) => write!(f, "start {n}"),
            Self::Call {
                number,
                verb,
                place,
                offset,
                length,
                crc,
            } => {
                write!(f, "#{number} {verb} {place}")?;
                if *length > 0 {
                    write!(f, " {length} at {offset} ({crc:08x})")?;
                }
                Ok(())
            }
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Heard { topic, length, crc } => write!(f, "heard {topic} {length} ({crc:08x})"),
            Self::Cut(cut) => write!(f, "cut: {cut}"),
            Self::Lost(changes) => write!(f, "{changes} changes lost"),
            Self::Launched { target, slot } => {
                write!(f, "launched {target} slot-{}", char::from(b'a' + slot))
            }
            Self::Note(text) => f.write_str(text),
        }
    }
}

/// What happened in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    lines: Vec<(u64, Event)>,
}

impl Trace {
    pub(crate) fn add(&mut self, at_ms: u64, event: Event) {
        self.lines.push((at_ms, event));
    }

    /// All events with their instants in milliseconds of virtual time.
    #[must_use]
    pub fn events(&self) -> &[(u64, Event)] {
        &self.lines
    }

    /// SHA-256 of the printed list.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Hasher::default();
        hasher.update(self.to_string().as_bytes());
        *hasher.finish().sha256()
    }

    /// Where two runs part: number of the first line that differs, and what each has there.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<(usize, String, String)> {
        let line = |trace: &Self, n: usize| {
            trace
                .lines
                .get(n)
                .map_or_else(|| "(end)".to_owned(), |(at, event)| format!("{at} {event}"))
        };
        let most = self.lines.len().max(other.lines.len());
        (0..most)
            .find(|n| self.lines.get(*n) != other.lines.get(*n))
            .map(|n| (n, line(self, n), line(other, n)))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, event) in &self.lines {
            writeln!(f, "{at:>9} {event}")?;
        }
        Ok(())
    }
}
