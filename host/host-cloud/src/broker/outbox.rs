//! Notifications on their way to the broker: the newest of each topic, in the order in which topics first waited.
//!
//! A notification says how things stand, so a newer one replaces an older one of its topic that has not left yet. One of a
//! topic is on its way at a time, so that none overtakes another: a newer one waits until that one has arrived or is lost,
//! and then goes in its place. What could not be delivered waits for the next connection; so nothing is lost while the
//! broker is away, and no more waits than two messages a thing.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::service::Outgoing;

#[derive(Default)]
struct Waiting {
    messages: HashMap<Arc<str>, Outgoing>,
    /// Topics of `messages` that are not in `flying`, each once.
    order: VecDeque<Arc<str>>,
    /// Topics of which a message was taken and has neither arrived nor come back.
    flying: HashSet<Arc<str>>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a notification; an older one of its topic is forgotten.
    pub(crate) fn put(&self, message: Outgoing) {
        let mut waiting = self.waiting();
        let topic = Arc::clone(&message.topic);
        let replaced = waiting.messages.insert(topic.clone(), message).is_some();
        if !replaced && !waiting.flying.contains(&topic) {
            waiting.order.push_back(topic);
            self.filled.notify_one();
        }
    }

    /// Hears that one that was taken has arrived: the next of its topic may go.
    pub(crate) fn arrived(&self, topic: &Arc<str>) {
        let mut waiting = self.waiting();
        waiting.flying.remove(topic);
        if waiting.messages.contains_key(topic) {
            waiting.order.push_back(Arc::clone(topic));
            self.filled.notify_one();
        }
    }

    /// Takes back one that was taken and did not arrive, unless there is a newer one.
    pub(crate) fn put_back(&self, message: Outgoing) {
        let mut waiting = self.waiting();
        let topic = Arc::clone(&message.topic);
        waiting.flying.remove(&topic);
        waiting.messages.entry(topic.clone()).or_insert(message);
        waiting.order.push_back(topic);
        self.filled.notify_one();
    }

    /// The next one; waits until there is one. Whoever takes it says whether it [arrived](Self::arrived), or
    /// [puts it back](Self::put_back).
    pub(crate) async fn take(&self) -> Outgoing {
        loop {
            if let Some(message) = self.try_take() {
                return message;
            }
            self.filled.notified().await;
        }
    }

    fn try_take(&self) -> Option<Outgoing> {
        let mut waiting = self.waiting();
        let topic = waiting.order.pop_front()?;
        let message = waiting.messages.remove(&topic);
        waiting.flying.insert(topic);
        message
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::service::{Kind, QoS, ThingName};

    fn message(topic: &str, payload: &'static [u8]) -> Outgoing {
        Outgoing {
            to: ThingName::new("gw").unwrap(),
            topic: topic.into(),
            payload: Bytes::from_static(payload),
            qos: QoS::AtLeastOnce,
            kind: Kind::Notification,
        }
    }

    fn drain(outbox: &Outbox) -> Vec<(String, Bytes)> {
        std::iter::from_fn(|| outbox.try_take())
            .map(|m| (m.topic.to_string(), m.payload))
            .collect()
    }

    #[test]
    fn the_newest_of_each_topic_leaves_in_the_order_of_the_topics() {
        let outbox = Outbox::default();
        for (topic, payload) in [("a", b"1"), ("b", b"2"), ("a", b"3")] {
            outbox.put(message(topic, payload));
        }
        assert_eq!(
            drain(&outbox),
            [
                ("a".to_owned(), Bytes::from_static(b"3")),
                ("b".to_owned(), Bytes::from_static(b"2"))
            ]
        );
    }

    #[test]
    fn a_topics_next_leaves_when_the_one_before_has_arrived() {
        let outbox = Outbox::default();
        outbox.put(message("a", b"1"));
        let first = outbox.try_take().unwrap();
        outbox.put(message("a", b"2"));
        outbox.put(message("a", b"3"));
        assert_eq!(outbox.try_take(), None);
        outbox.arrived(&first.topic);
        let next = outbox.try_take().unwrap();
        assert_eq!(next.payload, b"3"[..]);
        outbox.arrived(&next.topic);
        assert_eq!(outbox.try_take(), None);
    }

    #[test]
    fn of_what_did_not_arrive_the_newest_of_a_topic_comes_again() {
        let outbox = Outbox::default();
        outbox.put(message("a", b"1"));
        let first = outbox.try_take();
        outbox.put(message("a", b"2"));
        let second = outbox.try_take();
        for lost in [first, second].into_iter().flatten() {
            outbox.put_back(lost);
        }
        assert_eq!(drain(&outbox), [("a".to_owned(), Bytes::from_static(b"2"))]);
    }

    #[test]
    fn what_did_not_arrive_comes_again_unless_there_is_newer_news() {
        let outbox = Outbox::default();
        outbox.put(message("a", b"1"));
        outbox.put(message("b", b"1"));
        let (a, b) = (outbox.try_take().unwrap(), outbox.try_take().unwrap());
        outbox.put(message("b", b"2"));
        outbox.put_back(a);
        outbox.put_back(b);
        assert_eq!(
            drain(&outbox),
            [
                ("a".to_owned(), Bytes::from_static(b"1")),
                ("b".to_owned(), Bytes::from_static(b"2"))
            ]
        );
    }
}
