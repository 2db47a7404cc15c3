//! Topics of the Jobs service and of MQTT file streams: made for one thing, and told apart when they come in.
//!
//! The longest one is 12 + 128 + 9 + 128 + 17 = 294 bytes (`/description/json` of the longest thing and stream); the longest
//! that the agent uses, `/rejected/cbor`, has 291. That is more than the 256 bytes that AWS IoT allows for a topic: there
//! the two names together have at most 221 bytes, which is the service's to refuse.

use alloc::string::String;

use super::{JobId, StreamId, ThingName};

const ROOT: &str = "$aws/things/";
const JOBS: &str = "/jobs/";
const STREAMS: &str = "/streams/";

/// The encoding of a file stream, last level of its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// CBOR, what this agent and the C agent use.
    Cbor,
    /// JSON, what the modular libraries may use.
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

    fn from_level(level: &str) -> Option<Self> {
        match level {
            "cbor" => Some(Self::Cbor),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What an incoming topic of the own thing is. Names are slices of the topic and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
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
    /// `jobs/start-next/accepted`. Not used by the agent.
    StartNextAccepted,
    /// `jobs/start-next/rejected`.
    StartNextRejected,
    /// `jobs/<job>/get/accepted`: one job as asked for.
    JobAccepted(&'a str),
    /// `jobs/<job>/get/rejected`.
    JobRejected(&'a str),
    /// `jobs/<job>/update/accepted`: a status was taken.
    UpdateAccepted(&'a str),
    /// `jobs/<job>/update/rejected`: a status was refused.
    UpdateRejected(&'a str),
    /// `streams/<stream>/data/<encoding>`: a block.
    StreamData(&'a str, Encoding),
    /// `streams/<stream>/rejected/<encoding>`: a request was refused.
    StreamRejected(&'a str, Encoding),
    /// `streams/<stream>/description/<encoding>`. Not used by the agent.
    StreamDescription(&'a str, Encoding),
}

/// Tells what a topic is; none if it is another thing's, or nothing that the service sends.
#[must_use]
pub fn classify<'a>(thing: &ThingName, topic: &'a str) -> Option<Topic<'a>> {
    let rest = topic.strip_prefix(ROOT)?.strip_prefix(thing.as_str())?;
    if let Some(rest) = rest.strip_prefix(JOBS) {
        classify_job(rest)
    } else {
        classify_stream(rest.strip_prefix(STREAMS)?)
    }
}

fn classify_job(rest: &str) -> Option<Topic<'_>> {
    match rest {
        "notify-next" => return Some(Topic::NotifyNext),
        "notify" => return Some(Topic::Notify),
        "get/accepted" => return Some(Topic::PendingAccepted),
        "get/rejected" => return Some(Topic::PendingRejected),
        "start-next/accepted" => return Some(Topic::StartNextAccepted),
        "start-next/rejected" => return Some(Topic::StartNextRejected),
        "$next/get/accepted" => return Some(Topic::NextAccepted),
        "$next/get/rejected" => return Some(Topic::NextRejected),
        _ => {}
    }
    let (job, verb) = split(rest)?;
    let topic = match verb {
        "get/accepted" => Topic::JobAccepted(job),
        "get/rejected" => Topic::JobRejected(job),
        "update/accepted" => Topic::UpdateAccepted(job),
        "update/rejected" => Topic::UpdateRejected(job),
        _ => return None,
    };
    JobId::new(job).ok()?;
    Some(topic)
}

fn classify_stream(rest: &str) -> Option<Topic<'_>> {
    let (stream, verb) = split(rest)?;
    let (verb, level) = split(verb)?;
    let encoding = Encoding::from_level(level)?;
    let topic = match verb {
        "data" => Topic::StreamData(stream, encoding),
        "rejected" => Topic::StreamRejected(stream, encoding),
        "description" => Topic::StreamDescription(stream, encoding),
        _ => return None,
    };
    StreamId::new(stream).ok()?;
    Some(topic)
}

/// What stands before and after the first slash. (`split_once` brings a search machine along.)
fn split(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().position(|byte| byte == b'/')?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn join(parts: &[&str]) -> String {
    let bytes = parts.iter().map(|part| part.len()).sum();
    let mut topic = String::with_capacity(bytes);
    for part in parts {
        topic.push_str(part);
    }
    topic
}

fn job_topic(thing: &ThingName, verb: &str) -> String {
    join(&[ROOT, thing.as_str(), JOBS, verb])
}

fn stream_topic(thing: &ThingName, stream: &StreamId, verb: &str, encoding: Encoding) -> String {
    let level = encoding.level();
    join(&[ROOT, thing.as_str(), STREAMS, stream.as_str(), verb, level])
}

/// Where the next job is asked for; its answers come on `/accepted` and `/rejected` below it.
#[must_use]
pub fn next_get(thing: &ThingName) -> String {
    job_topic(thing, "$next/get")
}

/// Where the service says that the next job is another one.
#[must_use]
pub fn notify_next(thing: &ThingName) -> String {
    job_topic(thing, "notify-next")
}

/// Where the next job is asked for and begun in one step. Not used by the agent.
#[must_use]
pub fn start_next(thing: &ThingName) -> String {
    job_topic(thing, "start-next")
}

/// Where one job is asked for; its answers come on `/accepted` and `/rejected` below it.
#[must_use]
pub fn describe_job(thing: &ThingName, job: &JobId) -> String {
    join(&[ROOT, thing.as_str(), JOBS, job.as_str(), "/get"])
}

/// Where the status of a job is sent.
#[must_use]
pub fn update(thing: &ThingName, job: &JobId) -> String {
    join(&[ROOT, thing.as_str(), JOBS, job.as_str(), "/update"])
}

/// Filter for the statuses that were taken, of all jobs.
#[must_use]
pub fn update_accepted(thing: &ThingName) -> String {
    job_topic(thing, "+/update/accepted")
}

/// Filter for the statuses that were refused, of all jobs.
#[must_use]
pub fn update_rejected(thing: &ThingName) -> String {
    job_topic(thing, "+/update/rejected")
}

/// Where blocks come in.
#[must_use]
pub fn stream_data(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    stream_topic(thing, stream, "/data/", encoding)
}

/// Where blocks are asked for.
#[must_use]
pub fn stream_get(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    stream_topic(thing, stream, "/get/", encoding)
}

/// Where refused requests come in.
#[must_use]
pub fn stream_rejected(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    stream_topic(thing, stream, "/rejected/", encoding)
}

/// Where a description is asked for. Not used by the agent.
#[must_use]
pub fn stream_describe(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    stream_topic(thing, stream, "/describe/", encoding)
}

/// Where a description comes in. Not used by the agent.
#[must_use]
pub fn stream_description(thing: &ThingName, stream: &StreamId, encoding: Encoding) -> String {
    stream_topic(thing, stream, "/description/", encoding)
}

#[cfg(test)]
mod tests;
