//! Jobs that need somebody else: offers, custom jobs, and images of a former life that a job claims, or that none does.
//!
//! An answer may come at any time and for any job; one that fits nothing is refused and changes nothing.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::str;

use crate::code::{HostErr, JobEvent, OtaErr, OtadErr, PalImageState, State};
use crate::document::ParseError;
use crate::jobs::{CustomResult, CustomStatus, JobId, Reason, Status, VersionWord};
use crate::settings::Key;
use crate::types::{CustomAnswer, Failure, JobResult, Level, OfferAnswer};

use super::Agent;
use super::job::{Ending, Failing, FilePhase, Job, JobFile, Stage};
use super::offer::{Offered, parse_failure};
use super::recover::{Service, Step, decide, sight};
use super::table::Cause;
use super::timer::Timer;

/// Longest time that an offer can be put off: a year.
const DEFER_MAX_MS: u64 = 365 * 24 * 3_600_000;

pub(super) fn refused(code: OtaErr, detail: &str) -> Failure {
    Failure::new(code.code() as u8, 0, detail)
}

impl Agent {
    pub(super) fn offer(&mut self, id: JobId, text: &str, custom: bool) {
        self.log(
            Level::Info,
            &["job ", id.as_str(), " offered to the application"],
        );
        let (kind, timer, key) = if custom {
            (JobEvent::ParseCustomJob, Timer::Custom, Key::CustomAnswer)
        } else {
            (JobEvent::ReceivedJob, Timer::Offer, Key::ActivationReminder)
        };
        self.offered = Some(Offered {
            id,
            document: String::from(text),
            custom,
            deferred: false,
        });
        self.timers.set(timer, self.now + self.settings.number(key));
        self.tell(kind, None, None, None, Vec::from(text.as_bytes()));
    }

    /// The end of a deferral brings the offer anew; an open one is only asked about.
    pub(super) fn on_offer_timer(&mut self) {
        if self
            .offered
            .as_ref()
            .is_some_and(|offered| offered.deferred)
        {
            self.offered = None;
        }
        self.asking.next = true;
    }

    pub(super) fn answer_offer(&mut self, job: &str, answer: OfferAnswer) -> Result<(), Failure> {
        let matches = |offered: &Offered| !offered.custom && offered.id.as_str() == job;
        let Some(offered) = self.offered.take_if(|offered| matches(offered)) else {
            return Err(refused(OtaErr::NoActiveJob, "no such job is offered"));
        };
        match answer {
            OfferAnswer::Accept => match self.check_document(&offered.document) {
                Ok(document) => {
                    self.stop_offer_timers();
                    let job = self.job_of(offered.id, document);
                    self.job = Some(job);
                    self.touch_journal();
                    self.log(Level::Info, &["job accepted, the transfer begins"]);
                }
                // The configuration may have changed since the offer.
                Err(ending) => self.refuse(offered.id, ending),
            },
            OfferAnswer::Defer(ms) => {
                let at = self.now.saturating_add(ms.min(DEFER_MAX_MS));
                self.timers.set(Timer::Offer, at);
                self.log(Level::Info, &["job ", job, " deferred"]);
                self.offered = Some(Offered {
                    deferred: true,
                    ..offered
                });
            }
            OfferAnswer::Reject(reason) => {
                let text = if reason.is_empty() {
                    "declined"
                } else {
                    &reason
                };
                let Ok(reason) = Reason::new(text) else {
                    self.offered = Some(offered);
                    return Err(refused(
                        OtaErr::InvalidArg,
                        "reason not printable or too long",
                    ));
                };
                self.stop_offer_timers();
                self.log(Level::Info, &["job ", job, " declined: ", text]);
                self.end_at_once(offered.id, Status::Declined(reason));
            }
        }
        Ok(())
    }

    /// A job that ends without having been run here.
    fn end_at_once(&mut self, id: JobId, status: Status) {
        let mut job = Job::new(
            Some(id),
            Stage::Report,
            self.settings.number32(Key::BlockSize),
        );
        job.ending = Some(Ending {
            status,
            failure: None,
        });
        self.job = Some(job);
        self.touch_journal();
    }

    /// A job that is no update.
    pub(super) fn on_foreign_job(&mut self, id: &JobId, text: &str) {
        if self.settings.number(Key::CustomAnswer) == 0 {
            self.nobody(id.clone());
        } else {
            self.offer(id.clone(), text, true);
        }
    }

    fn nobody(&mut self, id: JobId) {
        if self.settings.leave_foreign_jobs {
            self.log(
                Level::Info,
                &["job ", id.as_str(), " is no update, left to others"],
            );
            self.leave(id);
        } else {
            self.refuse(id, parse_failure(ParseError::NotOta));
        }
    }

