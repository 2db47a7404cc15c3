//! Messages that carry a job, or say that there is none.

use crate::jobs::{ExecutionState, JobId, ReplyToken, read_state, read_token};
use crate::json::Value;

use super::member::Check;
use super::{Defect, Field, ParseError};

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
    /// How it stands.
    pub state: ExecutionState,
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
    let mut check = Check::default();
    let message = check.message(payload);
    let mut message = check.object(message, Field::Message);
    let token = read_token(&mut message);
    // The service leaves it out, or sends it empty, where there is no job.
    let execution = message.find(Field::Execution).filter(|of| !of.is_null());
    let mut execution = check.object(execution, Field::Execution);
    if !execution.any && execution.check.is_good() {
        return Ok(Reply::NoJob(token));
    }
    // The job's id first, wherever it stands, so that a defect in another member can be reported.
    execution.need(Field::JobId);
    let id = execution.text(Field::JobId);
    let id = execution.check.is_good().then(|| JobId::new(&id));
    let job_id = id.and_then(|id| execution.check.name(id, Field::JobId));
    let document = execution.need(Field::JobDocument);
    let state = read_state(&mut execution);
    match (check.finish(()), job_id) {
        (Ok(()), Some(job_id)) => Ok(Reply::Job(JobExecution {
            token,
            job_id,
            state,
            document: document.map_or("", Value::raw),
        })),
        (Ok(()), None) => Err(Defect::Missing.of(Field::JobId).into()),
        (Err(error), job_id) => Err(ReplyError { error, job_id }),
    }
}
