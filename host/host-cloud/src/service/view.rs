//! What operators see: jobs, executions and things as plain values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Execution, ExecutionStatus, Group, GroupName, Job, JobId, JobProgress, JobStatus, Plan,
    Selection, Service, ServiceError, StatusDetails, Stream, StreamId, Thing, ThingName,
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
            offered: execution.offered_at_ms.is_some(),
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
            things: job.things.clone(),
            plan: job.plan.clone(),
            progress: self.progress(id),
            waits_for: self.waits_for(id, job),
            reason: job.reason.clone(),
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
                executions: tally(&self.progress(id)),
                stream_id: job.stream.clone(),
                continuous: job.plan.selection == Selection::Continuous,
            })
            .collect();
        jobs.sort_by_key(|job| job.created_at_ms);
        jobs
    }

    /// Whether nothing about a job can change any more; true for one that does not exist.
    #[must_use]
    pub fn has_ended(&self, id: &JobId) -> bool {
        self.state.jobs.get(id).is_none_or(|job| {
            self.progress(id).open() == 0
                && (job.plan.selection.is_snapshot() || job.status != JobStatus::InProgress)
        })
    }

    /// Whether a job has an execution on a thing.
    #[must_use]
    pub fn runs_on(&self, id: &JobId, thing: &ThingName) -> bool {
        let thing = self.state.things.get(thing);
        thing.is_some_and(|thing| thing.execution(id.as_str()).is_some())
    }

    /// Whether a job is for a group.
    #[must_use]
    pub fn is_for(&self, id: &JobId, group: &GroupName) -> bool {
        let job = self.state.jobs.get(id);
        job.is_some_and(|job| job.plan.groups.contains(group))
    }

    /// All things, by name.
    #[must_use]
    pub fn things(&self) -> Vec<ThingView> {
        let mut groups: BTreeMap<&ThingName, Vec<GroupName>> = BTreeMap::new();
        for (name, group) in &self.state.groups {
            for thing in &group.things {
                groups.entry(thing).or_default().push(name.clone());
            }
        }
        self.state
            .things
            .iter()
            .map(|(name, thing)| thing_view(name, thing, groups.remove(name).unwrap_or_default()))
            .collect()
    }

    /// One thing with its executions.
    ///
    /// # Errors
    /// No such thing.
    pub fn describe_thing(&self, name: &ThingName) -> Result<ThingDescription, ServiceError> {
        let thing = self.state.things.get(name);
        let thing = thing.ok_or_else(|| ServiceError::UnknownThing(name.clone()))?;
        let groups = self.state.groups.iter();
        let groups = groups.filter(|(_, group)| group.things.contains(name));
        let mut jobs: Vec<(u64, ThingJob)> = thing
            .executions()
            .filter(|(_, execution)| execution.offered_at_ms.is_some())
            .map(|(job, execution)| {
                let job = ThingJob {
                    job_id: job.clone(),
                    execution: ExecutionView::new(name, execution),
                };
                (execution.sequence, job)
            })
            .collect();
        jobs.sort_by_key(|(sequence, _)| *sequence);
        Ok(ThingDescription {
            thing: thing_view(
                name,
                thing,
                groups.map(|(group, _)| group.clone()).collect(),
            ),
            jobs: jobs.into_iter().map(|(_, job)| job).collect(),
        })
    }

    /// All groups, by name.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupView> {
        let groups = self.state.groups.iter();
        groups
            .map(|(name, group)| self.group_view(name, group))
            .collect()
    }

    /// One group.
    ///
    /// # Errors
    /// No such group.
    pub fn describe_group(&self, name: &GroupName) -> Result<GroupView, ServiceError> {
        match self.state.groups.get(name) {
            Some(group) => Ok(self.group_view(name, group)),
            None => Err(ServiceError::UnknownGroup(name.clone())),
        }
    }

    fn group_view(&self, name: &GroupName, group: &Group) -> GroupView {
        GroupView {
            name: name.clone(),
            description: group.description.clone(),
            created_at_ms: group.created_at_ms,
            things: group.things.iter().cloned().collect(),
            jobs: self.continuous_jobs(name),
        }
    }

    /// All streams, by id.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamView> {
        let streams = self.state.streams.iter();
        let view = |(id, stream): (&StreamId, &Stream)| StreamView {
            stream_id: id.clone(),
            version: stream.version,
            description: stream.description.clone(),
            job_id: stream.job.clone(),
            files: stream
                .files
                .iter()
                .map(|(file_id, file)| StreamFileView {
                    file_id: *file_id,
                    size: file.size,
                    sha256: file.image.to_string(),
                })
                .collect(),
        };
        streams.map(view).collect()
    }

    fn executions<'a>(
        &'a self,
        id: &'a JobId,
        job: &'a Job,
    ) -> impl Iterator<Item = (&'a ThingName, &'a Execution)> {
        let things = self.indexes.get(id).map(|index| index.things.iter());
        let present = things.into_iter().flatten().filter_map(|name| {
            let thing = self.state.things.get(name)?;
            Some((name, thing.execution(id.as_str())?))
        });
        present.chain(
            job.departed
                .iter()
                .map(|(name, execution)| (name, execution)),
        )
    }
}

fn thing_view(name: &ThingName, thing: &Thing, groups: Vec<GroupName>) -> ThingView {
    ThingView {
        name: name.clone(),
        created_at_ms: thing.created_at_ms,
        certificates: thing.certificates.iter().cloned().collect(),
        pending: thing.pending.keys().cloned().collect(),
        groups,
    }
}

fn tally(progress: &JobProgress) -> Vec<(ExecutionStatus, usize)> {
    ExecutionStatus::ALL
        .into_iter()
        .map(|status| (status, progress.count(status)))
        .filter(|(_, count)| *count > 0)
        .collect()
}