    pub(super) fn on_custom_timeout(&mut self) {
        if let Some(offered) = self.offered.take_if(|offered| offered.custom) {
            self.nobody(offered.id);
        } else if self.job_ref().is_some_and(|job| job.stage == Stage::Custom) {
            let code = OtadErr::CustomJobTimeout.code() as u8;
            let failure = Failure::new(code, 0, "nobody finished the custom job in time");
            self.fail_with_numbers(failure);
        }
    }

    pub(super) fn answer_custom_job(
        &mut self,
        job: &str,
        answer: CustomAnswer,
    ) -> Result<(), Failure> {
        if self.is_job(job) && self.job_ref().is_some_and(|job| job.stage == Stage::Custom) {
            return self.answer_taken_job(answer);
        }
        let matches = |offered: &Offered| offered.custom && offered.id.as_str() == job;
        let Some(offered) = self.offered.take_if(|offered| matches(offered)) else {
            return Err(refused(OtaErr::NoActiveJob, "no such custom job is open"));
        };
        self.timers.stop(Timer::Custom);
        let id = offered.id.clone();
        match answer {
            CustomAnswer::Nobody => self.nobody(id),
            CustomAnswer::Taken => self.take_custom_job(id),
            CustomAnswer::Finished(result) => match checked(result) {
                Ok(result) if result.status() == CustomStatus::InProgress => {
                    self.take_custom_job(id);
                    self.tell_custom(Status::Custom(result));
                }
                Ok(result) => self.end_at_once(id, Status::Custom(result)),
                Err(failure) => {
                    self.offer_again(offered);
                    return Err(failure);
                }
            },
            CustomAnswer::Document(bytes) => {
                let checked = str::from_utf8(&bytes)
                    .map_err(|error| {
                        parse_failure(ParseError::NotUtf8 {
                            at: error.valid_up_to(),
                        })
                    })
                    .and_then(|text| self.check_document(text));
                match checked {
                    Ok(document) => {
                        let job = self.job_of(id, document);
                        let text = String::from_utf8(bytes).unwrap_or_default();
                        self.take_job(job, &text);
                    }
                    Err(ending) => self.refuse(id, ending),
                }
            }
        }
        Ok(())
    }

    fn offer_again(&mut self, offered: Offered) {
        self.offered = Some(offered);
        let at = self.now + self.settings.number(Key::CustomAnswer);
        self.timers.set(Timer::Custom, at);
    }

    fn take_custom_job(&mut self, id: JobId) {
        self.log(
            Level::Info,
            &["job ", id.as_str(), " is run by somebody else"],
        );
        let mut job = Job::new(
            Some(id),
            Stage::Custom,
            self.settings.number32(Key::BlockSize),
        );
        let status = CustomResult::new(0, Vec::new()).ok().map(Status::Custom);
        job.ending = status.map(|status| Ending {
            status,
            failure: None,
        });
        self.job = Some(job);
        let at = self.now + self.settings.number(Key::CustomJobDeadline);
        self.timers.set(Timer::Custom, at);
        self.touch_journal();
    }

    fn tell_custom(&mut self, status: Status) {
        if let Some(job) = &mut self.job {
            job.ending = Some(Ending {
                status,
                failure: None,
            });
        }
        self.touch_journal();
    }

    /// A custom job that somebody has taken can only be told about.
    fn answer_taken_job(&mut self, answer: CustomAnswer) -> Result<(), Failure> {
        match answer {
            CustomAnswer::Finished(result) => {
                let result = checked(result)?;
                let over = result.status() != CustomStatus::InProgress;
                self.tell_custom(Status::Custom(result));
                if over && let Some(job) = &mut self.job {
                    job.stage = Stage::Report;
                    self.timers.stop(Timer::Custom);
                }
                Ok(())
            }
            CustomAnswer::Taken => Ok(()),
            CustomAnswer::Nobody | CustomAnswer::Document(_) => Err(refused(
                OtaErr::InvalidArg,
                "the custom job was taken already",
            )),
        }
    }

    /// While somebody else works, the service is told so; nothing waits for the answer.
    pub(super) fn step_custom_job(&mut self) {
        let ending = self.job_ref().filter(|job| job.stage == Stage::Custom);
        if let Some(status) = ending
            .and_then(|job| job.ending.as_ref())
            .map(|e| e.status.clone())
        {
            self.report(&status);
        }
    }

