//! Messages that carry a job, or say that there is none.

use crate::jobs::{ExecutionStatus, JobId, ReplyToken, StatusDetails, read_state, read_token};
use crate::json::Value;

use super::member::{Check, parse_message};
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
    let mut check = Check::default();
    check.type_of(message, b'{', Field::Message);
    let token = read_token(check.find(message, "clientToken", Field::ClientToken));
    let execution = check.find(message, "execution", Field::Execution);
    // The service leaves it out, or sends it empty, where there is no job.
    let Some(execution) = execution.filter(|of| !of.is_null() && of.raw() != "{}") else {
        return Ok(check.finish(Reply::NoJob(token))?);
    };
    check.type_of(execution, b'{', Field::Execution);
    if check.is_good() && execution.walk().next().is_none() {
        return Ok(Reply::NoJob(token));
    }
    // The job's id first, wherever it stands, so that a defect in another member can be reported.
    let id = check.need(execution, "jobId", Field::JobId);
    let id = check.text(id, Field::JobId);
    let job_id = match JobId::new(&id) {
        _ if !check.is_good() => None,
        Ok(id) => Some(id),
        Err(error) => {
            check.bad_name(error, Field::JobId);
            None
        }
    };
    let document = check.need(execution, "jobDocument", Field::JobDocument);
    let state = read_state(&mut check, execution);
    match (check.finish(()), job_id) {
        (Ok(()), Some(job_id)) => Ok(Reply::Job(JobExecution {
            token,
            job_id,
            status: state.status,
            details: state.details,
            version_number: state.version_number,
            document: document.map_or("", Value::raw),
        })),
        (Ok(()), None) => Err(ParseError::Missing {
            field: Field::JobId,
        }
        .into()),
        (Err(error), job_id) => Err(ReplyError { error, job_id }),
    }
}
