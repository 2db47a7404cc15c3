//! Jobs as the service tells them: no news, a confirmation, or a new job that is judged before anything is downloaded.
//!
//! A message that shows another job, or none, while one is being worked on is only a hint: the job itself is asked for
//! before it counts as withdrawn. Answers of the application are in `answer.rs`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{JobEvent, JobParseErr, JobsErr, OtaErr, OtadErr, State};
use crate::document::{self, Defect, Field, JobExecution, ParseError, Protocol, Reply, ReplyError};
use crate::jobs::{self, ExecutionState, ExecutionStatus, JobId, SelfTest, Status};
use crate::settings::{Key, OnJob};
use crate::stream::{BlockGrid, GridError};

use super::Agent;
use super::job::{Ending, Job, JobFile, Stage};
use super::lines::{Line, Why};
use super::recover::Service;
use super::request::has;
use super::timer::Timer;

/// How a job ends because of its document: with these two numbers, or aborted with this code.
pub(super) enum Verdict {
    Failed(Why),
    Aborted(OtaErr),
}

impl From<ParseError> for Verdict {
    /// `0x0000000c: 0x<code>`.
    fn from(error: ParseError) -> Self {
        Self::Failed(Why::new(OtaErr::JobParserError.code(), error.code()))
    }
}

impl Agent {
    /// A message on `$next/get/accepted`, or (notified) one that nobody asked for.
    pub(super) fn on_job_message(&mut self, notified: bool, payload: &[u8]) {
        if matches!(self.state, State::Init | State::Ready | State::Suspended) {
            return;
        }
        match document::parse_reply(payload) {
            Err(error) => self.on_unreadable_job(notified, error),
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

    fn on_unreadable_job(&mut self, notified: bool, error: ReplyError) {
        self.note_number(Line::Unreadable, error.error.code());
        // Without an id nobody can be told; the open question is repeated with back-off.
        let Some(id) = error.job_id else { return };
        if self.job.is_taken() || (notified && has(&self.seen, id.as_str())) {
            return;
        }
        self.asking.next = false;
        self.asking.sent = None;
        self.stop(Timer::Ask);
        self.refuse(id, error.error.into());
    }

    fn on_no_job(&mut self) {
        if self.job.is_taken() {
            self.confirm_job();
            return;
        }
        self.drop_offer(true);
        if self.unclaimed {
            self.refute_claim();
        } else {
            self.note(Line::NoJob);
            self.tell_no_job();
        }
    }

    /// Forgets an offer that is not answered yet.
    pub(super) fn drop_offer(&mut self, say: bool) {
        if self.job.is_taken() {
            return;
        }
        if self.job.id.is_some() && say {
            self.note_job(Line::OfferGone);
        }
        self.job = Job::new(None, Stage::Idle);
        self.stop(Timer::Offer);
        self.stop(Timer::Custom);
    }

    /// Asks how the job at hand stands, before a hint counts as its end.
    fn confirm_job(&mut self) {
        self.asking.describe |= self.job.id.is_some() && !self.job.withdrawn;
    }

    fn on_execution(&mut self, execution: &JobExecution<'_>, notified: bool) {
        let id = &execution.job_id;
        if self.job.is_taken() {
            if !self.job.is(id.as_str()) || execution.state.status.is_terminal() {
                self.confirm_job();
            } else {
                self.on_read_again(execution.document);
            }
        } else if execution.state.status.is_terminal() || has(&self.left, id.as_str()) {
            // Over, or somebody else's.
        } else if notified && has(&self.seen, id.as_str()) {
            // A late notification of a job that is over: only an answer to a question starts it again.
            self.asking.next = true;
        } else if self.job.id.as_ref() == Some(id) {
            if self.job.stage == Stage::Offered {
                self.arm_once(Timer::Offer, Key::ActivationReminder);
            }
        } else if self.unclaimed && execution.state.details.self_test.is_none() {
            self.refute_claim();
        } else {
            self.drop_offer(false);
            self.judge(id, &execution.state, execution.document);
        }
    }

    fn judge(&mut self, id: &JobId, state: &ExecutionState, text: &str) {
        let details = state.details;
        let id = id.clone();
        if !document::is_ota(text) {
            self.on_foreign_job(id, text);
            return;
        }
        let document = match self.check_document(text) {
            Ok(document) => document,
            Err(verdict) => return self.refuse(id, verdict),
        };
        self.log_parameters(&id, &document);
        let service = match details.self_test {
            None => Service::Open,
            Some(SelfTest::Active) => Service::Active,
            Some(SelfTest::Ready | SelfTest::Other) => Service::Ready,
        };
        let fresh = state.status == ExecutionStatus::Queued;
        let job = self.job_of(id, &document, text);
        if service != Service::Open && job.first(|file| file.firmware).is_some() {
            self.adopt(job, service, details.updated_by);
        } else if fresh && self.settings.on_job == OnJob::Ignore {
            self.leave(job.id, Line::LeftAlone);
        } else if fresh && self.settings.on_job == OnJob::Ask {
            self.offer(job, Stage::Offered);
        } else {
            self.take_job(job, true);
        }
    }

    /// All that can be said against a document before a byte of the image is fetched.
    pub(super) fn check_document(&self, text: &str) -> Result<document::Job, Verdict> {
        let document = document::parse_job(text)?;
        if !document.protocols.mqtt {
            return Err(Verdict::Aborted(OtaErr::InvalidDataProtocol));
        }
        document.check_protocol(Protocol::Mqtt)?;
        let block_size = self.number32(Key::BlockSize);
        for file in &document.files {
            if let Err(GridError::TooManyBlocks(blocks)) = BlockGrid::new(file.size, block_size) {
                let error = ParseError {
                    number: u32::try_from(blocks).unwrap_or(u32::MAX),
                    ..Defect::TooManyBlocks.of(Field::FileSize)
                };
                return Err(error.into());
            }
        }
        for file in &document.files {
            if self.settings.target(file.file_id).is_none() {
                let why = Why::own(OtadErr::UnknownFileId, file.file_id);
                return Err(Verdict::Failed(why));
            }
        }
        Ok(document)
    }

    fn log_parameters(&mut self, id: &JobId, document: &document::Job) {
        self.note_text(Line::JobId, id.as_str());
        let protocols = if document.protocols.http {
            "MQTT, HTTP"
        } else {
            "MQTT"
        };
        self.note_text(Line::Protocols, protocols);
        let stream = document
            .stream
            .as_ref()
            .map_or("", |stream| stream.as_str());
        self.note_text(Line::Stream, stream);
        for file in &document.files {
            self.note_text(Line::FilePath, &file.path);
            self.write_line(Line::FileSize, file.size, "");
            self.note_number(Line::FileIdentity, file.file_id);
            self.note_text(Line::CertFile, &file.certificate);
            self.note_number(Line::FileType, file.file_type);
            if let Some(signature) = &file.signature {
                let text = [signature.kind.key(), ": ", &head(&signature.bytes)].concat();
                self.note_text(Line::Signature, &text);
            }
        }
    }

    /// The job of a checked document, nothing done yet.
    pub(super) fn job_of(&self, id: JobId, document: &document::Job, text: &str) -> Job {
        let mut job = Job::new(Some(id), Stage::Taken);
        job.block_size = self.number32(Key::BlockSize);
        job.stream.clone_from(&document.stream);
        job.document = String::from(text);
        for entry in &document.files {
            let policy = self
                .settings
                .target(entry.file_id)
                .and_then(|target| target.firmware);
            let is_type = u64::from(entry.file_type) == self.number(Key::FirmwareFileType);
            let file = JobFile {
                id: entry.file_id,
                file_type: entry.file_type,
                size: entry.size,
                firmware: policy.unwrap_or(is_type),
                ..JobFile::default()
            };
            let at = job
                .files
                .iter()
                .position(|of| of.id > file.id)
                .unwrap_or(job.files.len());
            job.files.insert(at, file);
        }
        job
    }

    pub(super) fn take_job(&mut self, job: Job, tell: bool) {
        self.job = job;
        self.note(Line::Accepted);
        if tell {
            self.tell_document(JobEvent::ReceivedJob);
        }
        self.touch_journal();
    }

    pub(super) fn tell_document(&mut self, kind: JobEvent) {
        let document = Vec::from(self.job.document.as_bytes());
        self.tell_event(kind, None, None, None, document);
    }

    /// The service shows the job at hand, open.
    fn on_read_again(&mut self, text: &str) {
        self.job.read_again = true;
        if self.job.needs_document() {
            self.learn(text);
        }
    }

    /// The document of a job that the journal already knows.
    fn learn(&mut self, text: &str) {
        let known = document::parse_job(text).map(|document| {
            let has = |file: &JobFile| document.files.iter().any(|entry| entry.file_id == file.id);
            let same =
                document.files.len() == self.job.files.len() && self.job.files.iter().all(has);
            (document.stream, same)
        });
        match known {
            Ok((Some(stream), true)) => {
                self.job.stream = Some(stream);
                self.job.document = String::from(text);
            }
            // It is not the document that was taken.
            Ok(_) => self.fail_parse(ParseError::NOT_OTA),
            Err(error) => self.fail_parse(error),
        }
    }

    fn fail_parse(&mut self, error: ParseError) {
        self.fail_with_numbers(Why::new(OtaErr::JobParserError.code(), error.code()));
    }

    /// Ends a job before it began.
    pub(super) fn refuse(&mut self, id: JobId, verdict: Verdict) {
        let (status, why) = match verdict {
            Verdict::Failed(why) => (
                Status::Failed {
                    main: why.main,
                    sub: why.sub,
                },
                why,
            ),
            Verdict::Aborted(code) => (Status::Aborted { code: code.code() }, Why::ota(code)),
        };
        self.end_at_once(id, &status, why);
        self.note_job(Line::JobRefused);
        self.tell_failure(JobEvent::Fail, why);
    }

    /// A job that ends without having been run here.
    pub(super) fn end_at_once(&mut self, id: JobId, status: &Status, why: Why) {
        self.job = Job::new(Some(id), Stage::Report);
        self.end_with(status, why);
        self.touch_journal();
    }

    pub(super) fn end_with(&mut self, status: &Status, why: Why) {
        let known = JobParseErr::from_code(why.sub.cast_signed()).filter(|_| why.main == 0x0c);
        let detail = match known {
            Some(known) => known.name(),
            None => self.detail_of(why),
        };
        let detail = String::from(detail);
        let word = ExecutionStatus::from_word(status.word());
        self.job.ending = Some(Ending {
            head: status.head(),
            word,
            why,
            detail,
        });
    }

    /// A job that others may run.
    pub(super) fn leave(&mut self, id: Option<JobId>, line: Line) {
        if let Some(id) = id {
            self.note_text(line, id.as_str());
            Self::remember(&mut self.left, id.as_str());
        }
    }

    pub(super) fn on_described(&mut self, payload: &[u8]) {
        if self.state == State::Suspended {
            return;
        }
        match document::parse_reply(payload) {
            Ok(Reply::Job(execution)) if self.job.is(execution.job_id.as_str()) => {
                if !self.answers(execution.token, true) {
                    return;
                }
                if self.reporter.compare || execution.state.status.is_terminal() {
                    self.compare_with(&execution.state);
                } else {
                    self.on_read_again(execution.document);
                }
            }
            Ok(Reply::NoJob(token)) => {
                if self.answers(token, true) {
                    self.withdraw();
                }
            }
            // Somebody else's answer, or rubbish: the timer repeats the question.
            Ok(Reply::Job(_)) | Err(_) => {}
        }
    }

    /// A question was refused. For the job at hand that can be the answer.
    pub(super) fn on_question_refused(&mut self, describe: bool, payload: &[u8]) {
        let Ok(rejected) = jobs::parse_answer(payload) else {
            return;
        };
        if !self.answers(rejected.token, describe) {
            return;
        }
        let gone = [JobsErr::TerminalStateReached, JobsErr::ResourceNotFound];
        match &rejected.execution {
            Some(execution) if describe && rejected.code == JobsErr::TerminalStateReached => {
                self.compare_with(execution);
            }
            _ if describe && gone.contains(&rejected.code) => self.withdraw(),
            _ => {
                self.asking.next |= !describe;
                self.asking.describe |= describe;
                self.ask_later(Line::AskRefused, rejected.code_text);
            }
        }
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
