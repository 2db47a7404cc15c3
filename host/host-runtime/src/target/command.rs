//! The operator's programs, and what follows from them: the restart of a target and the look whether it has come back,
//! the health check, the version that runs.

use std::sync::Arc;

use super::TargetEvent;
use super::config::ResetPolicy;
use super::image;
use super::judge::ARMED;
use super::machine::Target;
use super::script::{Kind, Op, Restart, Running, Stage};
use super::work::Report;
use crate::ports::commands::{Command, CommandEnd};
use crate::types::{Failure, Outcome, TargetState, code};

impl Target {
    /// Restart the target as the operator configured, because the plugin cannot.
    pub(super) fn host_reset(&mut self, op: &mut Op) -> Result<(), Failure> {
        match self.config.reset.clone() {
            ResetPolicy::Plugin => Err(Failure::new(
                code::UNSUPPORTED,
                0,
                "the plugin cannot restart the target; configure a reset command",
            )),
            ResetPolicy::Command(command) => {
                self.run_command(op, Stage::HostReset, &command);
                Ok(())
            }
            ResetPolicy::Process => {
                self.save_blob();
                op.stages.push_front(Stage::EndProcess);
                if self.record != self.stored {
                    op.stages.push_front(Stage::Store);
                }
                Ok(())
            }
        }
    }

    /// A reset command that failed may have ended the program that ran and started none.
    pub(super) fn restart_anyway(&mut self, op: &mut Op) {
        if let (true, ResetPolicy::Command(command)) =
            (std::mem::take(&mut self.disturbed), &self.config.reset)
        {
            let command = command.clone();
            self.run_command(op, Stage::RestartAnyway, &command);
        }
    }

    /// Everything of the target is on disk.
    pub(super) fn end_process(&mut self, op: &mut Op) {
        self.plugin.drop_instance();
        let restart = TargetEvent::ProcessRestart(self.config.file_id);
        if op.kind == Kind::Reset {
            op.after.push(restart);
        } else {
            // Whether the old image runs is seen by the next process, which is asked again.
            self.events.push_back(restart);
            op.running = Running::ProcessEnd;
        }
    }

    /// Show the operator's program what was verified.
    pub(super) fn inspect(&mut self, op: &mut Op) {
        let (Some(command), Some(fits)) = (self.config.inspect.clone(), &op.fits) else {
            return;
        };
        let info = &fits.1;
        let version = info.version.map(|v| v.to_string()).unwrap_or_default();
        let (path, regions) = match &self.record.transfer {
            Some(transfer) => {
                let mut regions: Vec<&str> =
                    transfer.extents.iter().map(|e| e.region.as_str()).collect();
                regions.dedup();
                (transfer.spec.path.clone(), regions.join(" "))
            }
            None => Default::default(),
        };
        let more = [
            ("OTAD_VERSION", version),
            ("OTAD_FILE", self.config.file_id.to_string()),
            ("OTAD_SHA256", host_crypto::hex(&info.sha256)),
            ("OTAD_SIZE", info.size.to_string()),
            ("OTAD_PRODUCT", info.product.clone().unwrap_or_default()),
            ("OTAD_SIGNER", info.signer.clone()),
            ("OTAD_FILEPATH", path),
            ("OTAD_REGION", regions),
        ];
        let more = more.map(|(key, value)| (key.to_owned(), value));
        self.run_with(op, Stage::Inspect, &command, &more);
    }

    pub(super) fn run_command(&mut self, op: &mut Op, stage: Stage, command: &Command) {
        self.run_with(op, stage, command, &[]);
    }

    fn run_with(
        &mut self,
        op: &mut Op,
        stage: Stage,
        command: &Command,
        more: &[(String, String)],
    ) {
        let transfer = self.record.transfer.as_ref();
        let image = transfer.and_then(|t| t.image.as_ref());
        let version = image.and_then(|image| image.image.version);
        let mut environment = vec![
            ("OTAD_TARGET".to_owned(), self.config.name.clone()),
            (
                "OTAD_JOB".to_owned(),
                transfer.map(|t| t.spec.job_id.clone()).unwrap_or_default(),
            ),
            (
                "OTAD_VERSION".to_owned(),
                version.map(|v| v.to_string()).unwrap_or_default(),
            ),
        ];
        environment.retain(|(key, _)| more.iter().all(|(own, _)| own != key));
        environment.extend_from_slice(more);
        let (id, promise) = self.promise(false);
        op.running = Running::Report(stage, id);
        self.ports.commands.run_unless(
            command,
            &environment,
            Arc::downgrade(&op.cancel),
            Box::new(move |end| promise.keep(Report::Command(end))),
        );
    }

