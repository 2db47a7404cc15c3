//! Another build for a target, while it works: asked for, tried, written down, handed over between two steps.
//!
//! ```text
//! swap ─▶ does it fit? ─▶ a worker opens one that may touch nothing ─▶ the choice is on the medium
//!                                                                         │ between two steps
//!   reply ◀─ it knows the transfer ◀─ reopen, same extents ◀─ suspend, open beside the old one, old one goes
//! ```
//!
//! What was under way begins again with the new instance: a duty (each is idempotent), a block that was not acknowledged
//! yet. A refusal at any point leaves, or brings back, the build that served (`trial.rs`). A `create` and an `abort` are not
//! cut in two: their end is waited for. Not here: where builds come from and whether they may be loaded.

use std::sync::Arc;

use super::ahead::Ahead;
use super::config::{check_plugin, limit};
use super::machine::Target;
use super::map::BlockMap;
use super::record::Phase;
use super::script::{Asker, Kind, Op, Question, Running, Stage, Verb, script};
use super::sealed::sealed;
use super::trial::{Debt, refused, successor};
use crate::agent::text::clean;
use crate::choice::{Arrival, Names};
use crate::plugin::{PluginFactory, capability};
use crate::ports::workers::{Errand, Reply};
use crate::types::{DETAIL_MAX_BYTES, Failure, code};

/// How a swap ended: the new build serves, or why the old one does.
pub type SwapReply = Reply<Result<(), Failure>>;

/// A swap under way.
pub(super) struct Swap {
    build: Arc<dyn PluginFactory>,
    /// The one who asked, as long as he waits.
    reply: Option<SwapReply>,
    arrival: Arrival,
}

impl Target {
    /// Let another build serve.
    pub(super) fn swap(&mut self, build: Arc<dyn PluginFactory>, reply: SwapReply) {
        if let Err(failure) = self.check_swap(&*build) {
            return reply(Err(failure));
        }
        let lent = sealed(&self.plugin.lent);
        let settings = self.plugin.settings.clone();
        let (saved, probed) = (self.blob(), Arc::clone(&build));
        let lost = Failure::new(code::STORAGE, 0, "the worker of the swap has died");
        let ports = &self.ports;
        let errand = Errand::start(&*ports.workers, &ports.wake, Err(lost), move || {
            let tried = successor(&*probed, &lent, &settings, saved.as_ref());
            tried.map(drop).map_err(refused)
        });
        self.swap = Some(Swap {
            build,
            reply: Some(reply),
            arrival: Arrival::Trying(errand),
        });
    }

    /// Go back to the build before this one.
    pub(super) fn swap_back(&mut self, reply: SwapReply) {
        match self.plugin.former.as_ref() {
            Some(former) => {
                let build = Arc::clone(&former.factory);
                self.swap(build, reply);
            }
            None => reply(Err(Failure::new(
                code::NOT_FOUND,
                0,
                format!(
                    "target `{}` has no build to go back to: none is known before {}",
                    self.config.name,
                    self.plugin.label()
                ),
            ))),
        }
    }

    /// Have the build that serves ask the target how it is. `reply` hears whether it did; one on trial that fails here is
    /// sent back, and the build before it is asked.
    pub(super) fn question(&mut self, reply: SwapReply) {
        if let Some(damage) = &self.damage {
            return reply(Err(damage.clone()));
        }
        let max = self.config.limits.waiting_states_max;
        let is_operator = |asker: &&Asker| matches!(asker, Asker::Operator(_));
        if self.waiting.iter().filter(is_operator).count() >= max {
            let text = format!("{max} operators wait for the state already");
            return reply(Err(Failure::new(code::LIMIT, limit::WAITING_STATES, text)));
        }
        let question = Question { reply, tries: 0 };
        self.waiting.push_back(Asker::Operator(question));
    }

    /// The build that serves has proved itself, says whoever put it in: no break sends it back any more. `reply` hears
    /// when that stands on the medium.
    pub(super) fn end_trial(&mut self, reply: SwapReply) {
        self.plugin.prove();
        self.plugin.pass();
        match &self.plugin.former {
            Some(_) => self.book.tell_when_kept(reply),
            None => reply(Ok(())),
        }
    }

