//! What operators see: jobs, executions and things as plain values.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Execution, ExecutionStatus, GroupName, Job, JobId, JobProgress, JobStatus, Plan, Service,
    ServiceError, StatusDetails, StreamId, ThingName,
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
    /// Whether the roll-out has come to this thing: it knows of nothing before.
    #[serde(default = "yes")]
    pub offered: bool,
}

fn yes() -> bool {
    true
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
            offered: true,
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
    /// Things it names.
    #[serde(default)]
    pub things: Vec<ThingName>,
    /// Whom else it is for, how fast, and when it gives up.
    #[serde(default)]
    pub plan: Plan,
    /// How many executions stand where.
    #[serde(default)]
    pub progress: JobProgress,
    /// What the rest of a roll-out waits for; none = there is no rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
    /// Why it was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One for each thing.
    pub executions: Vec<ExecutionView>,
}

/// What the rest of a roll-out waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// The executions of the canary to end.
    Canary,
    /// The time of the next batch, milliseconds since the epoch.
    Batch(u64),
    /// As many ends as an abort rule needs to judge.
    Results,
}

impl JobView {
    /// Whether nothing can change any more. A continuous job has not ended before it is cancelled.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.progress.open() == 0
            && (self.plan.selection.is_snapshot() || self.status != JobStatus::InProgress)
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
    /// Stream of an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<StreamId>,
    /// Whether it goes on with things that join its groups.
    #[serde(default)]
    pub continuous: bool,
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
    /// Groups it belongs to.
    #[serde(default)]
    pub groups: Vec<GroupName>,
}

/// One thing with everything that ever ran on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThingDescription {
    /// The thing.
    #[serde(flatten)]
    pub thing: ThingView,
    /// Its executions that were offered to it, oldest first.
    pub jobs: Vec<ThingJob>,
}

/// One job on one thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThingJob {
    /// Which job.
    pub job_id: JobId,
    /// How it went.
    #[serde(flatten)]
    pub execution: ExecutionView,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its name.
    pub name: GroupName,
    /// For people.
    pub description: String,
    /// When it was made, milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Its members, by name.
    pub things: Vec<ThingName>,
    /// Continuous jobs that its later members get.
    pub jobs: Vec<JobId>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamView {
    /// Its id.
    pub stream_id: StreamId,
    /// Its version.
    pub version: u32,
    /// For people.
    pub description: String,
    /// The job whose things may read it.
    pub job_id: JobId,
    /// Its files: id, size in bytes, SHA-256.
    pub files: Vec<StreamFileView>,
}

/// One file of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFileView {
    /// Its id.
    pub file_id: u8,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: String,
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
            things: job.things().cloned().collect(),
            plan: Plan::default(),
            progress: self.progress(id, job),
            waits_for: None,
            reason: None,
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
                stream_id: job.stream.clone(),
                continuous: false,
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
                groups: Vec::new(),
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

    fn progress(&self, id: &JobId, job: &Job) -> JobProgress {
        let mut progress = JobProgress::default();
        for (_, execution) in self.executions(id, job) {
            *progress.of(execution.status, false) += 1;
        }
        progress
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
