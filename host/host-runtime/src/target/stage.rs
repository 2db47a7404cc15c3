//! What each stage of a script does: when it begins, when its duty answers, when its report arrives.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::TargetEvent;
use super::ahead::Ahead;
use super::duty::DutyRun;
use super::image::Glance;
use super::machine::Target;
use super::record::Phase;
use super::script::{Kind, Op, Running, Stage, Verb};
use super::trial::Debt;
use super::work::{self, Came, Flush, Prefix, ReadBackOrder, Report, Writer};
use crate::plugin::{Answer, Duty, Plugin, PluginError, capability};
use crate::types::{Failure, code};

impl Target {
    /// Begin a stage.
    pub(super) fn enter(&mut self, now_ms: u64, op: &mut Op, stage: Stage) -> Result<(), Failure> {
        if stage.is_plugins() && self.plugin.debt != Debt::default() {
            op.stages.push_front(stage);
            return self.pay_debt(now_ms, op);
        }
        op.stage = Some(stage);
        match stage {
            Stage::Drain => op.running = Running::Drain,
            Stage::Open => self.open_plugin(op)?,
            Stage::TryOpen => {
                if let Err(failure) = self.open_plugin(op) {
                    tracing::warn!(device = %self.device, target = %self.config.name, "without plugin: {failure}");
                }
            }
            Stage::Attach | Stage::TryAttach => return self.attach(now_ms, op, stage),
            Stage::Discard => {
                if self.plugin.is_open() {
                    let duty = self.ask(|plugin| plugin.abort());
                    return self.on_duty(now_ms, op, stage, duty);
                }
            }
            Stage::Ask | Stage::Look => {
                op.state = None;
                let duty = self.ask(|plugin| plugin.state());
                return self.on_duty(now_ms, op, stage, duty);
            }
            Stage::Judge => return self.judge(op),
            Stage::Forget => return self.forget(op),
            Stage::Store => self.begin_store(op),
            Stage::Unstage => self.unstage(op),
            Stage::Plugin(verb) => return self.begin_verb(now_ms, op, verb),
            Stage::Lay => return self.lay(op),
            Stage::Erase => {
                let layout = self.layout()?;
                self.hand_over(op, stage, move || work::make_room(&layout));
            }
            Stage::LayMap => self.lay_map(op),
            Stage::Receive => self.receive(op),
            Stage::OpenWindow => return self.open_window(),
            Stage::Check => return self.begin_check(op),
            Stage::Resume => return self.resume(op),
            Stage::Lock => return self.lock(),
            Stage::Flush => return self.begin_flush(op),
            Stage::ReadBack => return self.begin_read_back(now_ms, op),
            Stage::Fit => return self.fit(op),
            Stage::Inspect => self.inspect(op),
            Stage::List => self.list(op),
            Stage::Verify => self.verify(op),
            Stage::Mint => self.mint(op),
            Stage::Enter(phase) => self.enter_phase(op, phase),
            Stage::OpenRecord => {
                let open = self
                    .phase()
                    .is_some_and(|phase| phase.in_test() || phase == Phase::Committed);
                self.regions.set_record(open);
            }
            Stage::HostReset => return self.host_reset(op),
            Stage::RestartAnyway => self.restart_anyway(op),
            Stage::EndProcess => self.end_process(op),
            Stage::Health => {
                if let Some(command) = self.config.health.clone() {
                    self.run_command(op, stage, &command);
                }
            }
            Stage::VersionCommand => match self.config.version_command.clone() {
                Some(command) => self.run_command(op, stage, &command),
                None => self.tell_state(op),
            },
            Stage::Confirm => return self.confirm(op),
            Stage::Settle => self.settle(op),
            Stage::Clean => self.begin_clean(op),
        }
        Ok(())
    }

