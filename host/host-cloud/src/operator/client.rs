//! The operator's calls from another process, over the socket.

use std::path::Path;

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    server::{Line, read_line},
    wire::{
        ANSWER_BYTES_MAX, Answer, AnswerBody, CloudInfo, CreateJob, CreateUpdate, Deleted,
        JobFilter, Op, Refusal, Request, Stats, ThingCreated, UpdateCreated, VERSION,
    },
};
use crate::service::{
    Change, GroupName, GroupView, JobId, JobSummary, JobView, StreamId, StreamView,
    ThingDescription, ThingName, ThingView,
};

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nobody listens there.
    #[error("no cloud answers at {path}: {source}; start one with `otad cloud`")]
    Connect {
        /// The socket.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It cannot be asked like this.
    #[error("{0}")]
    Request(String),
    /// The cloud refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection broke.
    #[error("the connection to the cloud broke: {0}")]
    Broken(#[from] std::io::Error),
    /// The cloud went away, or says what this client does not understand.
    #[error("the cloud's answer makes no sense: {0}")]
    Protocol(String),
}

/// A connection to a cloud's operator socket; one call at a time.
pub struct OperatorClient {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl OperatorClient {
    /// Connects to the socket.
    ///
    /// # Errors
    /// Nobody listens there, or this user may not.
    pub async fn connect(path: &Path) -> Result<Self, OperatorError> {
        let connected = UnixStream::connect(path).await;
        let stream = connected.map_err(|source| OperatorError::Connect {
            path: path.display().to_string(),
            source,
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
        })
    }

    /// Creates an OTA update. Images are given by absolute path: the cloud opens them.
    ///
    /// # Errors
    /// An image is not given by path, the cloud refused, or it went away.
    pub async fn create_update(
        &mut self,
        update: CreateUpdate,
    ) -> Result<UpdateCreated, OperatorError> {
        if let Some(file) = update.files.iter().find(|f| !f.image.is_portable()) {
            return Err(OperatorError::Request(format!(
                "the image of file {} is not given by an absolute path",
                file.file_id
            )));
        }
        self.call(Op::CreateUpdate(update)).await
    }

    /// Creates a job of any kind.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn create_job(&mut self, job: CreateJob) -> Result<JobView, OperatorError> {
        self.call(Op::CreateJob(job)).await
    }

    /// Cancels a job.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn cancel(&mut self, job_id: JobId, force: bool) -> Result<JobView, OperatorError> {
        self.cancel_because(job_id, force, None).await
    }

    /// Cancels a job and says why.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn cancel_because(
        &mut self,
        job_id: JobId,
        force: bool,
        reason: Option<String>,
    ) -> Result<JobView, OperatorError> {
        let op = Op::Cancel {
            job_id,
            force,
            reason,
        };
        self.call(op).await
    }

    /// Forgets a job, its stream and its images; with `force` also one that has not ended.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn delete_job(
        &mut self,
        job_id: JobId,
        force: bool,
    ) -> Result<Deleted, OperatorError> {
        self.call(Op::DeleteJob { job_id, force }).await
    }

    /// All jobs, oldest first.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn list(&mut self) -> Result<Vec<JobSummary>, OperatorError> {
        self.list_where(JobFilter::default()).await
    }

    /// Some jobs, oldest first.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn list_where(
        &mut self,
        filter: JobFilter,
    ) -> Result<Vec<JobSummary>, OperatorError> {
        self.call(Op::List(filter)).await
    }

    /// One job.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn show(&mut self, job_id: JobId) -> Result<JobView, OperatorError> {
        self.call(Op::Show { job_id }).await
    }

    /// Follows a job: `changed` sees every change, and the job as it ended is returned.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn watch(
        &mut self,
        job_id: JobId,
        mut changed: impl FnMut(Change),
    ) -> Result<JobView, OperatorError> {
        self.send(Op::Watch { job_id }).await?;
        loop {
            match self.receive().await? {
                AnswerBody::Change(change) => changed(change),
                AnswerBody::Ok(value) => return decode(value),
                AnswerBody::Error(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// Registers a thing, or finds it.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_create(&mut self, name: ThingName) -> Result<ThingCreated, OperatorError> {
        self.call(Op::ThingCreate { name }).await
    }

    /// All things.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn thing_list(&mut self) -> Result<Vec<ThingView>, OperatorError> {
        self.call(Op::ThingList).await
    }

    /// One thing, with its executions.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_describe(
        &mut self,
        name: ThingName,
    ) -> Result<ThingDescription, OperatorError> {
        self.call(Op::ThingDescribe { name }).await
    }

    /// Forgets a thing; with `force` also while a job has not ended on it.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn thing_delete(
        &mut self,
        name: ThingName,
        force: bool,
    ) -> Result<Deleted, OperatorError> {
        self.call(Op::ThingDelete { name, force }).await
    }

    /// Makes a group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_create(
        &mut self,
        name: GroupName,
        description: String,
    ) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupCreate { name, description }).await
    }

    /// All groups.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn group_list(&mut self) -> Result<Vec<GroupView>, OperatorError> {
        self.call(Op::GroupList).await
    }

    /// One group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_describe(&mut self, name: GroupName) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupDescribe { name }).await
    }

    /// Forgets a group; its members stay things.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_delete(&mut self, name: GroupName) -> Result<Deleted, OperatorError> {
        self.call(Op::GroupDelete { name }).await
    }

    /// Things join a group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_add(
        &mut self,
        name: GroupName,
        things: Vec<ThingName>,
    ) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupAdd { name, things }).await
    }

    /// Things leave a group.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn group_remove(
        &mut self,
        name: GroupName,
        things: Vec<ThingName>,
    ) -> Result<GroupView, OperatorError> {
        self.call(Op::GroupRemove { name, things }).await
    }

    /// All streams.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn stream_list(&mut self) -> Result<Vec<StreamView>, OperatorError> {
        self.call(Op::StreamList).await
    }

    /// Forgets a stream; with `force` also while its job has not ended.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn stream_delete(
        &mut self,
        stream_id: StreamId,
        force: bool,
    ) -> Result<Deleted, OperatorError> {
        self.call(Op::StreamDelete { stream_id, force }).await
    }

    /// Where the cloud listens, and its certificates.
    ///
    /// # Errors
    /// The cloud refused, or went away.
    pub async fn info(&mut self) -> Result<CloudInfo, OperatorError> {
        self.call(Op::Info).await
    }

    /// What the cloud has counted.
    ///
    /// # Errors
    /// The cloud went away.
    pub async fn stats(&mut self) -> Result<Stats, OperatorError> {
        self.call(Op::Stats).await
    }

    async fn call<T: DeserializeOwned>(&mut self, op: Op) -> Result<T, OperatorError> {
        self.send(op).await?;
        match self.receive().await? {
            AnswerBody::Ok(value) => decode(value),
            AnswerBody::Error(refusal) => Err(refusal.into()),
            AnswerBody::Change(_) => Err(OperatorError::Protocol(
                "a change without a watch".to_owned(),
            )),
        }
    }

    async fn send(&mut self, op: Op) -> Result<(), OperatorError> {
        let encoded = serde_json::to_vec(&Request { v: VERSION, op });
        let mut line = encoded.map_err(|e| OperatorError::Request(e.to_string()))?;
        line.push(b'\n');
        self.writer.write_all(&line).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<AnswerBody, OperatorError> {
        let line = match read_line(&mut self.reader, ANSWER_BYTES_MAX).await? {
            Line::Whole(line) => line,
            Line::End => return Err(OperatorError::Protocol("it stopped".to_owned())),
            Line::TooLong => return Err(OperatorError::Protocol("a line without end".to_owned())),
        };
        let answer: Answer =
            serde_json::from_slice(&line).map_err(|e| OperatorError::Protocol(e.to_string()))?;
        if answer.v == VERSION {
            Ok(answer.body)
        } else {
            Err(OperatorError::Protocol(format!(
                "it speaks version {}, this client {VERSION}",
                answer.v
            )))
        }
    }
}

fn decode<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, OperatorError> {
    serde_json::from_value(value).map_err(|e| OperatorError::Protocol(e.to_string()))
}
