//! Statuses to the job service: one that matters at a time, repeated until the service has acknowledged it, and
//! progress that nobody waits for.
//!
//! Acknowledged means `update/accepted` with our token, or a refusal which shows that the service already has what we
//! sent; never a PUBACK. What follows from a status is decided where it was wanted.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{JobsErr, OtaErr, OtadErr};
use crate::jobs::{
    self, ClientToken, DETAILS_MAX_COUNT, ExecutionState, ExecutionStatus, Progress, ReplyToken,
    SelfTest, Status, Topic, VersionWord,
};
use crate::settings::Key;
use crate::types::{FileId, InstantMs};

use super::lines::{Line, Why};
use super::ops::Deed;
use super::request::UNANSWERED_MAX;
use super::table::Cause;
use super::timer::{NEVER, Timer};
use super::{Agent, take_first};

/// Most tokens of one repeated status, or of progress, that are still listened to.
const TOKENS_MAX: usize = 4;

/// Which status is to be acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Due {
    #[default]
    Nothing = 0,
    /// `self_test: ready`.
    Ready = 1,
    /// `self_test: active`.
    Active = 2,
    /// The job's ending as it stands.
    End = 3,
}

impl Due {
    pub(super) const ALL: [Self; 4] = [Self::Nothing, Self::Ready, Self::Active, Self::End];
}

/// The status that is to be acknowledged, and progress that may still be answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporter {
    pub(super) due: Due,
    /// Tokens that it was sent with, and when, oldest first.
    pub(super) sent: Vec<Sent>,
    pub(super) acknowledged: bool,
    pub(super) tries: u32,
    /// Refusals after which the service still showed the job open and different.
    pub(super) refusals: u32,
    /// A refusal did not say how the execution stands: the answer to the open question will.
    pub(super) compare: bool,
    /// What was sent last, for the application.
    pub(super) payload: String,
    /// Progress that may be answered until then.
    pub(super) progress: Vec<Sent>,
}

/// A token that was sent: of a status or question, when that was; of progress, until when an answer means something.
pub(super) type Sent = (ClientToken, InstantMs);

/// Makes room by forgetting the oldest.
fn remember(list: &mut Vec<Sent>, sent: Sent) {
    if list.len() >= TOKENS_MAX {
        take_first(list);
    }
    list.push(sent);
}

impl Reporter {
    /// Which of our statuses an answer is about: the one that matters (true), and when that was sent if it is certain, or
    /// progress. One without a token is about the only one that is unanswered.
    fn matches(&mut self, token: ReplyToken, now: InstantMs) -> Option<(bool, InstantMs)> {
        let open = !self.acknowledged && !self.sent.is_empty();
        let ours = match token {
            ReplyToken::Ours(token) => Some(token),
            ReplyToken::Absent => None,
            ReplyToken::Foreign => return None,
        };
        if let Some(sent) = self.sent.iter().find(|sent| ours == Some(sent.0)) {
            return Some((true, sent.1));
        }
        let fits = |(of, until): &&mut Sent| *until > now && ours.is_none_or(|token| *of == token);
        let mut fitting = self.progress.iter_mut().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(sent), None) if ours.is_some() || !open => {
                // Answered: from now on it means nothing.
                sent.1 = 0;
                Some((false, NEVER))
            }
            (None, _) if ours.is_none() && open => Some((true, NEVER)),
            _ => None,
        }
    }
}

impl Agent {
    /// Wants a status acknowledged; true once it is.
    pub(super) fn report(&mut self, due: Due) -> bool {
        let reporter = &mut self.reporter;
        if reporter.due != due {
            reporter.due = due;
            reporter.sent.clear();
            reporter.acknowledged = false;
            reporter.tries = 0;
            reporter.refusals = 0;
            reporter.compare = false;
            self.stop(Timer::Status);
        }
        if self.reporter.acknowledged {
            return true;
        }
        let silent = mutant!(StatusSentOnce) && !self.reporter.sent.is_empty();
        if self.connected && !self.runs(Timer::Status) && self.subscribed(false) && !silent {
            self.publish_status(due);
        }
        mutant!(AcceptedUnheard) && due == Due::End && !self.reporter.sent.is_empty()
    }

