//! Jobs that need somebody else: offers, custom jobs, and images of a former life that a job claims, or that none does.
//!
//! An answer may come at any time and for any job; one that fits nothing is refused and changes nothing.

use alloc::string::String;
use core::cmp::Ordering;

use crate::code::{JobEvent, OtaErr, OtadErr, PalImageState, State};
use crate::document::{Defect, Field, ParseError};
use crate::jobs::{CustomResult, CustomStatus, JobId, Reason, Status, VersionWord};
use crate::settings::Key;
use crate::text::utf8;
use crate::types::{CustomAnswer, JobResult, OfferAnswer, Version};

use super::Agent;
use super::command::Refusal;
use super::job::{FilePhase, Job, JobFile, Stage};
use super::lines::{Line, Why};
use super::offer::defective;
use super::recover::{Memory, Service, Step, decide, sight};
use super::timer::Timer;

/// Longest time that an offer can be put off: a year.
const DEFER_MAX_MS: u64 = 365 * 24 * 3_600_000;

impl Agent {
    /// Asks the application about a job: whether to take it, or whether it is somebody else's.
    pub(super) fn offer(&mut self, mut job: Job, stage: Stage) {
        job.stage = stage;
        self.job = job;
        self.note_job(Line::Offered);
        if stage == Stage::Asked {
            self.arm(Timer::Custom, Key::CustomAnswer);
            self.tell_document(JobEvent::ParseCustomJob);
        } else {
            self.arm(Timer::Offer, Key::ActivationReminder);
            self.tell_document(JobEvent::ReceivedJob);
        }
    }

    /// The end of a deferral brings the offer anew; an open one is only asked about.
    pub(super) fn on_offer_timer(&mut self) {
        if self.job.deferred {
            self.drop_offer(false);
        }
        self.asking.next = true;
    }

    /// The job that is offered in this way, and leaves the shelf.
    fn take_offer(&mut self, job: &str, stage: Stage) -> Result<JobId, Refusal> {
        if self.job.stage != stage || self.job.text() != job {
            return Err(Refusal::NotOffered);
        }
        self.job.id.clone().ok_or(Refusal::NotOffered)
    }

    pub(super) fn answer_offer(&mut self, job: &str, answer: OfferAnswer) -> Result<(), Refusal> {
        let id = self.take_offer(job, Stage::Offered)?;
        match answer {
            OfferAnswer::Accept => {
                // The configuration may have changed since the offer.
                let text = core::mem::take(&mut self.job.document);
                self.drop_offer(false);
                self.run_document(id, &text, false);
            }
            OfferAnswer::Defer(ms) => {
                self.arm_in(Timer::Offer, ms.min(DEFER_MAX_MS));
                self.job.deferred = true;
                self.note_text(Line::Deferred, job);
            }
            OfferAnswer::Reject(reason) => {
                let text = if reason.is_empty() {
                    "declined"
                } else {
                    &reason
                };
                let reason = Reason::new(text).map_err(|_| Refusal::BadReason)?;
                self.drop_offer(false);
                self.note_text(Line::Declined, job);
                self.end_at_once(id, &Status::Declined(reason), Why::default());
            }
        }
        Ok(())
    }

    fn run_document(&mut self, id: JobId, text: &str, tell: bool) {
        if let Some(job) = self.read_job(id, text, false) {
            self.take_job(job, tell);
        }
    }

    /// A job that is no update.
    pub(super) fn on_foreign_job(&mut self, id: JobId, text: &str) {
        if self.number(Key::CustomAnswer) == 0 {
            self.nobody(id);
            return;
        }
        let mut job = Job::new(Some(id), Stage::Asked);
        job.document = String::from(text);
        self.offer(job, Stage::Asked);
    }

    fn nobody(&mut self, id: JobId) {
        self.drop_offer(false);
        if self.settings.leave_foreign_jobs {
            self.leave(id.as_str(), Line::LeftToOthers);
        } else {
            self.refuse(id, defective(ParseError::NOT_OTA));
        }
    }

    pub(super) fn on_custom_timeout(&mut self) {
        if self.job.stage == Stage::Custom {
            self.fail_with_numbers(Why::own(OtadErr::CustomJobTimeout, 0));
        } else if self.job.stage == Stage::Asked
            && let Some(id) = self.job.id.clone()
        {
            self.nobody(id);
        }
    }

    pub(super) fn answer_custom_job(
        &mut self,
        job: &str,
        answer: CustomAnswer,
    ) -> Result<(), Refusal> {
        let taken = self.job.stage == Stage::Custom && self.job.is(job);
        let id = if taken {
            None
        } else {
            Some(self.take_offer(job, Stage::Asked)?)
        };
        match (answer, id) {
            (CustomAnswer::Finished(result), id) => self.on_custom_result(id, result)?,
            (CustomAnswer::Taken, None) => {}
            (CustomAnswer::Taken, Some(id)) => self.take_custom_job(id),
            (CustomAnswer::Nobody, Some(id)) => self.nobody(id),
            (CustomAnswer::Document(bytes), Some(id)) => {
                self.drop_offer(false);
                match utf8(&bytes) {
                    Ok(text) => self.run_document(id, text, true),
                    Err(_) => self.refuse(id, defective(Defect::NotUtf8.of(Field::Message))),
                }
            }
            (CustomAnswer::Nobody | CustomAnswer::Document(_), None) => {
                return Err(Refusal::TakenAlready);
            }
        }
        Ok(())
    }

