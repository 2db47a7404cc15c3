//! Jobs as the service tells them: no news, a confirmation, or a new job that is judged before anything is downloaded.
//!
//! A message that shows another job, or none, while one is being worked on is only a hint: the job itself is asked for
//! before it counts as withdrawn. Answers of the application are in `answer.rs`.

use alloc::string::String;

use crate::base64::SYMBOLS;
use crate::code::{JobEvent, JobsErr, OtaErr, OtadErr, State};
use crate::document::{self, FileEntry, JobExecution, ParseError, Protocol, Reply, ReplyError};
use crate::jobs::{self, ExecutionState, ExecutionStatus, JobId, SelfTest, Status};
use crate::settings::{Key, OnJob};
use crate::types::FileId;

use super::job::{Ending, Job, JobFile, Stage};
use super::lines::{Line, Why};
use super::recover::Service;
use super::report::Due;
use super::request::has;
use super::timer::Timer;
use super::{Agent, Style};

/// How a job ends because of its document.
pub(super) type Verdict = (Style, Why);

/// `0x0000000c: 0x<code>`.
pub(super) fn defective(error: ParseError) -> Verdict {
    let why = Why::new(OtaErr::JobParserError.code(), error.code());
    (Style::Numbers, why)
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
        let is_left = has(&self.left, id.as_str());
        if self.job.is_taken() || is_left || (notified && has(&self.seen, id.as_str())) {
            return;
        }
        self.answer_is_here();
        self.refuse(id, defective(error.error));
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
        if mutant!(HintIsCancel) {
            self.withdraw();
            return;
        }
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
            if self.asking.sent.is_some() {
                self.answer_is_here();
            }
            self.judge(id, &execution.state, execution.document);
        }
    }

    fn judge(&mut self, id: &JobId, state: &ExecutionState, text: &str) {
        let id = id.clone();
        if !document::is_ota(text) {
            self.on_foreign_job(id, text);
            return;
        }
        let Some(job) = self.read_job(id, text, true) else {
            return;
        };
        let fresh = state.status == ExecutionStatus::Queued;
        let service = match state.details.self_test {
            None => Service::Open,
            Some(SelfTest::Active) => Service::Active,
            Some(SelfTest::Ready | SelfTest::Other) => Service::Ready,
        };
        if service != Service::Open && job.first(|file| file.firmware).is_some() {
            self.adopt(job, service, state.details.updated_by);
        } else if fresh && self.settings.on_job == OnJob::Ignore {
            self.leave(job.text(), Line::LeftAlone);
        } else if fresh && self.settings.on_job == OnJob::Ask {
            self.offer(job, Stage::Offered);
        } else {
            self.take_job(job, true);
        }
    }

    /// The job of a document, nothing done yet. A defective one is refused.
    pub(super) fn read_job(&mut self, id: JobId, text: &str, log: bool) -> Option<Job> {
        let (document, planes) = match self.check_document(text) {
            Ok(checked) => checked,
            Err(verdict) => {
                self.refuse(id, verdict);
                return None;
            }
        };
        if log {
            self.log_parameters(&id, &document);
        }
        Some(self.job_of(Some(id), document, planes, text))
    }

    fn job_of(
        &self,
        id: Option<JobId>,
        document: document::Job,
        planes: (bool, bool),
        text: &str,
    ) -> Job {
        let mut job = Job::new(id, Stage::Taken);
        (job.by_url, job.spare) = planes;
        job.known = true;
        job.block_size = self.number32(Key::BlockSize);
        job.document = String::from(text);
        let mut last = None;
        let rest = |last: Option<FileId>| {
            let files = document.files.iter();
            let later = files.filter(|entry| Some(entry.file_id) > last);
            later.min_by_key(|entry| entry.file_id)
        };
        while let Some(entry) = rest(last) {
            last = Some(entry.file_id);
            let is_type = u64::from(entry.file_type) == self.number(Key::FirmwareFileType);
            job.urls.push(entry.url.clone());
            let policy = self.settings.target(entry.file_id);
            let firmware = policy.and_then(|target| target.firmware);
            job.files.push(JobFile {
                id: entry.file_id,
                file_type: entry.file_type,
                size: entry.size,
                firmware: firmware.unwrap_or(is_type),
                ..JobFile::default()
            });
        }
        job.stream = document.stream;
        job
    }

    /// Whether the document's blocks come by URL, and whether the other way would do as well. The first protocol of ours
    /// counts that the job offers with all that it needs.
    fn planes(&self, document: &document::Job) -> Result<(bool, bool), Verdict> {
        let mut found = None;
        let mut spare = false;
        let mut verdict = (Style::Aborted, Why::ota(OtaErr::InvalidDataProtocol));
        for protocol in self.settings.protocols.iter().rev().copied() {
            let http = protocol == Protocol::Http;
            let offered = if http {
                document.protocols.http
            } else {
                document.protocols.mqtt
            };
            if !offered {
                continue;
            }
            match document.check_protocol(protocol) {
                Ok(()) => spare = found.replace(http).is_some(),
                Err(error) => verdict = defective(error),
            }
        }
        found.map(|by_url| (by_url, spare)).ok_or(verdict)
    }

    /// All that can be said against a document before a byte of the image is fetched.
    fn check_document(&self, text: &str) -> Result<(document::Job, (bool, bool)), Verdict> {
        let document = document::parse_job(text).map_err(defective)?;
        let planes = self.planes(&document)?;
        document
            .grids(self.number32(Key::BlockSize))
            .map_err(defective)?;
        let unknown = |file: &&FileEntry| self.settings.target(file.file_id).is_none();
        match document.files.iter().find(unknown) {
            Some(file) => {
                let why = Why::own(OtadErr::UnknownFileId, file.file_id);
                Err((Style::Numbers, why))
            }
            None => Ok((document, planes)),
        }
    }

    fn log_parameters(&mut self, id: &JobId, document: &document::Job) {
        self.note_text(Line::JobId, id.as_str());
        let protocols = match document.protocols {
            document::Protocols {
                mqtt: true,
                http: true,
            } => "MQTT, HTTP",
            document::Protocols { mqtt: true, .. } => "MQTT",
            document::Protocols { .. } => "HTTP",
        };
        self.note_text(Line::Protocols, protocols);
        let stream = document.stream.as_ref();
        self.note_text(Line::Stream, stream.map_or("", |stream| stream.as_str()));
        for file in &document.files {
            self.note_text(Line::FilePath, &file.path);
            self.write_line(Line::FileSize, file.size, "");
            self.note_number(Line::FileIdentity, file.file_id);
            self.note_text(Line::CertFile, &file.certificate);
            self.note_number(Line::FileType, file.file_type);
            if let Some(signature) = &file.signature {
                let mut text = String::from(signature.kind.key());
                text.push_str(": ");
                push_head(&mut text, &signature.bytes);
                self.note_text(Line::Signature, &text);
            }
        }
    }

    pub(super) fn take_job(&mut self, job: Job, tell: bool) {
        self.job = job;
        self.note(Line::Accepted);
        if tell {
            self.tell_document(JobEvent::ReceivedJob);
        }
        self.touch_journal();
    }

    /// The service shows the job at hand, open.
    fn on_read_again(&mut self, text: &str) {
        self.job.read_again = true;
        if mutant!(SameJobFromZero)
            && let Some(transfer) = self.transfer.as_ref()
        {
            self.begin_download(transfer.file, None);
        }
        // Of a long one a snapshot knows no more than that there is one.
        let job = &self.job;
        if job.stage == Stage::Taken && (!job.known || job.document.is_empty()) {
            self.learn(text);
        }
    }

    /// The document of a job that the journal already knows.
    fn learn(&mut self, text: &str) {
        let why = match self.check_document(text) {
            Ok((document, planes)) => {
                let new = self.job_of(None, document, planes, text);
                let same =
                    |(new, old): (&JobFile, &JobFile)| new.id == old.id && new.size == old.size;
                let files = &self.job.files;
                if new.files.len() == files.len() && new.files.iter().zip(files).all(same) {
                    self.take_sources(new);
                    return;
                }
                // It is not the document that was taken.
                defective(ParseError::NOT_OTA).1
            }
            Err((_, why)) => why,
        };
        self.fail_with_numbers(why);
    }

    /// Blocks come from where the document says now.
    fn take_sources(&mut self, new: Job) {
        let job = &mut self.job;
        (job.known, job.document, job.urls) = (true, new.document, new.urls);
        // In the middle of a file the other way is not taken up again.
        if self.transfer.is_none() {
            (job.stream, job.by_url, job.spare) = (new.stream, new.by_url, new.spare);
        }
    }

    /// Ends a job before it began.
    pub(super) fn refuse(&mut self, id: JobId, (style, why): Verdict) {
        if mutant!(RefusalUntold) {
            return;
        }
        self.end_at_once(id, &style.status(why), why);
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
        let detail = self.detail_of(why);
        // It is another status than the last one, which may have been taken already: a custom job that goes on.
        self.reporter.due = Due::Nothing;
        self.job.ending = Some(Ending {
            head: status.head(),
            word: ExecutionStatus::from_word(status.word()),
            why,
            detail,
        });
    }

    /// A job that others may run.
    pub(super) fn leave(&mut self, id: &str, line: Line) {
        self.note_text(line, id);
        Self::remember(&mut self.left, id);
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
                self.ask_later(Line::AskRefused, &rejected.code_text);
            }
        }
    }
}

/// The first 32 symbols of a signature in base64, for people.
fn push_head(out: &mut String, bytes: &[u8]) {
    // 8 groups of 3 bytes are 32 symbols; a rest is not shown.
    for group in bytes.chunks_exact(3).take(8) {
        let word = group
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        for shift in [18, 12, 6, 0] {
            out.push(char::from(SYMBOLS[(word >> shift & 63) as usize]));
        }
    }
}
