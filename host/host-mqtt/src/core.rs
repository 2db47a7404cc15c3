//! Devices on a connection: who gets which message, and which call waits for which acknowledgement. The same for a
//! connection of our own and for one that an application shares.
//!
//! Everything is decided under one lock, also what goes into the mailboxes (they never wait), so a device hears of a
//! lost connection before the ends of its calls, and of nothing afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::types::{Failure, Outcome, Qos, Token, code};
use rumqttc::{AsyncClient, ClientError, Event, Packet, Publish, QoS};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::MqttError;
use crate::notice::Notice;
use crate::reason::Lost;

/// All topics of AWS IoT's Jobs and Streams begin with this and the thing's name.
const THINGS: &str = "$aws/things/";

/// `failure.main` of an operation: OtaMqttStatus.
pub(crate) const PUBLISH_FAILED: u8 = 0xa0;
/// See [`PUBLISH_FAILED`].
pub(crate) const SUBSCRIBE_FAILED: u8 = 0xa1;

pub(crate) struct Core {
    state: Mutex<State>,
    runtime: Handle,
    ack_timeout: Duration,
    unanswered_max: u32,
    /// Too many calls in a row went unanswered on the connection of now.
    pub(crate) is_hung: watch::Sender<bool>,
}

struct State {
    client: AsyncClient,
    /// Which client that is: what the event loop of an earlier one says no longer counts.
    generation: u64,
    up: Option<Up>,
    devices: BTreeMap<String, Device>,
    /// Topics of notices, and the devices that hear of each: there may be thousands of devices, and every block comes by here.
    listeners: BTreeMap<String, BTreeSet<String>>,
    /// Subscriptions to notices that wait for room in the queue of this connection, by the device that is to hear of them.
    late: BTreeMap<String, AbortHandle>,
    /// Calls that timed out since the last acknowledgement.
    unanswered: u32,
    unrouted: u64,
}

#[derive(Clone, Copy)]
struct Up {
    session_present: bool,
}

struct Device {
    mailbox: Mailbox,
    /// Whether reply topics are subscribed to; if not, such a call is over at once.
    subscribe_replies: bool,
    pending: BTreeMap<Token, AbortHandle>,
    notices: Vec<Notice>,
}

impl Device {
    /// Asks the broker for what comes by other topics; clean sessions forget them. Those for which the queue has no room come
    /// back.
    fn subscribe(&self, thing: &str, client: &AsyncClient) -> Vec<String> {
        let mut late = Vec::new();
        for notice in &self.notices {
            let topic = notice.topic();
            match client.try_subscribe(topic, QoS::AtLeastOnce) {
                Ok(()) => {}
                Err(ClientError::RequestChannelFull(_)) => late.push(topic.to_owned()),
                // The next connection subscribes again.
                Err(error) => tracing::warn!(
                    device = thing,
                    topic,
                    "no subscription for notices: {error}"
                ),
            }
        }
        late
    }
}

impl State {
    /// A device hears of these topics, in place of those of before.
    fn listen(&mut self, thing: &str, notices: Vec<Notice>) {
        let Some(device) = self.devices.get_mut(thing) else {
            return;
        };
        if let Some(task) = self.late.remove(thing) {
            task.abort();
        }
        let former = std::mem::replace(&mut device.notices, notices);
        for notice in former {
            if let Some(things) = self.listeners.get_mut(notice.topic()) {
                things.remove(thing);
                if things.is_empty() {
                    self.listeners.remove(notice.topic());
                }
            }
        }
        for notice in &device.notices {
            let things = self.listeners.entry(notice.topic().to_owned());
            things.or_default().insert(thing.to_owned());
        }
    }

    /// Tell those who hear of a topic; false = nobody does.
    fn tell(&self, topic: &str, payload: &Bytes) -> bool {
        let Some(things) = self.listeners.get(topic) else {
            return false;
        };
        for device in things.iter().filter_map(|thing| self.devices.get(thing)) {
            for notice in device.notices.iter().filter(|of| of.topic() == topic) {
                device.mailbox.send(notice.input(payload));
            }
        }
        true
    }

    fn lose(&mut self, lost: &Lost) {
        if self.up.take().is_none() {
            return;
        }
        self.abort_late();
        for device in self.devices.values_mut() {
            device.mailbox.send(Input::Disconnected {
                reason: lost.reason.number(),
                detail: lost.detail.clone(),
            });
            for (token, task) in std::mem::take(&mut device.pending) {
                task.abort();
                end(&device.mailbox, token, Err(not_connected()));
            }
        }
    }

    /// For a connection that subscribes to all of them anew.
    fn abort_late(&mut self) {
        let late = std::mem::take(&mut self.late);
        late.into_values().for_each(|task| task.abort());
    }

    /// Subscribe for a device as soon as there is room.
    fn subscribe_late(&mut self, thing: &str, topics: Vec<String>, runtime: &Handle) {
        if topics.is_empty() {
            return;
        }
        let (client, device) = (self.client.clone(), thing.to_owned());
        let task = runtime.spawn(async move {
            for topic in topics {
                // The connection has gone.
                if let Err(error) = client.subscribe(topic.as_str(), QoS::AtLeastOnce).await {
                    return tracing::warn!(device, topic, "no subscription for notices: {error}");
                }
            }
        });
        self.late.insert(thing.to_owned(), task.abort_handle());
    }
}

