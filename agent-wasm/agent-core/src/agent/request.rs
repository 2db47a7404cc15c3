//! The conversation with the job service: subscriptions, questions for the next job or for one job, and their answers.
//!
//! One question at a time, repeated with back-off for ever: a bad network delays the agent, it never stops it. What an
//! answer means for a job is in `offer.rs`.

use alloc::string::String;
use alloc::vec::Vec;

use crate::code::State;
use crate::jobs::{self, ClientToken, Encoding, JobId, ReplyToken, StreamId, Topic};
use crate::settings::{Key, Settings};
use crate::text::push_decimal;
use crate::types::{Failure, Level, Order, Qos};

use super::ops::Doing;
use super::table::Cause;
use super::timer::Timer;
use super::{Agent, Job};

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Wanted,
    Asked,
    Held,
}

/// One subscription.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) id: u32,
    pub(super) filter: String,
    qos: Qos,
    pub(super) held: Held,
    /// Of the stream of the job at hand, not of the agent's whole life.
    pub(super) stream: bool,
}

/// All subscriptions of the device.
#[derive(Clone, Debug)]
pub(super) struct Subscriptions {
    pub(super) list: Vec<Subscription>,
    last_id: u32,
    pub(super) tries: u32,
}

impl Subscriptions {
    pub(super) fn new(settings: &Settings) -> Self {
        let thing = &settings.thing;
        let mut subscriptions = Self {
            list: Vec::new(),
            last_id: 0,
            tries: 0,
        };
        subscriptions.add(jobs::notify_next(thing), Qos::AtLeastOnce, false);
        if settings.subscribe_replies {
            // `+` also stands for `$next`, and no filter covers another: overlaps would bring every answer twice.
            for reply in ["get", "update"] {
                for end in ["accepted", "rejected"] {
                    let parts = ["$aws/things/", thing.as_str(), "/jobs/+/", reply, "/", end];
                    subscriptions.add(parts.concat(), Qos::AtLeastOnce, false);
                }
            }
        }
        subscriptions
    }

    fn add(&mut self, filter: String, qos: Qos, stream: bool) {
        self.last_id = self.last_id.wrapping_add(1);
        let id = self.last_id;
        self.list.push(Subscription {
            id,
            filter,
            qos,
            held: Held::Wanted,
            stream,
        });
    }

    pub(super) fn add_stream(&mut self, settings: &Settings, stream: &StreamId) {
        let data = jobs::stream_data(&settings.thing, stream, Encoding::Cbor);
        if self
            .list
            .iter()
            .any(|subscription| subscription.filter == data)
        {
            return;
        }
        self.add(data, Qos::AtMostOnce, true);
        let rejected = jobs::stream_rejected(&settings.thing, stream, Encoding::Cbor);
        self.add(rejected, Qos::AtMostOnce, true);
    }

    /// Takes over how far a subscription of another instance is.
    pub(super) fn restore(&mut self, id: u32, filter: String, held: Held, stream: bool) {
        self.last_id = self.last_id.max(id);
        match self.list.iter_mut().find(|of| of.filter == filter) {
            Some(subscription) => {
                subscription.id = id;
                subscription.held = held;
            }
            None if stream => {
                let qos = Qos::AtMostOnce;
                self.list.push(Subscription {
                    id,
                    filter,
                    qos,
                    held,
                    stream,
                });
            }
            // The settings no longer ask for it; it does no harm.
            None => {}
        }
    }

    /// Before and after taking over: what was not taken over gets a number of its own.
    pub(super) fn renumber(&mut self, all: bool) {
        for subscription in &mut self.list {
            if all {
                subscription.id = 0;
            } else if subscription.id == 0 {
                self.last_id = self.last_id.wrapping_add(1);
                subscription.id = self.last_id;
            }
        }
    }

    pub(super) fn lose(&mut self, id: u32) {
        if let Some(subscription) = self.list.iter_mut().find(|of| of.id == id) {
            subscription.held = Held::Wanted;
        }
    }

    fn ready(&self, stream: bool) -> bool {
        let mut group = self
            .list
            .iter()
            .filter(|subscription| subscription.stream == stream);
        group.all(|subscription| subscription.held == Held::Held)
    }

    /// The session is gone, or the ends of what was asked for will not come. Fresh numbers make late ends unknown.
    fn reset(&mut self, session_present: bool) {
        for subscription in &mut self.list {
            if !session_present || subscription.held == Held::Asked {
                self.last_id = self.last_id.wrapping_add(1);
                subscription.id = self.last_id;
                subscription.held = Held::Wanted;
            }
        }
        self.tries = 0;
    }
}

/// What is being asked of the job service.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    /// Ask for the next job.
    pub(super) next: bool,
    /// Ask how the job at hand stands.
    pub(super) describe: bool,
    /// The question on its way.
    pub(super) sent: Option<Question>,
    pub(super) tries: u32,
}

/// A question on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) describe: bool,
    pub(super) token: ClientToken,
}

