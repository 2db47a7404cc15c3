//! Notifications on their way to the broker: the newest of each topic, in the order in which topics first waited.
//!
//! A notification says how things stand, so a newer one replaces an older one of its topic that has not left yet. What
//! could not be delivered waits for the next connection; so nothing is lost while the broker is away, and no more waits
//! than two messages a thing.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::service::Outgoing;

#[derive(Default)]
struct Waiting {
    messages: HashMap<Arc<str>, Outgoing>,
    order: VecDeque<Arc<str>>,
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
        if waiting.messages.insert(topic.clone(), message).is_none() {
            waiting.order.push_back(topic);
        }
        self.filled.notify_one();
    }

    /// Takes back one that did not arrive, unless there is a newer one.
    pub(crate) fn put_back(&self, message: Outgoing) {
        let known = self.waiting().messages.contains_key(&message.topic);
        if !known {
            self.put(message);
        }
    }

    /// The next one; waits until there is one.
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
        waiting.messages.remove(&topic)
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
    fn what_did_not_arrive_comes_again_unless_there_is_newer_news() {
        let outbox = Outbox::default();
        outbox.put_back(message("a", b"1"));
        outbox.put_back(message("a", b"0"));
        outbox.put(message("b", b"2"));
        outbox.put_back(message("b", b"1"));
        assert_eq!(
            drain(&outbox),
            [
                ("a".to_owned(), Bytes::from_static(b"1")),
                ("b".to_owned(), Bytes::from_static(b"2"))
            ]
        );
    }
}
