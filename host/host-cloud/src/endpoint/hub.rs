//! Who is connected, who subscribed to what, and how a message finds its readers.
//!
//! Each connection has a bounded queue for what others send it. When it is full, QoS 0 messages are dropped and counted,
//! and a QoS 1 message ends the connection: a client that cannot keep up asks again when it comes back, which is better
//! than a promise silently broken. What a connection asked for itself does not pass the queue; it is paced by not reading
//! on (`connection`). So a slow client costs nobody else anything.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    filter::{ClientNo, Routes},
    policy::Identity,
};
use crate::{
    broker::Outbox,
    service::{Outgoing, QoS, ThingName},
    stats::{EndpointStats, ThingTraffic},
};

/// Messages that may wait for one client.
const QUEUE_MESSAGES_MAX: usize = 1024;
/// Bytes that may wait for one client.
const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
}

/// Why the cloud ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Kick {
    #[error("taken over by a client of the same id")]
    TakenOver,
    #[error("too slow for its QoS 1 messages")]
    TooSlow,
    #[error("cut on purpose")]
    Cut,
    #[error("its certificate was detached")]
    Detached,
    #[error("the cloud stops")]
    Stopping,
}

/// A connection's place among the others; giving it up is [`Hub::leave`].
pub(crate) struct Seat {
    pub(crate) number: ClientNo,
    pub(crate) queue: mpsc::Receiver<Delivery>,
    /// Bytes in `queue`; the connection takes off what it takes out.
    pub(crate) queued_bytes: Arc<AtomicUsize>,
    pub(crate) kick: oneshot::Receiver<Kick>,
}

struct Client {
    queue: mpsc::Sender<Delivery>,
    queued_bytes: Arc<AtomicUsize>,
    kick: Option<oneshot::Sender<Kick>>,
    subscriptions: BTreeMap<String, QoS>,
    key: ClientKey,
    thing: Option<ThingName>,
}

/// Client ids belong to their principal: nobody takes over a stranger's connection.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    fingerprint: Option<String>,
    id: String,
}

