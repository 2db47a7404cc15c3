//! The latest status changes, for operators who watch a job.
//!
//! A bounded ring in memory: a watcher that was away too long looks at the job itself instead.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{ExecutionStatus, JobId, StatusDetails, ThingName};

/// Changes kept: a roll-out to 1,000 things with four status changes each.
const CHANGES_MAX: usize = 4096;

/// One change of one execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
    /// Which job.
    pub job_id: JobId,
    /// On which thing.
    pub thing: ThingName,
    /// The status since then.
    pub status: ExecutionStatus,
    /// The details since then.
    #[serde(default)]
    pub status_details: StatusDetails,
    /// The execution's version since then.
    pub version: u64,
}

#[derive(Debug, Default)]
pub(super) struct ChangeLog {
    ring: VecDeque<Change>,
    /// Number of the first change in `ring`.
    first: u64,
}

impl ChangeLog {
    pub(super) fn push(&mut self, change: Change) {
        if self.ring.len() == CHANGES_MAX {
            self.ring.pop_front();
            self.first += 1;
        }
        self.ring.push_back(change);
    }

    pub(super) fn cursor(&self) -> u64 {
        self.first + self.ring.len() as u64
    }

    pub(super) fn after(&self, cursor: u64) -> Option<(Vec<Change>, u64)> {
        let skip = usize::try_from(cursor.checked_sub(self.first)?).ok()?;
        let changes = self.ring.iter().skip(skip).cloned().collect();
        Some((changes, self.cursor()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(version: u64) -> Change {
        Change {
            at_ms: 0,
            job_id: JobId::new("j").unwrap(),
            thing: ThingName::new("t").unwrap(),
            status: ExecutionStatus::InProgress,
            status_details: StatusDetails::new(),
            version,
        }
    }

    #[test]
    fn a_watcher_gets_each_change_once_and_learns_when_it_was_away_too_long() {
        let mut log = ChangeLog::default();
        log.push(change(1));
        let (seen, cursor) = log.after(0).unwrap();
        assert_eq!((seen.len(), cursor), (1, 1));
        assert_eq!(log.after(cursor).unwrap().0, []);
        for version in 2..=CHANGES_MAX as u64 + 1 {
            log.push(change(version));
        }
        assert_eq!(log.after(cursor).unwrap().0.len(), CHANGES_MAX);
        log.push(change(0));
        assert_eq!(log.after(cursor), None);
        assert_eq!(log.after(log.cursor()).unwrap().0, []);
    }
}
