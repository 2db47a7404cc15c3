//! The cloud without its network: AWS IoT Jobs and MQTT file streams as one sans-I/O value.
//!
//! ```text
//!            topic + payload                    Vec<Outgoing>
//!  thing ──────────────────────▶  Service::handle  ─────────────▶ thing (reply) and subscribers (notification)
//!  operator ── create_update, cancel, … ──▶ │
//!  time ─────────── poll(now) ─────────────▶│ deadline() says when next
//! ```
//!
//! It reads no clock (wall-clock milliseconds come in), draws no random number (ids come in), holds no file (images are
//! read through [`ImageSource`], its state is one serialisable [`State`]) and knows neither connections nor
//! subscriptions. So a simulation runs the same code in virtual time.

mod change;
mod error;
mod group;
mod image;
mod job;
mod job_api;
mod job_wire;
mod name;
mod plan;
mod progress;
mod queue;
mod record;
mod removal;
mod rollout;
mod state;
mod stream_api;
mod stream_reply;
mod stream_request;
mod topic;
mod update;
mod url;
mod view;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

pub use change::Change;
pub use error::{RejectCode, ServiceError, StreamCode};
pub(crate) use image::hex;
pub use image::{ImageError, ImageId, ImageSource, MemoryImages};
pub use job::{Execution, ExecutionStatus, Job, JobStatus, Stage, StatusDetails};
pub(crate) use job_api::refuse_jobs_request;
pub use name::{
    GROUP_NAME_BYTES_MAX, GroupName, JOB_ID_BYTES_MAX, JobId, NameError, STREAM_ID_BYTES_MAX,
    StreamId, THING_NAME_BYTES_MAX, ThingName,
};
pub use plan::{
    AWS_THINGS_PER_MINUTE_MAX, AbortRule, FailureKind, Plan, Rollout, Selection, Threshold,
};
pub use progress::JobProgress;
pub use record::{Changes, RowChange, RowError, Table};
pub use removal::Removal;
pub use state::{Group, STATE_SCHEMA, State, Stream, StreamFile, Thing};
pub use topic::split_thing;
pub use update::{NewJob, NewUpdate, Protocol, SigKey, Signature, UpdateFile};
pub use url::UrlSource;
pub use view::{
    ExecutionView, GroupView, JobSummary, JobView, StreamFileView, StreamView, ThingDescription,
    ThingJob, ThingView, WaitsFor,
};

use crate::limits::Limits;
use change::ChangeLog;
use record::Record;
use rollout::JobIndex;
use topic::Request;

/// Delivery promise of an MQTT message; the service uses no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QoS {
    /// 0: at most once.
    AtMostOnce,
    /// 1: at least once.
    AtLeastOnce,
}

/// What an outgoing message is, which decides who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answer to a request: goes to the asking client whether it subscribed or not, and to subscribers.
    Reply,
    /// One block of a file; delivered as a reply.
    Block,
    /// `notify` and `notify-next`: goes to subscribers only.
    Notification,
}

/// A message the service wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Whose topic it is.
    pub to: ThingName,
    /// Whole topic; shared by the blocks of one request.
    pub topic: Arc<str>,
    /// Message.
    pub payload: Bytes,
    /// Jobs speak QoS 1, streams QoS 0.
    pub qos: QoS,
    /// Who gets it.
    pub kind: Kind,
}

/// What one thing has asked of the service since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Requests under `jobs/`.
    pub jobs_requests: u64,
    /// `GetStream` requests, refused ones too.
    pub stream_requests: u64,
    /// Those of them that were in JSON.
    #[serde(default)]
    pub json_requests: u64,
    /// Blocks handed out.
    pub blocks: u64,
    /// Bytes of these blocks, without envelope.
    pub block_bytes: u64,
    /// Requests answered on a `rejected` topic.
    pub rejected: u64,
}

/// A thing's allowance of Jobs requests, in thousandths of a request.
#[derive(Clone, Copy, Debug)]
struct Budget {
    milli: u64,
    at_ms: u64,
}

/// Jobs and streams of all things.
pub struct Service {
    limits: Limits,
    images: Arc<dyn ImageSource>,
    /// Makes the URLs of images; none = there are none.
    urls: Option<Arc<dyn UrlSource>>,
    state: State,
    /// Deadlines of pending executions, earliest first.
    timers: BTreeSet<(u64, ThingName, JobId)>,
    /// Next batches of roll-outs, earliest first.
    batches: BTreeSet<(u64, JobId)>,
    /// What follows from the executions of each job.
    indexes: BTreeMap<JobId, JobIndex>,
    /// What changed since it was last stored.
    dirty: BTreeSet<Record>,
    /// Things by certificate fingerprint.
    principals: BTreeMap<String, BTreeSet<ThingName>>,
    changes: ChangeLog,
    budgets: BTreeMap<ThingName, Budget>,
    counters: BTreeMap<ThingName, Counters>,
    revision: u64,
    unavailable: Option<String>,
}

impl Service {
    /// An empty service.
    #[must_use]
    pub fn new(limits: Limits, images: Arc<dyn ImageSource>) -> Self {
        Self::build(limits, images, State::default())
    }

    /// A service that goes on from a stored state.
    ///
    /// # Errors
    /// The state is of a schema this build does not read.
    pub fn restore(
        limits: Limits,
        images: Arc<dyn ImageSource>,
        state: State,
    ) -> Result<Self, ServiceError> {
        if state.schema != STATE_SCHEMA {
            return Err(ServiceError::UnknownSchema {
                found: state.schema,
                known: STATE_SCHEMA,
            });
        }
        let mut state = state;
        state.mend();
        Ok(Self::build(limits, images, state))
    }

