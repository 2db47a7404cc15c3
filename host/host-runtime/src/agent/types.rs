//! Twins of `wit/agent/job-agent.wit` and `os.wit`: what goes into an agent and what comes out of it.
//!
//! The WIT texts are the authority on meaning. The numbers that a host prints by name are in
//! [`status`](crate::status). Not here: anything about how an agent is carried.

use super::octets;
use crate::types::{Blob, Failure, FileId, Outcome, Setting, Token, Version};

/// Who an agent build is (`job-agent.description`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Description {
    /// Kebab-case, at most 64 bytes.
    pub name: String,
    /// The build's version, semver text.
    pub version: String,
    /// Schemas that it reads and can write, the best one first.
    pub schemas: Vec<u32>,
}

/// The time of a call (`job-agent.context`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Context {
    /// The device's clock in milliseconds.
    pub now_ms: u64,
    /// Seconds since 1970 if the gateway knows them.
    pub wall_s: Option<u64>,
}

/// One target as the agent is told of it (`job-agent.target`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Target {
    /// Its number in job documents.
    pub file: FileId,
    /// Its name in the configuration.
    pub name: String,
    /// Policy.
    pub settings: Vec<Setting>,
}

/// What an agent is told about its device (`job-agent.config`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgentConfig {
    /// Thing name.
    pub device: String,
    /// Device-wide settings.
    pub settings: Vec<Setting>,
    /// Known file ids.
    pub targets: Vec<Target>,
}

/// Where to start from (`job-agent.saved`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Saved {
    /// Nothing.
    None,
    /// After a restart of the host or a trap.
    Journal(#[serde(with = "octets::blob")] Blob),
    /// After a swap, a park or a trap.
    Snapshot(#[serde(with = "octets::blob")] Blob),
}

/// What `start` gets (`job-agent.start-info`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StartInfo {
    /// The configuration as it is now.
    pub config: AgentConfig,
    /// The state.
    pub saved: Saved,
    /// The schema to write.
    pub schema: u32,
    /// Seed of everything that looks random.
    pub seed: u64,
    /// Tokens of operations still under way.
    pub outstanding: Vec<Token>,
    /// Highest application event sequence stored, 0 = none.
    pub last_event: u64,
}

/// Answer to an offered job (`job-agent.offer-answer`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfferAnswer {
    /// Take it.
    Accept,
    /// Ask again after so many milliseconds.
    Defer(u64),
    /// REJECTED with this reason.
    Reject(String),
}

/// How a job ended that the agent did not run (`job-agent.job-result`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct JobResult {
    /// OtaJobStatus: 0 IN_PROGRESS, 1 FAILED, 2 SUCCEEDED, 3 REJECTED.
    pub status: u8,
    /// statusDetails.
    pub details: Vec<(String, String)>,
}

/// Answer to a job that the built-in parser did not take (`job-agent.custom-answer`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CustomAnswer {
    /// Nobody takes it.
    Nobody,
    /// Somebody works on it.
    Taken,
    /// Run this job document instead.
    Document(Vec<u8>),
    /// It is over.
    Finished(JobResult),
}

/// What an operator or the application wants (`job-agent.command`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Ask the job service now.
    CheckForUpdate,
    /// Stop requesting until `Resume`.
    Suspend,
    /// Go on.
    Resume,
    /// The deferred activation of this file may happen.
    Activate(FileId),
    /// Verdict on the image in test.
    TestResult {
        /// The target.
        file: FileId,
        /// `None` = passed.
        failure: Option<Failure>,
    },
    /// Give up the active job.
    UserAbort,
    /// Answer to a received-job event.
    AnswerOffer {
        /// The job.
        job_id: String,
        /// The answer.
        answer: OfferAnswer,
    },
    /// Answer to a custom-job event.
    AnswerCustomJob {
        /// The job.
        job_id: String,
        /// The answer.
        answer: CustomAnswer,
    },
    /// Stop for good.
    Shutdown {
        /// Unsubscribe first.
        unsubscribe: bool,
    },
}

/// An MQTT message (`job-agent.message`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Full topic.
    pub topic: String,
    /// Payload.
    #[serde(with = "octets")]
    pub payload: Vec<u8>,
}

