//! What the Jobs service answers to a status update or a job request it refuses.
//!
//! Reads bytes of the network. Whether an answer belongs to a request is the orchestrator's to say, by the token.

use alloc::string::String;

use crate::code::JobsErr;
use crate::document::ParseError;

use super::{ClientToken, VersionWord};

/// The status of a job execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionStatus {
    /// Not begun.
    Queued,
    /// Begun.
    InProgress,
    /// Over, failed.
    Failed,
    /// Over, succeeded.
    Succeeded,
    /// Over, withdrawn by the cloud.
    Canceled,
    /// Over, too late.
    TimedOut,
    /// Over, declined.
    Rejected,
    /// Over, deleted.
    Removed,
    /// A word that is not listed here, or none.
    Unknown,
}

impl ExecutionStatus {
    /// The status of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "QUEUED" => Self::Queued,
            "IN_PROGRESS" => Self::InProgress,
            "FAILED" => Self::Failed,
            "SUCCEEDED" => Self::Succeeded,
            "CANCELED" => Self::Canceled,
            "TIMED_OUT" => Self::TimedOut,
            "REJECTED" => Self::Rejected,
            "REMOVED" => Self::Removed,
            _ => Self::Unknown,
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::InProgress | Self::Unknown => false,
            Self::Failed
            | Self::Succeeded
            | Self::Canceled
            | Self::TimedOut
            | Self::Rejected
            | Self::Removed => true,
        }
    }
}

/// The value of `self_test`. Its presence alone says that the job is in self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// Verified, to be activated.
    Ready,
    /// Activated, being tested.
    Active,
    /// Something else.
    Other,
}

/// The details of an execution that an agent looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusDetails {
    /// `self_test`, if it is there.
    pub self_test: Option<SelfTest>,
    /// `updatedBy`, if it is there and a number.
    pub updated_by: Option<VersionWord>,
}

/// The client token in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyToken {
    /// There is none.
    Absent,
    /// One of our form; whether of this start and this request is for the caller to compare.
    Ours(ClientToken),
    /// Somebody else's.
    Foreign,
}

/// The state of an execution as told with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutionState {
    /// Its status.
    pub status: ExecutionStatus,
    /// Its details.
    pub details: StatusDetails,
    /// How often it was updated.
    pub version_number: Option<u64>,
}

/// A request that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Whose.
    pub token: ReplyToken,
    /// The execution, if the service told it.
    pub execution: Option<ExecutionState>,
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Whose.
    pub token: ReplyToken,
    /// Why, as a number of ours.
    pub code: JobsErr,
    /// Why, as the service wrote it, also where `code` does not know it; empty if it wrote none.
    pub code_text: String,
    /// For people, at most 256 bytes.
    pub message: String,
    /// The execution, if the service told it.
    pub execution: Option<ExecutionState>,
}

/// Reads the answer on `…/update/accepted`.
///
/// # Errors
/// [`ParseError`] if it is not strict JSON or has members of wrong types; the service is at fault.
pub fn parse_accepted(payload: &[u8]) -> Result<Accepted, ParseError> {
    let _ = payload;
    unimplemented!()
}

/// Reads the answer on a `…/rejected` topic of the Jobs service.
///
/// # Errors
/// [`ParseError`] if it is not strict JSON or has members of wrong types; the service is at fault.
pub fn parse_rejected(payload: &[u8]) -> Result<Rejected, ParseError> {
    let _ = payload;
    unimplemented!()
}
