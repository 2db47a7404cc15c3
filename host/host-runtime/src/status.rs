//! What a device shows of itself: for `otad status`, for an application, for a log.
//!
//! The numbers are those documented in `wit/agent`; the tables here give them names and decide nothing. Instants of the
//! device's clock mean nothing outside it, so a report holds durations as of the moment it was made.

use std::borrow::Cow;

use crate::agent::{AgentStatus, FileStatus, Wait};
use crate::target::TargetReport;
use crate::types::{Failure, FileId};

/// `agent-status.state`: the C agent's names, then ours.
pub const STATE_NAMES: [&str; 18] = [
    "Init",
    "Ready",
    "RequestingJob",
    "WaitingForJob",
    "CreatingFile",
    "RequestingFileBlock",
    "WaitingForFileBlock",
    "ClosingFile",
    "Suspended",
    "ShuttingDown",
    "Stopped",
    "Installing",
    "WaitingForActivation",
    "WaitingForRestart",
    "Testing",
    "Committing",
    "GoingBack",
    "Reporting",
];

/// `agent-status.state` of an agent that has not yet asked its targets.
pub const STATE_INIT: u8 = 0;

/// `agent-status.state` of an agent that has stopped for good.
pub const STATE_STOPPED: u8 = 10;

/// The numbers of [`STATE_NAMES`] in which an agent receives an image: it creates the file, asks for blocks, or waits for
/// them.
pub const STATES_RECEIVING: std::ops::RangeInclusive<u8> = 4..=6;

/// `file-status.phase`.
pub const PHASE_NAMES: [&str; 15] = [
    "ToDo",
    "Creating",
    "Receiving",
    "Closing",
    "Verified",
    "Installing",
    "Installed",
    "Armed",
    "Restarting",
    "Testing",
    "Committing",
    "Committed",
    "GoingBack",
    "WentBack",
    "Failed",
];

/// `wait.reason`; 0 is not used.
pub const WAIT_NAMES: [&str; 11] = [
    "nothing",
    "a job",
    "the reply to a job request",
    "blocks",
    "an operation",
    "activation",
    "a restart",
    "a test's verdict",
    "a status's acknowledgement",
    "a connection",
    "a resume",
];

/// `wait.reason` of an idle agent: may wait without a deadline.
pub const WAIT_JOB: u32 = 1;

/// `wait.reason` of an agent that the operator has suspended: may wait without a deadline.
pub const WAIT_RESUME: u32 = 10;

/// `application-event.kind`, for applications to match on. The contract says what each means.
pub mod event {
    /// A verified image waits to be activated; where the operator deferred it, for the application's word.
    pub const ACTIVATE: u32 = 0;
    /// An update failed; the old image runs.
    pub const FAIL: u32 = 1;
    /// The new image runs and waits for a verdict.
    pub const START_TEST: u32 = 2;
    /// Kept for the number; never emitted.
    pub const PROCESSED: u32 = 3;
    /// Version or state of the target are not those of the new image.
    pub const SELF_TEST_FAILED: u32 = 4;
    /// A job that no parser took; the application may.
    pub const CUSTOM_JOB: u32 = 5;
    /// A job came, or is offered.
    pub const RECEIVED_JOB: u32 = 6;
    /// A file that is no firmware is verified.
    pub const UPDATE_COMPLETE: u32 = 7;
    /// The job service has nothing to do.
    pub const NO_ACTIVE_JOB: u32 = 8;
    /// The service has taken the job's last status.
    pub const JOB_ENDED: u32 = 16;
    /// A target runs its former image again.
    pub const ROLLED_BACK: u32 = 17;
}

/// `application-event.kind`; numbers without a name are not in use.
pub const EVENT_NAMES: [(u32, &str); 11] = [
    (event::ACTIVATE, "activate"),
    (event::FAIL, "fail"),
    (event::START_TEST, "start-test"),
    (event::PROCESSED, "processed"),
    (event::SELF_TEST_FAILED, "self-test-failed"),
    (event::CUSTOM_JOB, "custom-job"),
    (event::RECEIVED_JOB, "received-job"),
    (event::UPDATE_COMPLETE, "update-complete"),
    (event::NO_ACTIVE_JOB, "no-active-job"),
    (event::JOB_ENDED, "job-ended"),
    (event::ROLLED_BACK, "rolled-back"),
];

/// Name of a state, phase or wait; `unknown` for what a newer agent says.
#[must_use]
pub fn name(table: &'static [&'static str], number: u32) -> &'static str {
    usize::try_from(number)
        .ok()
        .and_then(|at| table.get(at))
        .copied()
        .unwrap_or("unknown")
}

