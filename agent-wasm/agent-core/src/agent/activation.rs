//! From verified files to running new images: install all, `self_test: ready`, activation when it is allowed, and the
//! restarts one by one with the gateway's own file last.
//!
//! The same drive brings a target forward that went back after the decision. Whether a look at a target is good is
//! not decided here.

use alloc::vec::Vec;

use crate::code::{HostErr, JobEvent, PalStatus, State};
use crate::jobs::{Status, VersionWord};
use crate::settings::Key;
use crate::types::{Failure, FileId, Level, Order};

use super::Agent;
use super::job::{Ending, FilePhase, Job, JobFile, Stage};
use super::ops::{Doing, Duty};
use super::recover::{Memory, Service, Step, decide, sight};
use super::table::Cause;
use super::timer::Timer;

impl Agent {
    /// Asks all targets at the start; then goes on with the job of the journal, or gets ready for one.
    pub(super) fn step_init(&mut self) -> bool {
        let mut waits = false;
        for at in 0..self.probes.len() {
            let Some(probe) = self.probes.get(at).filter(|probe| !probe.asked) else {
                continue;
            };
            waits = true;
            let id = probe.file;
            if self.ops.duty(id).is_none() && !self.timers.runs(Timer::Retry) {
                self.order(Order::State(id), Doing::Duty(id, Duty::State));
            }
        }
        if waits {
            return false;
        }
        self.asked_all = true;
        let Some(job) = &self.job else {
            self.look_for_unclaimed();
            self.set_state(Cause::TargetsAsked, State::Ready);
            return true;
        };
        if matches!(job.stage, Stage::Taken | Stage::Custom) {
            self.set_state(Cause::TargetsAsked, State::Ready);
            return true;
        }
        self.recover();
        let Some(job) = &self.job else { return true };
        let next = self.natural_state_of(job);
        self.set_state(Cause::Recovered, next);
        true
    }

    /// Images in test or marked for it that the journal knows nothing of: a job in self-test may claim them.
    fn look_for_unclaimed(&mut self) {
        let waits = |state| decide(Memory::None, sight(state, None, None), Service::Unknown);
        self.unclaimed = self
            .probes
            .iter()
            .any(|probe| waits(probe.state) == Step::Wait);
        if self.unclaimed {
            let at = self.now + self.settings.number(Key::SelfTestDeadline);
            self.timers.set(Timer::Test, at);
        }
    }

    /// The journal's job meets the targets as they are.
    fn recover(&mut self) {
        let Some(job) = &mut self.job else { return };
        job.starts = job.starts.saturating_add(1);
        let marked: Vec<FileId> = job
            .files
            .iter_mut()
            .filter(|file| file.firmware && job.stage != Stage::Report)
            .filter(|file| job.stage != Stage::Back || file.phase >= FilePhase::Armed)
            .filter(|file| file.phase < FilePhase::Committed)
            .map(|file| {
                file.look = true;
                file.id
            })
            .collect();
        for id in marked {
            self.on_look(id, self.probe_state(id));
        }
        self.touch_journal();
    }

    pub(super) fn natural_state_of(&self, job: &Job) -> State {
        match job.stage {
            Stage::Custom => State::RequestingJob,
            Stage::Taken if !job.is_known() => State::RequestingJob,
            Stage::Taken => {
                let arriving = job
                    .files
                    .iter()
                    .find(|file| file.phase < FilePhase::Verified);
                match arriving.map(|file| file.phase) {
                    None => State::Installing,
                    Some(FilePhase::Closing) => State::ClosingFile,
                    Some(FilePhase::Receiving) if self.transfer.is_some() => {
                        State::RequestingFileBlock
                    }
                    Some(_) => State::CreatingFile,
                }
            }
            Stage::AwaitRestart if self.awaits_order(job) => State::WaitingForActivation,
            Stage::AwaitRestart => State::WaitingForRestart,
            Stage::Testing => State::Testing,
            Stage::Commit => State::Committing,
            Stage::Back => State::GoingBack,
            Stage::Report => State::Reporting,
        }
    }

    fn is_deferred(&self, file: &JobFile) -> bool {
        let deferred = self
            .settings
            .target(file.id)
            .is_some_and(|target| target.deferred);
        file.firmware && deferred && !file.approved
    }

    fn awaits_order(&self, job: &Job) -> bool {
        job.files.iter().any(|file| self.is_deferred(file))
    }

