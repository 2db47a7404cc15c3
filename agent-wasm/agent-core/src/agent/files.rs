//! The ends of the host's operations on files, and the looks at targets.
//!
//! Each end changes the phase of its file, or fails the job; what follows is the business of the steps. What a look
//! means is decided by the table in `recover.rs`.

use crate::code::{HostErr, OtaErr, OtadErr, State};
use crate::jobs::Status;
use crate::settings::Key;
use crate::types::{Failure, FileId, ImageInfo, Level, Order, Outcome, TargetState, Version};

use super::job::{FilePhase, Stage};
use super::ops::{Doing, Duty};
use super::recover::{Step, decide, sight};
use super::table::Cause;
use super::timer::Timer;
use super::{Agent, nothing, wrong_outcome};

/// Time before a busy target is asked again, doubled with each try.
const BUSY_RETRY_MS: u64 = 250;

/// Most tries of a busy target: 250 ms doubled up to the request time-out, so some minutes at the defaults.
const BUSY_MAX: u32 = 30;

impl Agent {
    pub(super) fn on_duty_ended(&mut self, id: FileId, duty: Duty, outcome: Outcome) {
        if let Outcome::Failed(failure) = &outcome {
            let text = Self::of_file(duty.verb(), id);
            self.log(Level::Debug, &[&text, " failed: ", &failure.detail]);
            self.view.last_error = Some(failure.clone());
            if u32::from(failure.main) == HostErr::Busy.code() && self.busy < BUSY_MAX {
                self.busy += 1;
                let most = self.settings.number(Key::RequestTimeout);
                let wait = self
                    .random
                    .back_off(BUSY_RETRY_MS.min(most), most, self.busy);
                self.timers.set(Timer::Retry, self.now + wait);
                return;
            }
        }
        self.busy = 0;
        match duty {
            Duty::State => self.on_state(id, outcome),
            Duty::Create => match nothing(outcome) {
                Ok(()) => self.begin_download(id, None),
                Err(failure) => self.fail_aborted(failure),
            },
            Duty::Reopen => self.on_reopened(id, outcome),
            Duty::Close => self.on_closed(id, verified(outcome)),
            Duty::Install => self.on_installed(id, nothing(outcome)),
            Duty::Activate => self.on_activated(id, nothing(outcome)),
            Duty::Reset => self.on_reset(id, nothing(outcome)),
            Duty::SelfTest => self.on_self_tested(id, nothing(outcome)),
            Duty::Commit => self.on_committed(id, nothing(outcome)),
            Duty::Reject => self.on_rejected(id, nothing(outcome)),
            Duty::Abort => self.on_aborted(id),
        }
    }

    fn on_reopened(&mut self, id: FileId, outcome: Outcome) {
        match outcome {
            Outcome::Held(held) => self.begin_download(id, Some(&held)),
            Outcome::Failed(failure) if u32::from(failure.main) == HostErr::NotFound.code() => {
                let Some(job) = &mut self.job else { return };
                let open = job.stage == Stage::Taken;
                let Some(file) = job.file(id) else { return };
                if open {
                    file.reopen = false;
                    file.phase = FilePhase::ToDo;
                } else {
                    // Verified once and gone now: there is nothing to fetch it from any more.
                    self.give_up_file(id, failure);
                }
            }
            Outcome::Failed(failure) => self.fail_aborted(failure),
            Outcome::Nothing | Outcome::Verified(_) | Outcome::State(_) | Outcome::Other(_) => {
                self.fail_aborted(wrong_outcome());
            }
        }
    }

    /// A target has said how it is, or did not. Whoever wanted to know: the start, a job to come, or a look.
    fn on_state(&mut self, id: FileId, outcome: Outcome) {
        let state = match outcome {
            Outcome::State(state) => Some(state),
            Outcome::Failed(failure) => {
                let text = Self::of_file("target of file ", id);
                self.log(Level::Warn, &[&text, " does not answer: ", &failure.detail]);
                None
            }
            Outcome::Nothing | Outcome::Held(_) | Outcome::Verified(_) | Outcome::Other(_) => None,
        };
        if let Some(probe) = self.probes.iter_mut().find(|probe| probe.file == id) {
            let news = !probe.asked || state.is_some_and(|state| state != probe.state);
            probe.asked = true;
            probe.stale = false;
            probe.state = state.unwrap_or_default();
            if news {
                self.log_target(id);
            }
        }
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        if file.look {
            self.on_look(id, state.unwrap_or_default());
        } else if !file.asked {
            file.asked = true;
            file.old = state.and_then(|state| state.running);
        }
    }

    fn log_target(&mut self, id: FileId) {
        let name = self
            .settings
            .target(id)
            .map_or("", |target| target.name.as_str());
        let mut text = Self::of_file("target ", id);
        text.push(' ');
        text.push_str(name);
        text.push_str(" runs ");
        match self.running(id) {
            Some(version) => version.push_text(&mut text),
            None => text.push_str("an unknown version"),
        }
        let code = self.probe_state(id).code;
        text.push_str(", image state ");
        text.push_str(crate::code::PalImageState::text(code));
        self.log(Level::Info, &[&text]);
    }

