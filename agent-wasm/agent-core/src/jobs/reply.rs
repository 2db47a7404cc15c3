//! What the Jobs service answers to a status update or a job request it refuses.
//!
//! Reads bytes of the network. Whether an answer belongs to a request is the orchestrator's to say, by the token.

use alloc::string::String;

use crate::code::JobsErr;
use crate::document::{Field, ParseError, number, number_u32, parse_message, put, text};
use crate::json::Value;

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
    let code_text = code_text.unwrap_or_default();
    let known = JobsErr::ALL.iter().find(|code| code.name() == code_text);
    Ok(Rejected {
        token,
        code: known.copied().unwrap_or(JobsErr::Unknown),
        code_text,
        message: message.unwrap_or_default(),
        execution,
    })
}

struct Answer {
    token: ReplyToken,
    execution: Option<ExecutionState>,
    code_text: Option<String>,
    message: Option<String>,
}

fn read_answer(payload: &[u8]) -> Result<Answer, ParseError> {
    let members = parse_message(payload)?
        .members()
        .ok_or(ParseError::WrongType {
            field: Field::Message,
        })?;
    let (mut token, mut execution, mut code_text, mut message) = (None, None, None, None);
    for (key, value) in members {
        match &*key {
            "clientToken" => put(&mut token, read_token(value), Field::ClientToken)?,
            "executionState" => {
                put(
                    &mut execution,
                    read_execution_state(value)?,
                    Field::ExecutionState,
                )?;
            }
            "code" => put(
                &mut code_text,
                shown(&text(value, Field::Code)?),
                Field::Code,
            )?,
            "message" => put(&mut message, shown(&text(value, Field::Text)?), Field::Text)?,
            _ => {}
        }
    }
    let token = token.unwrap_or(ReplyToken::Absent);
    Ok(Answer {
        token,
        execution: execution.flatten(),
        code_text,
        message,
    })
}

/// A token, whatever it is: one that is no text is somebody else's.
pub(crate) fn read_token(value: Value<'_>) -> ReplyToken {
    match value {
        Value::Text(text) => {
            ClientToken::parse(&text.decode()).map_or(ReplyToken::Foreign, ReplyToken::Ours)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) | Value::Array(_) => {
            ReplyToken::Foreign
        }
    }
}

/// The two details that count. Others, and an `updatedBy` that is no number (`  v1.2.2` after a success), are nobody's
/// business here.
pub(crate) fn read_details(value: Value<'_>) -> Result<StatusDetails, ParseError> {
    let field = Field::StatusDetails;
    let mut details = StatusDetails::default();
    if value == Value::Null {
        return Ok(details);
    }
    for (key, value) in value.members().ok_or(ParseError::WrongType { field })? {
        match &*key {
            "self_test" => put(&mut details.self_test, read_self_test(value), field)?,
            "updatedBy" => {
                if let Ok(word) = number_u32(value, field) {
                    put(&mut details.updated_by, VersionWord(word), field)?;
                }
            }
            _ => {}
        }
    }
    Ok(details)
}

fn read_self_test(value: Value<'_>) -> SelfTest {
    match value.raw() {
        "\"ready\"" => SelfTest::Ready,
        "\"active\"" => SelfTest::Active,
        _ => SelfTest::Other,
    }
}

/// `executionState`; the service leaves it out, or sends it empty, where it has nothing to tell.
fn read_execution_state(value: Value<'_>) -> Result<Option<ExecutionState>, ParseError> {
    let field = Field::ExecutionState;
    if value == Value::Null {
        return Ok(None);
    }
    let (mut status, mut details, mut version_number) = (None, None, None);
    for (key, value) in value.members().ok_or(ParseError::WrongType { field })? {
        match &*key {
            "status" => {
                let status_field = Field::Status;
                let word = ExecutionStatus::from_word(&text(value, status_field)?);
                put(&mut status, word, status_field)?;
            }
            "statusDetails" => put(&mut details, read_details(value)?, Field::StatusDetails)?,
            "versionNumber" => {
                let number = number(value, Field::VersionNumber)?;
                put(&mut version_number, number, Field::VersionNumber)?;
            }
            _ => {}
        }
    }
    let details = details.unwrap_or_default();
    Ok(status.map(|status| ExecutionState {
        status,
        details,
        version_number,
    }))
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