    /// The version word of the gateway's own software, which `updatedBy` and `accepted` speak of; of the first target
    /// where file 0 is not configured.
    pub(super) fn running_word(&self) -> VersionWord {
        let own = self.settings.targets.iter().find(|target| target.file == 0);
        let target = own.or_else(|| self.settings.targets.first());
        let version = target.and_then(|target| self.running(target.file));
        VersionWord(version.map_or(0, |version| version.word()))
    }

    pub(super) fn step_installing(&mut self) -> bool {
        let Some(job) = &mut self.job else {
            return self.lost_job();
        };
        if job.arriving().is_some() {
            self.set_state(Cause::FileUnverified, State::CreatingFile);
            return true;
        }
        let next = job
            .files
            .iter()
            .find(|file| file.phase < FilePhase::Installed);
        if let Some(id) = next.map(|file| file.id) {
            self.drive_forward(id);
            return false;
        }
        if !job.has_firmware() {
            let file_type = job.files.first().map_or(0, |file| file.file_type);
            let status = Status::AcceptedFile { file_type };
            job.ending = Some(Ending {
                status,
                failure: None,
            });
            job.stage = Stage::Report;
            self.touch_journal();
            self.set_state(Cause::FilesInstalled, State::Reporting);
            return true;
        }
        let word = self.running_word();
        if !self.report(&Status::SelfTestReady(word)) {
            return false;
        }
        self.await_activation(word);
        true
    }

    fn await_activation(&mut self, word: VersionWord) {
        let Some(job) = &mut self.job else { return };
        job.stage = Stage::AwaitRestart;
        job.updated_by = word;
        let firmware: Vec<_> = job
            .files
            .iter()
            .filter(|f| f.firmware)
            .map(|f| (f.id, f.image))
            .collect();
        for (id, version) in firmware {
            self.tell(JobEvent::Activate, Some(id), None, version, Vec::new());
        }
        let next = self
            .job_ref()
            .map_or(State::RequestingJob, |job| self.natural_state_of(job));
        if next == State::WaitingForActivation {
            let limit = self.now + self.settings.number(Key::ActivationDeadline);
            self.timers.set(Timer::Limit, limit);
        }
        self.set_state(Cause::StatusAcknowledged, next);
    }

    pub(super) fn step_waiting_for_activation(&mut self) -> bool {
        let Some(job) = &self.job else {
            return self.lost_job();
        };
        if self.awaits_order(job) {
            if !self.timers.runs(Timer::Reminder) {
                let at = self.now + self.settings.number(Key::ActivationReminder);
                self.timers.set(Timer::Reminder, at);
            }
            if !self.timers.runs(Timer::Limit) {
                let at = self.now + self.settings.number(Key::ActivationDeadline);
                self.timers.set(Timer::Limit, at);
            }
            return false;
        }
        self.timers.stop(Timer::Reminder);
        self.timers.stop(Timer::Limit);
        self.set_state(Cause::ActivationOrdered, State::WaitingForRestart);
        true
    }

    /// Still deferred: say so, keep the remaining time, and ask whether the job still stands.
    pub(super) fn on_reminder(&mut self) {
        self.log(
            Level::Info,
            &["the activation is deferred and waits for an order"],
        );
        self.asking.describe = true;
        self.touch_journal();
    }

    pub(super) fn on_activation_timeout(&mut self) {
        let Some(job) = &self.job else { return };
        let waiting = job
            .files
            .iter()
            .find(|file| self.is_deferred(file))
            .map(|file| file.id);
        if let Some(id) = waiting {
            let code = crate::code::OtadErr::ActivationTimeout.code() as u8;
            let what = "the activation was not ordered in time";
            self.fail_with_numbers(Failure::new(code, id, what));
        }
    }

    pub(super) fn step_waiting_for_restart(&mut self) -> bool {
        let Some(job) = &mut self.job else {
            return self.lost_job();
        };
        for at in job.zero_last() {
            let Some(file) = job.files.get(at) else {
                continue;
            };
            if file.firmware && (file.phase < FilePhase::Testing || file.look) {
                let id = file.id;
                self.drive_forward(id);
                return false;
            }
        }
        job.stage = Stage::Testing;
        self.touch_journal();
        self.begin_test();
        self.set_state(Cause::TargetsRestarted, State::Testing);
        true
    }