/// The same; what has no name is told by its number.
#[must_use]
pub fn name_or_number(table: &'static [&'static str], number: u32) -> Cow<'static, str> {
    match usize::try_from(number).ok().and_then(|at| table.get(at)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(number.to_string()),
    }
}

/// Name of an application event's kind.
#[must_use]
pub fn event_name(kind: u32) -> &'static str {
    EVENT_NAMES
        .iter()
        .find(|(number, _)| *number == kind)
        .map_or("unknown", |(_, name)| name)
}

/// Everything about one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceStatus {
    /// Thing name.
    pub device: String,
    /// Whether there is an MQTT connection.
    pub connected: bool,
    /// The agent that serves it.
    pub agent: AgentReport,
    /// `agent-status.state`.
    pub state: u8,
    /// Its name, as the C agent prints it.
    pub state_name: String,
    /// The active job.
    pub job_id: Option<String>,
    /// Its files.
    pub files: Vec<FileReport>,
    /// Block messages.
    pub counters: Counters,
    /// What the agent waits for.
    pub wait: Option<WaitReport>,
    /// Its targets.
    pub targets: Vec<TargetReport>,
    /// Newest application event that is stored, 0 = none.
    pub last_event: u64,
    /// A target that needs this process restarted.
    pub restart_requested: Option<FileId>,
    /// What went wrong last in the host's keeping: a trap, a journal or an event that could not be stored.
    pub last_error: Option<String>,
}

/// The agent build and its instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgentReport {
    /// Name of the build.
    pub name: String,
    /// Version of the build.
    pub version: String,
    /// Where it came from.
    pub label: String,
    /// SHA-256 of the component, hexadecimal; zeros for a native one.
    pub digest: String,
    /// SHA-256 of the manifest that vouches for it, hexadecimal: the same bytes may be signed for more than one use.
    #[serde(default)]
    pub manifest: Option<String>,
    /// How it is.
    pub life: AgentLife,
    /// Linear memory of the instance in bytes.
    pub memory_bytes: u64,
    /// Traps in a row.
    pub strikes: u32,
    /// When a broken agent is tried again, in milliseconds from now.
    pub retry_in_ms: Option<u64>,
    /// Label of the build before it, which a roll-back brings back.
    #[serde(default)]
    pub former: Option<String>,
    /// It has not proved itself yet: if it breaks, the build before it serves again.
    #[serde(default)]
    pub on_trial: bool,
    /// The build that was refused or sent back last, and why.
    #[serde(default)]
    pub refused: Option<String>,
    /// Builds that have taken over since the process started.
    #[serde(default)]
    pub swaps: u64,
    /// Another build is being tried, and takes over if it is no worse.
    #[serde(default)]
    pub swapping: bool,
}

/// Whether there is an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentLife {
    /// Not started yet.
    #[default]
    New,
    /// It runs.
    Running,
    /// It has nothing to do: what it knows is kept, and it is started from that when something happens.
    Parked,
    /// It traps again and again; the host tries it from time to time.
    Broken,
    /// It was shut down.
    Stopped,
}

/// The C agent's four counters, with the host's mailbox counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Block messages that arrived for this device since the transfer began.
    pub received: u64,
    /// Those that were queued for the agent.
    pub queued: u64,
    /// Blocks that the agent took.
    pub processed: u64,
    /// Those that host or agent did not take.
    pub dropped: u64,
}

/// One file of the job.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileReport {
    /// The target.
    pub file_id: FileId,
    /// `file-status.phase`.
    pub phase: u8,
    /// Its name.
    pub phase_name: String,
    /// Blocks held; while installing bytes.
    pub done: u64,
    /// Blocks in all; while installing bytes.
    pub total: u64,
    /// Version of the new image, if known.
    pub version: Option<String>,
}

/// What an agent waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WaitReport {
    /// `wait.reason`.
    pub reason: u32,
    /// Its name.
    pub reason_name: String,
    /// The agent's words.
    pub detail: String,
    /// For how long it has been waiting.
    pub waiting_ms: u64,
    /// How often it was asked for.
    pub tries: u32,
    /// When it gives up, in milliseconds from now; `None` = never.
    pub gives_up_in_ms: Option<u64>,
    /// When it tries again, in milliseconds from now; `None` = it waits to be told.
    pub next_try_in_ms: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<Failure>,
}