    fn build(limits: Limits, images: Arc<dyn ImageSource>, state: State) -> Self {
        let mut timers = BTreeSet::new();
        let mut principals = BTreeMap::<String, BTreeSet<ThingName>>::new();
        let mut indexes = BTreeMap::<JobId, JobIndex>::new();
        for (name, thing) in &state.things {
            for (job, execution) in thing.executions() {
                let index = indexes.entry(job.clone()).or_default();
                index.enter(name, execution);
            }
            for (job, execution) in &thing.pending {
                if let Some(at) = execution.deadline_ms() {
                    timers.insert((at, name.clone(), job.clone()));
                }
            }
            for certificate in &thing.certificates {
                principals
                    .entry(certificate.clone())
                    .or_default()
                    .insert(name.clone());
            }
        }
        let mut service = Self {
            limits,
            images,
            urls: None,
            state,
            timers,
            batches: BTreeSet::new(),
            indexes,
            dirty: BTreeSet::new(),
            principals,
            changes: ChangeLog::default(),
            budgets: BTreeMap::new(),
            counters: BTreeMap::new(),
            revision: 0,
            unavailable: None,
        };
        service.resume_jobs();
        service
    }

    /// Counts what things have left behind, and lets the clock look at every roll-out that is not done.
    fn resume_jobs(&mut self) {
        let mut open = Vec::new();
        for (id, job) in &self.state.jobs {
            let index = self.indexes.entry(id.clone()).or_default();
            for (_, execution) in &job.departed {
                index.count_departed(execution);
            }
            if job.status == JobStatus::InProgress && index.progress.held > 0 {
                open.push(id.clone());
            }
        }
        for id in open {
            self.set_batch_timer(&id, Some(0));
        }
    }

    /// Takes a message that `from` published under `$aws/` and returns what to send, in order.
    ///
    /// A topic of another thing, or of a namespace that is not ours, is nobody's request and has no answer: the endpoint's
    /// policy has refused the first already.
    pub fn handle(
        &mut self,
        now_ms: u64,
        from: &ThingName,
        topic: &str,
        payload: &[u8],
    ) -> Vec<Outgoing> {
        let mut out = Vec::new();
        let request = match split_thing(topic) {
            Some((thing, rest)) if thing == from.as_str() => topic::parse(rest),
            Some(_) | None => None,
        };
        let Some(request) = request else {
            tracing::debug!(thing = %from, topic, "no request of the service");
            return out;
        };
        match request {
            Request::PendingJobs
            | Request::StartNext
            | Request::DescribeNext
            | Request::DescribeJob(_)
            | Request::UpdateJob(_)
            | Request::UnknownJobs => {
                self.handle_jobs(now_ms, from, topic, request, payload, &mut out);
            }
            Request::DescribeStream(stream, encoding) => {
                self.handle_describe_stream(from, stream, encoding, payload, &mut out);
            }
            Request::GetStream(stream, encoding) => {
                self.handle_get_stream(from, stream, encoding, payload, &mut out);
            }
            Request::UnknownStream(stream, encoding) => {
                self.reject_unknown_stream(from, stream, encoding, &mut out);
            }
        }
        out
    }

    /// Ends executions whose time ran out, and offers jobs to the things whose batch has come.
    pub fn poll(&mut self, now_ms: u64) -> Vec<Outgoing> {
        let mut out = Vec::new();
        while let Some((at, thing, job)) = self.timers.first().cloned() {
            if at > now_ms {
                break;
            }
            self.timers.remove(&(at, thing.clone(), job.clone()));
            self.end(now_ms, &thing, &job, ExecutionStatus::TimedOut, &mut out);
        }
        self.spread_due(now_ms, &mut out);
        out
    }

    /// When [`Service::poll`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(at, _, _)| *at);
        let batch = self.batches.first().map(|(at, _)| *at);
        match (timer, batch) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What must be stored to go on after a restart.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Grows with every change of [`Service::state`].
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// With a reason, every request that would change the state is answered `InternalError`; `None` ends that. For a
    /// shell that cannot store the state: what it cannot keep it must not promise.
    pub fn set_unavailable(&mut self, reason: Option<String>) {
        self.unavailable = reason;
    }

    /// What each thing has asked for.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<ThingName, Counters> {
        &self.counters
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Status changes after `cursor`, oldest first, and the cursor to ask with next time. `None` = changes after `cursor`
    /// were forgotten; look at [`Service::show`] instead and go on from [`Service::change_cursor`].
    #[must_use]
    pub fn changes_after(&self, cursor: u64) -> Option<(Vec<Change>, u64)> {
        self.changes.after(cursor)
    }

    /// The cursor behind the newest change.
    #[must_use]
    pub fn change_cursor(&self) -> u64 {
        self.changes.cursor()
    }

    fn count(&mut self, thing: &ThingName) -> &mut Counters {
        self.counters.entry(thing.clone()).or_default()
    }

    /// Takes one Jobs request from the thing's allowance; false = too many.
    fn admit(&mut self, now_ms: u64, thing: &ThingName) -> bool {
        let Some((per_s, burst)) = self.limits.jobs_requests() else {
            return true;
        };
        let full = u64::from(burst) * 1000;
        let budget = self.budgets.entry(thing.clone()).or_insert(Budget {
            milli: full,
            at_ms: now_ms,
        });
        // A rate per second is that many thousandths per millisecond.
        let gained = now_ms
            .saturating_sub(budget.at_ms)
            .saturating_mul(u64::from(per_s));
        budget.milli = budget.milli.saturating_add(gained).min(full);
        budget.at_ms = now_ms;
        if budget.milli < 1000 {
            return false;
        }
        budget.milli -= 1000;
        true
    }
}
