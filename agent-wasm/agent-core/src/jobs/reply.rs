//! What the Jobs service answers to a status update or a job request it refuses.
//!
//! Reads bytes of the network. Whether an answer belongs to a request is the orchestrator's to say, by the token.

use alloc::string::String;

use crate::code::JobsErr;
use crate::document::{Field, ParseError, collect, number, number_u32, parse_message, text};
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
    const KEYS: [(&str, Field); 4] = [
        ("clientToken", Field::ClientToken),
        ("executionState", Field::ExecutionState),
        ("code", Field::Code),
        ("message", Field::Text),
    ];
    let message = parse_message(payload)?;
    let [token, execution, code, message] = collect(message, Field::Message, &KEYS)?;
    Ok(Answer {
        token: read_token(token),
        execution: execution.map_or(Ok(None), read_execution_state)?,
        code_text: code.map_or(Ok(String::new()), |code| read_shown(code, Field::Code))?,
        message: message.map_or(Ok(String::new()), |text| read_shown(text, Field::Text))?,
    })
}

fn read_shown(value: Value<'_>, field: Field) -> Result<String, ParseError> {
    text(value, field).map(|text| shown(&text))
}

/// A token, whatever it is: one that is no text is somebody else's.
pub(crate) fn read_token(value: Option<Value<'_>>) -> ReplyToken {
    match value {
        None => ReplyToken::Absent,
        Some(Value::Text(text)) => {
            ClientToken::parse(&text.decode()).map_or(ReplyToken::Foreign, ReplyToken::Ours)
        }
        Some(_) => ReplyToken::Foreign,
    }
}

/// The two details that count. Others, and an `updatedBy` that is no number (`  v1.2.2` after a success), are nobody's
/// business here.
pub(crate) fn read_details(value: Option<Value<'_>>) -> Result<StatusDetails, ParseError> {
    const FIELD: Field = Field::StatusDetails;
    let Some(value) = value.filter(|value| *value != Value::Null) else {
        return Ok(StatusDetails::default());
    };
    let keys = [("self_test", FIELD), ("updatedBy", FIELD)];
    let [self_test, updated_by] = collect(value, FIELD, &keys)?;
    let updated_by = updated_by.and_then(|value| number_u32(value, FIELD).ok());
    Ok(StatusDetails {
        self_test: self_test.map(read_self_test),
        updated_by: updated_by.map(VersionWord),
    })
}

/// How often an execution was updated.
pub(crate) fn read_version(value: Option<Value<'_>>) -> Result<Option<u64>, ParseError> {
    value
        .map(|value| number(value, Field::VersionNumber))
        .transpose()
}

pub(crate) fn read_status(value: Value<'_>) -> Result<ExecutionStatus, ParseError> {
    text(value, Field::Status).map(|word| ExecutionStatus::from_word(&word))
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
    const KEYS: [(&str, Field); 3] = [
        ("status", Field::Status),
        ("statusDetails", Field::StatusDetails),
        ("versionNumber", Field::VersionNumber),
    ];
    if value == Value::Null {
        return Ok(None);
    }
    let [status, details, version] = collect(value, Field::ExecutionState, &KEYS)?;
    let (details, version_number) = (read_details(details)?, read_version(version)?);
    let Some(status) = status else {
        return Ok(None);
    };
    Ok(Some(ExecutionState {
        status: read_status(status)?,
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