    /// A notification or job that comes by another way than MQTT.
    pub(super) fn on_custom_event(&mut self, name: &str, bytes: &[u8]) {
        if name != "job-document" {
            let code = HostErr::Unsupported.code() as u8;
            self.view.refused = Some(Failure::new(
                code,
                0,
                "no custom value of this name is known",
            ));
        } else if matches!(
            self.state,
            State::Suspended | State::ShuttingDown | State::Stopped
        ) {
            self.view.refused = Some(refused(OtaErr::AgentStopped, "the agent takes no jobs now"));
        } else {
            self.on_job_message(true, bytes);
        }
    }

    /// No job claims the uncommitted images that run since before the start: they go back.
    pub(super) fn refute_claim(&mut self) {
        self.unclaimed = false;
        self.timers.stop(Timer::Test);
        let mut job = Job::new(None, Stage::Back, self.settings.number32(Key::BlockSize));
        for probe in &self.probes {
            let sight = sight(probe.state, None, None);
            if decide(super::recover::Memory::None, sight, Service::Gone) == Step::Reject {
                let mut file = JobFile::new(probe.file, 0, true);
                mark(&mut file, probe.state.code);
                job.files.push(file);
            }
        }
        self.log(
            Level::Warn,
            &["an uncommitted image runs and no job claims it, going back"],
        );
        self.job = Some(job);
        self.touch_journal();
    }

    /// A job in self-test that the journal does not know: its images were brought in a former life.
    pub(super) fn adopt(
        &mut self,
        mut job: Job,
        service: Service,
        updated_by: Option<VersionWord>,
        text: &str,
    ) {
        self.unclaimed = false;
        self.timers.stop(Timer::Test);
        job.updated_by = updated_by.unwrap_or_default();
        let mut steps = Vec::new();
        let mut wrong = None;
        for file in job.files.iter_mut().filter(|file| file.firmware) {
            let state = self.probes.iter().find(|probe| probe.file == file.id);
            let state = state.map(|probe| probe.state).unwrap_or_default();
            mark(file, state.code);
            let step = decide(
                super::recover::Memory::None,
                sight(state, None, None),
                service,
            );
            let running = state.running.map(|version| VersionWord(version.word()));
            let policy = self.settings.target(file.id);
            let checked = file.id == 0 && !policy.is_some_and(|target| target.allow_downgrade);
            if let (true, Some(running), Some(by)) = (checked, running, updated_by) {
                wrong = wrong.or(version_rule(running, by, service));
            }
            steps.push(step);
        }
        if wrong.is_none() && steps.contains(&Step::Mismatch) {
            wrong = Some(OtaErr::ImageStateMismatch);
        }
        if let Some(code) = wrong {
            let failure = refused(code, "the running image is not what the job says");
            let status = Status::Rejected { code: code.code() };
            let ending = Ending {
                status,
                failure: Some(failure),
            };
            job.failing = Some(Failing {
                cause: Cause::JobFailed,
                ending,
                self_test: true,
            });
        } else if steps.contains(&Step::Test) {
            job.stage = Stage::Testing;
        } else {
            job.stage = Stage::Report;
            let status = self.accepted_status(&job);
            job.ending = Some(Ending {
                status,
                failure: None,
            });
        }
        let id = String::from(job.text());
        self.log(Level::Info, &["job ", &id, " is in self-test"]);
        self.job = Some(job);
        if self
            .job_ref()
            .is_some_and(|job| job.stage == Stage::Testing)
        {
            self.begin_test();
        }
        self.tell(
            JobEvent::ReceivedJob,
            None,
            None,
            None,
            Vec::from(text.as_bytes()),
        );
    }
}

/// How far an image is that only its target remembers.
fn mark(file: &mut JobFile, code: u8) {
    file.phase = match PalImageState::from_code(code) {
        Some(PalImageState::PendingCommit) => FilePhase::Testing,
        Some(PalImageState::Armed) => FilePhase::Armed,
        Some(PalImageState::Valid) => FilePhase::Committed,
        Some(PalImageState::Invalid | PalImageState::Foreign | PalImageState::Unknown) | None => {
            FilePhase::WentBack
        }
    };
}

/// The C agent's rule, on the two words that it has: who did the update, and who runs.
fn version_rule(running: VersionWord, by: VersionWord, service: Service) -> Option<OtaErr> {
    // Once the test is active, the word in the job is the new version's own: a second boot is no other version.
    let active = service == Service::Active;
    match running.cmp(&by) {
        Ordering::Less => Some(OtaErr::DowngradeNotAllowed),
        Ordering::Equal => (!active).then_some(OtaErr::SameFirmwareVersion),
        Ordering::Greater => active.then_some(OtaErr::ImageStateMismatch),
    }
}

fn checked(result: JobResult) -> Result<CustomResult, Failure> {
    CustomResult::new(result.status, result.details).map_err(|_| {
        refused(
            OtaErr::InvalidArg,
            "the job service would refuse this result",
        )
    })
}