impl WaitReport {
    /// The report of a wait as of `now_ms`.
    #[must_use]
    pub fn new(wait: &Wait, deadline_ms: Option<u64>, now_ms: u64) -> Self {
        let from_now = |instant: u64| instant.saturating_sub(now_ms);
        Self {
            reason: wait.reason,
            reason_name: name(&WAIT_NAMES, wait.reason).to_owned(),
            detail: wait.detail.clone(),
            waiting_ms: now_ms.saturating_sub(wait.since_ms),
            tries: wait.tries,
            gives_up_in_ms: wait.gives_up_ms.map(from_now),
            next_try_in_ms: deadline_ms.map(from_now),
            last_error: wait.last_error.clone(),
        }
    }
}

impl From<&FileStatus> for FileReport {
    fn from(file: &FileStatus) -> Self {
        Self {
            file_id: file.file,
            phase: file.phase,
            phase_name: name(&PHASE_NAMES, file.phase.into()).to_owned(),
            done: file.done,
            total: file.total,
            version: file.version.map(|version| version.to_string()),
        }
    }
}

impl Counters {
    /// What the agent counted, what waits for it, and what the host dropped before the agent saw it.
    #[must_use]
    pub fn new(agent: &AgentStatus, waiting: u64, host_dropped: u64) -> Self {
        // A guest's numbers may be anything.
        let queued = agent.received.saturating_add(waiting);
        Self {
            received: queued.saturating_add(host_dropped),
            queued,
            processed: agent.processed,
            dropped: agent.dropped.saturating_add(host_dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_the_contract() {
        assert_eq!(name(&STATE_NAMES, 6), "WaitingForFileBlock");
        assert_eq!(name(&STATE_NAMES, STATE_STOPPED.into()), "Stopped");
        assert_eq!(name(&STATE_NAMES, 17), "Reporting");
        assert_eq!(name(&PHASE_NAMES, 14), "Failed");
        assert_eq!(name(&WAIT_NAMES, WAIT_RESUME), "a resume");
        assert_eq!(name(&WAIT_NAMES, 99), "unknown");
        assert_eq!(name_or_number(&WAIT_NAMES, WAIT_RESUME), "a resume");
        assert_eq!(name_or_number(&WAIT_NAMES, 99), "99");
        assert_eq!(event_name(16), "job-ended");
        assert_eq!(event_name(9), "unknown");
    }

    #[test]
    fn the_counters_add_up_over_host_and_agent() {
        let agent = AgentStatus {
            received: 10,
            processed: 7,
            dropped: 3,
            ..AgentStatus::default()
        };
        let counters = Counters::new(&agent, 2, 5);
        let wanted = Counters {
            received: 17,
            queued: 12,
            processed: 7,
            dropped: 8,
        };
        assert_eq!(counters, wanted);
    }

    #[test]
    fn a_counter_of_the_agent_that_cannot_be_is_no_overflow() {
        let agent = AgentStatus {
            received: u64::MAX,
            dropped: u64::MAX,
            ..AgentStatus::default()
        };
        let counters = Counters::new(&agent, 1, 5);
        assert_eq!(
            [counters.received, counters.queued, counters.dropped],
            [u64::MAX; 3]
        );
    }

    #[test]
    fn a_wait_is_told_in_durations_from_now() {
        let wait = Wait {
            reason: 3,
            detail: "block 17 of file 1".into(),
            since_ms: 1000,
            tries: 4,
            gives_up_ms: Some(61_000),
            last_error: None,
        };
        let report = WaitReport::new(&wait, Some(12_500), 11_000);
        assert_eq!(report.reason_name, "blocks");
        assert_eq!(report.waiting_ms, 10_000);
        assert_eq!(report.gives_up_in_ms, Some(50_000));
        assert_eq!(report.next_try_in_ms, Some(1500));
        // An instant that has passed is now, not an overflow.
        let late = WaitReport::new(&wait, Some(12_500), 70_000);
        assert_eq!(
            (late.gives_up_in_ms, late.next_try_in_ms),
            (Some(0), Some(0))
        );
    }
    #[test]
    fn a_status_goes_through_json() {
        let status = DeviceStatus {
            device: "gateway-7".into(),
            wait: Some(WaitReport::default()),
            targets: vec![TargetReport::default()],
            files: vec![FileReport::default()],
            ..DeviceStatus::default()
        };
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(r#""life":"new""#), "{text}");
        assert_eq!(serde_json::from_str::<DeviceStatus>(&text).unwrap(), status);
    }
}