impl Core {
    pub(crate) fn new(
        client: AsyncClient,
        runtime: Handle,
        ack_timeout: Duration,
        unanswered_max: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                client,
                generation: 0,
                up: None,
                devices: BTreeMap::new(),
                listeners: BTreeMap::new(),
                late: BTreeMap::new(),
                unanswered: 0,
                unrouted: 0,
            }),
            runtime,
            ack_timeout,
            unanswered_max,
            is_hung: watch::Sender::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attach(
        &self,
        thing: &str,
        mailbox: Mailbox,
        subscribe_replies: bool,
    ) -> Result<(), MqttError> {
        let mut state = self.lock();
        if state.devices.contains_key(thing) {
            return Err(MqttError::Attached(thing.to_owned()));
        }
        if let Some(up) = state.up {
            mailbox.send(Input::Connected {
                session_present: up.session_present,
            });
        }
        let device = Device {
            mailbox,
            subscribe_replies,
            pending: BTreeMap::new(),
            notices: Vec::new(),
        };
        state.devices.insert(thing.to_owned(), device);
        Ok(())
    }

    /// Let a device hear of jobs by these topics too.
    pub(crate) fn listen(&self, thing: &str, notices: Vec<Notice>) {
        let mut state = self.lock();
        state.listen(thing, notices);
        if let (Some(_), Some(device)) = (state.up, state.devices.get(thing)) {
            let late = device.subscribe(thing, &state.client);
            state.subscribe_late(thing, late, &self.runtime);
        }
    }

    pub(crate) fn detach(&self, thing: &str) {
        let mut state = self.lock();
        state.listen(thing, Vec::new());
        if let Some(device) = state.devices.remove(thing) {
            device.pending.values().for_each(AbortHandle::abort);
        }
    }

    /// There is another client now (an application has made its connection anew); its generation comes back.
    pub(crate) fn replace_client(&self, client: AsyncClient, lost: &Lost) -> u64 {
        let mut state = self.lock();
        state.lose(lost);
        state.client = client;
        state.generation += 1;
        state.generation
    }

    pub(crate) fn connected(&self, generation: u64, session_present: bool) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        state.up = Some(Up { session_present });
        state.unanswered = 0;
        self.is_hung.send_replace(false);
        state.abort_late();
        let mut late = Vec::new();
        for (thing, device) in &state.devices {
            device.mailbox.send(Input::Connected { session_present });
            let topics = device.subscribe(thing, &state.client);
            if !topics.is_empty() {
                late.push((thing.clone(), topics));
            }
        }
        for (thing, topics) in late {
            state.subscribe_late(&thing, topics, &self.runtime);
        }
    }

    /// The connection is gone: tell every device, then end its calls. Nothing if there was none.
    pub(crate) fn lost(&self, generation: u64, lost: &Lost) {
        let mut state = self.lock();
        if state.generation == generation {
            state.lose(lost);
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lock().up.is_some()
    }

    /// Devices on it.
    pub(crate) fn devices(&self) -> usize {
        self.lock().devices.len()
    }

    /// Calls of all devices that wait for an acknowledgement.
    pub(crate) fn pending(&self) -> usize {
        self.lock().devices.values().map(|d| d.pending.len()).sum()
    }

    /// Messages that no device wanted.
    pub(crate) fn unrouted(&self) -> u64 {
        self.lock().unrouted
    }

    /// What the event loop has seen.
    pub(crate) fn on_event(&self, generation: u64, event: &Event) {
        match event {
            Event::Incoming(Packet::Publish(publish)) => self.route(generation, publish),
            Event::Incoming(Packet::ConnAck(connack)) => {
                self.connected(generation, connack.session_present);
            }
            Event::Incoming(Packet::PubAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_)) => {
                self.lock().unanswered = 0;
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }

    fn route(&self, generation: u64, publish: &Publish) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        let topic = std::str::from_utf8(&publish.topic).unwrap_or_default();
        if state.tell(topic, &publish.payload) {
            return;
        }
        let Some(device) = thing_of(topic).and_then(|thing| state.devices.get(thing)) else {
            state.unrouted += 1;
            return;
        };
        device.mailbox.send(Input::Message {
            topic: topic.to_owned(),
            payload: publish.payload.clone(),
            qos: match publish.qos {
                QoS::AtMostOnce => Qos::AtMostOnce,
                QoS::AtLeastOnce | QoS::ExactlyOnce => Qos::AtLeastOnce,
            },
        });
    }

    /// Begin a call: `send` hands it to the client and says how it is waited for, `None` = over already.
    pub(crate) fn begin<W>(
        self: &Arc<Self>,
        thing: &str,
        token: Token,
        send: impl FnOnce(&AsyncClient) -> Result<Option<W>, Failure>,
    ) where
        W: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let mut state = self.lock();
        let sent = match state.up {
            Some(_) => send(&state.client),
            None => Err(not_connected()),
        };
        let Some(device) = state.devices.get_mut(thing) else {
            return; // the transport is being dropped
        };
        match sent {
            Ok(None) => end(&device.mailbox, token, Ok(())),
            Err(failure) => end(&device.mailbox, token, Err(failure)),
            Ok(Some(acknowledged)) => {
                // It cannot end before it is in the table: its end takes the lock.
                let task =
                    self.runtime
                        .spawn(self.clone().wait(thing.to_owned(), token, acknowledged));
                device.pending.insert(token, task.abort_handle());
            }
        }
    }

    async fn wait(
        self: Arc<Self>,
        thing: String,
        token: Token,
        acknowledged: impl Future<Output = Result<(), Failure>> + Send,
    ) {
        let result = tokio::time::timeout(self.ack_timeout, acknowledged).await;
        let mut state = self.lock();
        let state = &mut *state;
        let Some(device) = state.devices.get_mut(&thing) else {
            return;
        };
        // Whoever takes it out of the table ends it: exactly once.
        if device.pending.remove(&token).is_some() {
            // It is a call of the connection of now: an end of that takes out all calls.
            if result.is_err() {
                state.unanswered += 1;
                if state.unanswered >= self.unanswered_max {
                    self.is_hung.send_replace(true);
                }
            }
            let seconds = self.ack_timeout.as_secs();
            end(
                &device.mailbox,
                token,
                result.unwrap_or_else(|_| {
                    let detail = format!("the broker has not acknowledged within {seconds} s");
                    Err(Failure::new(code::TIMED_OUT, 0, detail))
                }),
            );
        }
    }

    /// End a call at once.
    pub(crate) fn end_now(&self, thing: &str, token: Token, result: Result<(), Failure>) {
        if let Some(device) = self.lock().devices.get(thing) {
            end(&device.mailbox, token, result);
        }
    }

    /// Give up a call; nothing if it is over.
    pub(crate) fn cancel(&self, thing: &str, token: Token) {
        if let Some(device) = self.lock().devices.get_mut(thing)
            && let Some(task) = device.pending.remove(&token)
        {
            task.abort();
            let failure = Failure::new(code::CANCELLED, 0, "cancelled");
            end(&device.mailbox, token, Err(failure));
        }
    }

    /// Whether the service sends what this filter asks for without a subscription.
    pub(crate) fn comes_unasked(&self, thing: &str, filter: &str) -> bool {
        self.lock()
            .devices
            .get(thing)
            .is_some_and(|device| !device.subscribe_replies)
            && is_reply_filter(thing, filter)
    }
}

