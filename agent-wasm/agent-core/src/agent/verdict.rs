//! The decision and what follows from it: test all, then commit all with the gateway's own file first, or bring all
//! back with it last; then the report.
//!
//! Before the decision is in the journal any failure sends the job back. After it nothing does, as long as one image
//! is permanent: a target that went back is brought forward again, a limited number of times.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::code::{JobEvent, OtadErr, State};
use crate::jobs::{CustomResult, Status};
use crate::settings::Key;
use crate::text::{push_decimal, push_hex8};
use crate::types::{Failure, FileId, Level, Order};

use super::Agent;
use super::job::{Ending, FilePhase, Job, Stage};
use super::ops::{Doing, Duty};
use super::request::Asking;
use super::table::Cause;
use super::timer::Timer;

impl Agent {
    pub(super) fn step_testing(&mut self) -> bool {
        let Some(job) = &self.job else {
            return self.lost_job();
        };
        // Until the verdict is in, a target that restarts may have gone back: look before anything else.
        let look = job
            .files
            .iter()
            .find(|file| file.firmware && file.look)
            .map(|file| file.id);
        if let Some(id) = look {
            self.drive_forward(id);
            return false;
        }
        if !job.active {
            if !self.report(&Status::SelfTestActive(self.running_word())) {
                return false;
            }
            self.log(Level::Info, &["the self-test begins"]);
        }
        let Some(job) = &mut self.job else {
            return false;
        };
        job.active = true;
        let open: Vec<FileId> = job
            .files
            .iter()
            .filter(|f| f.firmware && !f.tested)
            .map(|f| f.id)
            .collect();
        if !open.is_empty() {
            self.drive_tests(&open);
            return false;
        }
        job.stage = Stage::Commit;
        self.timers.stop(Timer::Test);
        let status = self.job_ref().map(|job| self.accepted_status(job));
        if let (Some(job), Some(status)) = (&mut self.job, status) {
            job.ending = Some(Ending {
                status,
                failure: None,
            });
        }
        self.touch_journal();
        self.set_state(Cause::TestsPassed, State::Committing);
        true
    }

    pub(super) fn accepted_status(&self, job: &Job) -> Status {
        Status::Accepted {
            running: self.running_word(),
            updated_by: job.updated_by,
        }
    }

    /// Asks for the verdicts that are missing: the host's own tests one after the other, the application's at once.
    fn drive_tests(&mut self, open: &[FileId]) {
        let mut testing = false;
        for id in open {
            let external = self
                .settings
                .target(*id)
                .is_some_and(|target| target.external_test);
            let Some(file) = self.job.as_mut().and_then(|job| job.file(*id)) else {
                continue;
            };
            if external {
                if !core::mem::replace(&mut file.announced, true) {
                    let version = file.image;
                    self.tell(JobEvent::StartTest, Some(*id), None, version, Vec::new());
                }
            } else if !testing {
                testing = true;
                self.drive_test(*id);
            }
        }
    }

    fn drive_test(&mut self, id: FileId) {
        if self.ops.duty(id).is_none() && !self.timers.runs(Timer::Retry) {
            let text = Self::of_file("testing the target of file ", id);
            self.log(Level::Info, &[&text]);
            self.order(Order::SelfTest(id), Doing::Duty(id, Duty::SelfTest));
        }
    }

    pub(super) fn on_self_tested(&mut self, id: FileId, result: Result<(), Failure>) {
        let Some(job) = &mut self.job else { return };
        let stage = job.stage;
        let Some(file) = job.file(id) else { return };
        match (result, stage) {
            (Ok(()), _) => file.tested = true,
            // Somebody has given the verdict in the meantime.
            (Err(_), _) if file.tested => {}
            (Err(failure), Stage::Testing) => self.fail_rejected(failure, false),
            (Err(failure), Stage::Commit) => self.forward_trouble(id, failure),
            (
                Err(_),
                Stage::Taken | Stage::AwaitRestart | Stage::Back | Stage::Report | Stage::Custom,
            ) => {}
        }
    }

