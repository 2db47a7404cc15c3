//! The conversation with the job service: subscriptions, questions for the next job or for one job, and their answers.
//!
//! One question at a time, repeated with back-off for ever: a bad network delays the agent, it never stops it. What an
//! answer means for a job is in `offer.rs`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{OtadErr, State};
use crate::jobs::{self, ReplyToken, StreamId, Topic};
use crate::settings::Key;
use crate::types::{Order, Qos};

use super::job::Stage;
use super::lines::{Line, Why};
use super::ops::Deed;
use super::report::Sent;
use super::table::Cause;
use super::timer::Timer;
use super::{Agent, take_first};

/// Most tries of a question or a status that a job cannot go on without. With the default back-off that is at least two
/// hours of a service that can be reached and says nothing, and longer than a silent stream has.
pub(super) const UNANSWERED_MAX: u32 = 32;

/// How far a subscription is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Held {
    /// Not wanted.
    #[default]
    No,
    Wanted,
    Asked,
    Yes,
}

impl Held {
    pub(super) const ALL: [Self; 4] = [Self::No, Self::Wanted, Self::Asked, Self::Yes];
}

/// `notify-next`, and four for replies.
const FILTERS: [Topic; FIRST_OF_STREAM] = [
    Topic::NotifyNext,
    Topic::JobAccepted,
    Topic::JobRejected,
    Topic::UpdateAccepted,
    Topic::UpdateRejected,
];
const FIRST_OF_STREAM: usize = 5;
/// With two for the stream of the job at hand: blocks, and refusals.
const FILTERS_COUNT: usize = FIRST_OF_STREAM + 2;

/// All subscriptions of the device, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) held: [Held; FILTERS_COUNT],
    pub(super) tries: u32,
}

impl Subscriptions {
    pub(super) fn new(replies: bool) -> Self {
        let mut subscriptions = Self::default();
        let base = if replies { FIRST_OF_STREAM } else { 1 };
        for held in subscriptions.held.iter_mut().take(base) {
            *held = Held::Wanted;
        }
        subscriptions
    }

    /// The session is gone, or the ends of what was asked for will not come.
    fn reset(&mut self, session_present: bool) {
        for held in &mut self.held {
            if *held == Held::Asked || (*held == Held::Yes && !session_present) {
                *held = Held::Wanted;
            }
        }
        self.tries = 0;
    }

    /// The stream is to be subscribed to anew, in another encoding; whether it was subscribed to.
    pub(super) fn renew_stream(&mut self) -> bool {
        let mut was = false;
        for held in self.held.iter_mut().skip(FIRST_OF_STREAM) {
            if *held != Held::No {
                *held = Held::Wanted;
                was = true;
            }
        }
        was
    }
}

/// What is being asked of the job service.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    /// Ask for the next job.
    pub(super) next: bool,
    /// Ask how the job at hand stands.
    pub(super) describe: bool,
    /// The question on its way, whether it is about the job at hand, and since when.
    pub(super) sent: Option<(bool, Sent)>,
    pub(super) tries: u32,
}

impl Agent {
    pub(super) fn on_connected(&mut self, session_present: bool) {
        self.ops.forget(&|pending| pending.deed.is_transport());
        self.connected = true;
        self.relinked = true;
        if mutant!(ReconnectForgets) {
            return;
        }
        self.subscriptions.reset(session_present);
        self.stop_all(&[Timer::Ask, Timer::Subscribe, Timer::Status, Timer::Link]);
        self.asking.sent = None;
        self.asking.tries = 0;
        self.asking.next |= self.begun;
        self.reporter.progress.clear();
        self.reporter.compare = false;
        self.note(Line::Connected);
    }

    pub(super) fn on_disconnected(&mut self, reason: u32, detail: &str) {
        self.ops.forget(&|pending| pending.deed.is_transport());
        self.connected = false;
        self.asking.sent = None;
        self.stop(Timer::Ask);
        self.stop(Timer::Status);
        // Ranges by URL do not end with it.
        if !self.job.by_url {
            self.pause_transfer();
        }
        self.write_line(Line::Disconnected, reason.into(), detail);
    }

