//! Messages that carry a job, or say that there is none.

use crate::jobs::{
    ExecutionStatus, JobId, ReplyToken, StatusDetails, read_details, read_status, read_token,
    read_version,
};
use crate::json::Value;

use super::member::{bad_name, collect, needed, parse_message, text};
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
    const KEYS: [(&str, Field); 2] = [
        ("clientToken", Field::ClientToken),
        ("execution", Field::Execution),
    ];
    let message = parse_message(payload)?;
    let [token, execution] = collect(message, Field::Message, &KEYS)?;
    let token = read_token(token);
    match execution {
        None | Some(Value::Null) => Ok(Reply::NoJob(token)),
        Some(execution) => {
            let empty = execution
                .members()
                .is_some_and(|mut members| members.next().is_none());
            if empty {
                return Ok(Reply::NoJob(token));
            }
            read_execution(token, execution).map(Reply::Job)
        }
    }
}

/// The job's id first, wherever it stands, so that a defect in another member can be reported.
fn read_execution(token: ReplyToken, execution: Value<'_>) -> Result<JobExecution<'_>, ReplyError> {
    let [job_id] = collect(execution, Field::Execution, &[("jobId", Field::JobId)])?;
    let job_id = text(needed(job_id, Field::JobId)?, Field::JobId)?;
    let job_id = JobId::new(&job_id).map_err(|error| bad_name(error, Field::JobId))?;
    match read_rest(execution) {
        Ok((status, details, version_number, document)) => Ok(JobExecution {
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

type Rest<'a> = (ExecutionStatus, StatusDetails, Option<u64>, &'a str);

fn read_rest(execution: Value<'_>) -> Result<Rest<'_>, ParseError> {
    const KEYS: [(&str, Field); 4] = [
        ("jobDocument", Field::JobDocument),
        ("status", Field::Status),
        ("statusDetails", Field::StatusDetails),
        ("versionNumber", Field::VersionNumber),
    ];
    let [document, status, details, version] = collect(execution, Field::Execution, &KEYS)?;
    let document = needed(document, Field::JobDocument)?.raw();
    let status = status.map_or(Ok(ExecutionStatus::Unknown), read_status)?;
    let details = read_details(details)?;
    Ok((status, details, read_version(version)?, document))
}