/// All connections.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    /// Where notifications go besides: to somebody else's broker.
    outbox: OnceLock<Arc<Outbox>>,
    /// When connections stalled on purpose go on.
    stalled_until: Mutex<Option<Instant>>,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Inner {
    clients: HashMap<ClientNo, Client>,
    by_key: HashMap<ClientKey, ClientNo>,
    routes: Routes,
    last: ClientNo,
    things: BTreeMap<ThingName, ThingTraffic>,
    stopping: bool,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            outbox: OnceLock::new(),
            stalled_until: Mutex::new(None),
            messages_in: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seats a client; one of the same principal and id is ended. `thing` is whom its traffic counts for.
    pub(crate) fn join(
        &self,
        identity: &Identity,
        client_id: &str,
        thing: Option<ThingName>,
    ) -> Seat {
        let (queue_in, queue) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let (kick_in, kick) = oneshot::channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let key = ClientKey {
            fingerprint: identity.fingerprint().map(str::to_owned),
            id: client_id.to_owned(),
        };
        let mut inner = self.inner();
        inner.last += 1;
        let number = inner.last;
        if let Some(old) = inner.by_key.insert(key.clone(), number) {
            inner.kick(old, Kick::TakenOver);
        }
        if let Some(thing) = &thing {
            let traffic = inner.things.entry(thing.clone()).or_default();
            traffic.connections += 1;
            traffic.connected += 1;
        }
        let client = Client {
            queue: queue_in,
            queued_bytes: Arc::clone(&queued_bytes),
            kick: Some(kick_in),
            subscriptions: BTreeMap::new(),
            key,
            thing,
        };
        inner.clients.insert(number, client);
        if inner.stopping {
            inner.kick(number, Kick::Stopping);
        }
        Seat {
            number,
            queue,
            queued_bytes,
            kick,
        }
    }

    /// Gives up a seat with its subscriptions.
    pub(crate) fn leave(&self, number: ClientNo) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let Some(client) = inner.clients.remove(&number) else {
            return;
        };
        for filter in client.subscriptions.keys() {
            inner.routes.remove(filter, number);
        }
        if inner.by_key.get(&client.key) == Some(&number) {
            inner.by_key.remove(&client.key);
        }
        if let Some(traffic) = client.thing.and_then(|thing| inner.things.get_mut(&thing)) {
            traffic.connected -= 1;
        }
    }

    /// Adds a subscription; false when the client has `max` of them already.
    pub(crate) fn subscribe(&self, number: ClientNo, filter: &str, qos: QoS, max: usize) -> bool {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let Some(client) = inner.clients.get_mut(&number) else {
            return false;
        };
        if client.subscriptions.len() >= max && !client.subscriptions.contains_key(filter) {
            return false;
        }
        client.subscriptions.insert(filter.to_owned(), qos);
        inner.routes.insert(filter, number, qos);
        true
    }

    pub(crate) fn unsubscribe(&self, number: ClientNo, filter: &str) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        if let Some(client) = inner.clients.get_mut(&number)
            && client.subscriptions.remove(filter).is_some()
        {
            inner.routes.remove(filter, number);
        }
    }

    /// Sends replies. The asking client's come back in order, whether it subscribed or not, as at AWS; subscribers' are
    /// queued.
    pub(crate) fn reply(&self, asker: ClientNo, replies: Vec<Outgoing>) -> Vec<Delivery> {
        let mut own = Vec::with_capacity(replies.len());
        let mut inner = self.inner();
        let mut readers: Vec<(ClientNo, QoS)> = Vec::new();
        let mut of: Option<Arc<str>> = None;
        for message in replies {
            // The blocks of one request share their topic, and so their readers.
            if !of
                .as_ref()
                .is_some_and(|topic| Arc::ptr_eq(topic, &message.topic))
            {
                inner.readers(&message.topic, &mut readers);
                of = Some(Arc::clone(&message.topic));
            }
            let mut qos = message.qos;
            for (number, granted) in &readers {
                if *number == asker {
                    qos = qos.min(*granted);
                } else {
                    self.queue(&mut inner, *number, delivery(&message, *granted));
                }
            }
            own.push(delivery(&message, qos));
        }
        self.count_out(&mut inner, Some(asker), own.len());
        own
    }

    /// From now on notifications go there too. Once only.
    pub(crate) fn bridge(&self, outbox: Arc<Outbox>) {
        // A cloud has one broker: the second call has nothing to change.
        self.outbox.set(outbox).ok();
    }

    /// Sends notifications to their subscribers.
    pub(crate) fn notify(&self, notifications: Vec<Outgoing>) {
        if notifications.is_empty() {
            return;
        }
        let mut inner = self.inner();
        let mut readers = Vec::new();
        for message in notifications {
            inner.readers(&message.topic, &mut readers);
            for (number, granted) in &readers {
                self.queue(&mut inner, *number, delivery(&message, *granted));
            }
            if let Some(outbox) = self.outbox.get() {
                outbox.put(message);
            }
        }
    }

    /// Passes an ordinary message on. What concerns the publisher itself comes back.
    pub(crate) fn publish(
        &self,
        from: ClientNo,
        topic: &str,
        payload: &[u8],
        qos: QoS,
    ) -> Option<Delivery> {
        let mut inner = self.inner();
        let mut readers = Vec::new();
        inner.readers(topic, &mut readers);
        let (topic, payload): (Arc<str>, _) = (topic.into(), Bytes::copy_from_slice(payload));
        let mut own = None;
        for (number, granted) in readers {
            let delivery = Delivery {
                topic: Arc::clone(&topic),
                payload: payload.clone(),
                qos: qos.min(granted),
            };
            if number == from {
                own = Some(delivery);
            } else {
                self.queue(&mut inner, number, delivery);
            }
        }
        self.count_out(&mut inner, Some(from), usize::from(own.is_some()));
        own
    }

    fn queue(&self, inner: &mut Inner, number: ClientNo, delivery: Delivery) {
        let Some(client) = inner.clients.get(&number) else {
            return;
        };
        let (bytes, qos) = (delivery.payload.len(), delivery.qos);
        let full = client.queued_bytes.load(Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX;
        if !full && client.queue.try_send(delivery).is_ok() {
            client.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.count_out(inner, Some(number), 1);
            return;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if qos == QoS::AtLeastOnce {
            inner.kick(number, Kick::TooSlow);
        }
    }

    fn count_out(&self, inner: &mut Inner, number: Option<ClientNo>, count: usize) {
        self.messages_out.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(traffic) = inner.traffic(number) {
            traffic.messages_out += count as u64;
        }
    }

    /// Counts a message from a client.
    pub(crate) fn count_in(&self, number: ClientNo) {
        self.messages_in.fetch_add(1, Ordering::Relaxed);
        if let Some(traffic) = self.inner().traffic(Some(number)) {
            traffic.messages_in += 1;
        }
    }

    /// Counts a ping of a client.
    pub(crate) fn count_ping(&self, number: ClientNo) {
        if let Some(traffic) = self.inner().traffic(Some(number)) {
            traffic.pings += 1;
        }
    }

    /// Counts a client that was not let in.
    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        let mut inner = self.inner();
        let all: Vec<_> = inner.clients.keys().copied().collect();
        all.into_iter().for_each(|n| inner.kick(n, Kick::Cut));
    }

    /// Ends every connection, and every later one at once.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner();
        inner.stopping = true;
        let all: Vec<_> = inner.clients.keys().copied().collect();
        all.into_iter().for_each(|n| inner.kick(n, Kick::Stopping));
    }

    /// Ends the connections of a certificate.
    pub(crate) fn detach(&self, fingerprint: &str) {
        let mut inner = self.inner();
        let of = |client: &Client| client.key.fingerprint.as_deref() == Some(fingerprint);
        let found: Vec<_> = inner
            .clients
            .iter()
            .filter(|(_, client)| of(client))
            .map(|(number, _)| *number)
            .collect();
        found
            .into_iter()
            .for_each(|n| inner.kick(n, Kick::Detached));
    }

    /// Lets every connection stand still, neither reading nor writing, until then.
    pub(crate) fn stall(&self, until: Instant) {
        *self.stall_lock() = Some(until);
    }

    /// Until when connections stand still.
    pub(crate) fn stalled_until(&self) -> Option<Instant> {
        *self.stall_lock()
    }

    fn stall_lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.stalled_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> EndpointStats {
        let inner = self.inner();
        EndpointStats {
            connections: inner.last,
            connected: inner.clients.len() as u64,
            refused: self.refused.load(Ordering::Relaxed),
            messages_in: self.messages_in.load(Ordering::Relaxed),
            messages_out: self.messages_out.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            things: inner.things.clone(),
        }
    }
}