    /// The same for the job's ending.
    pub(super) fn report_end(&mut self) -> bool {
        self.report(Due::End)
    }

    fn head(&self, due: Due) -> String {
        let running = VersionWord(self.running_word());
        match due {
            Due::Ready => Status::SelfTestReady(running).head(),
            Due::Active => Status::SelfTestActive(running).head(),
            Due::Nothing | Due::End => self
                .job
                .ending
                .as_ref()
                .map(|ending| ending.head.clone())
                .unwrap_or_default(),
        }
    }

    fn publish_status(&mut self, due: Due) {
        // Before the restart an update can still be given up. The test has its deadline, and an end is told for ever.
        if due == Due::Ready && self.reporter.tries >= UNANSWERED_MAX {
            self.fail_with_numbers(Why::own(OtadErr::NoAnswer, self.reporter.tries));
            return;
        }
        if mutant!(TrapOnRepeat) && self.reporter.tries > 0 {
            panic!("a mutant");
        }
        let token = self.tokens.draw();
        let payload = Status::with_token(self.head(due), token);
        remember(&mut self.reporter.sent, (token, self.now));
        self.reporter.payload = payload.clone();
        self.publish_update(Line::Status, payload, Deed::Status);
        self.arm_back_off(Timer::Status, self.reporter.tries);
    }

    fn publish_update(&mut self, line: Line, payload: String, deed: Deed) {
        let job = if mutant!(NamelessStatus) {
            ""
        } else {
            self.job.text()
        };
        let topic = jobs::make_ours(&self.settings.thing, Topic::Update, job);
        self.note_text(line, &payload);
        self.publish(deed, topic, payload);
    }

    /// Tells how far a file is, once, with QoS 0.
    pub(super) fn tell_progress(&mut self, id: FileId) {
        if !self.connected || self.is_suspended() {
            return;
        }
        let mut progress = Progress::default();
        let several = self.job.files.len() > 1;
        for (at, file) in self.job.files.iter().enumerate() {
            let installs = file.installed.1 > 0;
            let figures = if installs {
                file.installed
            } else {
                file.received()
            };
            if file.id == id {
                progress.push(None, installs, figures);
            }
            // One place is the file's at hand; who has not begun has no size yet.
            if several && at < DETAILS_MAX_COUNT - 1 && figures.1 > 0 {
                progress.push(Some(file.id), installs, figures);
            }
        }
        let token = self.tokens.draw();
        let payload = Status::Progress(progress).payload(token);
        let until = self.now + self.number(Key::RequestTimeout);
        remember(&mut self.reporter.progress, (token, until));
        self.publish_update(Line::Progress, payload, Deed::Progress);
    }

    pub(super) fn on_status_published(&mut self, why: Why) {
        // Success says nothing: only the service's answer counts, and its timer runs.
        if why.is_some() {
            self.note_why(Line::StatusNotSent, why);
            self.repeat_status();
        }
    }

    fn repeat_status(&mut self) {
        self.reporter.tries = self.reporter.tries.saturating_add(1);
        self.arm_back_off(Timer::Status, self.reporter.tries);
    }

    pub(super) fn on_update_accepted(&mut self, payload: &[u8]) {
        let Ok(accepted) = jobs::parse_answer(payload) else {
            return;
        };
        if self.matches(accepted.token) == Some(true) {
            self.acknowledge();
        }
    }

    fn matches(&mut self, token: ReplyToken) -> Option<bool> {
        let (matters, sent) = self.reporter.matches(token, self.now)?;
        if sent != NEVER && !self.reporter.acknowledged {
            self.round_trip.learn(self.now.saturating_sub(sent));
        }
        Some(matters)
    }

    fn acknowledge(&mut self) {
        if !core::mem::replace(&mut self.reporter.acknowledged, true) {
            self.stop(Timer::Status);
            self.note(Line::Acknowledged);
        }
    }

