//! Everything the service knows that must survive it, as one serialisable value.
//!
//! Times are wall-clock milliseconds, so that time-outs go on counting while the service is down. Not in here: the
//! change log that `watch` reads, request budgets, and the images (only their digests).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    image::ImageId,
    job::{Execution, Job},
    name::{JobId, StreamId, ThingName},
};

/// Encoding of [`State`]; a reader refuses a number it does not know.
pub const STATE_SCHEMA: u32 = 1;

/// Things, jobs and streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// [`STATE_SCHEMA`] of the writer.
    pub schema: u32,
    /// Place the next execution takes in its queue.
    pub sequence: u64,
    /// Registered things.
    pub things: BTreeMap<ThingName, Thing>,
    /// Jobs, ended ones too.
    pub jobs: BTreeMap<JobId, Job>,
    /// Streams of updates.
    pub streams: BTreeMap<StreamId, Stream>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: STATE_SCHEMA,
            sequence: 0,
            things: BTreeMap::new(),
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
    /// Executions that have not ended.
    #[serde(default)]
    pub pending: BTreeMap<JobId, Execution>,
    /// Executions that have.
    #[serde(default)]
    pub ended: BTreeMap<JobId, Execution>,
}

impl Thing {
    /// An execution, ended or not.
    #[must_use]
    pub fn execution(&self, job: &str) -> Option<&Execution> {
        self.pending.get(job).or_else(|| self.ended.get(job))
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