    /// Step a duty that is due.
    pub(super) fn step(
        &mut self,
        now_ms: u64,
        op: &mut Op,
        stage: Stage,
        mut run: DutyRun,
    ) -> Result<(), Failure> {
        self.data = false;
        let budget = self.config.limits.step_budget_bytes;
        let duty = match self.plugin.call(|plugin| plugin.step(budget)) {
            Ok(Duty::Working { done, total, wake }) => {
                match run.stepped(now_ms, (done, total), wake, &self.config.limits) {
                    Ok(()) => {
                        self.tell_progress(now_ms, op, run.progress());
                        op.running = Running::Duty(stage, run);
                        return Ok(());
                    }
                    Err(reason) => Err(self.plugin.strike(&reason)),
                }
            }
            end => end,
        };
        self.on_duty(now_ms, op, stage, duty)
    }

    /// Begin a duty, on records that can be believed.
    fn ask(
        &mut self,
        begin: impl FnOnce(&mut dyn Plugin) -> Result<Duty, PluginError>,
    ) -> Result<Duty, Failure> {
        self.regions.settle()?;
        self.plugin.call(begin)
    }

    /// A duty was begun, or it is over.
    fn on_duty(
        &mut self,
        now_ms: u64,
        op: &mut Op,
        stage: Stage,
        duty: Result<Duty, Failure>,
    ) -> Result<(), Failure> {
        let ended = match duty {
            Ok(Duty::Working { done, total, wake }) => {
                match DutyRun::begin(now_ms, done, total, wake) {
                    Ok(run) => {
                        self.tell_progress(now_ms, op, run.progress());
                        op.running = Running::Duty(stage, run);
                        return Ok(());
                    }
                    Err(reason) => Err(self.plugin.strike(&reason)),
                }
            }
            Ok(Duty::Finished(answer)) => match self.regions.end_duty() {
                Ok(()) => self.on_answer(now_ms, op, stage, answer),
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        match (stage, ended) {
            // It is asked again, of the build before.
            (stage, Err(failure)) if self.plugin.spared => {
                op.stage = Some(stage);
                Err(failure)
            }
            // The script goes on without: the transfer is thrown away in any case, or is not what was asked about.
            (Stage::Discard | Stage::TryAttach | Stage::Look, Err(failure)) => {
                let what = match stage {
                    Stage::Discard => "the plugin does not give its transfer up",
                    Stage::TryAttach => "the plugin does not take the transfer up again",
                    _ => "the plugin does not say how the target is",
                };
                tracing::warn!(device = %self.device, target = %self.config.name, "{what}: {failure}");
                let more = stage != Stage::Look && op.kind != Kind::Abort;
                if more && !self.plugin.is_open() {
                    // It broke on the transfer; what follows needs an instance, without it.
                    return self.open_plugin(op);
                }
                Ok(())
            }
            (_, ended) => ended,
        }
    }

    fn on_answer(
        &mut self,
        now_ms: u64,
        op: &mut Op,
        stage: Stage,
        answer: Answer,
    ) -> Result<(), Failure> {
        let is_reopen = matches!(stage, Stage::Attach | Stage::TryAttach);
        let end = self.take_answer(now_ms, op, stage, answer);
        if end.is_ok() && !is_reopen {
            self.plugin.prove();
        }
        end
    }

    fn take_answer(
        &mut self,
        now_ms: u64,
        op: &mut Op,
        stage: Stage,
        answer: Answer,
    ) -> Result<(), Failure> {
        match (stage, answer) {
            (Stage::Attach | Stage::TryAttach, Answer::Nothing) => self.attached(),
            (Stage::Discard, _) => Ok(()),
            (Stage::Ask | Stage::Look, Answer::State(mut state)) => {
                if state.code > STATE_MAX {
                    tracing::warn!(device = %self.device, target = %self.config.name, "unknown state {}", state.code);
                    state.code = 0;
                }
                self.look_at_running(&state);
                op.state = Some(state);
                if stage == Stage::Look {
                    self.on_look(op, state);
                }
                Ok(())
            }
            (Stage::Plugin(Verb::Examine), Answer::Info(info)) => {
                op.examined = Some(info);
                Ok(())
            }
            (Stage::Plugin(Verb::Reset), Answer::HostResets) => {
                op.stages.push_front(Stage::HostReset);
                Ok(())
            }
            (Stage::Plugin(Verb::Reset), Answer::Nothing) => {
                op.after.push(TargetEvent::Restarted(self.config.file_id));
                Ok(())
            }
            (Stage::Plugin(Verb::Reject), Answer::HostResets) => {
                self.on_still_running(now_ms, op, stage)
            }
            // Saved once the transfer can be reopened (`receive`).
            (Stage::Plugin(Verb::Create), Answer::Nothing) => Ok(()),
            (
                Stage::Plugin(
                    Verb::Install
                    | Verb::Activate(_)
                    | Verb::SelfTest
                    | Verb::Commit
                    | Verb::Reject,
                ),
                Answer::Nothing,
            ) => {
                // By what it did, whatever it can save of that.
                self.plugin.prove();
                self.save_blob();
                Ok(())
            }
            (stage, answer) => Err(self
                .plugin
                .strike(&format!("it answered {answer:?} to {stage:?}"))),
        }
    }

    /// What was started elsewhere is over.
    pub(super) fn on_report(
        &mut self,
        now_ms: u64,
        op: &mut Op,
        stage: Stage,
        report: Report,
    ) -> Result<(), Failure> {
        match report {
            Report::Done(Err(failure)) if stage == Stage::Clean => {
                // Nobody reads there any more; the next create erases again.
                tracing::warn!(device = %self.device, target = %self.config.name, "{failure}");
                Ok(())
            }
            Report::Done(Err(failure))
                if stage == Stage::Store
                    && op.kind == Kind::Abort
                    && is_full(&failure)
                    && !op.made_room =>
            {
                // The transfer itself fills the medium. The block map goes before the bytes that it speaks of, so that
                // nothing counts as held should the power fail before the record is written.
                tracing::warn!(device = %self.device, target = %self.config.name, "{failure}; giving its space back first");
                op.made_room = true;
                op.stages.push_front(Stage::Forget);
                op.stages.push_front(Stage::Clean);
                Ok(())
            }
            Report::Done(end) => end,
            Report::Checked(map) => {
                self.map = Some(Box::new(map?));
                self.map_torn = false;
                Ok(())
            }
            Report::Flushed(Flush::Closed) => Ok(()),
            Report::Flushed(Flush::NotRecorded(failure) | Flush::Lost(failure)) => Err(failure),
            Report::ReadBack(Ok(read_back)) => {
                op.read_back = Some(read_back);
                Ok(())
            }
            Report::ReadBack(Err(failure)) => {
                let is_its = failure.main == code::PLUGIN_FAILED && self.plugin.wrote_all;
                if is_its && self.plugin.is_on_trial() {
                    // Its blocks are there, and wrong: the one before cannot make them good. The job fails all the same.
                    self.plugin.send_back(&failure.detail);
                    self.plugin.take_spared();
                }
                Err(failure)
            }
            Report::Command(end) => self.on_command(now_ms, op, stage, end),
            Report::Synced(_, end) => end,
            // Told to `Early` alone.
            Report::Early(end) => end.map(drop),
            Report::Lost => Err(Failure::new(
                code::STORAGE,
                0,
                format!("the worker of {stage:?} has died"),
            )),
        }
    }

    /// The refused image runs: the host restarts the target, once, and asks again until it does not.
    fn on_still_running(&mut self, now_ms: u64, op: &mut Op, stage: Stage) -> Result<(), Failure> {
        let Some(reset_at) = op.reset_at else {
            op.reset_at = Some(now_ms);
            op.stages.push_front(Stage::Plugin(Verb::Reject));
            op.stages.push_front(Stage::HostReset);
            return Ok(());
        };
        let limits = &self.config.limits;
        let waited = now_ms.saturating_sub(reset_at);
        if waited >= limits.restart_wait_ms {
            return Err(Failure::new(
                REJECT_FAILED,
                0,
                format!(
                    "the new image still runs {} s after the target was restarted",
                    waited / 1000
                ),
            ));
        }
        op.running = Running::Pause(stage, now_ms.saturating_add(limits.restart_poll_ms));
        Ok(())
    }

    pub(super) fn open_plugin(&mut self, op: &Op) -> Result<(), Failure> {
        match op.kind {
            // Each begins anew, or only asks, or is a way out of a test: with an image that is marked there must be one.
            Kind::Create(_)
            | Kind::Abort
            | Kind::State
            | Kind::Watch
            | Kind::Reset
            | Kind::Commit
            | Kind::Reject => {}
            Kind::Reopen
            | Kind::Revive
            | Kind::Close
            | Kind::Install
            | Kind::Activate(_)
            | Kind::SelfTest => self.plugin.check_strikes()?,
        }
        let blob = self.blob();
        let known = self.plugin.closed.clone();
        let end = self.plugin.open(blob.as_ref());
        match &self.plugin.closed {
            // Said once: it is asked again with every operation.
            Some(why) if self.plugin.closed != known => tracing::error!(
                device = %self.device, target = %self.config.name,
                "plugin {} does not begin, so every job of this target fails: {why}; mend the target's settings",
                self.plugin.label()
            ),
            Some(_) | None => {}
        }
        end
    }

    pub(super) fn attach(&mut self, now_ms: u64, op: &mut Op, stage: Stage) -> Result<(), Failure> {
        let Some(transfer) = self.record.transfer.as_ref() else {
            return Ok(());
        };
        let known = matches!(transfer.phase, Phase::Creating | Phase::Rejected);
        if known || self.plugin.is_attached() {
            return Ok(());
        }
        let transfer = self.plugin_transfer(transfer);
        let duty = self.ask(|plugin| plugin.reopen(&transfer));
        self.on_duty(now_ms, op, stage, duty)
    }

    /// The plugin says that it goes on with the transfer: the bytes must lie where they lay.
    fn attached(&mut self) -> Result<(), Failure> {
        let Some(transfer) = self.record.transfer.as_ref() else {
            return Ok(());
        };
        if self.plugin.description().can(capability::DIRECT) && !transfer.phase.is_settled() {
            let stored = transfer.extents.clone();
            let extents = self.plugin.call(|plugin| plugin.extents())?;
            if self.regions.to_stored(&extents) != stored {
                return Err(self
                    .plugin
                    .strike("after reopen it names other extents for the file"));
            }
        }
        self.plugin.set_attached(true);
        self.show_whole()
    }

    fn begin_verb(&mut self, now_ms: u64, op: &mut Op, verb: Verb) -> Result<(), Failure> {
        let transfer = self.record.transfer.as_ref();
        let duty = match verb {
            Verb::Create => {
                let Some(transfer) = transfer.map(|t| self.plugin_transfer(t)) else {
                    return Ok(());
                };
                self.ask(|plugin| plugin.create(&transfer))
            }
            Verb::Examine => self.ask(|plugin| plugin.examine()),
            Verb::Install => match std::mem::take(&mut self.ahead) {
                // What was begun during the download is gone on with.
                Ahead::Running(run) if self.plugin.is_attached() => {
                    op.running = Running::Duty(Stage::Plugin(verb), run);
                    return Ok(());
                }
                Ahead::Done if self.plugin.is_attached() => Ok(Duty::Finished(Answer::Nothing)),
                Ahead::No | Ahead::Wanted | Ahead::Running(_) | Ahead::Done => {
                    self.ask(|plugin| plugin.install())
                }
            },
            Verb::Activate(sha256) => self.ask(|plugin| plugin.activate(&sha256)),
            Verb::Reset => self.ask(|plugin| plugin.reset()),
            Verb::SelfTest => {
                if !self.plugin.description().can(capability::SELF_TEST) {
                    return Ok(());
                }
                self.ask(|plugin| plugin.self_test())
            }
            Verb::Commit => self.ask(|plugin| plugin.commit()),
            Verb::Reject => self.ask(|plugin| plugin.reject()),
        };
        self.on_duty(now_ms, op, Stage::Plugin(verb), duty)
    }

    fn begin_check(&mut self, op: &mut Op) -> Result<(), Failure> {
        let (Some(grid), Some(number)) =
            (self.grid(), self.record.transfer.as_ref().map(|t| t.number))
        else {
            return Ok(());
        };
        if self.phase() != Some(Phase::Receiving) {
            // A close that was given up went through after all.
            return Ok(());
        }
        let torn = self.torn_log();
        let layout = self.layout()?;
        let (state, name) = (Arc::clone(&self.ports.state), self.map_name());
        let (id, promise) = self.promise(true);
        op.running = Running::Report(Stage::Check, id);
        self.ports.workers.run(Box::new(move || {
            let end = work::check(&*state, &name, grid, number, &layout, torn);
            promise.keep(Report::Checked(end));
        }));
        Ok(())
    }

    fn begin_read_back(&mut self, now_ms: u64, op: &mut Op) -> Result<(), Failure> {
        let layout = self.layout()?;
        let (Some(transfer), Some(grid)) = (self.record.transfer.as_ref(), self.grid()) else {
            return Ok(());
        };
        let (size, reader) = (transfer.spec.size, &self.config.version_from);
        // Nothing of it can be written any more: it was locked.
        let early = self.sync.early.take(&layout);
        let prefix = early.map_or_else(|| Prefix::new(Glance::new(reader, size)), |early| *early);
        op.work_done.store(prefix.size(), Ordering::Relaxed);
        let order = ReadBackOrder {
            layout,
            spec: transfer.spec.clone(),
            trust: Arc::clone(&self.own.trust),
            wall_s: self.ports.clock.wall_s(),
            prefix,
            came: Came {
                state: Arc::clone(&self.ports.state),
                name: self.map_name(),
                grid,
                number: transfer.number,
                writer: match (self.is_direct(), self.plugin.wrote_all) {
                    (false, _) => Writer::Host,
                    (true, false) => Writer::Plugins,
                    (true, true) => Writer::Plugin(self.plugin.label().to_owned()),
                },
            },
            cancel: Arc::downgrade(&op.cancel),
            progress: Arc::clone(&op.work_done),
        };
        let (id, promise) = self.promise(true);
        op.running = Running::Report(Stage::ReadBack, id);
        op.progress_at = Some(now_ms);
        self.ports.workers.run(Box::new(move || {
            promise.keep(Report::ReadBack(work::read_back(order)));
        }));
        Ok(())
    }

    /// The transfer counts as closed once its bytes are durable (`on_flushed`), not before: until then the block map
    /// says what a failed fsync takes back.
    fn begin_flush(&mut self, op: &mut Op) -> Result<(), Failure> {
        let layout = self.layout()?;
        let mut closed = self.record.clone();
        let recorded = match closed.transfer_mut() {
            Some(transfer) if transfer.phase == Phase::Receiving => {
                transfer.phase = Phase::Closed;
                false
            }
            // Read back again: it was written down before.
            Some(_) | None => true,
        };
        let write = self.writing(closed);
        let (id, promise) = self.promise(true);
        op.running = Running::Report(Stage::Flush, id);
        self.sync.flush_begins(id);
        self.ports.workers.run(Box::new(move || {
            let end = work::flush(&layout, || if recorded { Ok(()) } else { write() });
            promise.keep(Report::Flushed(end));
        }));
        Ok(())
    }
}

/// Whether it failed for want of space, or of quota.
fn is_full(failure: &Failure) -> bool {
    let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT];
    failure.main == code::STORAGE
        && full
            .iter()
            .any(|errno| failure.sub == errno.raw_os_error().cast_unsigned())
}

/// Highest code of `target-state` (`wit/pal/types.wit`).
const STATE_MAX: u8 = 5;

/// PAL: reject failed.
const REJECT_FAILED: u8 = 0xea;
