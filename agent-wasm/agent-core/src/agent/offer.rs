//! Jobs as the service tells them: no news, a confirmation, or a new job that is judged before anything is downloaded.
//!
//! A message that shows another job, or none, while one is being worked on is only a hint: the job itself is asked for
//! before it counts as withdrawn. Answers of the application are in `answer.rs`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{JobEvent, JobParseErr, JobsErr, OtaErr, OtadErr, State};
use crate::document::{self, JobExecution, ParseError, Protocol, Reply, ReplyError};
use crate::jobs::{self, ExecutionState, ExecutionStatus, JobId, SelfTest, Status, StatusDetails};
use crate::settings::{Key, OnJob};
use crate::stream::{BlockGrid, GridError};
use crate::text::push_decimal;
use crate::types::{Failure, Level};

use super::Agent;
use super::job::{Ending, Job, JobFile, Stage};
use super::recover::Service;
use super::table::Cause;
use super::timer::Timer;

/// A job that awaits an answer of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) id: JobId,
    /// The job document as it came.
    pub(super) document: String,
    /// No parser took it; otherwise it is an update that awaits a yes.
    pub(super) custom: bool,
    /// The answer was: later.
    pub(super) deferred: bool,
}

/// A document that passed all checks, or how its job ends at once.
type Judged = Result<document::Job, Ending>;

impl Agent {
    /// A message on `$next/get/accepted`, or (notified) one that nobody asked for.
    pub(super) fn on_job_message(&mut self, notified: bool, payload: &[u8]) {
        if matches!(self.state, State::Init | State::Ready | State::Suspended) {
            return;
        }
        match document::parse_reply(payload) {
            Err(error) => self.on_unreadable_job(notified, &error),
            Ok(Reply::NoJob(token)) => {
                if notified || self.answers(token, false) {
                    self.on_no_job();
                }
            }
            Ok(Reply::Job(execution)) => {
                if notified || self.answers(execution.token, false) {
                    self.on_execution(&execution, notified);
                }
            }
        }
    }

    fn on_unreadable_job(&mut self, notified: bool, error: &ReplyError) {
        let mut code = String::new();
        push_decimal(&mut code, error.error.code().into());
        self.log(
            Level::Warn,
            &["job message not understood, parse error ", &code],
        );
        // Without an id nobody can be told; the open question is repeated with back-off.
        let Some(id) = &error.job_id else { return };
        if self.job.is_some() || (notified && self.is_seen(id)) {
            return;
        }
        self.asking.next = false;
        self.asking.sent = None;
        self.timers.stop(Timer::Ask);
        self.refuse(id.clone(), parse_failure(error.error));
    }

    fn on_no_job(&mut self) {
        if self.job.is_some() {
            self.confirm_job();
            return;
        }
        if let Some(offered) = self.offered.take() {
            self.log(
                Level::Info,
                &["job ", offered.id.as_str(), " is no longer offered"],
            );
            self.stop_offer_timers();
        }
        if self.unclaimed {
            self.refute_claim();
        } else {
            self.log(Level::Info, &["no job"]);
            self.tell_no_job();
        }
    }

    /// Asks how the job at hand stands, before a hint counts as its end.
    fn confirm_job(&mut self) {
        if self
            .job_ref()
            .is_some_and(|job| job.id.is_some() && !job.withdrawn)
        {
            self.asking.describe = true;
        }
    }

    fn on_execution(&mut self, execution: &JobExecution<'_>, notified: bool) {
        let id = &execution.job_id;
        if let Some(job) = &self.job {
            if !job.is(id) || execution.status.is_terminal() {
                self.confirm_job();
            } else if job.stage == Stage::Taken && !job.is_known() {
                self.learn(execution.document);
            }
            return;
        }
        if execution.status.is_terminal() {
            return;
        }
        if notified && self.is_seen(id) {
            // A late notification of a job that is over: only an answer to a question starts it again.
            self.asking.next = true;
            return;
        }
        if self.left.contains(id) {
            self.log(Level::Debug, &["job ", id.as_str(), " is left to others"]);
            return;
        }
        if self
            .offered
            .as_ref()
            .is_some_and(|offered| offered.id == *id)
        {
            self.rearm_offer();
            return;
        }
        if self.unclaimed && execution.details.self_test.is_none() {
            self.refute_claim();
            return;
        }
        self.offered = None;
        self.stop_offer_timers();
        self.judge(id, execution.status, execution.details, execution.document);
    }

