//! The place of a device's agent: one instance, what it said last, and what is done when it breaks.
//!
//! A trap throws the instance away. The first one is answered by an instance started from the last snapshot, further
//! ones by an instance started from the journal, and after [`STRIKES_MAX`] only from time to time, with growing pauses:
//! a broken agent is tried for ever, because the next build or the next job may find it well. The event that trapped is
//! not repeated. A build on trial has no strikes: its first trap brings the build before it back (`trial.rs`). Not here: where
//! state and seeds come from, and what happens outside (`device/`).

use std::sync::Arc;

use super::text::{FAULT_MAX_BYTES, clean};
use super::trial::{Former, FormerAgent};
use super::{
    AgentBuild, AgentInstance, AgentStatus, Context, Event, Outside, Saved, StartInfo, Turn, Wait,
};
use crate::choice::SentBack;
use crate::engine::GuestFault;
use crate::status::{AgentLife, STATE_STOPPED, WAIT_JOB, WAIT_RESUME};
use crate::types::{Blob, Failure};

/// Traps in a row that are answered at once. The third start is from the journal and has had a different event; what
/// traps then will trap again.
pub const STRIKES_MAX: u32 = 3;

/// Traps in a row after which the job under way is given up: what three starts at once and three with pauses (7 s) did
/// not get over hangs on the job, or on what the cloud sends for it.
pub const STRIKES_OF_A_JOB_MAX: u32 = 6;

/// First pause of a broken agent, in milliseconds; each further strike doubles it.
pub const BACKOFF_MIN_MS: u64 = 1000;

/// Longest pause of a broken agent, in milliseconds: an operator who has mended something sees it within 5 minutes.
pub const BACKOFF_MAX_MS: u64 = 5 * 60 * 1000;

/// An agent that ran so long since its last trap has no strikes any more, in milliseconds.
const FORGIVEN_AFTER_MS: u64 = 10 * 60 * 1000;

/// Most bytes of a snapshot; the contract's limit.
const SNAPSHOT_MAX_BYTES: usize = 256 * 1024;

/// An agent that waits without a deadline is asked again after this time, in milliseconds: slow enough to cost nothing,
/// quick enough that a job does not hang.
const MISSING_DEADLINE_MS: u64 = 60 * 1000;

/// Deadlines in the past that are taken as they are, one after the other. The agent's own timers are a handful.
const SPINS_MAX: u32 = 100;

/// Pause of an agent that goes on asking to be called at once, in milliseconds.
const SPIN_PAUSE_MS: u64 = 1000;

/// Makes the outside of a new instance.
pub type OutsideFactory = Box<dyn Fn() -> Box<dyn Outside> + Send>;

/// A snapshot kept for the next trap.
pub(super) struct Kept {
    pub(super) blob: Blob,
    pub(super) stamp: Stamp,
}

/// What an instance begins with, and, of a snapshot, what was true when it was taken.
pub(super) type Resort = (Saved, Option<Stamp>);

/// What was true when a snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Journals stored so far: a snapshot older than the last journal is not used.
    pub journal: u64,
    /// Changes of the connection so far: later ones are told to the new instance.
    pub connection: u64,
    /// When that was: a snapshot has durations, and they run from here.
    pub at: Context,
}

/// How a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartEnd {
    /// It runs.
    Started,
    /// The agent refused the start; there is no instance.
    Refused(Failure),
    /// It trapped; the slot says when to try again.
    Broken(GuestFault),
}

/// What an event led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// Why a command or custom value was refused.
    pub refused: Option<Failure>,
    /// The status has changed: time for a snapshot.
    pub changed: bool,
}

/// One agent of one device.
pub struct AgentSlot {
    pub(super) device: Arc<str>,
    pub(super) build: Arc<AgentBuild>,
    pub(super) outside: OutsideFactory,
    pub(super) instance: Option<Box<dyn AgentInstance>>,
    pub(super) life: AgentLife,
    pub(super) kept: Option<Kept>,
    /// The build before the one that serves.
    pub(super) former: Option<Box<Former>>,
    /// A build was sent back, and nobody was told yet.
    pub(super) sent_back: Option<Box<SentBack>>,
    /// What the next start is from, in place of snapshot and journal.
    pub(super) resort: Option<Box<Resort>>,
    /// What is left to start from if the journal of a build that was sent back is no good; the last one comes first.
    pub(super) last_resorts: Vec<Resort>,
    pub(super) strikes: u32,
    faults: u32,
    fault_at_ms: u64,
    pub(super) retry_at_ms: Option<u64>,
    pub(super) spins: u32,
    pub(super) deadline_missing: bool,
    deadline_ms: Option<u64>,
    status: AgentStatus,
    wait: Option<Wait>,
    last_error: Option<String>,
}