    fn filter(&self, number: usize) -> String {
        // `+` also stands for `$next`, and no filter covers another: overlaps would bring every answer twice.
        let name = match number {
            0 => "",
            1..FIRST_OF_STREAM => "+",
            _ => self.job.stream.as_ref().map_or("", StreamId::as_str),
        };
        let encoding = self.settings.stream_encoding;
        let topic = match FILTERS.get(number) {
            Some(topic) => *topic,
            None if number == FIRST_OF_STREAM => Topic::StreamData(encoding),
            None => Topic::StreamRejected(encoding),
        };
        jobs::make_ours(&self.settings.thing, topic, name)
    }

    fn numbers(stream: bool) -> core::ops::Range<usize> {
        if stream {
            FIRST_OF_STREAM..FILTERS_COUNT
        } else {
            0..FIRST_OF_STREAM
        }
    }

    /// Subscribes to what is missing; true once the group is complete.
    pub(super) fn subscribed(&mut self, stream: bool) -> bool {
        let mut complete = true;
        for number in Self::numbers(stream) {
            let Some(held) = self.subscriptions.held.get_mut(number) else {
                continue;
            };
            if stream && *held == Held::No {
                *held = Held::Wanted;
            }
            complete &= matches!(held, Held::Yes | Held::No);
            if *held == Held::Wanted && self.connected && !self.timers.runs(Timer::Subscribe) {
                *held = Held::Asked;
                let filter = self.filter(number);
                let qos = if stream {
                    Qos::AtMostOnce
                } else {
                    Qos::AtLeastOnce
                };
                self.order(
                    Order::Subscribe { filter, qos },
                    Deed::Subscribe,
                    0,
                    number as u32,
                );
            }
        }
        complete
    }

    pub(super) fn on_subscribed(&mut self, number: u32, why: Why) {
        let Some(held) = self.subscriptions.held.get_mut(number as usize) else {
            return;
        };
        if *held != Held::Asked {
            return;
        }
        if !why.is_some() {
            *held = Held::Yes;
            self.subscriptions.tries = 0;
            return;
        }
        *held = Held::Wanted;
        self.note_why(Line::SubscribeFailed, why);
        // Filters that are asked for together fail together: that is one try.
        if !self.runs(Timer::Subscribe) {
            self.arm_back_off(Timer::Subscribe, self.subscriptions.tries);
            self.subscriptions.tries += 1;
        }
        if number as usize >= FIRST_OF_STREAM && self.subscriptions.tries >= self.momentum_max() {
            self.lose_momentum();
        }
    }

    /// Lets go of the stream, or of everything.
    pub(super) fn unsubscribe(&mut self, all: bool) {
        // The next stream's tries are its own.
        self.subscriptions.tries = 0;
        self.stop(Timer::Subscribe);
        // As many things end with the stream as with the agent, in this order.
        let numbers = Self::numbers(true).chain(if all { Self::numbers(false) } else { 0..0 });
        for number in numbers {
            let filter = self.filter(number);
            let Some(held) = self.subscriptions.held.get_mut(number) else {
                continue;
            };
            let was = core::mem::take(held);
            if self.connected && matches!(was, Held::Asked | Held::Yes) {
                self.order(Order::Unsubscribe { filter }, Deed::Unsubscribe, 0, 0);
            }
        }
    }

    /// Sends the question that is due.
    pub(super) fn step_ask(&mut self) {
        let speaks = !matches!(self.state, State::Init | State::Ready);
        let wanted = self.asking.next || self.asking.describe;
        let waits = self.asking.sent.is_some() || self.runs(Timer::Ask);
        if !speaks || !self.connected || !wanted || waits {
            return;
        }
        // A job recovered from the journal speaks before the agent has been idle for the first time.
        if !core::mem::replace(&mut self.begun, true) {
            self.asking.next = true;
        }
        if !self.subscribed(false) {
            return;
        }
        self.asking.describe &= self.job.is_taken() && self.job.id.is_some();
        let thing = &self.settings.thing;
        let describe = self.asking.describe;
        let topic = if describe {
            Topic::JobGet
        } else if self.asking.next && self.state != State::WaitingForJob {
            Topic::NextGet
        } else {
            // In the idle state the question for the next job is a state of its own.
            return;
        };
        let name = if describe { self.job.text() } else { "" };
        let topic = jobs::make_ours(thing, topic, name);
        let token = self.tokens.draw();
        self.note_text(Line::Asking, &topic);
        self.publish(Deed::Ask, topic, jobs::job_request(token));
        self.asking.sent = Some((describe, (token, self.now)));
        self.arm_back_off(Timer::Ask, self.asking.tries);
        if !describe && self.state == State::RequestingJob {
            // This is the question that a new connection or a resume is due; a second one would be nobody's to answer.
            self.relinked = false;
            self.set_state(Cause::RequestJobDocument, State::WaitingForJob);
        }
    }

