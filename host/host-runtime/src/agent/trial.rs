//! An agent build that takes the place of another one: tried where it reaches nothing, started beside it from its snapshot,
//! and on trial until a job has succeeded under it or it has run for a while without a break.
//!
//! ```text
//!            take_over             job succeeded, or quiet
//! former ───────────────▶ on trial ──────────────────────▶ for good
//!    ▲                       │ breaks, refuses to start, is ended
//!    └───────────────────────┘ send_back
//! ```
//!
//! The former build goes on from what the other one has saved, in a schema that both read. Where that is no good either, it goes
//! on from what it has left itself, and at last from nothing: targets and job service are asked. Not here: when it is time
//! (`device/swap.rs`), and what is written down (`crate::choice`).

use std::sync::Arc;

use super::nowhere::Nowhere;
use super::slot::{AgentSlot, Stamp};
use super::text::{FAULT_MAX_BYTES, clean};
use super::{AgentBuild, Context, Event, Saved, StartInfo};
use crate::choice::{Names, SentBack};
use crate::engine::GuestFault;
use crate::status::AgentLife;
use crate::types::{Blob, DETAIL_MAX_BYTES, Failure, code};

/// An agent build that has run for so long without a break has proved itself, in milliseconds, unless who puts it in says
/// otherwise: as long as it takes until a trap is forgiven.
pub const TRIAL_MS: u64 = 10 * 60 * 1000;

/// A build that another one has taken the place of.
pub struct FormerAgent {
    /// The build.
    pub agent: Arc<AgentBuild>,
    /// The one that serves is on trial: a break of its brings this one back.
    pub on_trial: bool,
}

/// The build before the one that serves.
pub(super) struct Former {
    pub(super) build: Arc<AgentBuild>,
    /// None = the one that serves has proved itself.
    pub(super) trial: Option<Trial>,
}

/// The trial of the build that serves.
pub(super) struct Trial {
    /// How long it has to run without a break.
    quiet_ms: u64,
    /// Since when it does; none = it was not started in this process yet.
    since_ms: Option<u64>,
    /// What the build before it has left.
    left: Option<(Blob, Stamp)>,
    /// The job that it had last and has no more.
    job: Option<String>,
}

impl From<FormerAgent> for Former {
    fn from(former: FormerAgent) -> Self {
        let trial = || Trial {
            quiet_ms: TRIAL_MS,
            since_ms: None,
            left: None,
            job: None,
        };
        Self {
            build: former.agent,
            trial: former.on_trial.then(trial),
        }
    }
}

