//! The stages of a job: which file is next and how far it goes, the decision, and what follows from it.
//!
//! All files are fetched and installed; `ready` is acknowledged; the images are activated one by one with the
//! gateway's own file last; all are tested; then all are committed with the gateway's own file first, or brought back
//! with it last; then the end is reported. Before the decision is in the journal any failure sends the job back. After
//! it nothing does, as long as one image is permanent.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::code::{JobEvent, OtadErr, State};
use crate::jobs::{CustomResult, Status, VersionWord};
use crate::settings::Key;
use crate::text::{push_decimal, push_hex8};
use crate::types::{Failure, FileId};

use super::Agent;
use super::job::{Ending, FilePhase, Job, JobFile, Stage};
use super::lines::{Line, Why};
use super::ops::Deed;
use super::report::{Due, Reporter};
use super::request::Asking;
use super::table::Cause;
use super::timer::Timer;

/// How a failure is written in the job's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `0x<main>: 0x<sub>`.
    Numbers,
    /// `aborted: 0x<code>`.
    Aborted,
    /// `rejected: 0x<code>`.
    Rejected,
}

impl Style {
    pub(super) const fn status(self, why: Why) -> Status {
        match self {
            Self::Numbers => Status::Failed {
                main: why.main,
                sub: why.sub,
            },
            Self::Aborted => Status::Aborted { code: why.word() },
            Self::Rejected => Status::Rejected { code: why.word() },
        }
    }
}

impl Agent {
    /// Brings the first file that is so further; whether there is one.
    fn drive_first(&mut self, is: fn(&JobFile) -> bool) -> bool {
        let id = self.job.first(is);
        if let Some(id) = id {
            self.drive(id);
        }
        id.is_some()
    }

    pub(super) fn step_creating(&mut self) -> bool {
        let next = self.natural_state();
        if next == State::CreatingFile {
            self.drive_first(|file| file.phase < FilePhase::Verified);
            return false;
        }
        self.view.zero_counters();
        self.set_state(Cause::CreateFile, next);
        true
    }

    pub(super) fn step_closing(&mut self) -> bool {
        let next = self.natural_state();
        if next == State::ClosingFile {
            self.drive_first(|file| file.phase < FilePhase::Verified);
            return false;
        }
        let closed = self.transfer.take().map(|transfer| transfer.file);
        let unverified =
            |file: &JobFile| Some(file.id) == closed && file.phase < FilePhase::Verified;
        let failed = self.job.files.iter().any(unverified);
        if next == State::Installing {
            self.unsubscribe(false);
        }
        let cause = if failed {
            Cause::FileUnverified
        } else {
            Cause::FileVerified
        };
        self.set_state(cause, next);
        true
    }

    pub(super) fn step_installing(&mut self) -> bool {
        if self.natural_state() != State::Installing {
            self.set_state(Cause::FileUnverified, State::CreatingFile);
            return true;
        }
        if self.drive_first(|file| file.phase < FilePhase::Installed) {
            return false;
        }
        if self.job.first(|file| file.firmware).is_none() {
            let file_type = self.job.files.first().map_or(0, |file| file.file_type);
            self.end_with(&Status::AcceptedFile { file_type }, Why::default());
            self.job.stage = Stage::Report;
            self.touch_journal();
            self.set_state(Cause::FilesInstalled, State::Reporting);
            return true;
        }
        let word = self.running_word();
        if !self.report(Due::Ready) {
            return false;
        }
        self.job.stage = Stage::AwaitRestart;
        self.job.updated_by = word;
        for at in 0..self.job.files.len() {
            let Some(file) = self.job.files.get(at).copied() else {
                break;
            };
            if file.firmware {
                self.tell_file(JobEvent::Activate, file.id, file.image);
            }
        }
        let next = self.natural_state();
        if next == State::WaitingForActivation {
            self.arm(Timer::Limit, Key::ActivationDeadline);
        }
        self.set_state(Cause::StatusAcknowledged, next);
        true
    }