    pub(super) fn stop_offer_timers(&mut self) {
        self.timers.stop(Timer::Offer);
        if self.job_ref().is_none_or(|job| job.stage != Stage::Custom) {
            self.timers.stop(Timer::Custom);
        }
    }

    fn rearm_offer(&mut self) {
        if self.offered.as_ref().is_some_and(|o| !o.custom) && !self.timers.runs(Timer::Offer) {
            let at = self.now + self.settings.number(Key::ActivationReminder);
            self.timers.set(Timer::Offer, at);
        }
    }

    fn judge(&mut self, id: &JobId, status: ExecutionStatus, details: StatusDetails, text: &str) {
        if !document::is_ota(text) {
            self.on_foreign_job(id, text);
            return;
        }
        let document = match self.check_document(text) {
            Ok(document) => document,
            Err(ending) => return self.refuse(id.clone(), ending),
        };
        self.log_parameters(id, &document);
        let service = match details.self_test {
            None => Service::Open,
            Some(SelfTest::Active) => Service::Active,
            Some(SelfTest::Ready | SelfTest::Other) => Service::Ready,
        };
        let job = self.job_of(id.clone(), document);
        if service != Service::Open && job.has_firmware() {
            self.adopt(job, service, details.updated_by, text);
        } else if status == ExecutionStatus::Queued && self.settings.on_job == OnJob::Ignore {
            self.log(
                Level::Info,
                &["job ", id.as_str(), " left alone, on_job is ignore"],
            );
            self.leave(id.clone());
        } else if status == ExecutionStatus::Queued && self.settings.on_job == OnJob::Ask {
            self.offer(id.clone(), text, false);
        } else {
            self.take_job(job, text);
        }
    }

    /// All that can be said against a document before a byte of the image is fetched.
    pub(super) fn check_document(&self, text: &str) -> Judged {
        let document = document::parse_job(text).map_err(parse_failure)?;
        if !document.protocols.mqtt {
            let code = OtaErr::InvalidDataProtocol.code();
            let failure = Failure::new(code as u8, 0, "the job offers no protocol of this agent");
            return Err(Ending {
                status: Status::Aborted { code },
                failure: Some(failure),
            });
        }
        document
            .check_protocol(Protocol::Mqtt)
            .map_err(parse_failure)?;
        let block_size = self.settings.number32(Key::BlockSize);
        for file in &document.files {
            if let Err(GridError::TooManyBlocks(blocks)) = BlockGrid::new(file.size, block_size) {
                return Err(parse_failure(ParseError::TooManyBlocks { blocks }));
            }
        }
        for file in &document.files {
            if self.settings.target(file.file_id).is_none() {
                let main = OtadErr::UnknownFileId.code();
                let detail = Self::of_file("no target is configured for file id ", file.file_id);
                let failure = Failure::new(main as u8, file.file_id, &detail);
                let status = Status::Failed {
                    main,
                    sub: file.file_id,
                };
                return Err(Ending {
                    status,
                    failure: Some(failure),
                });
            }
        }
        Ok(document)
    }