    pub(super) fn on_command(
        &mut self,
        now_ms: u64,
        op: &mut Op,
        stage: Stage,
        end: CommandEnd,
    ) -> Result<(), Failure> {
        let why = match end.code {
            Some(code) => format!("exited with {code}"),
            None => end.detail.clone(),
        };
        let sub = end
            .code
            .and_then(|code| u32::try_from(code).ok())
            .unwrap_or_default();
        match stage {
            Stage::HostReset if end.code == Some(0) => {
                self.disturbed = false;
                match op.reset_at.as_mut() {
                    // The time counts from the end of the command, which has a limit of its own.
                    Some(reset_at) => *reset_at = now_ms,
                    None => {
                        self.restart = Some(Restart {
                            next_at: now_ms,
                            until: now_ms.saturating_add(self.config.limits.restart_wait_ms),
                        });
                    }
                }
                Ok(())
            }
            Stage::HostReset => {
                self.disturbed = true;
                Err(Failure::new(
                    code::ACTIVATE_FAILED,
                    sub,
                    format!("the reset command {why}"),
                ))
            }
            Stage::RestartAnyway => {
                if end.code != Some(0) {
                    tracing::warn!(device = %self.device, target = %self.config.name, "the old image may not run: the reset command {why}");
                }
                Ok(())
            }
            Stage::Health | Stage::Inspect if end.code == Some(0) => Ok(()),
            Stage::Inspect => Err(Failure::new(
                code::EXTRA_CHECK,
                sub,
                format!("the operator's check of the image {why}"),
            )),
            Stage::Health => Err(Failure::new(
                code::EXTRA_CHECK,
                sub,
                format!("the health check {why}"),
            )),
            _ => {
                let version = match end.code {
                    Some(0) => image::find_version(&end.stdout),
                    Some(_) | None => None,
                };
                if version.is_none() {
                    tracing::warn!(
                        device = %self.device, target = %self.config.name,
                        "the version command gives no version: {why}"
                    );
                }
                if let Some(state) = op.state.as_mut() {
                    state.running = version;
                }
                self.tell_state(op);
                Ok(())
            }
        }
    }

    /// The target as it is after a verdict. A commit changes no version, so what the operator's command said holds.
    pub(super) fn on_look(&mut self, op: &mut Op, mut state: TargetState) {
        let command = self.config.version_command.is_some();
        if command && op.kind == Kind::Reject {
            op.stages.push_front(Stage::VersionCommand);
            return;
        }
        if command {
            state.running = self.last_state.and_then(|last| last.running);
        }
        state.running = self.known_running(&state);
        self.last_state = Some(state);
    }

    pub(super) fn tell_state(&mut self, op: &mut Op) {
        if let Some(mut state) = op.state {
            state.running = self.known_running(&state);
            self.last_state = Some(state);
            if op.kind == Kind::State {
                state.running = state.running.filter(|_| !self.image_damaged);
                op.outcome = Outcome::State(state);
            }
        }
    }

    /// Look whether a target that was reset has restarted.
    pub(super) fn watch(&mut self, now_ms: u64) {
        let due = self
            .restart
            .is_some_and(|restart| now_ms >= restart.next_at);
        if due && self.op.is_none() && self.writes.is_empty() {
            self.begin(None, Kind::Watch);
            self.advance(now_ms);
        }
    }

    /// A look has ended. As long as the image is only marked, the launcher or the bootloader has not come to it. A
    /// target that cannot be reached is in the middle of its restart; a plugin that breaks says nothing at all.
    pub(super) fn watched(&mut self, now_ms: u64, state: Option<TargetState>, outcome: &Outcome) {
        let Some(mut restart) = self.restart.take() else {
            return;
        };
        let waits = match outcome {
            Outcome::Failed(failure) => failure.main != code::PLUGIN_FAILED,
            _ => state.is_some_and(|state| state.code == ARMED),
        };
        if waits && now_ms < restart.until {
            let next_at = now_ms.saturating_add(self.config.limits.restart_poll_ms);
            restart.next_at = next_at.min(restart.until);
            self.restart = Some(restart);
            return;
        }
        self.events
            .push_back(TargetEvent::Restarted(self.config.file_id));
    }
}