    /// A file whose activation waits for an order.
    pub(super) fn awaits_order(&self) -> Option<FileId> {
        let waits = |file: &&JobFile| {
            let deferred = self
                .settings
                .target(file.id)
                .is_some_and(|target| target.deferred);
            file.firmware && deferred && !file.approved
        };
        self.job.files.iter().find(waits).map(|file| file.id)
    }

    pub(super) fn step_waiting_for_activation(&mut self) -> bool {
        if self.awaits_order().is_some() {
            self.arm_once(Timer::Reminder, Key::ActivationReminder);
            self.arm_once(Timer::Limit, Key::ActivationDeadline);
            return false;
        }
        self.stop(Timer::Reminder);
        self.stop(Timer::Limit);
        self.set_state(Cause::ActivationOrdered, State::WaitingForRestart);
        true
    }

    /// Still deferred: say so, keep the remaining time, and ask whether the job still stands.
    pub(super) fn on_reminder(&mut self) {
        self.note(Line::StillDeferred);
        self.asking.describe = true;
        self.touch_journal();
    }

    pub(super) fn on_activation_timeout(&mut self) {
        if let Some(id) = self.awaits_order() {
            self.fail_with_numbers(Why::own(OtadErr::ActivationTimeout, id));
        }
    }

    pub(super) fn step_waiting_for_restart(&mut self) -> bool {
        let open = |file: &JobFile| file.firmware && (file.phase < FilePhase::Testing || file.look);
        if let Some(id) = self.job.zero_last(open) {
            self.drive(id);
            return false;
        }
        self.job.stage = Stage::Testing;
        self.job.read_again = false;
        self.touch_journal();
        self.begin_test();
        self.set_state(Cause::TargetsRestarted, State::Testing);
        true
    }

    pub(super) fn begin_test(&mut self) {
        let mut longest = 0;
        for file in self.job.files.iter().filter(|file| file.firmware) {
            let target = self.settings.target(file.id);
            longest = longest.max(target.map_or(0, |target| target.self_test_deadline_ms));
        }
        if longest == 0 {
            longest = self.number(Key::SelfTestDeadline);
        }
        self.arm_in(Timer::Test, longest);
    }

    pub(super) fn step_testing(&mut self) -> bool {
        // Until the verdict is in, a target that restarts may have gone back: look before anything else.
        if self.drive_first(|file| file.firmware && file.look) {
            return false;
        }
        if !self.job.active {
            // The connection works again, and the job still stands: only then there is something to test.
            if !self.job.read_again {
                let asks = self.asking.next || self.asking.sent.is_some();
                self.asking.describe |= self.connected && !asks;
                return false;
            }
            if !self.report(Due::Active) {
                return false;
            }
            self.job.active = true;
            self.note(Line::TestBegins);
        }
        if mutant!(CommitUntested) {
            for file in &mut self.job.files {
                file.tested = true;
            }
        }
        let mut testing = false;
        let mut open = false;
        for at in 0..self.job.files.len() {
            let Some(file) = self.job.files.get(at).copied() else {
                break;
            };
            if !file.firmware || file.tested {
                continue;
            }
            open = true;
            // The host's own tests one after the other, the application's at once.
            if !self
                .settings
                .target(file.id)
                .is_some_and(|target| target.external_test)
            {
                if !core::mem::replace(&mut testing, true) {
                    self.drive(file.id);
                }
            } else if !file.announced {
                self.tell_file(JobEvent::StartTest, file.id, file.image);
                if let Some(file) = self.job.files.get_mut(at) {
                    file.announced = true;
                }
            }
        }
        if open {
            return false;
        }
        self.job.stage = Stage::Commit;
        // What the way here has cost, restarts in the test among it, does not count against the way forward.
        for file in &mut self.job.files {
            file.tries = 0;
        }
        self.stop(Timer::Test);
        self.end_accepted();
        self.touch_journal();
        self.set_state(Cause::TestsPassed, State::Committing);
        true
    }