impl AgentSlot {
    /// An empty slot for a build, and the one before it.
    #[must_use]
    pub fn new(
        device: Arc<str>,
        build: Arc<AgentBuild>,
        former: Option<FormerAgent>,
        outside: OutsideFactory,
    ) -> Self {
        Self {
            device,
            build,
            outside,
            instance: None,
            life: AgentLife::New,
            kept: None,
            former: former.map(|former| Box::new(Former::from(former))),
            sent_back: None,
            resort: None,
            last_resorts: Vec::new(),
            strikes: 0,
            faults: 0,
            fault_at_ms: 0,
            retry_at_ms: None,
            spins: 0,
            deadline_missing: false,
            deadline_ms: None,
            status: AgentStatus::default(),
            wait: None,
            last_error: None,
        }
    }

    /// Start an instance; `since` is what was true when the snapshot that it begins with was taken. For the instance no
    /// time has passed since then: the durations in a snapshot go on from there.
    pub fn start(&mut self, now: Context, since: Option<Stamp>, info: StartInfo) -> StartEnd {
        self.retry_at_ms = None;
        let at = since.map_or(now, |stamp| stamp.at);
        let started = self
            .build
            .instantiate((self.outside)())
            .and_then(|mut instance| Ok((instance.start(at, info)?, instance)));
        match started {
            Ok((Ok(turn), instance)) => {
                self.instance = Some(instance);
                self.life = AgentLife::Running;
                self.last_resorts.clear();
                self.begin_trial(now.now_ms);
                self.accept(now, turn, false);
                StartEnd::Started
            }
            Ok((Err(failure), _)) => {
                let words = clean(&failure.to_string(), FAULT_MAX_BYTES);
                self.last_error = Some(format!("the agent refused to start: {words}"));
                StartEnd::Refused(failure)
            }
            Err(fault) => {
                if !self.last_resorts.is_empty() && self.kept.take().is_none() {
                    // From the same it would break again.
                    self.resort = self.last_resorts.pop().map(Box::new);
                }
                self.strike(now, "start", &fault.to_string());
                StartEnd::Broken(fault)
            }
        }
    }

    /// Give the instance an event.
    ///
    /// # Errors
    /// It broke and is gone; the slot says when to start another one. Also when there is none.
    pub fn handle(&mut self, now: Context, event: Event) -> Result<Handled, GuestFault> {
        let after_timeout = event == Event::Timeout;
        let Some(instance) = &mut self.instance else {
            return Err(GuestFault::Trapped("there is no instance".into()));
        };
        match instance.handle(now, event) {
            Ok(mut turn) => {
                let handled = Handled {
                    refused: turn.refused.take(),
                    changed: turn.status.is_some(),
                };
                let told = turn.status.as_ref();
                let has_new_job = told.is_some_and(|told| told.job_id != self.status.job_id);
                let left = has_new_job.then(|| self.status.job_id.clone()).flatten();
                self.accept(now, turn, after_timeout);
                if left.is_some() {
                    self.let_go(left);
                }
                Ok(handled)
            }
            Err(fault) => {
                self.strike(now, "event", &fault.to_string());
                Err(fault)
            }
        }
    }

    /// The instance goes against what an agent may do, and is ended: a strike, as a trap is.
    pub fn end(&mut self, now: Context, what: &str) {
        if self.instance.is_some() {
            self.strike(now, "event", what);
        }
    }

    /// Keep a snapshot for the next trap. A trap in it is a strike like any other.
    pub fn keep_snapshot(&mut self, now: Context, stamp: Stamp) {
        let Some(instance) = &mut self.instance else {
            return;
        };
        match instance.snapshot(now) {
            Ok(blob) if blob.bytes.len() > SNAPSHOT_MAX_BYTES => {
                self.kept = None;
                let (device, size) = (&self.device, blob.bytes.len());
                tracing::warn!(%device, "a snapshot of {size} bytes is not kept, the limit is {SNAPSHOT_MAX_BYTES}");
            }
            Ok(blob) => self.kept = Some(Kept { blob, stamp }),
            Err(fault) => self.strike(now, "snapshot", &fault.to_string()),
        }
    }