/// Everything that can happen to an agent (`job-agent.event`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Event {
    /// There is a connection; true = the broker kept the session.
    Connected(bool),
    /// There is none.
    Disconnected {
        /// Table in `job-agent.wit`.
        reason: u32,
        /// For people.
        detail: String,
    },
    /// MQTT messages of this device, in order.
    Messages(Vec<Message>),
    /// An operation is over.
    Done {
        /// Which one.
        token: Token,
        /// How.
        outcome: Outcome,
    },
    /// An operation goes on.
    Progress {
        /// Which one.
        token: Token,
        /// So far.
        done: u64,
        /// In all, 0 = not known.
        total: u64,
    },
    /// The answer to an HTTP request.
    HttpResponse {
        /// Which one.
        token: Token,
        /// HTTP status.
        status: u16,
        /// Size of the whole resource.
        total: Option<u64>,
        /// The bytes asked for.
        #[serde(with = "octets")]
        body: Vec<u8>,
    },
    /// The target of this file has come up.
    TargetRestarted(FileId),
    /// The deadline of the last turn has passed.
    Timeout,
    /// Somebody wants something.
    Command(Command),
    /// Share of the bandwidth cap in bytes a second.
    Allowance(u64),
    /// For builds that know more.
    Custom {
        /// Kebab-case name.
        name: String,
        /// At most 128 KiB.
        #[serde(with = "octets")]
        bytes: Vec<u8>,
    },
}

impl Event {
    /// One message.
    #[must_use]
    pub fn message(topic: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        let (topic, payload) = (topic.into(), payload.into());
        Self::Messages(vec![Message { topic, payload }])
    }
}

/// What an agent waits for (`job-agent.wait`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wait {
    /// Number of [`WAIT_NAMES`](crate::status::WAIT_NAMES).
    pub reason: u32,
    /// For people.
    pub detail: String,
    /// Since when, on the device's clock.
    pub since_ms: u64,
    /// How often it was asked for.
    pub tries: u32,
    /// When the agent will give up.
    pub gives_up_ms: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<Failure>,
}

/// Where one file of the job stands (`job-agent.file-status`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileStatus {
    /// The target.
    pub file: FileId,
    /// Number of [`PHASE_NAMES`](crate::status::PHASE_NAMES).
    pub phase: u8,
    /// Blocks held; while installing bytes installed.
    pub done: u64,
    /// Blocks in all; while installing bytes in all.
    pub total: u64,
    /// Version of the new image, if known.
    pub version: Option<Version>,
}

/// What an agent is doing (`job-agent.agent-status`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgentStatus {
    /// Number of [`STATE_NAMES`](crate::status::STATE_NAMES).
    pub state: u8,
    /// The active job.
    pub job_id: Option<String>,
    /// Its files.
    pub files: Vec<FileStatus>,
    /// Block messages seen since the transfer began.
    pub received: u64,
    /// Blocks taken.
    pub processed: u64,
    /// Blocks not taken.
    pub dropped: u64,
}

/// What a call leaves behind (`job-agent.turn`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Turn {
    /// Call `Timeout` at this instant.
    pub deadline_ms: Option<u64>,
    /// The status, if it has changed.
    pub status: Option<AgentStatus>,
    /// The wait, if it has changed.
    pub wait: Option<Wait>,
    /// Why the command or custom value in this event was refused.
    pub refused: Option<Failure>,
}

/// News for the application (`os.application-event`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ApplicationEvent {
    /// The agent's own count, from 1.
    pub sequence: u64,
    /// Number of [`EVENT_NAMES`](crate::status::EVENT_NAMES).
    pub kind: u32,
    /// The job it is about.
    pub job_id: Option<String>,
    /// The file it is about.
    pub file: Option<FileId>,
    /// Why, for kinds that have a reason.
    pub failure: Option<Failure>,
    /// The version it is about.
    pub version: Option<Version>,
    /// Job document or status as sent; text wherever an agent keeps to the contract.
    #[serde(with = "text")]
    pub document: Vec<u8>,
}

/// Documents are JSON: shown as text, not as a list of numbers.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        String::deserialize(deserializer).map(String::into_bytes)
    }
}