    fn check_swap(&self, build: &dyn PluginFactory) -> Result<(), Failure> {
        let refuse = |main, reason: String| Err(Failure::new(main, 0, reason));
        if let Some(damage) = &self.damage {
            return Err(damage.clone());
        }
        if self.swap.is_some() || self.book.is_writing() {
            let text = format!("a swap of target `{}` is under way", self.config.name);
            return refuse(code::BUSY, text);
        }
        if let Err(reason) = check_plugin(build, |interface| self.plugin.lent.lends(interface)) {
            return refuse(code::UNSUPPORTED, reason);
        }
        let (old, new) = (self.plugin.description(), build.description());
        if !old.kinds.is_empty() && !old.kinds.iter().any(|kind| new.kinds.contains(kind)) {
            let (old, new) = (old.kinds.join(", "), new.kinds.join(", "));
            let text = format!("it serves targets of kind {new}, this one is {old}");
            return refuse(code::UNSUPPORTED, text);
        }
        self.check_transfer(build)?;
        if !self.config.allow_no_revert
            && old.can(capability::REVERT)
            && !new.can(capability::REVERT)
        {
            let text = "it cannot go back from a bad image (no capability revert); set no_revert_allowed to take it all the same";
            return refuse(code::NO_REVERT, text.to_owned());
        }
        Ok(())
    }

    /// Whether a build goes on with what is open, where the bytes of that lie.
    fn check_transfer(&self, build: &dyn PluginFactory) -> Result<(), Failure> {
        let settled = self.phase().is_none_or(Phase::is_settled);
        if settled || self.is_direct() == build.description().can(capability::DIRECT) {
            return Ok(());
        }
        Err(Failure::new(
            code::BUSY,
            0,
            "a transfer is open, and one of the two is direct, the other staged; swap it when the job is over",
        ))
    }

    /// See whether the build was tried, and whether a choice was written down.
    pub(super) fn look_after_swap(&mut self) {
        if let Some(swap) = self.swap.as_mut() {
            let serves = Names::of_plugin(&*swap.build);
            let former = Names::of_plugin(&**self.plugin.way_back(&*swap.build));
            if let Err(failure) = self.book.let_in(&mut swap.arrival, serves, former) {
                self.refuse_swap(failure);
            }
        }
        self.book.look();
    }

    /// Hand the target over, if a build is ready and the old one is between two steps.
    pub(super) fn hand_over_plugin(&mut self) {
        if self.op.as_ref().is_none_or(|op| !op.kind.is_whole()) {
            self.change_plugin();
        }
        if self.owes_reopen() {
            self.begin(None, Kind::Revive);
        }
    }

    /// Whether the build in charge is to be told of the transfer, and nothing that is under way does so.
    pub(super) fn owes_reopen(&self) -> bool {
        self.plugin.debt.reopen && self.op.is_none()
    }

    fn change_plugin(&mut self) {
        let is_ready = |swap: &&mut Swap| matches!(swap.arrival, Arrival::Ready);
        let Some(swap) = self.swap.as_mut().filter(is_ready) else {
            return;
        };
        swap.arrival = Arrival::Serving;
        let build = Arc::clone(&swap.build);
        // Again: a transfer may have been opened while it was tried.
        if let Err(failure) = self.check_transfer(&*build) {
            return self.refuse_swap(failure);
        }
        let debt = Debt {
            open: self.plugin.is_open(),
            reopen: self.plugin.is_attached() || self.plugin.debt.reopen,
        };
        // One that breaks here has crashed: its successor reopens.
        self.save_blob();
        self.note_sent_back();
        let saved = self.blob();
        if let Err(failure) = self.plugin.take_over(&build, saved.as_ref(), debt) {
            return self.refuse_swap(failure);
        }
        let held = self.map.as_deref().map(BlockMap::held_blocks);
        self.plugin.wrote_all = held == Some(0);
        tracing::info!(
            device = %self.device, target = %self.config.name,
            "plugin {} {} serves in place of the one before", build.label(), build.description().version
        );
        self.interrupt();
    }

    /// What the plugin was in the middle of begins again.
    fn interrupt(&mut self) {
        if let Some(op) = self.op.as_mut() {
            match std::mem::replace(&mut op.running, Running::Nothing) {
                Running::Duty(stage, _) => op.stages.push_front(stage),
                other => op.running = other,
            }
        }
        if let Some(write) = self.writes.front_mut() {
            write.begin_again();
        }
        if matches!(self.ahead, Ahead::Running(_) | Ahead::Done) {
            self.ahead = Ahead::Wanted;
        }
    }

    /// A build that has just come needs an instance, and that one the transfer, before anything else.
    pub(super) fn pay_debt(&mut self, now_ms: u64, op: &mut Op) -> Result<(), Failure> {
        let debt = std::mem::take(&mut self.plugin.debt);
        if matches!(op.kind, Kind::Create(_)) {
            // The build that was asked to create it is gone, and a transfer cannot be reopened yet.
            op.stages = script(&op.kind, self.phase(), self.reads_by_plugin()).into();
            return Ok(());
        }
        if op.kind == Kind::Abort {
            // A transfer that is thrown away is owed an instance, if there can be one, and no more.
            return self.enter(now_ms, op, Stage::TryOpen);
        }
        op.stage = Some(Stage::Attach);
        self.open_plugin(op)?;
        // The script may say itself that one which refuses is left without it.
        if debt.reopen && op.stages.front() != Some(&Stage::TryAttach) {
            return self.attach(now_ms, op, Stage::Attach);
        }
        Ok(())
    }