    pub(super) fn on_update_rejected(&mut self, payload: &[u8]) {
        let Ok(rejected) = jobs::parse_answer(payload) else {
            return;
        };
        let Some(matters) = self.matches(rejected.token) else {
            return;
        };
        self.warn_of(Line::StatusRefused, &rejected.code_text, &rejected.message);
        self.view.last_error = Why::own(OtadErr::StatusRejected, rejected.code.code());
        let open = rejected
            .execution
            .filter(|state| !state.status.is_terminal());
        match rejected.code {
            JobsErr::ResourceNotFound => self.withdraw(),
            JobsErr::InvalidStateTransition
            | JobsErr::VersionMismatch
            | JobsErr::TerminalStateReached => match &rejected.execution {
                // Progress is not repeated: the next one tells more.
                Some(_) if !matters && open.is_some() => {}
                Some(_) if matters && self.reporter.acknowledged => {}
                Some(execution) => self.compare_with(execution),
                None => {
                    // Until the answer is here, or for long enough is not, nothing is repeated.
                    self.asking.describe = true;
                    self.reporter.compare |= matters && !self.reporter.acknowledged;
                }
            },
            _ if !matters || self.reporter.acknowledged => {}
            JobsErr::RequestThrottled | JobsErr::InternalError => self.repeat_status(),
            JobsErr::InvalidRequest | JobsErr::InvalidJson | JobsErr::InvalidTopic
                if self.job.stage.is_open() =>
            {
                self.give_up_status(rejected.code);
            }
            // The request may have been damaged on its way, and an end that is not told leaves the job open for ever.
            JobsErr::InvalidRequest
            | JobsErr::InvalidJson
            | JobsErr::InvalidTopic
            | JobsErr::Unknown => self.repeat_bounded(rejected.code),
        }
    }

    /// What the service must show once it has what was sent last.
    fn shows(&self, execution: &ExecutionState) -> bool {
        let (word, test) = match self.reporter.due {
            Due::Ready => (ExecutionStatus::InProgress, Some(SelfTest::Ready)),
            Due::Active => (ExecutionStatus::InProgress, Some(SelfTest::Active)),
            Due::End => match &self.job.ending {
                Some(ending) => (ending.word, None),
                None => return false,
            },
            Due::Nothing => return false,
        };
        execution.status == word && (test.is_none() || execution.details.self_test == test)
    }

    /// The service has shown how the execution stands.
    pub(super) fn compare_with(&mut self, execution: &ExecutionState) {
        self.reporter.compare = false;
        if !self.reporter.sent.is_empty() && self.shows(execution) {
            self.acknowledge();
        } else if execution.status.is_terminal() {
            self.withdraw();
        } else if !self.reporter.acknowledged {
            self.repeat_bounded(JobsErr::InvalidStateTransition);
        }
    }

    fn repeat_bounded(&mut self, code: JobsErr) {
        self.reporter.refusals += 1;
        if self.reporter.refusals > self.number32(Key::UpdateAttempts) {
            self.give_up_status(code);
        } else {
            self.repeat_status();
        }
    }

    /// The service will never take this status. Before the end of a job that is a failure; at the end there is
    /// nothing left to say, and waiting for ever would help nobody.
    fn give_up_status(&mut self, code: JobsErr) {
        let why = Why::own(OtadErr::StatusRejected, code.code());
        if self.job.stage.is_open() {
            self.fail_with_numbers(why);
            return;
        }
        self.note(Line::StatusGivenUp);
        // The service will show it again and again, and nothing would come of it but the same.
        Self::remember(&mut self.left, self.job.text());
        self.end_untold(why);
    }

    /// The job ends as it was decided, and the service cannot be told; the application is told why.
    fn end_untold(&mut self, why: Why) {
        self.job.withdrawn = true;
        let detail = self.detail_of(why);
        if let Some(ending) = self.job.ending.as_mut()
            && !ending.why.is_some()
        {
            ending.why = why;
            ending.detail = detail;
        }
        self.touch_journal();
    }

    /// The service no longer has the job open. Before the decision the job goes back without a word; after it the
    /// decision stands, and only the report falls away.
    pub(super) fn withdraw(&mut self) {
        if self.job.withdrawn || self.job.id.is_none() || mutant!(CancelUnnoticed) {
            return;
        }
        self.note_job(Line::Withdrawn);
        if self.job.stage.is_open() {
            self.fail_by(Cause::JobWithdrawn, Why::ota(OtaErr::NoActiveJob));
        } else {
            self.end_untold(Why::own(OtadErr::Untold, 0));
        }
    }
}