    pub(super) fn begin_test(&mut self) {
        let Some(job) = &self.job else { return };
        let tested = job.files.iter().filter(|file| file.firmware);
        let deadlines = tested.filter_map(|file| self.settings.target(file.id));
        let longest = deadlines.map(|target| target.self_test_deadline_ms).max();
        let longest = longest.unwrap_or_else(|| self.settings.number(Key::SelfTestDeadline));
        self.timers.set(Timer::Test, self.now + longest);
    }

    /// Orders the next thing that brings a file forward, if nothing is under way for it. Neither the mark nor the
    /// restart happens before the journal says that they may.
    pub(super) fn drive_forward(&mut self, id: FileId) {
        if self.ops.duty(id).is_some() || self.timers.runs(Timer::Retry) {
            return;
        }
        let durable = self.is_durable();
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        if file.look {
            self.order(Order::State(id), Doing::Duty(id, Duty::State));
            return;
        }
        match file.phase {
            FilePhase::Receiving => {
                let code = PalStatus::FileClose.code() as u8;
                self.give_up_file(
                    id,
                    Failure::new(code, 0, "blocks of a verified file are missing"),
                );
            }
            FilePhase::ToDo | FilePhase::Creating => {
                file.asked = true;
                file.reopen = true;
                self.drive_creation(id);
            }
            FilePhase::Closing => self.drive_close(id),
            FilePhase::Verified | FilePhase::Installing => {
                file.phase = FilePhase::Installing;
                let text = Self::of_file("installing file ", id);
                self.log(Level::Info, &[&text]);
                self.order(Order::Install(id), Doing::Duty(id, Duty::Install));
            }
            FilePhase::Installed if durable => {
                let text = Self::of_file("activating file ", id);
                self.log(Level::Info, &[&text]);
                self.order(Order::Activate(id), Doing::Duty(id, Duty::Activate));
            }
            FilePhase::Armed if durable => {
                file.phase = FilePhase::Restarting;
                let text = Self::of_file("restarting the target of file ", id);
                self.log(Level::Info, &[&text]);
                self.set_restart_timer();
                self.order(Order::Reset(id), Doing::Duty(id, Duty::Reset));
            }
            FilePhase::Restarting => {
                if !self.timers.runs(Timer::Restart) {
                    self.set_restart_timer();
                }
            }
            FilePhase::Installed
            | FilePhase::Armed
            | FilePhase::Testing
            | FilePhase::Committing
            | FilePhase::Committed
            | FilePhase::GoingBack
            | FilePhase::WentBack
            | FilePhase::Failed => {}
        }
    }

    pub(super) fn on_installed(&mut self, id: FileId, result: Result<(), Failure>) {
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        match result {
            Ok(()) => {
                file.phase = FilePhase::Installed;
                let (firmware, version) = (file.firmware, file.image);
                if !firmware {
                    self.tell(
                        JobEvent::UpdateComplete,
                        Some(id),
                        None,
                        version,
                        Vec::new(),
                    );
                }
                self.touch_journal();
            }
            Err(failure) => self.on_image_trouble(id, failure),
        }
    }

    /// Without a proof the file is read and verified again; anything else is a reason.
    fn on_image_trouble(&mut self, id: FileId, failure: Failure) {
        if u32::from(failure.main) == HostErr::NotVerified.code() {
            self.reopen_bounded(id, failure);
        } else if self.job_ref().is_some_and(|job| job.stage == Stage::Commit) {
            self.forward_trouble(id, failure);
        } else {
            self.fail_with_numbers(failure);
        }
    }

    pub(super) fn on_activated(&mut self, id: FileId, result: Result<(), Failure>) {
        let Some(file) = self.job.as_mut().and_then(|job| job.file(id)) else {
            return;
        };
        match result {
            Ok(()) => {
                file.phase = FilePhase::Armed;
                self.touch_journal();
            }
            Err(failure) => self.on_image_trouble(id, failure),
        }
    }

    pub(super) fn on_reset(&mut self, id: FileId, result: Result<(), Failure>) {
        match result {
            // The order is given: from now on the time for the restart runs.
            Ok(()) => {
                let restarting =
                    |file: &JobFile| file.id == id && file.phase == FilePhase::Restarting;
                if self
                    .job_ref()
                    .is_some_and(|job| job.files.iter().any(restarting))
                {
                    self.set_restart_timer();
                }
            }
            Err(failure) => self.on_image_trouble(id, failure),
        }
    }
}