    fn log_parameters(&mut self, id: &JobId, document: &document::Job) {
        self.log(Level::Info, &["job parameter [jobId: ", id.as_str(), "]"]);
        let protocols = match (document.protocols.mqtt, document.protocols.http) {
            (true, true) => "MQTT, HTTP",
            (true, false) => "MQTT",
            (false, true) => "HTTP",
            (false, false) => "none",
        };
        self.log(Level::Info, &["job parameter [protocols: ", protocols, "]"]);
        let stream = document
            .stream
            .as_ref()
            .map_or("", |stream| stream.as_str());
        self.log(Level::Info, &["job parameter [streamname: ", stream, "]"]);
        for file in &document.files {
            let mut numbers = [const { String::new() }; 3];
            push_decimal(&mut numbers[0], file.size);
            push_decimal(&mut numbers[1], file.file_id.into());
            push_decimal(&mut numbers[2], file.file_type.into());
            self.log(Level::Info, &["job parameter [filepath: ", &file.path, "]"]);
            self.log(
                Level::Info,
                &["job parameter [filesize: ", &numbers[0], "]"],
            );
            self.log(Level::Info, &["job parameter [fileid: ", &numbers[1], "]"]);
            self.log(
                Level::Info,
                &["job parameter [certfile: ", &file.certificate, "]"],
            );
            self.log(
                Level::Info,
                &["job parameter [fileType: ", &numbers[2], "]"],
            );
            if let Some(signature) = &file.signature {
                let text = head(&signature.bytes);
                let key = signature.kind.key();
                self.log(Level::Info, &["job parameter [", key, ": ", &text, "...]"]);
            }
        }
    }

    /// The job of a checked document, nothing done yet.
    pub(super) fn job_of(&self, id: JobId, document: document::Job) -> Job {
        let block_size = self.settings.number32(Key::BlockSize);
        let mut job = Job::new(Some(id), Stage::Taken, block_size);
        job.stream = document.stream;
        for entry in document.files {
            let policy = self
                .settings
                .target(entry.file_id)
                .and_then(|target| target.firmware);
            let is_type = u64::from(entry.file_type) == self.settings.number(Key::FirmwareFileType);
            let firmware = policy.unwrap_or(is_type);
            let mut file = JobFile::new(entry.file_id, entry.file_type, firmware);
            file.entry = Some(entry);
            job.files.push(file);
        }
        job.files.sort_by_key(|file| file.id);
        job
    }

    pub(super) fn take_job(&mut self, job: Job, text: &str) {
        self.job = Some(job);
        self.log(Level::Info, &["job accepted, the transfer begins"]);
        self.tell(
            JobEvent::ReceivedJob,
            None,
            None,
            None,
            Vec::from(text.as_bytes()),
        );
    }

    /// The document of a job that the journal already knows.
    fn learn(&mut self, text: &str) {
        let document = match document::parse_job(text) {
            Ok(document) => document,
            Err(error) => return self.fail(parse_failure(error)),
        };
        let Some(job) = &mut self.job else { return };
        for file in &mut job.files {
            file.entry = document
                .files
                .iter()
                .find(|entry| entry.file_id == file.id)
                .cloned();
        }
        let complete = job.files.len() == document.files.len() && job.is_known();
        job.stream = document.stream;
        if !complete || job.stream.is_none() {
            self.fail(parse_failure(ParseError::NotOta));
        }
    }

    /// Ends a job before it began.
    pub(super) fn refuse(&mut self, id: JobId, ending: Ending) {
        let detail = ending
            .failure
            .as_ref()
            .map_or("", |failure| failure.detail.as_str());
        self.log(Level::Error, &["job ", id.as_str(), " refused: ", detail]);
        let mut job = Job::new(
            Some(id),
            Stage::Report,
            self.settings.number32(Key::BlockSize),
        );
        let failure = ending.failure.clone();
        job.ending = Some(ending);
        self.job = Some(job);
        self.tell(JobEvent::Fail, None, failure, None, Vec::new());
    }

    pub(super) fn leave(&mut self, id: JobId) {
        if self.left.len() >= super::SEEN_MAX {
            self.left.remove(0);
        }
        self.left.push(id);
    }

    pub(super) fn on_described(&mut self, job: &str, payload: &[u8]) {
        if !self.is_job(job) || self.state == State::Suspended {
            return;
        }
        match document::parse_reply(payload) {
            Ok(Reply::Job(execution)) if execution.job_id.as_str() == job => {
                if !self.answers(execution.token, true) {
                    return;
                }
                if self.reporter.compare || execution.status.is_terminal() {
                    self.compare_with(&ExecutionState {
                        status: execution.status,
                        details: execution.details,
                        version_number: execution.version_number,
                    });
                } else if self
                    .job_ref()
                    .is_some_and(|j| j.stage == Stage::Taken && !j.is_known())
                {
                    self.learn(execution.document);
                }
            }
            Ok(Reply::NoJob(token)) => {
                if self.answers(token, true) {
                    self.withdraw("the service has no such job");
                }
            }
            // Somebody else's answer, or rubbish: the timer repeats the question.
            Ok(Reply::Job(_)) | Err(_) => {}
        }
    }

