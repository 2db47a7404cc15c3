//! Which jobs of a device wait for somebody, as far as its status and its stored events tell: `otad job list`.
//!
//! The agent's status names a job only once it is taken. An offer, and a job that nobody has taken yet, are known by
//! the event that announced them, as long as nothing that came after says otherwise.

use host_runtime::events::{EventRing, StoredEvent};
use host_runtime::status::{DeviceStatus, WAIT_JOB};
use serde::{Deserialize, Serialize};

/// `agent-status.state` of an agent that has no update under way.
const WAITING_FOR_JOB: u8 = 3;

/// Numbers of `os.wit`.
const CUSTOM_JOB: u32 = 5;
const RECEIVED_JOB: u32 = 6;

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// `otad job approve` or `decline`.
    Offer,
    /// Somebody to take it: a hook, or `otad job finish`.
    Taker,
    /// `otad job finish`.
    Finish,
    /// Nobody: the agent works on it.
    Nothing,
}

/// One job of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// The device.
    pub device: String,
    /// Its id.
    pub job_id: String,
    /// What it waits for.
    pub waits_for: Waiting,
    /// The agent's state.
    pub state_name: String,
    /// When the agent gives up waiting, in milliseconds from now.
    pub gives_up_in_ms: Option<u64>,
    /// The job document, if its event is still stored.
    pub document: Option<String>,
}

impl JobView {
    /// What it waits for, and whose turn it is; `None` = the agent's.
    fn words(&self) -> Option<String> {
        let job = &self.job_id;
        Some(match self.waits_for {
            Waiting::Offer => format!(
                "job {job} waits for an answer: that of a hook, or `otad job approve {job}` or decline"
            ),
            Waiting::Taker => {
                format!("job {job} is no update: waits for a hook, or for `otad job finish {job}`")
            }
            Waiting::Finish => {
                format!("job {job} is run by the application: ends by `otad job finish {job}`")
            }
            Waiting::Nothing => return None,
        })
    }
}

/// The job of a device that waits for somebody's answer, and the words for that.
#[must_use]
pub fn waiting(status: &DeviceStatus, events: &EventRing) -> Option<(JobView, String)> {
    if status.state != WAITING_FOR_JOB {
        return None;
    }
    // Nothing is stored after what announced a job that nobody has taken.
    let from = match status.job_id {
        Some(_) => 0,
        None => events.last().saturating_sub(1),
    };
    let job = jobs(status, &events.after(from, usize::MAX)).pop()?;
    let words = job.words()?;
    Some((job, words))
}

/// The jobs of a device: at most one, for an agent has one at a time.
#[must_use]
pub fn jobs(status: &DeviceStatus, events: &[StoredEvent]) -> Vec<JobView> {
    let announced = |stored: &&StoredEvent| [CUSTOM_JOB, RECEIVED_JOB].contains(&stored.event.kind);
    let last = events.iter().rev().find(announced);
    let (job_id, waits_for) = match (&status.job_id, last) {
        (Some(job), _) if status.state == WAITING_FOR_JOB => (job.clone(), Waiting::Finish),
        (Some(job), _) => (job.clone(), Waiting::Nothing),
        (None, Some(last)) if is_open(status, last, events) => {
            let waits_for = match last.event.kind {
                RECEIVED_JOB => Waiting::Offer,
                _ => Waiting::Taker,
            };
            (last.event.job_id.clone().unwrap_or_default(), waits_for)
        }
        (None, _) => return Vec::new(),
    };
    let own = events.iter().rev().find(|stored| {
        announced(stored) && stored.event.job_id.as_deref() == Some(job_id.as_str())
    });
    vec![JobView {
        device: status.device.clone(),
        waits_for,
        state_name: status.state_name.clone(),
        gives_up_in_ms: status.wait.as_ref().and_then(|wait| wait.gives_up_in_ms),
        document: own.map(|own| String::from_utf8_lossy(&own.event.document).into_owned()),
        job_id,
    }]
}

/// Whether the job of this event still waits for an answer: nothing came after it, and the agent is idle.
fn is_open(status: &DeviceStatus, last: &StoredEvent, events: &[StoredEvent]) -> bool {
    let Some(job) = last.event.job_id.as_deref() else {
        return false;
    };
    let is_last = events
        .iter()
        .all(|stored| stored.event.sequence <= last.event.sequence);
    // An agent that only waits for a job names in its words the one whose answer it waits for; one that asks the
    // service in between does not.
    let named = status.wait.as_ref().is_none_or(|wait| {
        wait.reason != WAIT_JOB || wait.detail.split_whitespace().last() == Some(job)
    });
    status.state == WAITING_FOR_JOB && is_last && named
}
