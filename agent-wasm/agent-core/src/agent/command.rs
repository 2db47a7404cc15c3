//! What an operator or the application wants. A command that cannot be followed is refused with the C agent's code and
//! changes nothing.

use crate::code::{OtaErr, State};
use crate::settings::Key;
use crate::types::{Command, Failure, FileId, Level};

use super::Agent;
use super::answer::refused;
use super::job::{FilePhase, Stage};
use super::ops::Doing;
use super::table::Cause;
use super::timer::{Timer, Timers};

impl Agent {
    pub(super) fn obey(&mut self, command: Command) -> Result<(), Failure> {
        if matches!(self.state, State::ShuttingDown | State::Stopped) {
            return Err(refused(OtaErr::AgentStopped, "the agent is stopped"));
        }
        match command {
            Command::CheckForUpdate => self.check_for_update(),
            Command::Suspend => {
                self.suspend();
                Ok(())
            }
            Command::Resume => {
                self.resume();
                Ok(())
            }
            Command::Activate(file) => self.activate(file),
            Command::TestResult { file, failure } => self.take_verdict(file, failure),
            Command::UserAbort => self.user_abort(),
            Command::AnswerOffer { job_id, answer } => self.answer_offer(&job_id, answer),
            Command::AnswerCustomJob { job_id, answer } => self.answer_custom_job(&job_id, answer),
            Command::Shutdown { unsubscribe } => {
                self.shut_down(unsubscribe);
                Ok(())
            }
        }
    }

    /// In every state but these two the question goes out as soon as there is a connection; with a job at hand the
    /// answer is no news, or shows that the job is gone.
    fn check_for_update(&mut self) -> Result<(), Failure> {
        if self.suspended_since.is_some() {
            return Err(refused(
                OtaErr::RequestJobFailed,
                "the agent is suspended, resume it first",
            ));
        }
        self.asking.next = true;
        self.news.idle_told = false;
        if self.asking.sent.is_none() {
            self.asking.tries = 0;
            self.timers.stop(Timer::Ask);
        }
        Ok(())
    }

    fn suspend(&mut self) {
        if self.suspended_since.is_none() {
            self.suspended_since = Some(self.now);
            self.pause_transfer();
            self.touch_journal();
            self.log(Level::Info, &["suspended by order"]);
        }
    }

    fn resume(&mut self) {
        if self.suspended_since.is_none() {
            return;
        }
        self.end_suspension();
        self.log(Level::Info, &["resumed by order"]);
        if self.state == State::Suspended {
            let next = self.natural_state();
            self.set_state(Cause::Resume, next);
        }
    }

    /// Time that was spent suspended counts for no deadline.
    fn end_suspension(&mut self) {
        let Some(since) = self.suspended_since.take() else {
            return;
        };
        let pause = self.now.saturating_sub(since);
        self.timers.shift(pause);
        self.ops.shift(pause);
        self.asking.sent = None;
        self.timers.stop(Timer::Ask);
        self.asking.next = self.begun;
        self.relinked = true;
        self.touch_journal();
    }

    fn activate(&mut self, id: FileId) -> Result<(), Failure> {
        let job = self
            .job
            .as_mut()
            .filter(|job| job.stage == Stage::AwaitRestart);
        let Some(job) = job else {
            return Err(refused(
                OtaErr::ActivateFailed,
                "no verified image waits for activation",
            ));
        };
        let Some(file) = job.file(id).filter(|file| file.firmware) else {
            return Err(refused(
                OtaErr::InvalidArg,
                "the job has no such file to activate",
            ));
        };
        if !file.approved {
            file.approved = true;
            let text = Self::of_file("activation ordered, file ", id);
            self.log(Level::Info, &[&text]);
            self.touch_journal();
        }
        Ok(())
    }

    fn take_verdict(&mut self, id: FileId, failure: Option<Failure>) -> Result<(), Failure> {
        let Some(job) = self.job.as_mut().filter(|job| job.id.is_some()) else {
            return Err(refused(OtaErr::NoActiveJob, "there is no job"));
        };
        let stage = job.stage;
        let tested = |phase| (FilePhase::Testing..=FilePhase::Committed).contains(&phase);
        let Some(file) = job.file(id).filter(|file| file.firmware) else {
            return Err(refused(
                OtaErr::InvalidArg,
                "the job has no such file in test",
            ));
        };
        match (stage, failure) {
            (Stage::Testing, None) => {
                file.tested = true;
                let text = Self::of_file("self-test accepted by order, file ", id);
                self.log(Level::Info, &[&text]);
                Ok(())
            }
            (Stage::Testing, Some(failure)) => {
                let text = Self::of_file("self-test rejected by order, file ", id);
                self.log(Level::Info, &[&text]);
                self.fail_rejected(failure, false);
                Ok(())
            }
            (Stage::Commit, None) if tested(file.phase) => Ok(()),
            _ => Err(refused(
                OtaErr::ImageStateMismatch,
                "no verdict is awaited now",
            )),
        }
    }

    fn user_abort(&mut self) -> Result<(), Failure> {
        let Some(job) = self.job.as_ref().filter(|job| job.id.is_some()) else {
            return Err(refused(OtaErr::NoActiveJob, "there is no job"));
        };
        if !job.stage.is_open() {
            return Err(refused(
                OtaErr::ImageStateMismatch,
                "the job is decided already",
            ));
        }
        // An abort is not put off until somebody resumes.
        self.end_suspension();
        let code = OtaErr::UserAbort.code();
        self.fail_for(
            Cause::UserAbort,
            Failure::new(code as u8, 0, "given up by order"),
        );
        Ok(())
    }

    /// Stops for good. The job stays in the journal: another start goes on with it.
    fn shut_down(&mut self, unsubscribe: bool) {
        self.ops.forget(|doing| doing != Doing::Journal);
        self.timers = Timers::default();
        let limit = 2 * self.settings.number(Key::RequestTimeout);
        self.timers.set(Timer::Shutdown, self.now + limit);
        self.transfer = None;
        self.offered = None;
        if unsubscribe {
            self.unsubscribe_all();
        }
        self.set_state(Cause::Shutdown, State::ShuttingDown);
    }
}