    /// Whether what has failed was done by a build on trial that was sent back: then the operation goes on with the one
    /// before it, from the stage that failed. Or by an instance that broke: then a fresh one may do it over.
    pub(super) fn begins_again(&mut self, op: &mut Op) -> bool {
        let broke = self.plugin.take_broke();
        if !self.plugin.take_spared() {
            return broke && self.begins_anew(op);
        }
        op.running = Running::Nothing;
        match op.stage {
            // A `create` begins from its start there (`pay_debt`).
            Some(stage) => op.stages.push_front(stage),
            None => return false,
        }
        true
    }

    /// Begin an operation again whose plugin broke in it, if it may be: a fresh instance is opened with what was saved last, and
    /// told of the transfer. A `reset` may have happened; `commit` and `reject` are repeated by the agent, which looks first.
    fn begins_anew(&mut self, op: &mut Op) -> bool {
        match op.kind {
            Kind::Reopen | Kind::Close | Kind::Install | Kind::Activate(_) | Kind::SelfTest => {
                op.stages = script(&op.kind, self.phase(), self.reads_by_plugin()).into();
            }
            // What comes before has thrown the transfer before away, and its strikes.
            Kind::Create(_) if op.stage == Some(Stage::Plugin(Verb::Create)) => {
                op.stages.push_front(Stage::Plugin(Verb::Create));
                op.stages.push_front(Stage::Open);
            }
            Kind::Create(_)
            | Kind::Revive
            | Kind::Reset
            | Kind::Commit
            | Kind::Reject
            | Kind::State
            | Kind::Watch
            | Kind::Abort => return false,
        }
        self.regions.set_record(false);
        op.running = Running::Nothing;
        true
    }

    fn refuse_swap(&mut self, failure: Failure) {
        let Some(swap) = self.swap.take() else { return };
        let label = swap.build.label();
        tracing::warn!(device = %self.device, target = %self.config.name, "plugin {label} is refused: {failure}");
        self.refusal = Some(format!("{label}: {failure}"));
        if let Some(reply) = swap.reply {
            reply(Err(failure));
        }
    }

    /// Tell how a swap went, and write down what has come of it.
    pub(super) fn settle_swap(&mut self) {
        if let Some(reason) = self.note_sent_back()
            && let Some(reply) = self.take_serving().and_then(|swap| swap.reply)
        {
            let text = clean(&format!("it was sent back: {reason}"), DETAIL_MAX_BYTES);
            reply(Err(Failure::new(code::PLUGIN_FAILED, 0, text)));
        }
        let told = !self.plugin.debt.reopen && !self.is_attaching();
        if told && let Some(swap) = self.take_serving() {
            self.refusal = None;
            self.swaps += 1;
            if let Some(reply) = swap.reply {
                reply(Ok(()));
            }
        }
        if self.swap.is_none() {
            let serves = Arc::clone(&self.plugin.factory);
            let former = self.plugin.former.as_ref();
            self.book.keep(
                Names::of_plugin(&*self.plugin.factory),
                former.map(|former| Names::of_plugin(&*former.factory)),
                self.plugin.is_on_trial(),
                move || serves.trial_passed(),
            );
        }
    }

    /// A build that was sent back is remembered for the operator; the reason.
    fn note_sent_back(&mut self) -> Option<String> {
        let back = self.plugin.sent_back.take()?;
        if matches!(self.ahead, Ahead::Done) {
            // That was its word; the build before looks for itself.
            self.ahead = Ahead::Wanted;
        }
        self.refusal = Some(format!("{}: {}", back.label, back.reason));
        Some(back.reason)
    }

    fn take_serving(&mut self) -> Option<Swap> {
        self.swap
            .take_if(|swap| matches!(swap.arrival, Arrival::Serving))
    }

    /// Whether the plugin is in the middle of `reopen`, or about to.
    fn is_attaching(&self) -> bool {
        let attach = |stage: &Stage| matches!(stage, Stage::Attach | Stage::TryAttach);
        self.op.as_ref().is_some_and(|op| {
            let running = matches!(&op.running, Running::Duty(stage, _) if attach(stage));
            running || op.kind == Kind::Revive
        })
    }
}