fn delivery(message: &Outgoing, granted: QoS) -> Delivery {
    Delivery {
        topic: Arc::clone(&message.topic),
        payload: message.payload.clone(),
        qos: message.qos.min(granted),
    }
}

impl Inner {
    /// Clients that read a topic, each once with the best QoS it was granted.
    fn readers(&self, topic: &str, readers: &mut Vec<(ClientNo, QoS)>) {
        readers.clear();
        self.routes
            .matches(topic, &mut |client, qos| readers.push((client, qos)));
        // The best of a client's comes first, and the first stays.
        readers.sort_unstable_by_key(|(client, qos)| (*client, Reverse(*qos)));
        readers.dedup_by_key(|(client, _)| *client);
    }

    fn traffic(&mut self, number: Option<ClientNo>) -> Option<&mut ThingTraffic> {
        let thing = self.clients.get(&number?)?.thing.as_ref()?;
        self.things.get_mut(thing)
    }

    fn kick(&mut self, number: ClientNo, why: Kick) {
        let kick = self
            .clients
            .get_mut(&number)
            .and_then(|client| client.kick.take());
        // A connection that ends by itself does not listen any more.
        if let Some(kick) = kick {
            kick.send(why).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Kind;

    fn message(rest: &str, kind: Kind, qos: QoS) -> Outgoing {
        Outgoing {
            to: ThingName::new("gw").unwrap(),
            topic: format!("$aws/things/gw/{rest}").into(),
            payload: Bytes::from_static(b"x"),
            qos,
            kind,
        }
    }

    fn reply() -> Outgoing {
        message("jobs/get/accepted", Kind::Reply, QoS::AtLeastOnce)
    }

    #[test]
    fn a_reply_reaches_the_asker_unasked_and_subscribers_by_subscription() {
        let hub = Hub::new();
        let asker = hub.join(&Identity::Open, "gw", None);
        let mut reader = hub.join(&Identity::Open, "reader", None);
        assert!(hub.subscribe(reader.number, "$aws/things/+/jobs/#", QoS::AtMostOnce, 9));
        let own = hub.reply(asker.number, vec![reply()]);
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].qos, QoS::AtLeastOnce);
        assert_eq!(reader.queue.try_recv().unwrap().qos, QoS::AtMostOnce);
        // With a subscription of its own it still comes once.
        hub.subscribe(asker.number, "$aws/things/gw/#", QoS::AtMostOnce, 9);
        hub.subscribe(asker.number, "$aws/things/gw/jobs/#", QoS::AtLeastOnce, 9);
        let own = hub.reply(asker.number, vec![reply()]);
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].qos, QoS::AtLeastOnce);
    }

    #[test]
    fn a_notification_reaches_subscribers_only() {
        let hub = Hub::new();
        let mut seat = hub.join(&Identity::Open, "gw", None);
        let notice = || message("jobs/notify", Kind::Notification, QoS::AtLeastOnce);
        hub.notify(vec![notice()]);
        assert!(seat.queue.try_recv().is_err());
        let filter = "$aws/things/gw/jobs/notify";
        hub.subscribe(seat.number, filter, QoS::AtLeastOnce, 9);
        hub.notify(vec![notice()]);
        assert_eq!(seat.queue.try_recv().unwrap().qos, QoS::AtLeastOnce);
    }

    #[test]
    fn a_reader_by_several_subscriptions_gets_a_message_once_with_the_best_qos() {
        let hub = Hub::new();
        let rows = [
            (["t/#", "t/+", "t/a"], QoS::AtMostOnce, QoS::AtLeastOnce),
            (["t/a", "t/+", "t/#"], QoS::AtMostOnce, QoS::AtLeastOnce),
            (["#", "+/a", "t/a"], QoS::AtMostOnce, QoS::AtMostOnce),
        ];
        // All of them at once, so that their matches come mixed.
        let mut seats = Vec::new();
        for (filters, first, last) in rows {
            let seat = hub.join(&Identity::Open, &filters.concat(), None);
            for (filter, qos) in filters.into_iter().zip([first, first, last]) {
                assert!(hub.subscribe(seat.number, filter, qos, 9));
            }
            seats.push((seat, last));
        }
        let writer = hub.join(&Identity::Open, "writer", None);
        hub.publish(writer.number, "t/a", b"", QoS::AtLeastOnce);
        for (seat, want) in &mut seats {
            assert_eq!(seat.queue.try_recv().unwrap().qos, *want);
            assert!(seat.queue.try_recv().is_err());
        }
    }

    #[test]
    fn the_same_client_id_takes_over_and_a_stranger_with_it_does_not() {
        let hub = Hub::new();
        let mut first = hub.join(&Identity::Open, "gw", None);
        let certificate = |fingerprint: &str| Identity::Certificate {
            fingerprint: fingerprint.to_owned(),
            things: [ThingName::new("gw").unwrap()].into(),
        };
        let mut stranger = hub.join(&certificate("aa"), "gw", None);
        assert!(first.kick.try_recv().is_err());
        let second = hub.join(&Identity::Open, "gw", None);
        assert_eq!(first.kick.try_recv(), Ok(Kick::TakenOver));
        // The first one's leaving does not take the second one's place.
        hub.leave(first.number);
        let mut third = hub.join(&Identity::Open, "gw", None);
        drop(second);
        hub.detach("aa");
        assert_eq!(stranger.kick.try_recv(), Ok(Kick::Detached));
        hub.cut();
        assert_eq!(third.kick.try_recv(), Ok(Kick::Cut));
    }

    #[test]
    fn a_full_queue_drops_qos_0_and_ends_a_client_at_qos_1() {
        let hub = Hub::new();
        let mut slow = hub.join(&Identity::Open, "slow", None);
        hub.subscribe(slow.number, "t", QoS::AtLeastOnce, 9);
        let fast = hub.join(&Identity::Open, "fast", None);
        let payload = vec![0; QUEUE_BYTES_MAX / 4];
        for _ in 0..6 {
            hub.publish(fast.number, "t", &payload, QoS::AtMostOnce);
        }
        assert_eq!(hub.stats().dropped, 2);
        assert!(slow.kick.try_recv().is_err());
        hub.publish(fast.number, "t", &payload, QoS::AtLeastOnce);
        assert_eq!(slow.kick.try_recv(), Ok(Kick::TooSlow));
        // By number of messages too.
        let slow = hub.join(&Identity::Open, "slow", None);
        hub.subscribe(slow.number, "n", QoS::AtMostOnce, 9);
        for _ in 0..=QUEUE_MESSAGES_MAX {
            hub.publish(fast.number, "n", b"", QoS::AtMostOnce);
        }
        assert_eq!(hub.stats().dropped, 4);
    }

    #[test]
    fn subscriptions_end_at_their_limit_and_with_the_connection() {
        let hub = Hub::new();
        let seat = hub.join(&Identity::Open, "gw", None);
        assert!(hub.subscribe(seat.number, "a", QoS::AtMostOnce, 2));
        assert!(hub.subscribe(seat.number, "b", QoS::AtMostOnce, 2));
        assert!(!hub.subscribe(seat.number, "c", QoS::AtMostOnce, 2));
        assert!(hub.subscribe(seat.number, "b", QoS::AtLeastOnce, 2));
        hub.unsubscribe(seat.number, "a");
        assert!(hub.subscribe(seat.number, "c", QoS::AtMostOnce, 2));
        hub.leave(seat.number);
        let other = hub.join(&Identity::Open, "other", None);
        assert_eq!(hub.publish(other.number, "b", b"", QoS::AtMostOnce), None);
        assert_eq!(hub.stats().messages_out, 0);
    }

    #[test]
    fn connections_are_counted_by_thing() {
        let hub = Hub::new();
        let gw = ThingName::new("gw").unwrap();
        let seat = hub.join(&Identity::Open, "gw", Some(gw.clone()));
        hub.count_in(seat.number);
        hub.count_ping(seat.number);
        hub.reply(seat.number, vec![reply()]);
        hub.leave(seat.number);
        hub.join(&Identity::Open, "gw", Some(gw.clone()));
        let stats = hub.stats();
        assert_eq!((stats.connections, stats.connected), (2, 1));
        let traffic = &stats.things[&gw];
        assert_eq!((traffic.connections, traffic.connected), (2, 1));
        assert_eq!((traffic.messages_in, traffic.messages_out), (1, 1));
        assert_eq!(traffic.pings, 1);
    }
}