    pub(super) fn on_describe_rejected(&mut self, job: &str, payload: &[u8]) {
        if !self.is_job(job) {
            return;
        }
        let Ok(rejected) = jobs::parse_rejected(payload) else {
            return;
        };
        if !self.answers(rejected.token, true) {
            return;
        }
        match (rejected.code, &rejected.execution) {
            (JobsErr::TerminalStateReached, Some(execution)) => self.compare_with(execution),
            (JobsErr::TerminalStateReached | JobsErr::ResourceNotFound, _) => {
                self.withdraw("the service has closed the job");
            }
            (
                JobsErr::Unknown
                | JobsErr::InvalidTopic
                | JobsErr::InvalidJson
                | JobsErr::InvalidRequest
                | JobsErr::InvalidStateTransition
                | JobsErr::VersionMismatch
                | JobsErr::InternalError
                | JobsErr::RequestThrottled,
                _,
            ) => {
                self.asking.describe = true;
                self.on_ask_refused(&rejected.code_text);
            }
        }
    }

    pub(super) fn step_waiting_for_job(&mut self) -> bool {
        if self.step_unclaimed() {
            return true;
        }
        let next = if !self.connected {
            Some(Cause::Disconnected)
        } else if self.relinked {
            Some(Cause::Connected)
        } else if self.asking.next && self.asking.sent.is_none() && !self.timers.runs(Timer::Ask) {
            let again = self.asking.tries > 0;
            Some(if again {
                Cause::RequestTimer
            } else {
                Cause::RequestJobDocument
            })
        } else {
            None
        };
        if let Some(cause) = next {
            self.relinked = false;
            self.asking.next = true;
            self.timers.stop(Timer::Poll);
            self.set_state(cause, State::RequestingJob);
            return true;
        }
        self.step_custom_job();
        let poll = self.settings.number(Key::PollInterval);
        if poll > 0 && self.is_idle() && !self.timers.runs(Timer::Poll) {
            self.timers.set(Timer::Poll, self.now + poll);
        }
        false
    }

    /// In the idle states: a job that was taken, or is over before it began, or an image to be sent back.
    pub(super) fn step_unclaimed(&mut self) -> bool {
        let Some(job) = &self.job else { return false };
        let (cause, next) = match job.stage {
            Stage::Taken if job.is_known() => (Cause::ReceivedJobDocument, State::CreatingFile),
            Stage::Testing => (Cause::ReceivedJobDocument, State::Testing),
            Stage::Report => (Cause::JobConcluded, State::Reporting),
            Stage::Back => (Cause::ImageUnclaimed, State::GoingBack),
            Stage::Taken | Stage::Custom | Stage::AwaitRestart | Stage::Commit => return false,
        };
        self.timers.stop(Timer::Poll);
        self.set_state(cause, next);
        true
    }
}

/// The first 32 symbols of a signature in base64, for people.
fn head(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    // 8 groups of 3 bytes are 32 symbols; a rest is not shown.
    for group in bytes.chunks_exact(3).take(8) {
        let word = group
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for shift in [18, 12, 6, 0] {
            out.push(char::from(SYMBOLS[(word >> shift & 63) as usize]));
        }
    }
    out
}

/// `0x0000000c: 0x<code>`.
pub(super) fn parse_failure(error: ParseError) -> Ending {
    let main = OtaErr::JobParserError.code();
    let sub = error.code();
    let detail = match JobParseErr::from_code(sub.cast_signed()) {
        Some(known) => known.name(),
        None => "the job document is defective",
    };
    let failure = Failure::new(main as u8, sub, detail);
    Ending {
        status: Status::Failed { main, sub },
        failure: Some(failure),
    }
}