    pub(super) fn probe_state(&self, id: FileId) -> TargetState {
        let probe = self.probes.iter().find(|probe| probe.file == id);
        probe.map(|probe| probe.state).unwrap_or_default()
    }

    /// The version that a target runs, as it said last.
    pub(super) fn running(&self, id: FileId) -> Option<Version> {
        self.probe_state(id).running
    }

    /// Acts on what a target shows; which act is the table's word.
    pub(super) fn on_look(&mut self, id: FileId, state: TargetState) {
        let attempts = self.settings.number32(Key::UpdateAttempts);
        let Some(job) = &mut self.job else { return };
        let Some(at) = job.position(id) else { return };
        let (memory, service) = (job.memory(at), job.service());
        let Some(file) = job.files.get_mut(at) else {
            return;
        };
        file.look = false;
        let late = core::mem::take(&mut file.late);
        match decide(memory, sight(state, file.image, file.old), service) {
            Step::Wait if late => self.on_never_back(id),
            Step::Wait => {
                file.look = true;
                self.look_again_later();
            }
            Step::Reset if late => self.on_never_back(id),
            Step::Reset => {
                file.phase = FilePhase::Armed;
                file.tries += 1;
                if file.tries > attempts {
                    self.on_never_back(id);
                }
            }
            Step::Activate if memory == super::recover::Memory::Commit => {
                // It went back although the decision is to go forward.
                file.tries += 1;
                file.tested = false;
                file.phase = FilePhase::Installed;
                if file.tries > attempts {
                    self.give_up_file(id, reverted(id));
                }
            }
            Step::Activate => {}
            Step::Test => self.on_new_runs(id, state),
            Step::Commit => {
                file.phase = if file.tested {
                    FilePhase::Committing
                } else {
                    FilePhase::Testing
                };
                self.timers.stop(Timer::Restart);
            }
            Step::Committed => {
                file.phase = FilePhase::Committed;
                self.timers.stop(Timer::Restart);
                self.touch_journal();
            }
            Step::Leave => self.on_back(id),
            // Going back goes on where it is.
            Step::Reject => {}
            Step::Reverted => {
                self.fail_rejected(reverted(id), true);
                // It is back already; nothing of it need be waited for.
                self.on_back(id);
            }
            Step::Mismatch => {
                let code = OtaErr::ImageStateMismatch.code() as u8;
                let what = "the target runs an image that is not of this job";
                self.fail_rejected(Failure::new(code, id, what), true);
            }
            Step::Transfer | Step::Abort | Step::Accepted => {}
        }
    }

    fn look_again_later(&mut self) {
        let wait = self.settings.number(Key::RequestTimeout);
        self.timers.set(Timer::Retry, self.now + wait);
        if !self.timers.runs(Timer::Restart) {
            self.set_restart_timer();
        }
    }

    pub(super) fn set_restart_timer(&mut self) {
        let targets = self.settings.targets.iter();
        let longest = targets
            .map(|target| target.restart_deadline_ms)
            .max()
            .unwrap_or(0);
        self.timers.set(Timer::Restart, self.now + longest);
    }

    /// The time for a restart is over: one last look decides.
    pub(super) fn on_restart_timeout(&mut self) {
        let Some(job) = &mut self.job else { return };
        let waits = |phase| matches!(phase, FilePhase::Restarting | FilePhase::Armed);
        let mut late = alloc::vec::Vec::new();
        for file in &mut job.files {
            if file.look || waits(file.phase) {
                file.look = true;
                file.late = true;
                late.push(file.id);
            }
        }
        self.timers.stop(Timer::Retry);
        self.ops
            .forget(|doing| matches!(doing, Doing::Duty(id, Duty::State) if late.contains(&id)));
    }

    fn on_never_back(&mut self, id: FileId) {
        let code = OtadErr::RestartTimeout.code() as u8;
        let failure = Failure::new(code, id, "the target did not come back with the new image");
        let Some(job) = &mut self.job else { return };
        if job.stage.is_open() {
            self.fail_rejected(failure, true);
        } else if job.stage == Stage::Commit {
            self.forward_trouble(id, failure);
        }
    }

    /// The new image runs: is it the one that was verified, and newer?
    fn on_new_runs(&mut self, id: FileId, state: TargetState) {
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        file.phase = file.phase.max(FilePhase::Testing);
        file.ran = true;
        let (image, old) = (file.image, file.old);
        file.image = image.or(state.running);
        self.timers.stop(Timer::Restart);
        self.touch_journal();
        match (state.running, image, old) {
            (Some(running), Some(image), _) if running != image => {
                let code = OtadErr::VersionMismatch.code() as u8;
                let sub = running.word() & 0x00ff_ffff;
                let what = "the target runs another version than the verified one";
                self.fail_rejected(Failure::new(code, sub, what), true);
            }
            (Some(running), None, Some(old)) => self.check_version(id, running, old, true),
            (Some(_), Some(_) | None, Some(_) | None) | (None, _, _) => {}
        }
    }