    /// What must arrive goes out with QoS 1, what is soon outdated with QoS 0.
    pub(super) fn publish(&mut self, deed: Deed, topic: String, payload: impl Into<Vec<u8>>) {
        self.publish_of(deed, topic, payload.into(), 0);
    }

    /// Of a block request with its number.
    pub(super) fn publish_of(&mut self, deed: Deed, topic: String, payload: Vec<u8>, number: u32) {
        let qos = if deed == Deed::Ask || deed == Deed::Status {
            Qos::AtLeastOnce
        } else {
            Qos::AtMostOnce
        };
        let order = Order::Publish {
            topic,
            payload,
            qos,
        };
        self.order(order, deed, 0, number);
    }

    pub(super) fn on_asked(&mut self, why: Why) {
        // Success says nothing: only the answer counts, and its timer runs.
        if why.is_some() {
            let detail = self.detail_of(why);
            self.ask_later(Line::AskNotSent, &detail);
        }
    }

    /// The question did not come through, or was refused.
    pub(super) fn ask_later(&mut self, line: Line, text: &str) {
        self.count_question();
        self.arm_back_off(Timer::Ask, self.asking.tries);
        self.note_text(line, text);
    }

    pub(super) fn on_ask_timeout(&mut self) {
        if self.asking.sent.is_some() && !mutant!(LostReplyHangs) {
            self.count_question();
            self.note(Line::AskingAgain);
        }
    }

    /// A question had no answer. A job that cannot go on without one ends when there were too many.
    fn count_question(&mut self) {
        self.asking.sent = None;
        self.asking.tries += 1;
        let tries = self.asking.tries;
        if mutant!(GivesUpAsking) && tries >= 3 {
            self.asking.next = false;
        }
        if self.job.needs_document() && tries >= UNANSWERED_MAX {
            self.fail_with_numbers(Why::own(OtadErr::NoAnswer, tries));
        }
    }

    /// Whether an answer is to the question that is open. Without a token it is, if the kind fits: one is open at most.
    pub(super) fn answers(&mut self, token: ReplyToken, describe: bool) -> bool {
        let Some((of, (sent, since))) = self.asking.sent else {
            return false;
        };
        let ours = match token {
            ReplyToken::Ours(token) => token == sent,
            ReplyToken::Absent => true,
            ReplyToken::Foreign => false,
        };
        if !ours || of != describe {
            return false;
        }
        self.round_trip.learn(self.now.saturating_sub(since));
        self.asking.sent = None;
        self.asking.tries = 0;
        self.stop(Timer::Ask);
        if describe {
            self.asking.describe = false;
        } else {
            self.asking.next = false;
        }
        true
    }

    /// A job that was told unasked is news: what the service answers to a question from before must not take it back.
    pub(super) fn answer_is_here(&mut self) {
        self.asking.next = false;
        self.asking.sent = None;
        self.stop(Timer::Ask);
    }

