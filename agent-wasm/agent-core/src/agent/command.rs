//! What an operator or the application wants. A command that cannot be followed is refused with the C agent's code and
//! changes nothing.

use alloc::string::String;

use crate::code::{HostErr, OtaErr, State};
use crate::types::{Command, Failure, FileId};

use super::job::{FilePhase, Stage};
use super::lines::{Line, Why};
use super::ops::Deed;
use super::table::Cause;
use super::timer::{NEVER, Timer, Timers};
use super::{Agent, said};

macro_rules! refusals {
    ($( $name:ident = $code:expr, $text:literal; )+) => {
        /// Why a command cannot be followed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Refusal {
            $( $name, )+
        }

        /// What is said about each, in their order.
        pub(super) const REFUSALS: &str = concat!($( $text, "\n", )+);

        /// Codes of [`Failure::main`].
        const CODES: [u8; [$( Refusal::$name, )+].len()] = [$( $code.code() as u8, )+];
    };
}

refusals! {
    Stopped = OtaErr::AgentStopped, "the agent is stopped";
    Suspended = OtaErr::RequestJobFailed, "the agent is suspended, resume it first";
    NothingVerified = OtaErr::ActivateFailed, "no verified image waits for activation";
    NoFileToActivate = OtaErr::InvalidArg, "the job has no such file to activate";
    NoJob = OtaErr::NoActiveJob, "there is no job";
    NoFileInTest = OtaErr::InvalidArg, "the job has no such file in test";
    NoVerdictAwaited = OtaErr::ImageStateMismatch, "no verdict is awaited now";
    Decided = OtaErr::ImageStateMismatch, "the job is decided already";
    NotOffered = OtaErr::NoActiveJob, "no such job is offered";
    BadReason = OtaErr::InvalidArg, "reason not printable or too long";
    TakenAlready = OtaErr::InvalidArg, "the custom job was taken already";
    BadResult = OtaErr::InvalidArg, "the job service would refuse this result";
    UnknownValue = HostErr::Unsupported, "no custom value of this name is known";
    NoJobsNow = OtaErr::AgentStopped, "the agent takes no jobs now";
}

impl Refusal {
    /// The sentence, by its row.
    const fn row(self) -> usize {
        said::REFUSALS + self as usize
    }

    pub(super) fn failure(self) -> Failure {
        let mut text = String::new();
        said::push(&mut text, self.row());
        let main = CODES.get(self as usize).copied().unwrap_or_default();
        Failure::new(main, 0, &text)
    }
}

impl Agent {
    pub(super) fn on_command(&mut self, command: Command) {
        if let Err(refusal) = self.obey(command) {
            self.note_said(Line::Refused, refusal.row());
            self.view.refused = Some(refusal);
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), Refusal> {
        if matches!(self.state, State::ShuttingDown | State::Stopped) {
            return Err(Refusal::Stopped);
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
    fn check_for_update(&mut self) -> Result<(), Refusal> {
        if self.is_suspended() {
            return Err(Refusal::Suspended);
        }
        self.asking.next = true;
        self.news.idle_told = false;
        if self.asking.sent.is_none() {
            self.asking.tries = 0;
            self.stop(Timer::Ask);
        }
        Ok(())
    }

    fn suspend(&mut self) {
        if !self.is_suspended() {
            self.suspended_since = self.now;
            self.cancel_ranges();
            self.pause_transfer();
            self.touch_journal();
            self.note(Line::Suspended);
        }
    }

    /// Goes on, if it was suspended: the time until now counts for no deadline, and the service is asked anew.
    fn resume(&mut self) {
        let since = core::mem::replace(&mut self.suspended_since, NEVER);
        if since == NEVER {
            return;
        }
        let pause = self.now.saturating_sub(since);
        self.timers.shift(pause);
        self.ops.shift(pause);
        self.asking.sent = None;
        self.stop(Timer::Ask);
        self.asking.next = self.begun;
        self.relinked = true;
        self.touch_journal();
        self.note(Line::Resumed);
        if self.state == State::Suspended {
            self.set_state(Cause::Resume, self.natural_state());
        }
    }

    fn activate(&mut self, id: FileId) -> Result<(), Refusal> {
        if self.job.stage != Stage::AwaitRestart {
            return Err(Refusal::NothingVerified);
        }
        let Some(file) = self.file(id).filter(|file| file.firmware) else {
            return Err(Refusal::NoFileToActivate);
        };
        if !core::mem::replace(&mut file.approved, true) {
            self.note_number(Line::ActivationOrdered, id);
            self.touch_journal();
        }
        Ok(())
    }

    fn take_verdict(&mut self, id: FileId, failure: Option<Failure>) -> Result<(), Refusal> {
        if !self.job.is_taken() || self.job.id.is_none() {
            return Err(Refusal::NoJob);
        }
        let stage = self.job.stage;
        let Some(file) = self.file(id).filter(|file| file.firmware) else {
            return Err(Refusal::NoFileInTest);
        };
        let in_test = (FilePhase::Testing..=FilePhase::Committed).contains(&file.phase);
        match (stage, failure) {
            (Stage::Testing, None) => {
                file.tested = true;
                self.touch_journal();
                self.note_number(Line::TestAccepted, id);
                Ok(())
            }
            (Stage::Testing, Some(failure)) => {
                self.note_number(Line::TestRejected, id);
                self.reject_by_order(&failure);
                Ok(())
            }
            (Stage::Commit, None) if in_test => Ok(()),
            _ => Err(Refusal::NoVerdictAwaited),
        }
    }

    fn user_abort(&mut self) -> Result<(), Refusal> {
        if !self.job.is_taken() || self.job.id.is_none() {
            return Err(Refusal::NoJob);
        }
        if !self.job.stage.is_open() {
            return Err(Refusal::Decided);
        }
        // An abort is not put off until somebody resumes.
        self.resume();
        self.fail_by(Cause::UserAbort, Why::ota(OtaErr::UserAbort));
        Ok(())
    }

    /// Stops for good. The job stays in the journal: another start goes on with it.
    fn shut_down(&mut self, unsubscribe: bool) {
        self.cancel_ranges();
        self.ops.forget(&|pending| pending.deed != Deed::Journal);
        self.timers = Timers::new();
        let limit = 2 * self.number(crate::settings::Key::RequestTimeout);
        self.arm_in(Timer::Shutdown, limit);
        self.transfer = None;
        self.drop_offer(false);
        if unsubscribe {
            self.unsubscribe(true);
        }
        self.set_state(Cause::Shutdown, State::ShuttingDown);
    }
}
