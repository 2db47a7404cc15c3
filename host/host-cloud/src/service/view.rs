//! What operators see: jobs, executions and things as plain values.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Execution, ExecutionStatus, Job, JobId, JobStatus, Service, ServiceError, StatusDetails,
    StreamId, ThingName,
};

/// One execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionView {
    /// On which thing.
    pub thing: ThingName,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// What the device said.
    pub status_details: StatusDetails,
    /// Its version.
    pub version: u64,
    /// Times in milliseconds since the epoch.
    pub queued_at_ms: u64,
    /// When the device began.
    pub started_at_ms: Option<u64>,
    /// When it last changed.
    pub updated_at_ms: u64,
}

impl ExecutionView {
    fn new(thing: &ThingName, execution: &Execution) -> Self {
        Self {
            thing: thing.clone(),
            status: execution.status,
            status_details: execution.details.clone(),
            version: execution.version,
            queued_at_ms: execution.queued_at_ms,
            started_at_ms: execution.started_at_ms,
            updated_at_ms: execution.updated_at_ms,
        }
    }
}

/// One job with everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub job_id: JobId,
    /// For people.
    pub description: String,
    /// Where it stands.
    pub status: JobStatus,
    /// What the devices get.
    pub document: Value,
    /// Stream of an update.
    pub stream_id: Option<StreamId>,
    /// When it was created, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Minutes an execution may be IN_PROGRESS.
    pub timeout_minutes: Option<u32>,
    /// One for each thing.
    pub executions: Vec<ExecutionView>,
}

impl JobView {
    /// Whether nothing can change any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.executions.iter().all(|e| e.status.is_terminal())
    }
}

/// One job in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its id.
    pub job_id: JobId,
    /// For people.
    pub description: String,
    /// Where it stands.
    pub status: JobStatus,
    /// When it was created, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// How many executions have which status.
    pub executions: Vec<(ExecutionStatus, usize)>,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThingView {
    /// Its name.
    pub name: ThingName,
    /// When it was registered, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// SHA-256 of its certificates.
    pub certificates: Vec<String>,
    /// Jobs that have not ended on it.
    pub pending: Vec<JobId>,
}

impl Service {
    /// Everything about one job.
    ///
    /// # Errors
    /// No such job.
    pub fn show(&self, id: &JobId) -> Result<JobView, ServiceError> {
        let job = self
            .state
            .jobs
            .get(id)
            .ok_or_else(|| ServiceError::UnknownJob(id.clone()))?;
        Ok(JobView {
            job_id: id.clone(),
            description: job.description.clone(),
            status: job.status,
            document: job.document.clone(),
            stream_id: job.stream.clone(),
            created_at_ms: job.created_at_ms,
            timeout_minutes: job.timeout_minutes,
            executions: self
                .executions(id, job)
                .map(|(thing, execution)| ExecutionView::new(thing, execution))
                .collect(),
        })
    }

    /// All jobs, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<JobSummary> {
        let mut jobs: Vec<JobSummary> = self
            .state
            .jobs
            .iter()
            .map(|(id, job)| JobSummary {
                job_id: id.clone(),
                description: job.description.clone(),
                status: job.status,
                created_at_ms: job.created_at_ms,
                executions: self.tally(id, job),
            })
            .collect();
        jobs.sort_by_key(|job| job.created_at_ms);
        jobs
    }

    /// All things, by name.
    #[must_use]
    pub fn things(&self) -> Vec<ThingView> {
        self.state
            .things
            .iter()
            .map(|(name, thing)| ThingView {
                name: name.clone(),
                created_at_ms: thing.created_at_ms,
                certificates: thing.certificates.iter().cloned().collect(),
                pending: thing.pending.keys().cloned().collect(),
            })
            .collect()
    }

    fn executions<'a>(
        &'a self,
        id: &'a JobId,
        job: &'a Job,
    ) -> impl Iterator<Item = (&'a ThingName, &'a Execution)> {
        job.things().filter_map(|name| {
            let thing = self.state.things.get(name)?;
            Some((name, thing.execution(id.as_str())?))
        })
    }

    fn tally(&self, id: &JobId, job: &Job) -> Vec<(ExecutionStatus, usize)> {
        ExecutionStatus::ALL
            .into_iter()
            .map(|status| {
                let executions = self.executions(id, job);
                (
                    status,
                    executions.filter(|(_, e)| e.status == status).count(),
                )
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