    /// The last snapshot, unless a newer journal exists.
    pub(crate) fn snapshot(&self, generation: u64) -> Option<(&Blob, Stamp)> {
        let kept = self.kept.as_ref();
        let newest = kept.filter(|kept| kept.stamp.journal == generation);
        newest.map(|kept| (&kept.blob, kept.stamp))
    }

    /// Whether the last snapshot is the one of which this was true.
    pub(crate) fn keeps(&self, since: Option<Stamp>) -> bool {
        let kept = self.kept.as_ref().map(|kept| kept.stamp);
        since.is_some() && since == kept
    }

    /// What the next instance is started from: the last snapshot, unless a newer journal exists or it did not help before;
    /// otherwise the journal. And, of a snapshot, what was true when it was taken.
    pub fn saved(&mut self, generation: u64, journal: Option<Blob>) -> (Saved, Option<Stamp>) {
        if let Some(resort) = self.resort.take() {
            return *resort;
        }
        let usable = self.strikes <= 1;
        self.kept
            .take_if(|kept| !usable || kept.stamp.journal != generation);
        match self.snapshot(generation) {
            Some((blob, stamp)) => (Saved::Snapshot(blob.clone()), Some(stamp)),
            None => (journal.map_or(Saved::None, Saved::Journal), None),
        }
    }

    /// The agent refused its own saved state: a snapshot is dropped, a build on trial is sent back, what is left after one
    /// that was is tried; otherwise it is a strike.
    pub fn refuse_saved(&mut self, now: Context, failure: &Failure) {
        if self.kept.take().is_some() {
            self.retry_at_ms = Some(now.now_ms);
        } else if let Some(resort) = self.last_resorts.pop() {
            self.resort = Some(Box::new(resort));
            self.retry_at_ms = Some(now.now_ms);
        } else {
            self.strike(now, "start", &failure.to_string());
        }
    }

    /// What is saved is another build's: begin with nothing, at once.
    pub(crate) fn begin_anew(&mut self, now: Context) {
        self.last_resorts.push((Saved::None, None));
        self.retry_at_ms = Some(now.now_ms);
    }

    /// The status with counters as of now; of an agent that does not run the last one.
    pub fn fresh_status(&mut self, now: Context) -> &AgentStatus {
        if let Some(instance) = &mut self.instance {
            match instance.status() {
                Ok(status) => self.status = status,
                Err(fault) => self.strike(now, "status", &fault.to_string()),
            }
        }
        &self.status
    }

    /// When a broken agent is to be started again.
    #[must_use]
    pub fn retry_at_ms(&self) -> Option<u64> {
        self.retry_at_ms
    }

