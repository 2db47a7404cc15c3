//! Messages that carry a job, or say that there is none.

use crate::jobs::{ExecutionStatus, JobId, ReplyToken, StatusDetails};

use super::ParseError;

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

/// Reads a message that carries a job or says that there is none.
///
/// # Errors
/// [`ReplyError`]: the service or the job's author is at fault; asking again brings the same.
pub fn parse_reply(payload: &[u8]) -> Result<Reply<'_>, ReplyError> {
    let _ = payload;
    unimplemented!()
}
