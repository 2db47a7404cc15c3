//! Messages that carry a job, or say that there is none.

use alloc::borrow::Cow;

use crate::jobs::{ExecutionStatus, JobId, ReplyToken, StatusDetails, read_details, read_token};
use crate::json::Value;

use super::member::{bad_name, needed, number, parse_message, put, text};
use super::{Field, ParseError};

/// A message on `$next/get/accepted`, `<job>/get/accepted` or `notify-next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// There is no job.
    NoJob(ReplyToken),
    /// There is one.
    Job(JobExecution<'a>),
}

/// A job as the service tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobExecution<'a> {
    /// Whose answer this is; notifications have none.
    pub token: ReplyToken,
    /// Which job.
    pub job_id: JobId,
    /// Its status.
    pub status: ExecutionStatus,
    /// Its details.
    pub details: StatusDetails,
    /// How often it was updated.
    pub version_number: Option<u64>,
    /// The job document, a complete JSON value as it stood in the message.
    pub document: &'a str,
}

/// A message that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyError {
    /// Why.
    pub error: ParseError,
    /// The job that it was about, if that much could be read: it can be told FAILED.
    pub job_id: Option<JobId>,
}

impl From<ParseError> for ReplyError {
    fn from(error: ParseError) -> Self {
        Self {
            error,
            job_id: None,
        }
    }
}

/// Reads a message that carries a job or says that there is none.
///
/// # Errors
/// [`ReplyError`]: the service or the job's author is at fault; asking again brings the same.
pub fn parse_reply(payload: &[u8]) -> Result<Reply<'_>, ReplyError> {
    let message = parse_message(payload)?;
    let members = message.members().ok_or(ParseError::WrongType {
        field: Field::Message,
    })?;
    let (mut token, mut execution) = (None, None);
    for (key, value) in members {
        match &*key {
            "clientToken" => put(&mut token, read_token(value), Field::ClientToken)?,
            "execution" => put(&mut execution, value, Field::Execution)?,
            _ => {}
        }
    }
    let token = token.unwrap_or(ReplyToken::Absent);
    let Some(execution) = execution.filter(|value| *value != Value::Null) else {
        return Ok(Reply::NoJob(token));
    };
    let mut members = execution
        .members()
        .ok_or(ParseError::WrongType {
            field: Field::Execution,
        })?
        .peekable();
    if members.peek().is_none() {
        return Ok(Reply::NoJob(token));
    }
    read_execution(token, members).map(Reply::Job)
}

fn read_execution<'a>(
    token: ReplyToken,
    members: impl Iterator<Item = (Cow<'a, str>, Value<'a>)>,
) -> Result<JobExecution<'a>, ReplyError> {
    let (mut job_id, mut status, mut details) = (None, None, None);
    let (mut version_number, mut document) = (None, None);
    // The job's id first, wherever it stands, so that a defect in another member can be reported.
    let mut defect = None;
    for (key, value) in members {
        let result = match &*key {
            "jobId" => {
                put(&mut job_id, value, Field::JobId)?;
                Ok(())
            }
            "status" => put(&mut status, value, Field::Status),
            "statusDetails" => put(&mut details, value, Field::StatusDetails),
            "versionNumber" => put(&mut version_number, value, Field::VersionNumber),
            "jobDocument" => put(&mut document, value, Field::JobDocument),
            _ => Ok(()),
        };
        if defect.is_none() {
            defect = result.err();
        }
    }
    let job_id = needed(job_id, Field::JobId)?;
    let job_id =
        JobId::new(&text(job_id, Field::JobId)?).map_err(|error| bad_name(error, Field::JobId))?;
    let rest = || {
        if let Some(defect) = defect {
            return Err(defect);
        }
        let document = needed(document, Field::JobDocument)?;
        let status = match status {
            Some(word) => ExecutionStatus::from_word(&text(word, Field::Status)?),
            None => ExecutionStatus::Unknown,
        };
        let version_number = version_number
            .map(|value| number(value, Field::VersionNumber))
            .transpose()?;
        let details = details.map(read_details).transpose()?.unwrap_or_default();
        Ok((document.raw(), status, details, version_number))
    };
    match rest() {
        Ok((document, status, details, version_number)) => Ok(JobExecution {
            token,
            job_id,
            status,
            details,
            version_number,
            document,
        }),
        Err(error) => Err(ReplyError {
            error,
            job_id: Some(job_id),
        }),
    }
}
