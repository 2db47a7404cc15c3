//! Reads `state.json`, in which earlier builds kept the whole state.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::damaged;
use crate::{
    error::CloudError,
    file,
    service::{
        Job, JobId, JobStatus, Plan, ServiceError, Stage, State, Stream, StreamId, Thing, ThingName,
    },
};

/// Name of the file.
pub(super) const FILE: &str = "state.json";
/// What it is called once its content has moved.
pub(super) const KEPT: &str = "state.json.moved";

/// The schema that was written there.
const SCHEMA: u32 = 1;

#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

#[derive(Deserialize)]
struct StateV1 {
    sequence: u64,
    things: BTreeMap<ThingName, Thing>,
    jobs: BTreeMap<JobId, JobV1>,
    streams: BTreeMap<StreamId, Stream>,
}

#[derive(Deserialize)]
struct JobV1 {
    document: serde_json::Value,
    #[serde(default)]
    description: String,
    status: JobStatus,
    targets: Vec<TargetV1>,
    created_at_ms: u64,
    #[serde(default)]
    timeout_minutes: Option<u32>,
    #[serde(default)]
    stream: Option<StreamId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetV1 {
    Thing(ThingName),
}

/// The state, if there is one.
pub(super) fn read(path: &Path) -> Result<Option<State>, CloudError> {
    let Some(bytes) = file::read_if_there(path)? else {
        return Ok(None);
    };
    let wrong = |error: serde_json::Error| damaged(path, error.to_string());
    let Versioned { schema } = serde_json::from_slice(&bytes).map_err(wrong)?;
    if schema != SCHEMA {
        let error = ServiceError::UnknownSchema {
            found: schema,
            known: SCHEMA,
        };
        return Err(error.into());
    }
    let old: StateV1 = serde_json::from_slice(&bytes).map_err(wrong)?;
    let mut things = old.things;
    for thing in things.values_mut() {
        // Then, a job was offered to all of its things when it was made.
        for execution in thing.pending.values_mut().chain(thing.ended.values_mut()) {
            execution.offered_at_ms = Some(execution.queued_at_ms);
        }
    }
    let jobs = old.jobs.into_iter().map(|(id, job)| (id, job.into()));
    Ok(Some(State {
        sequence: old.sequence,
        things,
        jobs: jobs.collect(),
        streams: old.streams,
        ..State::default()
    }))
}

impl From<JobV1> for Job {
    fn from(job: JobV1) -> Self {
        let things = job.targets.into_iter().map(|TargetV1::Thing(name)| name);
        Self {
            document: job.document,
            description: job.description,
            status: job.status,
            things: things.collect(),
            plan: Plan::default(),
            stage: Stage::AtOnce,
            reason: None,
            departed: Vec::new(),
            created_at_ms: job.created_at_ms,
            timeout_minutes: job.timeout_minutes,
            stream: job.stream,
        }
    }
}