impl AgentSlot {
    /// Whether a break brings the build before back.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.trial().is_some()
    }

    /// When its trial is over, if nothing happens until then.
    pub(crate) fn trial_ends_ms(&self) -> Option<u64> {
        let trial = self.trial()?;
        Some(trial.since_ms?.saturating_add(trial.quiet_ms))
    }

    fn trial(&self) -> Option<&Trial> {
        self.former.as_ref()?.trial.as_ref()
    }

    /// It has proved itself, if its time is over.
    pub(crate) fn pass_if_quiet(&mut self, now_ms: u64) {
        if self.trial_ends_ms().is_some_and(|at| at <= now_ms) {
            self.pass();
        }
    }

    /// It has a job no more. Whether that is over, the job's end says, which is told of once the journal knows it.
    pub(super) fn let_go(&mut self, job_id: Option<String>) {
        let trial = self.former.as_mut().and_then(|f| f.trial.as_mut());
        if let Some(trial) = trial {
            trial.job = job_id;
        }
    }

    /// The agent has told of the end of a job, and that it went well. Where it was one of the build on trial, that has proved itself; one that
    /// only loses its job has not.
    pub(crate) fn job_ended(&mut self, job_id: &str) {
        let gone = self.trial().and_then(|trial| trial.job.as_deref());
        if [gone, self.status().job_id.as_deref()].contains(&Some(job_id)) {
            self.pass();
        }
    }

    /// It has proved itself. The build before stays what a roll-back goes to.
    pub(crate) fn pass(&mut self) {
        if let Some(former) = self.former.as_mut()
            && former.trial.take().is_some()
        {
            let (device, label) = (&self.device, self.build.label());
            tracing::info!(%device, "agent {label} has proved itself");
        }
    }

    /// It runs: now its time counts.
    pub(super) fn begin_trial(&mut self, now_ms: u64) {
        let trial = self.former.as_mut().and_then(|f| f.trial.as_mut());
        if let Some(trial) = trial {
            trial.since_ms.get_or_insert(now_ms);
        }
    }

    /// The build to go back to from whatever comes next: not one that is itself on trial.
    pub(crate) fn lasting(&self) -> &Arc<AgentBuild> {
        match &self.former {
            Some(former) if former.trial.is_some() => &former.build,
            Some(_) | None => &self.build,
        }
    }

    /// The build to go back to from `next`, once that has come: what is chosen already, and put in again, is no way back from
    /// itself, also where another build stands in for it.
    pub(crate) fn way_back(&self, next: &Arc<AgentBuild>) -> &Arc<AgentBuild> {
        let serves = || {
            let chosen = Names::of_agent(&self.build);
            Arc::ptr_eq(&self.build, next) || chosen.is_same(Names::of_agent(next))
        };
        match &self.former {
            Some(former) if former.trial.is_none() && serves() => &former.build,
            Some(_) | None => self.lasting(),
        }
    }

    /// The build before.
    pub(crate) fn former(&self) -> Option<&Arc<AgentBuild>> {
        self.former.as_ref().map(|former| &former.build)
    }

    /// The schema that the build is told to write. As long as there is one to go back to, that one reads it too.
    pub(crate) fn schema(&self) -> u32 {
        let both = self.former().and_then(|f| self.build.schema_for(f));
        both.unwrap_or_else(|| self.build.schema())
    }

    /// Let another build serve. Where there is an instance, one of the new build is started beside it first; the old one
    /// goes when that went well. Without one, it is started as after a break.
    ///
    /// # Errors
    /// The new build refuses or breaks: nothing has changed here, the old instance goes on.
    pub(crate) fn take_over(
        &mut self,
        now: Context,
        build: &Arc<AgentBuild>,
        quiet_ms: u64,
        info: StartInfo,
    ) -> Result<(), Failure> {
        let started = match self.is_running() {
            true => Some(start(build, (self.outside)(), now, info)?),
            false => None,
        };
        let former = Arc::clone(self.way_back(build));
        let former = match self.is_on_trial() && Arc::ptr_eq(&former, build) {
            // What goes back has proved itself.
            true => Former {
                build: Arc::clone(&self.build),
                trial: None,
            },
            false => {
                let left = self.kept.as_ref();
                let left = left.filter(|kept| former.reads(kept.blob.schema));
                let trial = Trial {
                    quiet_ms,
                    since_ms: None,
                    left: left.map(|kept| (kept.blob.clone(), kept.stamp)),
                    job: None,
                };
                Former {
                    build: former,
                    trial: Some(trial),
                }
            }
        };
        self.former = Some(Box::new(former));
        self.change_build(Arc::clone(build));
        match started {
            Some((instance, turn)) => {
                self.instance = Some(instance);
                self.begin_trial(now.now_ms);
                self.accept(now, turn, false);
            }
            None => self.retry_at_ms = Some(now.now_ms),
        }
        Ok(())
    }

    /// The build on trial does not go on; the one before it is in charge again, and started at once.
    pub(super) fn send_back(&mut self, now: Context, reason: &str) {
        let Some(former) = self.former.take().map(|former| *former) else {
            return;
        };
        let (device, label) = (&self.device, self.build.label().to_owned());
        tracing::error!(%device, "agent {label} is sent back: {reason}");
        self.instance = None;
        self.change_build(former.build);
        self.retry_at_ms = Some(now.now_ms);
        self.last_resorts.push((Saved::None, None));
        if let Some((blob, stamp)) = former.trial.and_then(|trial| trial.left) {
            let snapshot = Saved::Snapshot(blob);
            self.last_resorts.push((snapshot, Some(stamp)));
        }
        self.sent_back = Some(Box::new(SentBack {
            label,
            reason: reason.to_owned(),
        }));
    }

    /// A build that was sent back, once.
    pub(crate) fn take_sent_back(&mut self) -> Option<SentBack> {
        self.sent_back.take().map(|back| *back)
    }

    /// Another build from now on; what the one before did wrong is not its fault.
    fn change_build(&mut self, build: Arc<AgentBuild>) {
        self.kept.take_if(|kept| !build.reads(kept.blob.schema));
        self.build = build;
        self.life = AgentLife::Running;
        self.strikes = 0;
        self.spins = 0;
        self.deadline_missing = false;
        self.retry_at_ms = None;
        self.resort = None;
        self.last_resorts.clear();
    }
}

/// Start an instance of a build where it reaches nothing, and see whether it does what any agent does. It is thrown away.
///
/// # Errors
/// It does not, or refuses what it is started from.
pub(crate) fn tried(build: &Arc<AgentBuild>, now: Context, info: StartInfo) -> Result<(), Failure> {
    let nowhere = Box::new(Nowhere::after(&info.outstanding));
    let (mut instance, _) = start(&build.bare(), nowhere, now, info)?;
    let broke = |call: &'static str| move |fault| broken(call, &fault);
    // Spurious events are harmless.
    instance
        .handle(now, Event::Timeout)
        .map_err(broke("handle"))?;
    instance.status().map_err(broke("status"))?;
    instance.snapshot(now).map_err(broke("snapshot"))?;
    Ok(())
}

type Started = (Box<dyn super::AgentInstance>, super::Turn);

fn start(
    build: &AgentBuild,
    outside: Box<dyn super::Outside>,
    now: Context,
    info: StartInfo,
) -> Result<Started, Failure> {
    let mut instance = build
        .instantiate(outside)
        .map_err(|fault| broken("start", &fault))?;
    match instance.start(now, info) {
        Ok(Ok(turn)) => Ok((instance, turn)),
        Ok(Err(failure)) => {
            let text = format!("it refuses to start: {failure}");
            Err(failed(&text))
        }
        Err(fault) => Err(broken("start", &fault)),
    }
}

fn broken(call: &str, fault: &GuestFault) -> Failure {
    let what = clean(&fault.to_string(), FAULT_MAX_BYTES);
    failed(&format!("it breaks in `{call}`: {what}"))
}

fn failed(text: &str) -> Failure {
    Failure::new(code::PLUGIN_FAILED, 0, clean(text, DETAIL_MAX_BYTES))
}