fn end(mailbox: &Mailbox, token: Token, result: Result<(), Failure>) {
    let outcome = match result {
        Ok(()) => Outcome::Nothing,
        Err(failure) => Outcome::Failed(failure),
    };
    mailbox.send(Input::Done { token, outcome });
}

fn not_connected() -> Failure {
    Failure::new(code::NOT_CONNECTED, 0, "not connected")
}

/// The thing that a topic belongs to.
fn thing_of(topic: &str) -> Option<&str> {
    let (thing, rest) = topic.strip_prefix(THINGS)?.split_once('/')?;
    (!thing.is_empty() && !rest.is_empty()).then_some(thing)
}

/// Replies of the Jobs service go to the client that asked, subscribed or not; notifications and streams do not.
fn is_reply_filter(thing: &str, filter: &str) -> bool {
    filter
        .strip_prefix(THINGS)
        .and_then(|rest| rest.strip_prefix(thing))
        .and_then(|rest| rest.strip_prefix("/jobs/"))
        .is_some_and(|rest| rest.ends_with("/accepted") || rest.ends_with("/rejected"))
}

#[cfg(test)]
mod tests {
    use super::{is_reply_filter, thing_of};

    #[test]
    fn a_topic_names_its_thing() {
        let rows = [
            ("$aws/things/t/jobs/notify-next", Some("t")),
            ("$aws/things/a:b_c-d/streams/s/data/cbor", Some("a:b_c-d")),
            ("$aws/things/t", None),
            ("$aws/things/t/", None),
            ("$aws/things//jobs/notify-next", None),
            ("things/t/jobs", None),
            ("", None),
        ];
        for (topic, thing) in rows {
            assert_eq!(thing_of(topic), thing, "{topic}");
        }
    }

    #[test]
    fn only_replies_of_the_jobs_service_come_unasked() {
        let rows = [
            ("$aws/things/t/jobs/$next/get/accepted", true),
            ("$aws/things/t/jobs/$next/get/rejected", true),
            ("$aws/things/t/jobs/job-1/update/accepted", true),
            ("$aws/things/t/jobs/+/update/rejected", true),
            ("$aws/things/t/jobs/notify-next", false),
            ("$aws/things/t/streams/s/data/cbor", false),
            ("$aws/things/t/streams/s/rejected/cbor", false),
            ("$aws/things/other/jobs/$next/get/accepted", false),
        ];
        for (filter, unasked) in rows {
            assert_eq!(is_reply_filter("t", filter), unasked, "{filter}");
        }
    }
}