    pub(super) fn end_accepted(&mut self) {
        let running = VersionWord(self.running_word());
        let updated_by = VersionWord(self.job.updated_by);
        self.end_with(
            &Status::Accepted {
                running,
                updated_by,
            },
            Why::default(),
        );
    }

    pub(super) fn on_test_timeout(&mut self) {
        if self.unclaimed && self.job.is_taken() {
            // The job at hand ends first.
            self.arm(Timer::Test, Key::SelfTestDeadline);
        } else if self.unclaimed {
            self.refute_claim();
        } else if self.job.stage == Stage::Testing {
            let open = self.job.first(|file| file.firmware && !file.tested);
            self.fail_rejected(Why::own(OtadErr::SelfTestTimeout, open.unwrap_or(0)));
        }
    }

    pub(super) fn step_committing(&mut self) -> bool {
        if mutant!(ReportedUncommitted) {
            self.report_or_conclude(Cause::AllCommitted);
            return true;
        }
        let failed = self.job.failed();
        let committed = |file: &JobFile| file.firmware && file.phase == FilePhase::Committed;
        // A decision that cannot be written down was not made.
        let undecided = !self.is_durable();
        if undecided && !self.has_no_journal() {
            return false;
        }
        if (failed.is_some() || undecided) && self.job.first(committed).is_none() {
            self.go_back_after_all();
            return true;
        }
        let open = |file: &JobFile| {
            file.firmware && !matches!(file.phase, FilePhase::Committed | FilePhase::Failed)
        };
        if self.drive_first(open) {
            return false;
        }
        for file in self.job.files.iter_mut().filter(|file| !file.firmware) {
            file.phase = FilePhase::Committed;
        }
        if let Some(first) = failed {
            self.end_split(first);
        }
        self.report_or_conclude(Cause::AllCommitted);
        true
    }

    /// The end is clear: it is reported, unless nobody wants to hear it any more.
    fn report_or_conclude(&mut self, cause: Cause) {
        self.job.stage = Stage::Report;
        self.touch_journal();
        let next = if self.job.id.is_none() || self.job.withdrawn {
            self.conclude();
            State::RequestingJob
        } else {
            State::Reporting
        };
        self.set_state(cause, next);
    }

    /// Nothing is permanent yet and one image never will be: all can still be old.
    fn go_back_after_all(&mut self) {
        let mut why = self.view.last_error;
        if !why.is_some() {
            why = Why::own(OtadErr::AttemptsExhausted, 0);
        }
        self.job.stage = Stage::Back;
        for file in self.job.files.iter_mut().filter(|file| file.firmware) {
            // Wherever it got stuck, the target is asked before it is told to go back.
            file.phase = FilePhase::Testing;
            file.look = true;
            file.tries = 0;
        }
        self.end_with(&Style::Numbers.status(why), why);
        self.tell_failure(JobEvent::Fail, why);
        self.set_state(Cause::JobFailed, State::GoingBack);
    }

    /// An open job has a reason to end: everything goes back.
    pub(super) fn step_failing(&mut self) -> bool {
        let Some(cause) = self.job.failing.take() else {
            return false;
        };
        if !self.job.stage.is_open() {
            return false;
        }
        self.job.withdrawn |= cause == Cause::JobWithdrawn;
        self.job.stage = Stage::Back;
        for file in &mut self.job.files {
            file.tries = 0;
        }
        self.transfer = None;
        self.cancel_ranges();
        self.unsubscribe(false);
        self.stop_all(&[
            Timer::Test,
            Timer::Reminder,
            Timer::Limit,
            Timer::Retry,
            Timer::Custom,
        ]);
        // What only prepares is thrown away by `abort`; the end of a mark or of a restart must be known.
        self.ops
            .forget(&|pending| (Deed::Write..=Deed::Install).contains(&pending.deed));
        let ending = self.job.ending.as_ref();
        let (why, detail) = ending.map_or_else(
            || (Why::default(), String::new()),
            |ending| (ending.why, ending.detail.clone()),
        );
        self.note_job(Line::Failed);
        self.note_text(Line::Because, &detail);
        if core::mem::take(&mut self.job.self_test) {
            self.tell_failure(JobEvent::SelfTestFailed, why);
        }
        self.tell_failure(JobEvent::Fail, why);
        self.set_state(cause, State::GoingBack);
        true
    }