    pub(super) fn on_message(&mut self, topic: &str, payload: Vec<u8>) {
        if matches!(self.state, State::ShuttingDown | State::Stopped) {
            return;
        }
        let Some((topic, name)) = jobs::classify_ours(&self.settings.thing, topic) else {
            return;
        };
        let rejects = matches!(
            topic,
            Topic::StreamRejected(_)
                | Topic::UpdateRejected
                | Topic::NextRejected
                | Topic::JobRejected
        );
        if rejects && mutant!(RejectionUnheard) {
            return;
        }
        match topic {
            Topic::StreamData(of) if of == self.settings.stream_encoding => {
                self.on_block_message(name, payload);
            }
            Topic::StreamRejected(of) if of == self.settings.stream_encoding => {
                self.on_stream_rejected(name, &payload);
            }
            Topic::UpdateAccepted if self.job.is(name) => self.on_update_accepted(&payload),
            Topic::UpdateRejected if self.job.is(name) => self.on_update_rejected(&payload),
            Topic::NextAccepted => self.on_job_message(false, &payload),
            Topic::NotifyNext => self.on_job_message(true, &payload),
            Topic::JobAccepted if self.job.is(name) => self.on_described(&payload),
            Topic::NextRejected => self.on_question_refused(false, &payload),
            Topic::JobRejected if self.job.is(name) => self.on_question_refused(true, &payload),
            // Of another job, or of no use to the agent.
            Topic::JobAccepted
            | Topic::JobRejected
            | Topic::UpdateAccepted
            | Topic::UpdateRejected
            | Topic::Notify
            | Topic::PendingAccepted
            | Topic::PendingRejected
            | Topic::StartNextAccepted
            | Topic::StartNextRejected
            | Topic::StreamData(_)
            | Topic::StreamRejected(_)
            | Topic::StreamDescription(_)
            | Topic::NextGet
            | Topic::StartNext
            | Topic::JobGet
            | Topic::Update
            | Topic::StreamGet(_)
            | Topic::StreamDescribe(_) => {}
        }
    }

    /// Remembers a job as over, or as somebody else's.
    pub(super) fn remember(list: &mut Vec<String>, id: &str) {
        if !has(list, id) {
            if list.len() >= super::SEEN_MAX {
                take_first(list);
            }
            list.push(String::from(id));
        }
    }

    /// Waits for a job: asks for one when it is time to.
    pub(super) fn step_waiting_for_job(&mut self) -> bool {
        if self.step_beginning() {
            return true;
        }
        let may_ask = self.asking.sent.is_none() && !self.runs(Timer::Ask);
        let cause = if !self.connected {
            Cause::Disconnected
        } else if self.relinked {
            Cause::Connected
        } else if !self.asking.next || !may_ask {
            // While somebody else works on a job, the service is told so.
            if self.job.stage == Stage::Custom {
                self.report_end();
            }
            if self.number(Key::PollInterval) > 0 && self.is_idle() {
                self.arm_once(Timer::Poll, Key::PollInterval);
            }
            return false;
        } else if self.asking.tries > 0 {
            Cause::RequestTimer
        } else {
            Cause::RequestJobDocument
        };
        self.relinked = false;
        self.asking.next = true;
        self.stop(Timer::Poll);
        self.set_state(cause, State::RequestingJob);
        true
    }

    /// In the idle states: a job that was taken, or is over before it began, or an image to be sent back.
    pub(super) fn step_beginning(&mut self) -> bool {
        let (cause, next) = match self.job.stage {
            Stage::Taken if !self.job.needs_document() => {
                (Cause::ReceivedJobDocument, State::CreatingFile)
            }
            Stage::Testing => (Cause::ReceivedJobDocument, State::Testing),
            Stage::Report => (Cause::JobConcluded, State::Reporting),
            Stage::Back => (Cause::ImageUnclaimed, State::GoingBack),
            Stage::Idle
            | Stage::Offered
            | Stage::Asked
            | Stage::Taken
            | Stage::Custom
            | Stage::AwaitRestart
            | Stage::Commit => return false,
        };
        self.stop(Timer::Poll);
        self.set_state(cause, next);
        true
    }

    /// Warns with a text of the service.
    pub(super) fn warn_of(&mut self, line: Line, code: &str, message: &str) {
        let mut text = String::from(code);
        text.push_str(": ");
        text.push_str(message);
        self.note_text(line, &text);
    }
}

/// Whether a job is remembered.
pub(super) fn has(list: &[String], id: &str) -> bool {
    list.iter().any(|of| of == id)
}