impl Agent {
    pub(super) fn on_connected(&mut self, session_present: bool) {
        self.forget_transport();
        self.connected = true;
        self.relinked = true;
        self.subscriptions.reset(session_present);
        for timer in [Timer::Ask, Timer::Subscribe, Timer::Status, Timer::Link] {
            self.timers.stop(timer);
        }
        self.asking.sent = None;
        self.asking.tries = 0;
        self.asking.next |= self.begun;
        self.reporter.on_connection();
        self.log(Level::Info, &["connected"]);
    }

    pub(super) fn on_disconnected(&mut self, reason: u32, detail: &str) {
        self.forget_transport();
        self.connected = false;
        self.asking.sent = None;
        self.timers.stop(Timer::Ask);
        self.timers.stop(Timer::Status);
        self.pause_transfer();
        let mut number = String::new();
        push_decimal(&mut number, reason.into());
        self.log(
            Level::Warn,
            &["disconnected, reason ", &number, ": ", detail],
        );
    }

    /// The ends of transport operations tell nothing any more.
    fn forget_transport(&mut self) {
        self.ops.forget(|doing| {
            matches!(
                doing,
                Doing::Subscribe(_)
                    | Doing::Unsubscribe
                    | Doing::Ask
                    | Doing::Status
                    | Doing::Progress
                    | Doing::Blocks
            )
        });
    }

    /// Subscribes to what is missing; true once the group is complete.
    pub(super) fn subscribed(&mut self, stream: bool) -> bool {
        if self.subscriptions.ready(stream) {
            return true;
        }
        if !self.connected || self.timers.runs(Timer::Subscribe) {
            return false;
        }
        let mut wanted = Vec::new();
        for subscription in &mut self.subscriptions.list {
            if subscription.stream == stream && subscription.held == Held::Wanted {
                subscription.held = Held::Asked;
                wanted.push((
                    subscription.id,
                    subscription.filter.clone(),
                    subscription.qos,
                ));
            }
        }
        for (id, filter, qos) in wanted {
            self.order(Order::Subscribe { filter, qos }, Doing::Subscribe(id));
        }
        false
    }

    pub(super) fn on_subscribed(&mut self, id: u32, result: Result<(), Failure>) {
        let list = &mut self.subscriptions.list;
        let Some(subscription) = list.iter_mut().find(|of| of.id == id) else {
            return;
        };
        match result {
            Ok(()) => {
                subscription.held = Held::Held;
                self.subscriptions.tries = 0;
            }
            Err(failure) => {
                subscription.held = Held::Wanted;
                let of_stream = subscription.stream;
                let filter = subscription.filter.clone();
                self.log(
                    Level::Warn,
                    &["subscription failed: ", &filter, ": ", &failure.detail],
                );
                let at = self.now + self.back_off(self.subscriptions.tries);
                self.timers.set(Timer::Subscribe, at);
                self.subscriptions.tries += 1;
                self.view.last_error = Some(failure);
                if of_stream && self.subscriptions.tries > self.settings.number32(Key::MomentumMax)
                {
                    self.fail_for_momentum();
                }
            }
        }
    }

    pub(super) fn unsubscribe_stream(&mut self) {
        let mut gone = Vec::new();
        self.subscriptions.list.retain(|subscription| {
            if subscription.stream && subscription.held != Held::Wanted {
                gone.push(subscription.filter.clone());
            }
            !subscription.stream
        });
        if self.connected {
            for filter in gone {
                self.order(Order::Unsubscribe { filter }, Doing::Unsubscribe);
            }
        }
    }

    /// At shutdown: everything that was subscribed.
    pub(super) fn unsubscribe_all(&mut self) {
        self.unsubscribe_stream();
        let mut gone = Vec::new();
        for subscription in &mut self.subscriptions.list {
            if subscription.held != Held::Wanted {
                subscription.held = Held::Wanted;
                gone.push(subscription.filter.clone());
            }
        }
        if self.connected {
            for filter in gone {
                self.order(Order::Unsubscribe { filter }, Doing::Unsubscribe);
            }
        }
    }

    /// Time before the next try; the first one waits for the request time-out.
    pub(super) fn back_off(&mut self, tries: u32) -> u64 {
        let base = self.settings.number(Key::RequestTimeout);
        self.random
            .back_off(base, self.settings.number(Key::RetryMax), tries)
    }

