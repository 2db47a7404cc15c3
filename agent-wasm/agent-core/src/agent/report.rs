//! Statuses to the job service: one that matters at a time, repeated until the service has acknowledged it, and
//! progress that nobody waits for.
//!
//! Acknowledged means `update/accepted` with our token, or a refusal which shows that the service already has what we
//! sent; never a PUBACK. What follows from a status is decided where it was wanted.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{JobsErr, OtadErr};
use crate::jobs::{
    self, Accepted, ClientToken, ExecutionState, ExecutionStatus, Rejected, ReplyToken, SelfTest,
    Status,
};
use crate::settings::Key;
use crate::text::push_decimal;
use crate::types::{Failure, InstantMs, Level, Order, Qos};

use super::Agent;
use super::ops::Doing;
use super::table::Cause;
use super::timer::Timer;

/// Most tokens of one repeated status that are still listened to.
const TOKENS_MAX: usize = 4;

/// The status that is to be acknowledged, and progress that may still be answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporter {
    pub(super) wanted: Option<Status>,
    /// Tokens that it was sent with, oldest first.
    pub(super) sent: Vec<ClientToken>,
    pub(super) acknowledged: bool,
    pub(super) tries: u32,
    /// Refusals after which the service still showed the job open and different.
    pub(super) refusals: u32,
    /// A refusal did not say how the execution stands: the answer to the open question will.
    pub(super) compare: bool,
    /// What was sent last, for the application.
    pub(super) payload: String,
    /// Progress that may be answered until then.
    pub(super) progress: Vec<(ClientToken, InstantMs)>,
}

impl Reporter {
    fn begin(&mut self, status: Status) {
        self.wanted = Some(status);
        self.sent.clear();
        self.acknowledged = false;
        self.tries = 0;
        self.refusals = 0;
        self.compare = false;
    }

    pub(super) fn on_connection(&mut self) {
        self.progress.clear();
        self.compare = false;
    }

