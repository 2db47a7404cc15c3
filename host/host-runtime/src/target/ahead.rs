//! Pushing ahead: a staged plugin's `install` begins while the file is still coming, and goes on through its close.
//!
//! Serial lines are slow; what they carry during the download is not waited for afterwards. The duty is no operation of
//! the agent's: nobody is told of it, blocks are taken meanwhile, and whatever else needs the plugin ends it (it begins
//! again by itself, and the plugin goes on where its target is). The agent's own `install` takes it over as it stands.
//! Nothing is marked by it: a plugin marks in `activate` alone, and is done here only once the file is verified.

use super::duty::DutyRun;
use super::machine::Target;
use super::record::Phase;
use super::script::Kind;
use crate::plugin::lend::StagedImage as _;
use crate::plugin::{Duty, capability};

/// How the push stands.
#[derive(Debug, Default)]
pub(super) enum Ahead {
    /// There is none, or it failed: the agent's `install` does it all.
    #[default]
    No,
    /// It begins when it can.
    Wanted,
    /// It is under way.
    Running(DutyRun),
    /// The target has the file, and it was verified.
    Done,
}

impl Ahead {
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

impl Target {
    /// The file is coming, or lies there: begin to push it.
    pub(super) fn want_ahead(&mut self) {
        if !self.is_direct() && self.plugin.description().can(capability::AHEAD) {
            self.ahead = Ahead::Wanted;
        }
    }

    /// An operation begins: whether the push may go on beside it.
    pub(super) fn make_way_for(&mut self, kind: &Kind, reader_is_plugin: bool) {
        match kind {
            Kind::Install => {}
            Kind::Close if !reader_is_plugin => {}
            // Whatever is under way is thrown away by the plugin's own `abort`.
            Kind::Abort | Kind::Create(_) => self.ahead = Ahead::No,
            Kind::Reopen
            | Kind::Revive
            | Kind::Close
            | Kind::Activate(_)
            | Kind::Reset
            | Kind::SelfTest
            | Kind::Commit
            | Kind::Reject
            | Kind::State
            | Kind::Watch => {
                if let Ahead::Running(_) = self.ahead {
                    // A duty is left half-way only with its instance.
                    self.plugin.drop_instance();
                    self.ahead = Ahead::Wanted;
                }
            }
        }
    }

    /// Push what can be pushed now.
    pub(super) fn push_ahead(&mut self, now_ms: u64) {
        for _ in 0..self.config.limits.steps_per_poll {
            if !self.may_push() {
                return;
            }
            let running = match std::mem::take(&mut self.ahead) {
                Ahead::Wanted => None,
                Ahead::Running(run) => {
                    if !run.due(now_ms, self.news(), &self.config.limits) {
                        self.ahead = Ahead::Running(run);
                        return;
                    }
                    Some(run)
                }
                other => {
                    self.ahead = other;
                    return;
                }
            };
            self.step_ahead(now_ms, running);
        }
    }

    fn step_ahead(&mut self, now_ms: u64, running: Option<DutyRun>) {
        self.data = false;
        self.plugin.take_spared();
        let budget = self.config.limits.step_budget_bytes;
        let duty = match &running {
            None => self.plugin.call(|plugin| plugin.install()),
            Some(_) => self.plugin.call(|plugin| plugin.step(budget)),
        };
        let run = match duty {
            Ok(Duty::Working { done, total, wake }) => match running {
                None => DutyRun::begin(now_ms, done, total, wake),
                Some(mut run) => run
                    .stepped(now_ms, (done, total), wake, &self.config.limits)
                    .map(|()| run),
            },
            Ok(Duty::Finished(_)) if self.staged.verified() => {
                tracing::info!(device = %self.device, target = %self.config.name, "the image was pushed while it was received");
                self.ahead = Ahead::Done;
                return;
            }
            Ok(Duty::Finished(_)) => Err("it ended before the file was verified".to_owned()),
            Err(failure) => Err(failure.to_string()),
        };
        match run {
            Ok(run) => self.ahead = Ahead::Running(run),
            Err(reason) => {
                // Nothing is lost but time: `install` begins it anew, and what fails there counts.
                tracing::info!(device = %self.device, target = %self.config.name, "pushing ahead ends: {reason}");
                if self.plugin.take_spared() {
                    // The build before goes on with it, once it knows the transfer.
                    self.ahead = Ahead::Wanted;
                    return;
                }
                self.plugin.drop_instance();
            }
        }
    }

    /// When to go on with the push.
    pub(super) fn ahead_wake_at(&self) -> Option<u64> {
        if !self.may_push() {
            return None;
        }
        match &self.ahead {
            Ahead::No | Ahead::Done => None,
            Ahead::Wanted => Some(0),
            Ahead::Running(run) if run.is_woken(self.news()) => Some(0),
            Ahead::Running(run) => Some(run.wake_at(&self.config.limits)),
        }
    }

    /// Whether the plugin can, knows the transfer and is free for it.
    fn may_push(&self) -> bool {
        let comes = matches!(
            self.phase(),
            Some(Phase::Receiving | Phase::Closed | Phase::Verified)
        );
        // A close reads and hashes; where it needs the plugin, the push has made way.
        let beside = |kind: &Kind| *kind == Kind::Close;
        // Asked here, too: since the push was wanted another build may have come.
        comes
            && self.plugin.description().can(capability::AHEAD)
            && self.staged.has_bytes()
            && self.plugin.is_attached()
            && self.op.as_ref().is_none_or(|op| beside(&op.kind))
            && !(self.reads_by_plugin() && self.op.is_some())
    }
}