    pub(super) fn step_going_back(&mut self) -> bool {
        let open = |file: &JobFile| {
            let untouched = file.phase == FilePhase::ToDo && !file.reopen && !file.asked;
            let over = matches!(
                file.phase,
                FilePhase::Committed | FilePhase::WentBack | FilePhase::Failed
            );
            !untouched && !over
        };
        let half = mutant!(HalfBack)
            && self
                .job
                .first(|file| file.phase == FilePhase::WentBack)
                .is_some();
        if let Some(id) = self.job.zero_last(open)
            && !half
            && !mutant!(NoGoingBack)
        {
            self.drive(id);
            return false;
        }
        self.stop(Timer::Restart);
        let failed = self.job.failed();
        let others = |file: &JobFile| file.firmware && file.phase != FilePhase::Failed;
        if let Some(first) = failed
            && self.job.first(others).is_some()
        {
            self.end_split(first);
        }
        self.report_or_conclude(Cause::AllWentBack);
        true
    }

    /// A group that is on two sides: the reason names the versions.
    fn end_split(&mut self, first: FileId) {
        let why = Why::own(OtadErr::GroupSplit, first);
        let mut reason = String::from("0x");
        push_hex8(&mut reason, why.main);
        reason.push_str(": 0x");
        push_hex8(&mut reason, why.sub);
        let mut versions = String::new();
        for file in self.job.files.iter().filter(|file| file.firmware) {
            if !versions.is_empty() {
                versions.push(' ');
            }
            push_decimal(&mut versions, file.id.into());
            versions.push('=');
            match self.probe(file.id).state.running {
                Some(version) => version.push_text(&mut versions),
                None => versions.push('?'),
            }
        }
        self.note_text(Line::GroupSplit, &versions);
        let details = vec![
            (String::from("reason"), reason),
            (String::from("group-split"), versions.clone()),
        ];
        if let Ok(result) = CustomResult::new(1, details) {
            self.end_with(&Status::Custom(result), why);
        }
        if let Some(ending) = &mut self.job.ending {
            ending.detail = versions;
        }
    }

    pub(super) fn step_reporting(&mut self) -> bool {
        let cause = if self.job.withdrawn {
            Cause::JobWithdrawn
        } else if self.report_end() {
            Cause::StatusAcknowledged
        } else {
            return false;
        };
        self.conclude();
        self.set_state(cause, State::RequestingJob);
        true
    }

    /// The job is over for this agent.
    fn conclude(&mut self) {
        let sent = core::mem::take(&mut self.reporter.payload).into_bytes();
        let document = if self.job.withdrawn { Vec::new() } else { sent };
        self.reporter = Reporter::default();
        self.stop_all(&[
            Timer::Status,
            Timer::Retry,
            Timer::Restart,
            Timer::Custom,
            Timer::Ask,
        ]);
        // A question from before the end would be answered with the job that is over.
        self.asking = Asking {
            next: true,
            ..Asking::default()
        };
        self.relinked = false;
        self.touch_journal();
        if self.job.id.is_some() {
            self.note_job(Line::Ended);
            let ending = self.job.ending.take().unwrap_or_default();
            let version = self.job.files.first().and_then(|file| file.image);
            if let Some(event) = self.tell(JobEvent::JobEnded) {
                let Ending { why, detail, .. } = &ending;
                if why.is_some() {
                    event.failure = Some(Failure::new(why.main as u8, why.sub, detail));
                }
                event.version = version;
                event.document = document;
            }
        }
        let job = core::mem::replace(&mut self.job, Job::new(None, Stage::Idle));
        if let Some(id) = job.id {
            Self::remember(&mut self.seen, id.as_str());
        }
    }
}