    /// Sends the question that is due.
    pub(super) fn step_ask(&mut self) {
        let speaks = !matches!(self.state, State::Init | State::Ready);
        let wanted = self.asking.next || self.asking.describe;
        let waits = self.asking.sent.is_some() || self.timers.runs(Timer::Ask);
        if !speaks || !self.connected || !wanted || waits || !self.begin_or_subscribe() {
            return;
        }
        let describe = self.asking.describe && self.job.as_ref().is_some_and(|j| j.id.is_some());
        self.asking.describe &= describe;
        // In the idle state the question for the next job is a state of its own.
        if !describe && (!self.asking.next || self.state == State::WaitingForJob) {
            return;
        }
        let thing = &self.settings.thing;
        let topic = match self.job.as_ref().and_then(|job| job.id.as_ref()) {
            Some(id) if describe => jobs::describe_job(thing, id),
            Some(_) | None => jobs::next_get(thing),
        };
        let token = self.tokens.draw();
        let payload = jobs::job_request(token).into_bytes();
        self.log(Level::Debug, &["asking for a job: ", &topic]);
        self.order(
            Order::Publish {
                topic,
                payload,
                qos: Qos::AtLeastOnce,
            },
            Doing::Ask,
        );
        self.asking.sent = Some(Question { describe, token });
        let at = self.now + self.back_off(self.asking.tries);
        self.timers.set(Timer::Ask, at);
        if !describe && self.state == State::RequestingJob {
            self.set_state(Cause::RequestJobDocument, State::WaitingForJob);
        }
    }

    /// A job recovered from the journal speaks before the agent has been idle for the first time.
    fn begin_or_subscribe(&mut self) -> bool {
        if !self.begun {
            self.begun = true;
            self.asking.next = true;
        }
        self.subscribed(false)
    }

    pub(super) fn on_asked(&mut self, result: Result<(), Failure>) {
        // Success says nothing: only the answer counts, and its timer runs.
        if let Err(failure) = result {
            self.asking.sent = None;
            self.asking.tries += 1;
            let at = self.now + self.back_off(self.asking.tries);
            self.timers.set(Timer::Ask, at);
            self.log(Level::Warn, &["job request not sent: ", &failure.detail]);
            self.view.last_error = Some(failure);
        }
    }

    pub(super) fn on_ask_timeout(&mut self) {
        if self.asking.sent.take().is_some() {
            self.asking.tries += 1;
            self.log(Level::Warn, &["no answer to the job request, asking again"]);
        }
    }

    /// Whether an answer is to the question that is open. Without a token it is, if the kind fits: one is open at most.
    pub(super) fn answers(&mut self, token: ReplyToken, describe: bool) -> bool {
        let Some(question) = self.asking.sent else {
            return false;
        };
        let ours = match token {
            ReplyToken::Ours(token) => token == question.token,
            ReplyToken::Absent => true,
            ReplyToken::Foreign => false,
        };
        if !ours || question.describe != describe {
            return false;
        }
        self.asking.sent = None;
        self.asking.tries = 0;
        self.timers.stop(Timer::Ask);
        if describe {
            self.asking.describe = false;
        } else {
            self.asking.next = false;
        }
        true
    }

    /// The service refused the question: ask again later.
    pub(super) fn on_ask_refused(&mut self, code: &str) {
        self.asking.sent = None;
        self.asking.tries += 1;
        let at = self.now + self.back_off(self.asking.tries);
        self.timers.set(Timer::Ask, at);
        self.log(Level::Warn, &["job request refused: ", code]);
    }

    pub(super) fn on_message(&mut self, topic: &str, payload: Vec<u8>) {
        if matches!(self.state, State::ShuttingDown | State::Stopped) {
            return;
        }
        let thing = self.settings.thing.clone();
        let Some(topic) = jobs::classify(&thing, topic) else {
            return;
        };
        match topic {
            Topic::StreamData(stream, Encoding::Cbor) => self.on_block_message(stream, payload),
            Topic::StreamRejected(stream, encoding) => {
                self.on_stream_rejected(stream, encoding, &payload);
            }
            Topic::UpdateAccepted(job) => self.on_update_accepted(job, &payload),
            Topic::UpdateRejected(job) => self.on_update_rejected(job, &payload),
            Topic::NextAccepted => self.on_job_message(false, &payload),
            Topic::NotifyNext => self.on_job_message(true, &payload),
            Topic::JobAccepted(job) => self.on_described(job, &payload),
            Topic::NextRejected => self.on_next_rejected(&payload),
            Topic::JobRejected(job) => self.on_describe_rejected(job, &payload),
            Topic::Notify
            | Topic::PendingAccepted
            | Topic::PendingRejected
            | Topic::StartNextAccepted
            | Topic::StartNextRejected
            | Topic::StreamData(_, Encoding::Json)
            | Topic::StreamDescription(..) => {}
        }
    }

    fn on_next_rejected(&mut self, payload: &[u8]) {
        let Ok(rejected) = jobs::parse_rejected(payload) else {
            return;
        };
        if self.answers(rejected.token, false) {
            self.asking.next = true;
            self.on_ask_refused(&rejected.code_text);
        }
    }

    pub(super) fn is_job(&self, id: &str) -> bool {
        self.job
            .as_ref()
            .is_some_and(|job| job.text() == id && job.id.is_some())
    }

    pub(super) fn is_seen(&self, id: &JobId) -> bool {
        self.seen.contains(id)
    }

    pub(super) fn remember(&mut self, id: JobId) {
        if self.is_seen(&id) {
            return;
        }
        if self.seen.len() >= super::SEEN_MAX {
            self.seen.remove(0);
        }
        self.seen.push(id);
    }

    pub(super) fn job_ref(&self) -> Option<&Job> {
        self.job.as_ref()
    }
}
