//! Topics of the Jobs service and of MQTT file streams: made for one thing, and told apart when they come in.
//!
//! The longest one is 12 + 128 + 9 + 128 + 17 = 294 bytes (`/description/json` of the longest thing and stream); the longest
//! that the agent uses, `/rejected/cbor`, has 291. That is more than the 256 bytes that AWS IoT allows for a topic: there
//! the two names together have at most 221 bytes, which is the service's to refuse.

use alloc::string::String;

use super::name::NameKind;
use super::{JobId, StreamId, ThingName};

const ROOT: &str = "$aws/things/";

/// The encoding of a file stream, last level of its topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// CBOR, what the C agent uses, and this agent unless it is told otherwise.
    #[default]
    Cbor,
    /// JSON, what the modular libraries may use. Its blocks are a third longer.
    Json,
}

impl Encoding {
    /// The topic level.
    #[must_use]
    pub const fn level(self) -> &'static str {
        match self {
            Self::Cbor => "cbor",
            Self::Json => "json",
        }
    }
}

/// What a topic of the own thing is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `jobs/$next/get`: asks for the next job.
    NextGet,
    /// `jobs/$next/get/accepted`: a job, or none.
    NextAccepted,
    /// `jobs/$next/get/rejected`.
    NextRejected,
    /// `jobs/notify-next`: the next job is another one.
    NotifyNext,
    /// `jobs/notify`: the list of jobs has changed. Not used by the agent.
    Notify,
    /// `jobs/get/accepted`: the list of jobs. Not used by the agent.
    PendingAccepted,
    /// `jobs/get/rejected`.
    PendingRejected,
    /// `jobs/start-next`: asks for the next job and begins it. Not used by the agent.
    StartNext,
    /// `jobs/start-next/accepted`. Not used by the agent.
    StartNextAccepted,
    /// `jobs/start-next/rejected`.
    StartNextRejected,
    /// `jobs/<job>/get`: asks for one job.
    JobGet,
    /// `jobs/<job>/get/accepted`: one job as asked for.
    JobAccepted,
    /// `jobs/<job>/get/rejected`.
    JobRejected,
    /// `jobs/<job>/update`: a status.
    Update,
    /// `jobs/<job>/update/accepted`: a status was taken.
    UpdateAccepted,
    /// `jobs/<job>/update/rejected`: a status was refused.
    UpdateRejected,
    /// `streams/<stream>/get/<encoding>`: asks for blocks.
    StreamGet(Encoding),
    /// `streams/<stream>/data/<encoding>`: a block.
    StreamData(Encoding),
    /// `streams/<stream>/rejected/<encoding>`: a request was refused.
    StreamRejected(Encoding),
    /// `streams/<stream>/describe/<encoding>`. Not used by the agent.
    StreamDescribe(Encoding),
    /// `streams/<stream>/description/<encoding>`. Not used by the agent.
    StreamDescription(Encoding),
}

use Encoding::{Cbor, Json};

/// A topic, what stands before the name of its job or stream, and what behind it. One without a name has nothing behind.
type Row = (Topic, &'static str, &'static str);

const JOBS: &str = "/jobs/";
const STREAMS: &str = "/streams/";

/// What the agent listens to and says, the most frequent first; what has no name stands before what could take a part of
/// it for one. The others stand apart, for the guest to leave them out.
static OURS: [Row; 16] = [
    (Topic::StreamData(Cbor), STREAMS, "/data/cbor"),
    (Topic::StreamData(Json), STREAMS, "/data/json"),
    (Topic::NextAccepted, "/jobs/$next/get/accepted", ""),
    (Topic::NextRejected, "/jobs/$next/get/rejected", ""),
    (Topic::NotifyNext, "/jobs/notify-next", ""),
    (Topic::UpdateAccepted, JOBS, "/update/accepted"),
    (Topic::UpdateRejected, JOBS, "/update/rejected"),
    (Topic::JobAccepted, JOBS, "/get/accepted"),
    (Topic::JobRejected, JOBS, "/get/rejected"),
    (Topic::StreamRejected(Cbor), STREAMS, "/rejected/cbor"),
    (Topic::StreamRejected(Json), STREAMS, "/rejected/json"),
    // From here on what is sent to the service.
    (Topic::StreamGet(Cbor), STREAMS, "/get/cbor"),
    (Topic::StreamGet(Json), STREAMS, "/get/json"),
    (Topic::Update, JOBS, "/update"),
    (Topic::JobGet, JOBS, "/get"),
    (Topic::NextGet, "/jobs/$next/get", ""),
];
const OURS_RECEIVED: usize = 11;

/// All others.
static OTHERS: [Row; 10] = [
    (Topic::StreamDescription(Cbor), STREAMS, "/description/cbor"),
    (Topic::StreamDescription(Json), STREAMS, "/description/json"),
    (Topic::Notify, "/jobs/notify", ""),
    (Topic::PendingAccepted, "/jobs/get/accepted", ""),
    (Topic::PendingRejected, "/jobs/get/rejected", ""),
    (Topic::StartNextAccepted, "/jobs/start-next/accepted", ""),
    (Topic::StartNextRejected, "/jobs/start-next/rejected", ""),
    // From here on what is sent to the service.
    (Topic::StreamDescribe(Cbor), STREAMS, "/describe/cbor"),
    (Topic::StreamDescribe(Json), STREAMS, "/describe/json"),
    (Topic::StartNext, "/jobs/start-next", ""),
];
const OTHERS_RECEIVED: usize = 7;