    pub(super) fn on_test_timeout(&mut self) {
        if self.unclaimed {
            self.refute_claim();
            return;
        }
        let Some(job) = &self.job else { return };
        if job.stage == Stage::Testing {
            let open = job.files.iter().find(|file| file.firmware && !file.tested);
            let id = open.map_or(0, |file| file.id);
            let code = OtadErr::SelfTestTimeout.code() as u8;
            self.fail_rejected(
                Failure::new(code, id, "the self-test gave no verdict in time"),
                false,
            );
        }
    }

    pub(super) fn step_committing(&mut self) -> bool {
        if !self.is_durable() {
            return false;
        }
        let Some(job) = &mut self.job else {
            return self.lost_job();
        };
        let over = |phase| matches!(phase, FilePhase::Committed | FilePhase::Failed);
        let failed = job.files.iter().any(|file| file.phase == FilePhase::Failed);
        let committed = job
            .files
            .iter()
            .any(|f| f.firmware && f.phase == FilePhase::Committed);
        if failed && !committed {
            self.go_back_after_all();
            return true;
        }
        let open = job
            .files
            .iter()
            .find(|file| file.firmware && !over(file.phase));
        if let Some(id) = open.map(|file| file.id) {
            self.drive_commit(id);
            return false;
        }
        for file in job.files.iter_mut().filter(|file| !file.firmware) {
            file.phase = FilePhase::Committed;
        }
        job.stage = Stage::Report;
        if failed {
            self.end_split(FilePhase::Failed);
        }
        self.touch_journal();
        if self.job_ref().is_some_and(|job| job.withdrawn) {
            self.conclude();
            self.set_state(Cause::AllCommitted, State::RequestingJob);
        } else {
            self.set_state(Cause::AllCommitted, State::Reporting);
        }
        true
    }

    /// Nothing is permanent yet and one image never will be: all can still be old.
    fn go_back_after_all(&mut self) {
        let last = self.view.last_error.clone();
        let Some(job) = &mut self.job else { return };
        let code = OtadErr::AttemptsExhausted.code() as u8;
        let what = "the new image could not be made permanent";
        let failure = last.unwrap_or_else(|| Failure::new(code, 0, what));
        job.stage = Stage::Back;
        for file in job.files.iter_mut().filter(|file| file.firmware) {
            // Wherever it got stuck, the target is asked before it is told to go back.
            file.phase = FilePhase::Testing;
            file.look = true;
            file.tries = 0;
        }
        let status = Status::Failed {
            main: failure.main.into(),
            sub: failure.sub,
        };
        let news = Some(failure.clone());
        job.ending = Some(Ending {
            status,
            failure: Some(failure),
        });
        self.tell(JobEvent::Fail, None, news, None, Vec::new());
        self.set_state(Cause::JobFailed, State::GoingBack);
    }

    fn drive_commit(&mut self, id: FileId) {
        if self.ops.duty(id).is_some() || self.timers.runs(Timer::Retry) {
            return;
        }
        let external = self
            .settings
            .target(id)
            .is_some_and(|target| target.external_test);
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        let runs = matches!(file.phase, FilePhase::Testing | FilePhase::Committing);
        if file.look || !runs {
            self.drive_forward(id);
        } else if !file.tested && !external {
            self.drive_test(id);
        } else {
            file.phase = FilePhase::Committing;
            let text = Self::of_file("committing file ", id);
            self.log(Level::Info, &[&text]);
            self.order(Order::Commit(id), Doing::Duty(id, Duty::Commit));
        }
    }

    pub(super) fn on_committed(&mut self, id: FileId, result: Result<(), Failure>) {
        let Some(job) = &mut self.job else { return };
        if job.stage != Stage::Commit {
            return;
        }
        let Some(file) = job.file(id) else { return };
        match result {
            Ok(()) => {
                file.phase = FilePhase::Committed;
                self.touch_journal();
            }
            Err(failure) => self.forward_trouble(id, failure),
        }
    }

