//! An event as a ring holds it: packed, for most of them are never looked at again.

use super::{StoredEvent, file};
use crate::agent::ApplicationEvent;
use crate::packed::Packed;
use crate::types::{Failure, FileId, Version};

/// The members of a [`StoredEvent`] and its [`ApplicationEvent`] but for the number. Those have forms of their own for a log.
type Flat = (
    (Option<u64>, u32),
    Option<String>,
    Option<FileId>,
    Option<Failure>,
    Option<Version>,
    Vec<u8>,
);

/// A packed event.
pub(super) struct Kept {
    pub(super) sequence: u64,
    /// What it takes in the log, near enough for a bound.
    pub(super) size: usize,
    packed: Packed<Flat>,
}

impl Kept {
    /// None is for values of no fixed shape, and this one has a shape.
    pub(super) fn new(stored: StoredEvent) -> Option<Self> {
        let size = file::size(&stored);
        let StoredEvent { at_s, event } = stored;
        let sequence = event.sequence;
        let flat: Flat = (
            (at_s, event.kind),
            event.job_id,
            event.file,
            event.failure,
            event.version,
            event.document,
        );
        Some(Self {
            sequence,
            size,
            packed: Packed::new(&flat)?,
        })
    }

    pub(super) fn open(&self) -> Option<StoredEvent> {
        let ((at_s, kind), job_id, file, failure, version, document) = self.packed.open()?;
        let event = ApplicationEvent {
            sequence: self.sequence,
            kind,
            job_id,
            file,
            failure,
            version,
            document,
        };
        Some(StoredEvent { at_s, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let bare = ApplicationEvent {
            sequence: 1,
            kind: 4,
            job_id: None,
            file: None,
            failure: None,
            version: None,
            document: Vec::new(),
        };
        let full = ApplicationEvent {
            sequence: u64::MAX,
            kind: u32::MAX,
            job_id: Some("job-1".into()),
            file: Some(7),
            failure: Some(Failure::new(0xd1, 3, "too much")),
            version: Some(Version {
                major: 1,
                minor: 2,
                revision: 3,
                build: 4,
            }),
            document: vec![0xff, 0, b'x'],
        };
        for (at_s, event) in [(None, bare), (Some(1_900_000_000), full)] {
            let stored = StoredEvent { at_s, event };
            let kept = Kept::new(stored.clone()).unwrap();
            assert_eq!(kept.open(), Some(stored));
        }
    }
}
