//! A job and its executions, and which status may follow which.
//!
//! Plain data: the rules that send messages are in `queue`, what devices may ask in `jobs_api`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    name::{StreamId, ThingName},
    plan::{Plan, Rollout},
};

/// Status of one job on one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionStatus {
    /// Waits for the device.
    Queued,
    /// The device works on it.
    InProgress,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// A time-out of the job or of a step ran out.
    TimedOut,
    /// The device declined it before it began.
    Rejected,
    /// Taken away with the thing or the job.
    Removed,
    /// The operator cancelled it.
    Canceled,
}

impl ExecutionStatus {
    /// Every status, in the order of the declaration.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::InProgress,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::Rejected,
        Self::Removed,
        Self::Canceled,
    ];

    /// As it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Rejected => "REJECTED",
            Self::Removed => "REMOVED",
            Self::Canceled => "CANCELED",
        }
    }

    /// Reads the wire's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::InProgress)
    }

    /// Whether a device may report `next` while this is the status. REJECTED is a refusal before the work: a device that
    /// began must fail instead.
    #[must_use]
    pub fn device_may_report(self, next: Self) -> bool {
        match self {
            Self::Queued => matches!(
                next,
                Self::InProgress | Self::Succeeded | Self::Failed | Self::Rejected
            ),
            Self::InProgress => {
                matches!(next, Self::InProgress | Self::Succeeded | Self::Failed)
            }
            Self::Succeeded
            | Self::Failed
            | Self::TimedOut
            | Self::Rejected
            | Self::Removed
            | Self::Canceled => false,
        }
    }
}

/// `statusDetails`: text by key, in the order the device wrote them. Values are always JSON strings.
pub type StatusDetails = Map<String, Value>;

/// One job on one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Where it stands.
    pub status: ExecutionStatus,
    /// What the device last said about it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub details: StatusDetails,
    /// Grows with every accepted change.
    pub version: u64,
    /// How often the job came to this thing, with this one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub number: u64,
    /// Place in the thing's queue; before it is offered, in the roll-out's.
    pub sequence: u64,
    /// When it was queued, milliseconds since the epoch, as all times here.
    pub queued_at_ms: u64,
    /// When it was offered to the thing; before that the thing knows nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_at_ms: Option<u64>,
    /// When it first went IN_PROGRESS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it last changed.
    pub updated_at_ms: u64,
    /// When the job's own time-out runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_deadline_ms: Option<u64>,
    /// When the device's step time-out runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_deadline_ms: Option<u64>,
}

fn one() -> u64 {
    1
}

fn is_one(number: &u64) -> bool {
    *number == 1
}

impl Execution {
    /// One that waits for the roll-out to come to its thing.
    pub(super) fn held(now_ms: u64, sequence: u64, number: u64) -> Self {
        Self {
            status: ExecutionStatus::Queued,
            details: StatusDetails::new(),
            version: 1,
            number,
            sequence,
            queued_at_ms: now_ms,
            offered_at_ms: None,
            started_at_ms: None,
            updated_at_ms: now_ms,
            job_deadline_ms: None,
            step_deadline_ms: None,
        }
    }

    /// Whether it waits for the roll-out.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.status == ExecutionStatus::Queued && self.offered_at_ms.is_none()
    }

    /// The earlier of its two deadlines.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        match (self.job_deadline_ms, self.step_deadline_ms) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Status of a job as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// Some execution has not ended.
    InProgress,
    /// The operator cancelled it; executions that had begun may still end on their own.
    Canceled,
    /// Every execution ended.
    Completed,
}

impl JobStatus {
    /// As it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Canceled => "CANCELED",
            Self::Completed => "COMPLETED",
        }
    }
}

/// How far the roll-out has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Whoever gets the job gets it at once.
    #[default]
    AtOnce,
    /// Only the canary has it.
    Canary,
    /// A batch at this time, and the next a minute later.
    Batches {
        /// When, milliseconds since the epoch.
        next_at_ms: u64,
    },
}

impl Stage {
    /// Where a roll-out begins.
    pub(super) fn first(now_ms: u64, rollout: Rollout) -> Self {
        if rollout.canary.is_some() {
            Self::Canary
        } else {
            Self::after_canary(now_ms, rollout)
        }
    }

    /// Where it goes on when the canary has ended.
    pub(super) fn after_canary(now_ms: u64, rollout: Rollout) -> Self {
        if rollout.per_minute.is_some() {
            Self::Batches { next_at_ms: now_ms }
        } else {
            Self::AtOnce
        }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What the devices get, with members in this order.
    pub document: Value,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where it stands.
    pub status: JobStatus,
    /// Things it names.
    #[serde(default)]
    pub things: Vec<ThingName>,
    /// Whom else it is for, how fast, and when it gives up.
    #[serde(default)]
    pub plan: Plan,
    /// How far the roll-out has come.
    #[serde(default)]
    pub stage: Stage,
    /// Why it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Executions of things that were deleted since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departed: Vec<(ThingName, Execution)>,
    /// When it was created.
    pub created_at_ms: u64,
    /// Minutes an execution may be IN_PROGRESS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_minutes: Option<u32>,
    /// Stream with its files, for an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_wire_read_back() {
        for status in ExecutionStatus::ALL {
            assert_eq!(ExecutionStatus::parse(status.as_str()), Some(status));
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("\"{}\"", status.as_str()));
        }
        assert_eq!(ExecutionStatus::parse("in_progress"), None);
        assert_eq!(ExecutionStatus::parse(""), None);
    }

    #[test]
    fn a_device_moves_an_execution_only_forward() {
        use ExecutionStatus::*;
        let allowed = [
            (Queued, InProgress),
            (Queued, Succeeded),
            (Queued, Failed),
            (Queued, Rejected),
            (InProgress, InProgress),
            (InProgress, Succeeded),
            (InProgress, Failed),
        ];
        for from in ExecutionStatus::ALL {
            for to in ExecutionStatus::ALL {
                assert_eq!(
                    from.device_may_report(to),
                    allowed.contains(&(from, to)),
                    "{from:?} -> {to:?}"
                );
            }
        }
    }
}
