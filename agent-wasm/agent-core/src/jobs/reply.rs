//! What the Jobs service answers to a status update or a job request it refuses.
//!
//! Reads bytes of the network. Whether an answer belongs to a request is the orchestrator's to say, by the token.

use alloc::string::String;

use crate::code::JobsErr;
use crate::document::{Check, Field, ParseError, number, parse_message};
use crate::json::{self, Value};

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
    /// Why, as the service wrote it, at most 256 bytes; empty if it wrote nothing.
    pub code_text: String,
    /// For people, at most 256 bytes.
    pub message: String,
    /// The execution, if the service told it.
    pub execution: Option<ExecutionState>,
}

/// Most bytes kept of a text of the service that is only shown to people.
const TEXT_MAX_BYTES: usize = 256;

/// Reads the answer on `…/update/accepted`.
///
/// # Errors
/// [`ParseError`] if it is not strict JSON or has members of wrong types; the service is at fault.
pub fn parse_accepted(payload: &[u8]) -> Result<Accepted, ParseError> {
    let Answer {
        token, execution, ..
    } = read_answer(payload)?;
    Ok(Accepted { token, execution })
}

/// Reads the answer on a `…/rejected` topic of the Jobs service.
///
/// # Errors
/// [`ParseError`] if it is not strict JSON or has members of wrong types; the service is at fault.
pub fn parse_rejected(payload: &[u8]) -> Result<Rejected, ParseError> {
    let Answer {
        token,
        execution,
        code_text,
        message,
    } = read_answer(payload)?;
    let known = JobsErr::ALL.iter().find(|code| code.name() == code_text);
    Ok(Rejected {
        token,
        code: known.copied().unwrap_or(JobsErr::Unknown),
        code_text,
        message,
        execution,
    })
}

struct Answer {
    token: ReplyToken,
    execution: Option<ExecutionState>,
    code_text: String,
    message: String,
}

fn read_answer(payload: &[u8]) -> Result<Answer, ParseError> {
    let message = parse_message(payload)?;
    let mut check = Check::default();
    check.type_of(message, b'{', Field::Message);
    let token = read_token(check.find(message, "clientToken", Field::ClientToken));
    let state = check.find(message, "executionState", Field::ExecutionState);
    let execution = read_execution_state(&mut check, state);
    let code = check.find(message, "code", Field::Code);
    let text = check.find(message, "message", Field::Text);
    let answer = Answer {
        token,
        execution,
        code_text: shown(&check.text(code, Field::Code)),
        message: shown(&check.text(text, Field::Text)),
    };
    check.finish(answer)
}

/// A token, whatever it is: one that is no text is somebody else's.
pub(crate) fn read_token(value: Option<Value<'_>>) -> ReplyToken {
    let Some(value) = value else {
        return ReplyToken::Absent;
    };
    let token = value.text().and_then(|text| ClientToken::parse(&text));
    token.map_or(ReplyToken::Foreign, ReplyToken::Ours)
}

/// Status, details and version of an execution, wherever the service tells them. Of the details two count: others, and
/// an `updatedBy` that is no number (`  v1.2.2` after a success), are nobody's business here.
pub(crate) fn read_state(check: &mut Check, of: Value<'_>) -> ExecutionState {
    const FIELD: Field = Field::StatusDetails;
    let status = check.find(of, "status", Field::Status);
    let status = check.text(status, Field::Status);
    let version = check.find(of, "versionNumber", Field::VersionNumber);
    let mut details = StatusDetails::default();
    if let Some(value) = check
        .find(of, "statusDetails", FIELD)
        .filter(|value| !value.is_null())
    {
        check.type_of(value, b'{', FIELD);
        details.self_test = check
            .find(value, "self_test", FIELD)
            .map(|value| match value.raw() {
                "\"ready\"" => SelfTest::Ready,
                "\"active\"" => SelfTest::Active,
                _ => SelfTest::Other,
            });
        let by = check
            .find(value, "updatedBy", FIELD)
            .and_then(|by| number(by, FIELD).ok());
        details.updated_by = by.and_then(|by| u32::try_from(by).ok()).map(VersionWord);
    }
    ExecutionState {
        status: ExecutionStatus::from_word(&status),
        details,
        version_number: version
            .map(|version| check.number(Some(version), Field::VersionNumber, u64::MAX)),
    }
}

/// `executionState`; the service leaves it out, or sends it empty, where it has nothing to tell.
fn read_execution_state(check: &mut Check, value: Option<Value<'_>>) -> Option<ExecutionState> {
    let value = value.filter(|value| !value.is_null())?;
    check.type_of(value, b'{', Field::ExecutionState);
    let state = read_state(check, value);
    json::find(value, "status").map(|_| state)
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