    /// After the decision a failure is a reason to look and try again, a few times.
    pub(super) fn forward_trouble(&mut self, id: FileId, failure: Failure) {
        let attempts = self.settings.number32(Key::UpdateAttempts);
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        file.tries += 1;
        if file.tries > attempts {
            self.give_up_file(id, failure);
            return;
        }
        file.look = true;
        let tries = file.tries;
        let wait = self.back_off(tries);
        self.timers.set(Timer::Retry, self.now + wait);
        self.view.last_error = Some(failure);
    }

    /// An open job has a reason to end: everything goes back.
    pub(super) fn step_failing(&mut self) -> bool {
        let Some(job) = &mut self.job else {
            return false;
        };
        let Some(failing) = job.failing.take() else {
            return false;
        };
        if !job.stage.is_open() {
            return false;
        }
        job.withdrawn |= failing.cause == Cause::JobWithdrawn;
        job.stage = Stage::Back;
        job.ending = Some(failing.ending.clone());
        let id = String::from(job.text());
        for file in &mut job.files {
            file.tries = 0;
        }
        self.transfer = None;
        self.unsubscribe_stream();
        for timer in [
            Timer::Test,
            Timer::Reminder,
            Timer::Limit,
            Timer::Retry,
            Timer::Custom,
        ] {
            self.timers.stop(timer);
        }
        // What only prepares is thrown away by `abort`; the end of a mark or of a restart must be known.
        self.ops.forget(|doing| {
            matches!(
                doing,
                Doing::Write(..)
                    | Doing::Duty(_, Duty::Create | Duty::Reopen | Duty::Close | Duty::Install)
            )
        });
        let failure = failing.ending.failure;
        let detail = failure
            .as_ref()
            .map_or("", |failure| failure.detail.as_str());
        self.log(Level::Error, &["job ", &id, " failed: ", detail]);
        if failing.self_test {
            self.tell(
                JobEvent::SelfTestFailed,
                None,
                failure.clone(),
                None,
                Vec::new(),
            );
        }
        self.tell(JobEvent::Fail, None, failure, None, Vec::new());
        self.set_state(failing.cause, State::GoingBack);
        true
    }

    pub(super) fn step_going_back(&mut self) -> bool {
        let Some(job) = &self.job else {
            return self.lost_job();
        };
        for at in job.zero_last() {
            let Some(file) = job.files.get(at) else {
                continue;
            };
            let untouched = file.phase == FilePhase::ToDo && !file.reopen && !file.asked;
            let over = matches!(
                file.phase,
                FilePhase::Committed | FilePhase::WentBack | FilePhase::Failed
            );
            if !untouched && !over {
                let id = file.id;
                self.drive_back(id);
                return false;
            }
        }
        self.timers.stop(Timer::Restart);
        self.end_going_back();
        true
    }

    fn drive_back(&mut self, id: FileId) {
        if self.ops.duty(id).is_some() || self.timers.runs(Timer::Retry) {
            return;
        }
        let restarts = self.timers.runs(Timer::Restart);
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        if file.look {
            self.order(Order::State(id), Doing::Duty(id, Duty::State));
        } else if file.phase == FilePhase::Restarting && restarts {
            // In the middle of a restart nothing can be told to it; its end or its time-out comes.
        } else if file.phase == FilePhase::GoingBack || file.is_marked() {
            file.phase = FilePhase::GoingBack;
            let text = Self::of_file("rejecting the image of file ", id);
            self.log(Level::Info, &[&text]);
            self.order(Order::Reject(id), Doing::Duty(id, Duty::Reject));
        } else {
            file.phase = FilePhase::GoingBack;
            let text = Self::of_file("aborting file ", id);
            self.log(Level::Info, &[&text]);
            self.order(Order::Abort(id), Doing::Duty(id, Duty::Abort));
        }
    }

