//! How many executions of a job stand where.

use serde::{Deserialize, Serialize};

use super::ExecutionStatus;

/// How many executions of a job stand where; the sum of all members is the number of its things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// Not offered to their thing yet: the roll-out has not come to them.
    pub held: usize,
    /// Offered, not begun.
    pub queued: usize,
    /// Under way.
    pub in_progress: usize,
    /// Ended well.
    pub succeeded: usize,
    /// Ended badly.
    pub failed: usize,
    /// Ended by a time-out.
    pub timed_out: usize,
    /// Declined by the thing.
    pub rejected: usize,
    /// Taken away with the thing, or with its membership.
    pub removed: usize,
    /// Cancelled by the operator or by an abort rule.
    pub canceled: usize,
}

impl JobProgress {
    pub(super) fn of(&mut self, status: ExecutionStatus, held: bool) -> &mut usize {
        match status {
            ExecutionStatus::Queued if held => &mut self.held,
            ExecutionStatus::Queued => &mut self.queued,
            ExecutionStatus::InProgress => &mut self.in_progress,
            ExecutionStatus::Succeeded => &mut self.succeeded,
            ExecutionStatus::Failed => &mut self.failed,
            ExecutionStatus::TimedOut => &mut self.timed_out,
            ExecutionStatus::Rejected => &mut self.rejected,
            ExecutionStatus::Removed => &mut self.removed,
            ExecutionStatus::Canceled => &mut self.canceled,
        }
    }

    /// Executions of a status, offered or not.
    #[must_use]
    pub fn count(&self, status: ExecutionStatus) -> usize {
        match status {
            ExecutionStatus::Queued => self.held + self.queued,
            ExecutionStatus::InProgress => self.in_progress,
            ExecutionStatus::Succeeded => self.succeeded,
            ExecutionStatus::Failed => self.failed,
            ExecutionStatus::TimedOut => self.timed_out,
            ExecutionStatus::Rejected => self.rejected,
            ExecutionStatus::Removed => self.removed,
            ExecutionStatus::Canceled => self.canceled,
        }
    }

    /// Executions that have not ended.
    #[must_use]
    pub fn open(&self) -> usize {
        self.held + self.queued + self.in_progress
    }

    /// Executions that ended on their thing, well or badly: what abort rules count.
    #[must_use]
    pub fn executed(&self) -> usize {
        self.succeeded + self.failed + self.timed_out + self.rejected
    }

    /// All executions.
    #[must_use]
    pub fn total(&self) -> usize {
        self.open() + self.executed() + self.removed + self.canceled
    }
}