    /// When the agent wants to be called; also of one that is parked.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let is_there = self.is_running() || self.is_parked();
        self.deadline_ms.filter(|_| is_there)
    }

    /// Whether there is an instance.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.instance.is_some()
    }

    /// How it is.
    #[must_use]
    pub fn life(&self) -> AgentLife {
        self.life
    }

    /// The build.
    #[must_use]
    pub fn build(&self) -> &Arc<AgentBuild> {
        &self.build
    }

    /// The last status.
    #[must_use]
    pub fn status(&self) -> &AgentStatus {
        &self.status
    }

    /// The last wait.
    #[must_use]
    pub fn wait(&self) -> Option<&Wait> {
        self.wait.as_ref()
    }

    /// Traps in a row.
    #[must_use]
    pub fn strikes(&self) -> u32 {
        self.strikes
    }

    /// Traps since the process started.
    #[must_use]
    pub fn faults(&self) -> u32 {
        self.faults
    }

    /// The last trap, or why a start was refused.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Tell whoever listens that more calls follow at once, or that no more do.
    pub(crate) fn gather(&mut self, more_comes: bool) {
        if let Some(instance) = &mut self.instance {
            instance.gather(more_comes);
        }
    }

    /// Linear memory of the instance in bytes.
    pub fn memory_bytes(&mut self) -> usize {
        self.instance
            .as_mut()
            .map_or(0, |instance| instance.memory_bytes())
    }

    /// Take over what a turn says.
    pub(super) fn accept(&mut self, now: Context, turn: Turn, after_timeout: bool) {
        if let Some(status) = turn.status {
            self.status = status;
        }
        if let Some(wait) = turn.wait {
            self.wait = Some(wait);
        }
        if self.status.state == STATE_STOPPED {
            self.life = AgentLife::Stopped;
            self.instance = None;
            self.kept = None;
            self.deadline_ms = None;
            return;
        }
        self.deadline_ms = match turn.deadline_ms {
            Some(at) => Some(self.paced(now.now_ms, at, after_timeout)),
            None => self.checked_missing_deadline(now.now_ms),
        };
    }

    /// A deadline that does not make the host spin.
    fn paced(&mut self, now_ms: u64, at_ms: u64, after_timeout: bool) -> u64 {
        self.deadline_missing = false;
        if !after_timeout || at_ms > now_ms {
            if at_ms > now_ms {
                self.spins = 0;
            }
            return at_ms;
        }
        self.spins = self.spins.saturating_add(1);
        if self.spins < SPINS_MAX {
            return at_ms;
        }
        if self.spins == SPINS_MAX {
            let device = &self.device;
            tracing::warn!(%device, "the agent asks to be called at once, again and again; it is slowed down");
        }
        now_ms + SPIN_PAUSE_MS
    }

    /// Whether this agent may wait without a deadline; if not, that is a fault of its, and the host sets one.
    fn checked_missing_deadline(&mut self, now_ms: u64) -> Option<u64> {
        let reason = self.wait.as_ref().map(|wait| wait.reason);
        if matches!(reason, Some(WAIT_JOB | WAIT_RESUME)) {
            self.deadline_missing = false;
            return None;
        }
        if !self.deadline_missing {
            self.deadline_missing = true;
            let (device, state) = (&self.device, self.status.state);
            tracing::error!(%device, state, ?reason, "fault of the agent: it waits without a deadline");
        }
        Some(now_ms + MISSING_DEADLINE_MS)
    }

    /// What was long ago counts no more.
    pub(super) fn forgive(&mut self, now: Context) {
        if now.now_ms.saturating_sub(self.fault_at_ms) > FORGIVEN_AFTER_MS {
            self.strikes = 0;
        }
    }

    /// The instance broke.
    fn strike(&mut self, now: Context, call: &str, what: &str) {
        self.instance = None;
        self.forgive(now);
        // A trap names the guest's functions, and those are called what the guest likes.
        let what = clean(what, FAULT_MAX_BYTES);
        let text = format!("the agent broke in `{call}`: {what}");
        self.faults = self.faults.saturating_add(1);
        if self.is_on_trial() {
            self.send_back(now, &text);
            self.last_error = Some(text);
            return;
        }
        self.fault_at_ms = now.now_ms;
        self.strikes = self.strikes.saturating_add(1);
        let pause = backoff_ms(self.strikes);
        self.retry_at_ms = Some(now.now_ms + pause);
        self.life = if pause == 0 {
            AgentLife::Running
        } else {
            AgentLife::Broken
        };
        let (device, strikes) = (&self.device, self.strikes);
        if pause == 0 {
            tracing::warn!(%device, strikes, "{text}; it is started again");
        } else {
            tracing::error!(%device, strikes, "{text}; it is tried again in {} s", pause / 1000);
        }
        self.last_error = Some(text);
    }
}

/// Pause after the n-th strike in a row.
fn backoff_ms(strikes: u32) -> u64 {
    match strikes.checked_sub(STRIKES_MAX) {
        None | Some(0) => 0,
        // 2^9 seconds are more than the longest pause.
        Some(over) => (BACKOFF_MIN_MS << (over - 1).min(9)).min(BACKOFF_MAX_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_of_a_broken_agent_grow_up_to_a_limit() {
        let pauses: Vec<u64> = (1..=14).map(|n| backoff_ms(n) / 1000).collect();
        let wanted = [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300];
        assert_eq!(pauses, wanted);
        assert_eq!(backoff_ms(u32::MAX), BACKOFF_MAX_MS);
    }
}