    /// Somebody else works on the job, with this to say about it.
    fn take_custom_job(&mut self, id: JobId) {
        self.drop_offer(false);
        self.job = Job::new(Some(id), Stage::Custom);
        self.note_job(Line::RunByOthers);
        self.arm(Timer::Custom, Key::CustomJobDeadline);
        if let Ok(result) = CustomResult::new(0, alloc::vec::Vec::new()) {
            self.tell_custom(result);
        }
    }

    fn tell_custom(&mut self, result: CustomResult) {
        self.end_with(&Status::Custom(result), Why::default());
        self.touch_journal();
    }

    fn on_custom_result(&mut self, id: Option<JobId>, result: JobResult) -> Result<(), Refusal> {
        let result =
            CustomResult::new(result.status, result.details).map_err(|_| Refusal::BadResult)?;
        let goes_on = result.status() == CustomStatus::InProgress;
        if let Some(id) = id {
            self.take_custom_job(id);
        }
        self.tell_custom(result);
        if !goes_on {
            self.job.stage = Stage::Report;
            self.stop(Timer::Custom);
        }
        Ok(())
    }

    /// A notification or job that comes by another way than MQTT.
    pub(super) fn on_custom_event(&mut self, name: &str, bytes: &[u8]) {
        let refusal = if name != "job-document" {
            Refusal::UnknownValue
        } else if matches!(
            self.state,
            State::Suspended | State::ShuttingDown | State::Stopped
        ) {
            Refusal::NoJobsNow
        } else {
            return self.on_job_message(true, bytes);
        };
        self.view.refused = Some(refusal);
    }

    /// No job claims the uncommitted images that run since before the start: they go back.
    pub(super) fn refute_claim(&mut self) {
        self.unclaimed = false;
        self.stop(Timer::Test);
        self.drop_offer(false);
        self.job = Job::new(None, Stage::Back);
        for probe in &self.probes {
            let sight = sight(probe.state, None, None);
            if decide(Memory::None, sight, Service::Gone) == Step::Reject {
                let phase = phase_of(probe.state.code);
                let file = JobFile {
                    id: probe.file,
                    firmware: true,
                    phase,
                    ..JobFile::default()
                };
                self.job.files.push(file);
            }
        }
        self.note(Line::Unclaimed);
        self.touch_journal();
    }

    /// A job in self-test that the journal does not know: its images were brought in a former life.
    pub(super) fn adopt(&mut self, mut job: Job, service: Service, by: Option<VersionWord>) {
        self.unclaimed = false;
        self.stop(Timer::Test);
        job.updated_by = by.unwrap_or_default().0;
        let mut wrong = None;
        let (mut test, mut mismatch) = (false, false);
        for file in job.files.iter_mut().filter(|file| file.firmware) {
            let state = self.probe(file.id).state;
            file.phase = phase_of(state.code);
            // Once the test is active, the word in the job is the new image's, of file 0 alone.
            let is_new =
                |running: &Version| file.id == 0 && by == Some(VersionWord(running.word()));
            let sight = sight(state, state.running.filter(is_new), None);
            let step = decide(Memory::None, sight, service);
            test |= step == Step::Test;
            mismatch |= step == Step::Mismatch;
            let policy = self.settings.target(file.id);
            let checked = file.id == 0 && !policy.is_some_and(|target| target.allow_downgrade);
            if let (true, Some(running), Some(by)) = (checked, state.running, by) {
                wrong = wrong.or_else(|| version_rule(running.word(), by.0, service));
            }
        }
        if mismatch {
            wrong = wrong.or(Some(OtaErr::ImageStateMismatch));
        }
        self.job = job;
        self.note_job(Line::InSelfTest);
        self.tell_document(JobEvent::ReceivedJob);
        if let Some(code) = wrong {
            self.job.self_test = true;
            self.fail_rejected(Why::ota(code));
        } else if test {
            self.job.stage = Stage::Testing;
            self.job.read_again = true;
            self.begin_test();
        } else {
            self.job.stage = Stage::Report;
            self.end_accepted();
        }
    }
}

/// How far an image is that only its target remembers.
fn phase_of(code: u8) -> FilePhase {
    match PalImageState::from_code(code) {
        Some(PalImageState::PendingCommit) => FilePhase::Testing,
        Some(PalImageState::Armed) => FilePhase::Armed,
        Some(PalImageState::Valid) => FilePhase::Committed,
        Some(PalImageState::Invalid | PalImageState::Foreign | PalImageState::Unknown) | None => {
            FilePhase::WentBack
        }
    }
}

/// The C agent's rule, on the two words that it has: who runs, and who did the update.
fn version_rule(running: u32, by: u32, service: Service) -> Option<OtaErr> {
    // Once the test is active, the word in the job is the new version's own: a second boot is no other version.
    let active = service == Service::Active;
    match running.cmp(&by) {
        Ordering::Less => Some(OtaErr::DowngradeNotAllowed),
        Ordering::Equal => (!active).then_some(OtaErr::SameFirmwareVersion),
        Ordering::Greater => active.then_some(OtaErr::ImageStateMismatch),
    }
}
