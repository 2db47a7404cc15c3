//! What the Jobs service answers to a status update or a job request it refuses.
//!
//! Reads bytes of the network. Whether an answer belongs to a request is the orchestrator's to say, by the token.

use alloc::string::String;

use crate::code::JobsErr;
use crate::document::{Check, Field, KEY_SELF_TEST, KEY_UPDATED_BY, Members, ParseError, number};

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
        const WORDS: [(&str, ExecutionStatus); 8] = [
            ("QUEUED", ExecutionStatus::Queued),
            ("IN_PROGRESS", ExecutionStatus::InProgress),
            ("FAILED", ExecutionStatus::Failed),
            ("SUCCEEDED", ExecutionStatus::Succeeded),
            ("CANCELED", ExecutionStatus::Canceled),
            ("TIMED_OUT", ExecutionStatus::TimedOut),
            ("REJECTED", ExecutionStatus::Rejected),
            ("REMOVED", ExecutionStatus::Removed),
        ];
        WORDS
            .iter()
            .find(|(of, _)| *of == word)
            .map_or(Self::Unknown, |(_, status)| *status)
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

/// What the Jobs service says to a status update, or to a job request that it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whose.
    pub token: ReplyToken,
    /// The execution, if the service told it.
    pub execution: Option<ExecutionState>,
    /// Why it refuses, as a number of ours.
    pub code: JobsErr,
    /// Why it refuses, as the service wrote it, at most 256 bytes; empty if it wrote nothing.
    pub code_text: String,
    /// For people, at most 256 bytes.
    pub message: String,
}

/// Most bytes kept of a text of the service that is only shown to people.
const TEXT_MAX_BYTES: usize = 256;

/// Reads the answer on `…/update/accepted`, or on a `…/rejected` topic of the Jobs service.
///
/// # Errors
/// [`ParseError`] if it is not strict JSON or has members of wrong types; the service is at fault.
pub fn parse_answer(payload: &[u8]) -> Result<Answer, ParseError> {
    let mut check = Check::default();
    let message = check.message(payload);
    let mut message = check.object(message, Field::Message);
    let token = read_token(&mut message);
    let code_text = shown(&message.text(Field::Code));
    let text = shown(&message.text(Field::Text));
    // The service leaves it out, or sends it empty, where it has nothing to tell.
    let state = message.find(Field::ExecutionState);
    let state = state.filter(|state| !state.is_null());
    let mut state = check.object(state, Field::ExecutionState);
    let known = state.find(Field::Status).is_some();
    let execution = read_state(&mut state);
    let answer = Answer {
        token,
        execution: known.then_some(execution),
        code: JobsErr::from_name(&code_text).unwrap_or(JobsErr::Unknown),
        code_text,
        message: text,
    };
    check.finish(answer)
}

/// The token of a message, whatever it is: one that is no text is somebody else's.
pub(crate) fn read_token(message: &mut Members<'_, '_>) -> ReplyToken {
    let Some(value) = message.find(Field::ClientToken) else {
        return ReplyToken::Absent;
    };
    let token = ClientToken::parse(&value.text().unwrap_or_default());
    token.map_or(ReplyToken::Foreign, ReplyToken::Ours)
}

/// Status, details and version of an execution, wherever the service tells them. Of the details two count: others, and
/// an `updatedBy` that is no number (`  v1.2.2` after a success), are nobody's business here.
pub(crate) fn read_state(of: &mut Members<'_, '_>) -> ExecutionState {
    const FIELD: Field = Field::StatusDetails;
    let status = ExecutionStatus::from_word(&of.text(Field::Status));
    let version = of.find(Field::VersionNumber);
    let version_number = version.map(|_| of.number(Field::VersionNumber, u64::MAX));
    let details = of.find(FIELD).filter(|details| !details.is_null());
    let mut details = of.check.object(details, FIELD);
    let self_test = details
        .at(KEY_SELF_TEST, FIELD)
        .map(|value| match value.raw() {
            "\"ready\"" => SelfTest::Ready,
            "\"active\"" => SelfTest::Active,
            _ => SelfTest::Other,
        });
    let by = details
        .at(KEY_UPDATED_BY, FIELD)
        .and_then(|by| number(by).ok());
    ExecutionState {
        status,
        details: StatusDetails {
            self_test,
            updated_by: by.and_then(|by| u32::try_from(by).ok()).map(VersionWord),
        },
        version_number,
    }
}

/// A text as it may be shown: cut at [`TEXT_MAX_BYTES`], without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if out.len() + character.len_utf8() > TEXT_MAX_BYTES {
            break;
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests;
