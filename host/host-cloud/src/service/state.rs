//! Everything the service knows that must survive it, as one serialisable value.
//!
//! Times are wall-clock milliseconds, so that time-outs go on counting while the service is down. Not in here: the
//! change log that `watch` reads, request budgets, and the images (only their digests).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    image::ImageId,
    job::{Execution, Job},
    name::{GroupName, JobId, StreamId, ThingName},
};

/// Encoding of [`State`]; a reader refuses a number it does not know.
pub const STATE_SCHEMA: u32 = 2;

/// Things, groups, jobs and streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`STATE_SCHEMA`] of the writer.
    pub schema: u32,
    /// Place the next execution takes in its queue.
    pub sequence: u64,
    /// Registered things.
    pub things: BTreeMap<ThingName, Thing>,
    /// Groups of things.
    #[serde(default)]
    pub groups: BTreeMap<GroupName, Group>,
    /// Jobs, ended ones too.
    pub jobs: BTreeMap<JobId, Job>,
    /// Streams of updates.
    pub streams: BTreeMap<StreamId, Stream>,
}

impl State {
    /// Takes an execution that stands where only offered ones do for offered. A damaged store may say otherwise, and
    /// whoever spreads the job would offer it for ever.
    pub(super) fn mend(&mut self) {
        for thing in self.things.values_mut() {
            let known = thing.pending.values_mut().chain(thing.ended.values_mut());
            for execution in known.filter(|execution| execution.is_held()) {
                execution.offered_at_ms = Some(execution.queued_at_ms);
            }
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: STATE_SCHEMA,
            sequence: 0,
            things: BTreeMap::new(),
            groups: BTreeMap::new(),
            jobs: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }
}

/// A registered device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    /// When it was registered.
    pub created_at_ms: u64,
    /// SHA-256 of the certificates (DER, lower-case hex) that may speak for it.
    #[serde(default)]
    pub certificates: BTreeSet<String>,
    /// Executions that no roll-out has offered to it yet: it knows nothing of them.
    #[serde(default)]
    pub held: BTreeMap<JobId, Execution>,
    /// Executions that have not ended.
    #[serde(default)]
    pub pending: BTreeMap<JobId, Execution>,
    /// Executions that have.
    #[serde(default)]
    pub ended: BTreeMap<JobId, Execution>,
}

impl Thing {
    /// An execution, ended or not, offered or not.
    #[must_use]
    pub fn execution(&self, job: &str) -> Option<&Execution> {
        let open = self.pending.get(job).or_else(|| self.held.get(job));
        open.or_else(|| self.ended.get(job))
    }

    /// All executions.
    pub fn executions(&self) -> impl Iterator<Item = (&JobId, &Execution)> {
        self.pending.iter().chain(&self.held).chain(&self.ended)
    }

    /// Puts an execution where its status says.
    pub(super) fn insert(&mut self, job: JobId, execution: Execution) {
        if execution.status.is_terminal() {
            self.ended.insert(job, execution);
        } else if execution.is_held() {
            self.held.insert(job, execution);
        } else {
            self.pending.insert(job, execution);
        }
    }

    /// The execution the device should work on: IN_PROGRESS before QUEUED, then by age.
    #[must_use]
    pub fn next(&self) -> Option<(&JobId, &Execution)> {
        // InProgress orders after Queued in the enum, hence the reverse.
        self.pending
            .iter()
            .min_by_key(|(_, e)| (std::cmp::Reverse(e.status), e.sequence))
    }
}

/// A group of things: whom a job can be for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// When it was made.
    pub created_at_ms: u64,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Its members.
    #[serde(default)]
    pub things: BTreeSet<ThingName>,
}

/// The files of one update, for block-wise delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Version a request may insist on.
    pub version: u32,
    /// For people.
    pub description: String,
    /// The job whose things may read it.
    pub job: JobId,
    /// Files by id.
    pub files: BTreeMap<u8, StreamFile>,
}

/// One file of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFile {
    /// Its bytes.
    pub image: ImageId,
    /// How many.
    pub size: u64,
}