    /// Which of our statuses an answer is about. One without a token is about the only one that is unanswered.
    fn matches(&mut self, token: ReplyToken, now: InstantMs) -> Option<Answered> {
        self.progress.retain(|(_, until)| *until > now);
        let open = self.wanted.is_some() && !self.acknowledged && !self.sent.is_empty();
        match token {
            ReplyToken::Ours(token) if self.sent.contains(&token) => Some(Answered::Status),
            ReplyToken::Ours(token) => {
                let at = self.progress.iter().position(|(of, _)| *of == token)?;
                self.progress.remove(at);
                Some(Answered::Progress)
            }
            ReplyToken::Absent if open && self.progress.is_empty() => Some(Answered::Status),
            ReplyToken::Absent if !open && self.progress.len() == 1 => {
                self.progress.clear();
                Some(Answered::Progress)
            }
            ReplyToken::Absent | ReplyToken::Foreign => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Status,
    Progress,
}

/// What the service's view of the execution means for what we sent.
enum Comparison {
    /// It has it.
    Same,
    /// It is open, and different.
    Open,
    /// It is over in another way.
    Over,
}

fn compare(sent: Option<&Status>, execution: &ExecutionState) -> Comparison {
    let Some(sent) = sent else {
        return if execution.status.is_terminal() {
            Comparison::Over
        } else {
            Comparison::Open
        };
    };
    let same_word = ExecutionStatus::from_word(sent.word()) == execution.status;
    let same_test = match sent {
        Status::SelfTestReady(_) => execution.details.self_test == Some(SelfTest::Ready),
        Status::SelfTestActive(_) => execution.details.self_test == Some(SelfTest::Active),
        Status::Receiving { .. }
        | Status::Accepted { .. }
        | Status::AcceptedFile { .. }
        | Status::Rejected { .. }
        | Status::Aborted { .. }
        | Status::Failed { .. }
        | Status::Declined(_)
        | Status::Custom(_) => true,
    };
    if same_word && same_test {
        Comparison::Same
    } else if execution.status.is_terminal() {
        Comparison::Over
    } else {
        Comparison::Open
    }
}

impl Agent {
    /// Wants a status acknowledged; true once it is.
    pub(super) fn report(&mut self, status: &Status) -> bool {
        if self.reporter.wanted.as_ref() != Some(status) {
            self.reporter.begin(status.clone());
            self.timers.stop(Timer::Status);
        }
        if self.reporter.acknowledged {
            return true;
        }
        if self.connected && !self.timers.runs(Timer::Status) && self.subscribed(false) {
            self.publish_status(status);
        }
        false
    }

    fn publish_status(&mut self, status: &Status) {
        let Some(id) = self.job.as_ref().and_then(|job| job.id.as_ref()) else {
            return;
        };
        let topic = jobs::update(&self.settings.thing, id);
        let token = self.tokens.draw();
        let payload = status.payload(token);
        self.log(Level::Info, &["status ", &payload]);
        if self.reporter.sent.len() >= TOKENS_MAX {
            self.reporter.sent.remove(0);
        }
        self.reporter.sent.push(token);
        self.reporter.payload.clone_from(&payload);
        let payload = payload.into_bytes();
        self.order(
            Order::Publish {
                topic,
                payload,
                qos: Qos::AtLeastOnce,
            },
            Doing::Status,
        );
        let at = self.now + self.back_off(self.reporter.tries);
        self.timers.set(Timer::Status, at);
    }

    /// Tells progress, once, with QoS 0.
    pub(super) fn tell_progress(&mut self, received: u32, total: u32) {
        let Some(id) = self.job.as_ref().and_then(|job| job.id.as_ref()) else {
            return;
        };
        let topic = jobs::update(&self.settings.thing, id);
        let token = self.tokens.draw();
        let payload = Status::Receiving { received, total }.payload(token);
        self.log(Level::Debug, &["status ", &payload]);
        if self.reporter.progress.len() >= TOKENS_MAX {
            self.reporter.progress.remove(0);
        }
        let until = self.now + self.settings.number(Key::RequestTimeout);
        self.reporter.progress.push((token, until));
        let payload = payload.into_bytes();
        self.order(
            Order::Publish {
                topic,
                payload,
                qos: Qos::AtMostOnce,
            },
            Doing::Progress,
        );
    }

    pub(super) fn on_status_published(&mut self, result: Result<(), Failure>) {
        // Success says nothing: only the service's answer counts, and its timer runs.
        if let Err(failure) = result {
            self.log(Level::Warn, &["status not sent: ", &failure.detail]);
            self.view.last_error = Some(failure);
            self.repeat_status();
        }
    }

    pub(super) fn on_status_timeout(&mut self) {
        // A back-off that ends here repeats the status as well.
        self.reporter.tries = self.reporter.tries.saturating_add(1);
    }

    fn repeat_status(&mut self) {
        self.reporter.tries = self.reporter.tries.saturating_add(1);
        let at = self.now + self.back_off(self.reporter.tries);
        self.timers.set(Timer::Status, at);
    }

    pub(super) fn on_update_accepted(&mut self, job: &str, payload: &[u8]) {
        if !self.is_job(job) {
            return;
        }
        let Ok(Accepted { token, .. }) = jobs::parse_accepted(payload) else {
            return;
        };
        if self.reporter.matches(token, self.now) == Some(Answered::Status) {
            self.acknowledge();
        }
    }

    fn acknowledge(&mut self) {
        if self.reporter.acknowledged {
            return;
        }
        self.reporter.acknowledged = true;
        self.timers.stop(Timer::Status);
        let word = self.reporter.wanted.as_ref().map_or("", Status::word);
        self.log(Level::Info, &["status acknowledged: ", word]);
    }

    pub(super) fn on_update_rejected(&mut self, job: &str, payload: &[u8]) {
        if !self.is_job(job) {
            return;
        }
        let Ok(rejected) = jobs::parse_rejected(payload) else {
            return;
        };
        let Some(answered) = self.reporter.matches(rejected.token, self.now) else {
            return;
        };
        let code = rejected.code_text.as_str();
        self.log(
            Level::Warn,
            &["status refused: ", code, ": ", &rejected.message],
        );
        self.view.last_error = Some(status_rejected(rejected.code, &rejected.message));
        match answered {
            Answered::Status => self.on_status_refused(&rejected),
            Answered::Progress => self.on_progress_refused(&rejected),
        }
    }

    fn on_status_refused(&mut self, rejected: &Rejected) {
        if self.reporter.acknowledged {
            return;
        }
        match rejected.code {
            JobsErr::RequestThrottled | JobsErr::InternalError => self.repeat_status(),
            JobsErr::InvalidStateTransition
            | JobsErr::VersionMismatch
            | JobsErr::TerminalStateReached => match &rejected.execution {
                Some(execution) => self.compare_with(execution),
                None => {
                    self.reporter.compare = true;
                    self.asking.describe = true;
                    self.repeat_status();
                }
            },
            JobsErr::ResourceNotFound => self.withdraw("the service has no such job"),
            JobsErr::InvalidRequest | JobsErr::InvalidJson | JobsErr::InvalidTopic => {
                self.give_up_status(rejected.code);
            }
            JobsErr::Unknown => self.repeat_bounded(rejected.code),
        }
    }

    fn on_progress_refused(&mut self, rejected: &Rejected) {
        match (rejected.code, &rejected.execution) {
            (JobsErr::ResourceNotFound, _) => self.withdraw("the service has no such job"),
            (JobsErr::InvalidStateTransition | JobsErr::TerminalStateReached, Some(execution))
                if execution.status.is_terminal() =>
            {
                self.withdraw("the service has closed the job");
            }
            (JobsErr::InvalidStateTransition | JobsErr::TerminalStateReached, None) => {
                self.asking.describe = true;
            }
            // Progress is not repeated: the next one tells more.
            (
                JobsErr::Unknown
                | JobsErr::InvalidTopic
                | JobsErr::InvalidJson
                | JobsErr::InvalidRequest
                | JobsErr::InvalidStateTransition
                | JobsErr::VersionMismatch
                | JobsErr::InternalError
                | JobsErr::RequestThrottled
                | JobsErr::TerminalStateReached,
                _,
            ) => {}
        }
    }

    /// The service has shown how the execution stands.
    pub(super) fn compare_with(&mut self, execution: &ExecutionState) {
        self.reporter.compare = false;
        let wanted = self
            .reporter
            .wanted
            .as_ref()
            .filter(|_| !self.reporter.sent.is_empty());
        match compare(wanted, execution) {
            Comparison::Same => self.acknowledge(),
            Comparison::Over => self.withdraw("the service has closed the job in another way"),
            Comparison::Open => self.repeat_bounded(JobsErr::InvalidStateTransition),
        }
    }

    fn repeat_bounded(&mut self, code: JobsErr) {
        self.reporter.refusals += 1;
        if self.reporter.refusals > self.settings.number32(Key::UpdateAttempts) {
            self.give_up_status(code);
        } else {
            self.repeat_status();
        }
    }

    /// The service will never take this status. Before the end of a job that is a failure; at the end there is
    /// nothing left to say, and waiting for ever would help nobody.
    fn give_up_status(&mut self, code: JobsErr) {
        let failure = status_rejected(code, "the job service refuses the status");
        let ends = self.job_ref().is_some_and(|job| !job.stage.is_open());
        if ends {
            self.log(Level::Error, &["status given up: ", code.name()]);
            if let Some(job) = &mut self.job {
                job.withdrawn = true;
                if let Some(ending) = &mut job.ending {
                    ending.failure.get_or_insert(failure);
                }
            }
            self.touch_journal();
        } else {
            self.fail_with_numbers(failure);
        }
    }

    /// The service no longer has the job open. Before the decision the job goes back without a word; after it the
    /// decision stands, and only the report falls away.
    pub(super) fn withdraw(&mut self, why: &str) {
        let Some(job) = &mut self.job else { return };
        if job.withdrawn || job.id.is_none() {
            return;
        }
        let open = job.stage.is_open();
        let text = String::from(job.text());
        if !open {
            job.withdrawn = true;
        }
        self.log(Level::Warn, &["job ", &text, " withdrawn: ", why]);
        if open {
            self.fail_for(Cause::JobWithdrawn, Failure::new(0x12, 0, why));
        } else {
            self.touch_journal();
        }
    }

    /// Detail text with the number of a file.
    pub(super) fn of_file(what: &str, file: u32) -> String {
        let mut text = String::from(what);
        push_decimal(&mut text, file.into());
        text
    }
}

fn status_rejected(code: JobsErr, message: &str) -> Failure {
    Failure::new(OtadErr::StatusRejected.code() as u8, code.code(), message)
}