/// Tells what a topic that the service sends is, with the name of its job or stream, which is a legal one; none if it is
/// another thing's, or nothing that the service sends.
#[must_use]
pub fn classify<'a>(thing: &ThingName, topic: &'a str) -> Option<(Topic, &'a str)> {
    let others = || classify_among(OTHERS.iter().take(OTHERS_RECEIVED), thing, topic);
    let (of, name) = classify_ours(thing, topic).or_else(others)?;
    let of_stream = matches!(
        of,
        Topic::StreamData(_) | Topic::StreamRejected(_) | Topic::StreamDescription(_)
    );
    let of_job = matches!(
        of,
        Topic::JobAccepted | Topic::JobRejected | Topic::UpdateAccepted | Topic::UpdateRejected
    );
    let legal = (!of_stream || NameKind::Stream.check(name).is_ok())
        && (!of_job || NameKind::Job.check(name).is_ok());
    legal.then_some((of, name))
}

/// The same, of topics that the agent listens to, and without a look at the name: the agent compares it with those that it
/// knows.
pub(crate) fn classify_ours<'a>(thing: &ThingName, topic: &'a str) -> Option<(Topic, &'a str)> {
    classify_among(OURS.iter().take(OURS_RECEIVED), thing, topic)
}

fn classify_among<'a>(
    rows: impl Iterator<Item = &'static Row>,
    thing: &ThingName,
    topic: &'a str,
) -> Option<(Topic, &'a str)> {
    let rest = topic.strip_prefix(ROOT)?.strip_prefix(thing.as_str())?;
    for (topic, before, behind) in rows {
        let name = rest
            .strip_prefix(*before)
            .and_then(|rest| rest.strip_suffix(*behind));
        if let Some(name) = name.filter(|name| name.is_empty() == behind.is_empty()) {
            return Some((*topic, name));
        }
    }
    None
}

/// A topic; the name is that of its job or stream, `+` for the filter of all of them, or empty if it has none.
#[must_use]
pub fn make(thing: &ThingName, topic: Topic, name: &str) -> String {
    make_among(OURS.iter().chain(&OTHERS), thing, topic, name)
}

/// The same, of topics that the agent speaks or listens to.
pub(crate) fn make_ours(thing: &ThingName, topic: Topic, name: &str) -> String {
    make_among(OURS.iter(), thing, topic, name)
}

fn make_among(
    rows: impl Iterator<Item = &'static Row>,
    thing: &ThingName,
    topic: Topic,
    name: &str,
) -> String {
    let mut out = String::from(ROOT);
    for (of, before, behind) in rows {
        if *of == topic {
            for part in [thing.as_str(), before, name, behind] {
                out.push_str(part);
            }
        }
    }
    out
}

/// Where the next job is asked for; its answers come on `/accepted` and `/rejected` below it.
#[must_use]
pub fn next_get(thing: &ThingName) -> String {
    make(thing, Topic::NextGet, "")
}

/// Where the service says that the next job is another one.
#[must_use]
pub fn notify_next(thing: &ThingName) -> String {
    make(thing, Topic::NotifyNext, "")
}

/// Where the next job is asked for and begun in one step. Not used by the agent.
#[must_use]
pub fn start_next(thing: &ThingName) -> String {
    make(thing, Topic::StartNext, "")
}

/// Where one job is asked for; its answers come on `/accepted` and `/rejected` below it.
#[must_use]
pub fn describe_job(thing: &ThingName, job: &JobId) -> String {
    make(thing, Topic::JobGet, job.as_str())
}

/// Where the status of a job is sent.
#[must_use]
pub fn update(thing: &ThingName, job: &JobId) -> String {
    make(thing, Topic::Update, job.as_str())
}

/// Filter for the statuses that were taken, of all jobs.
#[must_use]
pub fn update_accepted(thing: &ThingName) -> String {
    make(thing, Topic::UpdateAccepted, "+")
}

/// Filter for the statuses that were refused, of all jobs.
#[must_use]
pub fn update_rejected(thing: &ThingName) -> String {
    make(thing, Topic::UpdateRejected, "+")
}

/// Where blocks come in.
#[must_use]
pub fn stream_data(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    make(thing, Topic::StreamData(encoding), stream.as_str())
}

/// Where blocks are asked for.
#[must_use]
pub fn stream_get(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    make(thing, Topic::StreamGet(encoding), stream.as_str())
}

/// Where refused requests come in.
#[must_use]
pub fn stream_rejected(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    make(thing, Topic::StreamRejected(encoding), stream.as_str())
}

/// Where a description is asked for. Not used by the agent.
#[must_use]
pub fn stream_describe(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    make(thing, Topic::StreamDescribe(encoding), stream.as_str())
}

/// Where a description comes in. Not used by the agent.
#[must_use]
pub fn stream_description(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    make(thing, Topic::StreamDescription(encoding), stream.as_str())
}

#[cfg(test)]
mod tests;