    pub(super) fn on_aborted(&mut self, id: FileId) {
        // Whether it worked or not: the next job throws away what is left.
        if let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) {
            file.phase = FilePhase::WentBack;
        }
    }

    pub(super) fn on_rejected(&mut self, id: FileId, result: Result<(), Failure>) {
        match result {
            Ok(()) => self.on_back(id),
            Err(failure) => self.forward_trouble(id, failure),
        }
    }

    /// The old image runs, or nothing was ever changed.
    pub(super) fn on_back(&mut self, id: FileId) {
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        file.phase = FilePhase::WentBack;
        let (ran, version) = (file.ran, file.old);
        if ran {
            self.tell(JobEvent::RolledBack, Some(id), None, version, Vec::new());
        }
    }

    fn end_going_back(&mut self) {
        let Some(job) = &mut self.job else { return };
        let failed = job.files.iter().any(|file| file.phase == FilePhase::Failed);
        let others = job
            .files
            .iter()
            .any(|f| f.firmware && f.phase != FilePhase::Failed);
        if failed && others {
            self.end_split(FilePhase::Failed);
        }
        let Some(job) = &mut self.job else { return };
        let next = if job.id.is_none() || job.withdrawn {
            self.conclude();
            State::RequestingJob
        } else {
            job.stage = Stage::Report;
            self.touch_journal();
            State::Reporting
        };
        self.set_state(Cause::AllWentBack, next);
    }

    /// A group that is on two sides: the reason names the versions.
    fn end_split(&mut self, stuck: FilePhase) {
        let Some(job) = &self.job else { return };
        let first = job
            .files
            .iter()
            .find(|file| file.phase == stuck)
            .map_or(0, |file| file.id);
        let mut reason = String::from("0x");
        push_hex8(&mut reason, OtadErr::GroupSplit.code());
        reason.push_str(": 0x");
        push_hex8(&mut reason, first);
        let mut versions = String::new();
        for file in job.files.iter().filter(|file| file.firmware) {
            if !versions.is_empty() {
                versions.push(' ');
            }
            push_decimal(&mut versions, file.id.into());
            versions.push('=');
            match self.running(file.id) {
                Some(version) => version.push_text(&mut versions),
                None => versions.push('?'),
            }
        }
        let code = OtadErr::GroupSplit.code() as u8;
        let failure = Failure::new(code, first, &["the group is split: ", &versions].concat());
        self.log(Level::Error, &["the group is split: ", &versions]);
        let details = vec![
            (String::from("reason"), reason),
            (String::from("group-split"), versions),
        ];
        let Ok(result) = CustomResult::new(1, details) else {
            return;
        };
        if let Some(job) = &mut self.job {
            let status = Status::Custom(result);
            job.ending = Some(Ending {
                status,
                failure: Some(failure),
            });
        }
    }

    pub(super) fn step_reporting(&mut self) -> bool {
        let Some(job) = &self.job else {
            return self.lost_job();
        };
        if job.withdrawn {
            self.conclude();
            self.set_state(Cause::JobWithdrawn, State::RequestingJob);
            return true;
        }
        let Some(status) = job.ending.as_ref().map(|ending| ending.status.clone()) else {
            return self.lost_job();
        };
        if !self.report(&status) {
            return false;
        }
        self.conclude();
        self.set_state(Cause::StatusAcknowledged, State::RequestingJob);
        true
    }

    /// The job is over for this agent.
    fn conclude(&mut self) {
        let Some(job) = self.job.take() else { return };
        let document = core::mem::take(&mut self.reporter.payload).into_bytes();
        self.reporter = super::report::Reporter::default();
        for timer in [Timer::Status, Timer::Retry, Timer::Restart, Timer::Custom] {
            self.timers.stop(timer);
        }
        // A question from before the end would be answered with the job that is over.
        self.asking = Asking {
            next: true,
            ..Asking::default()
        };
        self.timers.stop(Timer::Ask);
        self.relinked = false;
        let Some(id) = job.id.clone() else {
            self.touch_journal();
            return;
        };
        let failure = job
            .ending
            .as_ref()
            .and_then(|ending| ending.failure.clone());
        let version = job.files.first().and_then(|file| file.image);
        let document = if job.withdrawn { Vec::new() } else { document };
        self.log(Level::Info, &["job ", id.as_str(), " has ended"]);
        // The event is the job's, so it must be told while the job is there.
        self.job = Some(job);
        self.tell(JobEvent::JobEnded, None, failure, version, document);
        self.job = None;
        self.remember(id);
    }
}