    /// Refuses the same or a lower version, unless the operator allows it.
    pub(super) fn check_version(&mut self, id: FileId, new: Version, old: Version, after: bool) {
        if self
            .settings
            .target(id)
            .is_some_and(|target| target.allow_downgrade)
            || new > old
        {
            return;
        }
        let (code, what) = if new == old {
            (
                OtaErr::SameFirmwareVersion,
                "the new version is the running one",
            )
        } else {
            (
                OtaErr::DowngradeNotAllowed,
                "the new version is older than the running one",
            )
        };
        self.fail_rejected(Failure::new(code.code() as u8, id, what), after);
    }

    pub(super) fn on_target_restarted(&mut self, id: FileId) {
        let text = Self::of_file("target has restarted, file ", id);
        self.log(Level::Info, &[&text]);
        let file = self
            .job
            .as_mut()
            .and_then(|job| job.file(id))
            .filter(|file| file.is_marked());
        if let Some(file) = file {
            file.look = true;
            self.timers.stop(Timer::Retry);
        } else if let Some(probe) = self.probes.iter_mut().find(|probe| probe.file == id) {
            probe.stale = true;
        }
    }

    /// Asks targets that have restarted by themselves, or were never asked.
    pub(super) fn step_probes(&mut self) {
        if self.state == State::Init {
            return;
        }
        for at in 0..self.probes.len() {
            let Some(probe) = self.probes.get(at) else {
                return;
            };
            let (id, stale) = (probe.file, probe.stale);
            if (stale || !probe.asked) && self.ops.duty(id).is_none() {
                self.order(Order::State(id), Doing::Duty(id, Duty::State));
            }
        }
    }

    pub(super) fn fail(&mut self, ending: super::job::Ending) {
        self.fail_by(Cause::JobFailed, ending, false);
    }

    /// An open job ends for this reason; the first one counts.
    fn fail_by(&mut self, cause: Cause, ending: super::job::Ending, self_test: bool) {
        let Some(job) = &mut self.job else { return };
        if job.stage.is_open() && job.failing.is_none() {
            job.failing = Some(super::job::Failing {
                cause,
                ending,
                self_test,
            });
        }
    }

    pub(super) fn fail_with(&mut self, status: Status, failure: Failure) {
        self.fail(super::job::Ending {
            status,
            failure: Some(failure),
        });
    }

    /// FAILED `0x<main>: 0x<sub>`.
    pub(super) fn fail_with_numbers(&mut self, failure: Failure) {
        let status = Status::Failed {
            main: failure.main.into(),
            sub: failure.sub,
        };
        self.fail_with(status, failure);
    }

    /// FAILED `aborted: 0x<whole PAL status>`.
    fn fail_aborted(&mut self, failure: Failure) {
        self.fail_with(
            Status::Aborted {
                code: code_word(&failure),
            },
            failure,
        );
    }

    /// FAILED `rejected: 0x<code>`.
    pub(super) fn fail_rejected(&mut self, failure: Failure, self_test: bool) {
        let status = Status::Rejected {
            code: code_word(&failure),
        };
        let ending = super::job::Ending {
            status,
            failure: Some(failure),
        };
        self.fail_by(Cause::JobFailed, ending, self_test);
    }

    /// Withdrawn by the service, or given up by the user.
    pub(super) fn fail_for(&mut self, cause: Cause, failure: Failure) {
        let status = Status::Aborted {
            code: code_word(&failure),
        };
        let ending = super::job::Ending {
            status,
            failure: Some(failure),
        };
        self.fail_by(cause, ending, false);
    }

    /// The tries of a file are used up.
    pub(super) fn give_up_file(&mut self, id: FileId, failure: Failure) {
        let Some(job) = &mut self.job else { return };
        if job.stage.is_open() {
            self.fail_with_numbers(failure);
        } else if let Some(file) = job.file(id) {
            file.phase = FilePhase::Failed;
            self.view.last_error = Some(failure);
        }
    }
}

fn verified(outcome: Outcome) -> Result<ImageInfo, Failure> {
    match outcome {
        Outcome::Verified(info) => Ok(info),
        Outcome::Failed(failure) => Err(failure),
        Outcome::Nothing | Outcome::Held(_) | Outcome::State(_) | Outcome::Other(_) => {
            Err(wrong_outcome())
        }
    }
}

/// The agent's own codes stand alone on the wire, a PAL's or the host's with its sub code in one word.
fn code_word(failure: &Failure) -> u32 {
    if failure.main < 0x80 {
        failure.main.into()
    } else {
        failure.word()
    }
}

fn reverted(id: FileId) -> Failure {
    let code = OtadErr::RolledBack.code() as u8;
    Failure::new(code, id, "the target went back to the old image by itself")
}
