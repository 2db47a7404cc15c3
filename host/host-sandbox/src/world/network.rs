//! The network of a world: what the device sends, what the services answer, connections and their ends.

use host_cloud::service::{Kind, Outgoing};
use host_runtime::mailbox::Input;
use host_runtime::types::{Failure, Outcome, Qos, Token, code};

use super::{Happening, World};
use crate::net::{OutageKind, Packet};
use crate::plant::THING;
use crate::trace::Event;
use crate::wire::Asked;

/// Requests of one device in one second of its time; more is a loop. The fastest honest download here, 32 requests in flight
/// and 40 ms from one end to the other and back, makes 800.
const ASKED_MAX: u32 = 2000;

/// Whether a topic is of a filter, by the rules of MQTT: `+` is one level, `#` the rest.
fn matches_filter(filter: &str, topic: &str) -> bool {
    let mut both = filter.bytes().zip(topic.bytes());
    match both.find(|(wanted, byte)| wanted != byte) {
        // Most differ in a letter.
        Some((wanted, _)) if !matches!(wanted, b'+' | b'#') => return false,
        None if filter.len() == topic.len() => return true,
        Some(_) | None => {}
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        let Some(level) = levels.next() else {
            return false;
        };
        if wanted != "+" && wanted != level {
            return false;
        }
    }
    levels.next().is_none()
}

impl World<'_> {
    pub(super) fn outage(&self, kind: OutageKind) -> Option<u64> {
        let now = self.ground.now_ms();
        let active =
            |o: &&crate::net::Outage| o.kind == kind && (o.from_ms..o.until_ms).contains(&now);
        let mut outages = self.prepared.scenario.outages.iter();
        outages.find(active).map(|outage| outage.until_ms)
    }

    pub(super) fn tell(&self, input: Input) {
        if let Some(device) = &self.device {
            device.mailbox().send(input);
        }
    }

    pub(super) fn done(&mut self, token: Token, result: Result<(), Failure>) {
        self.pending.remove(&token);
        let outcome = result.map_or_else(Outcome::Failed, |()| Outcome::Nothing);
        self.tell(Input::Done { token, outcome });
    }

    pub(super) fn network(&mut self, asked: Asked) {
        let token = match &asked {
            Asked::Cancel(token) => {
                if self.pending.contains(token) || self.ranges.remove(token) {
                    let failure = Failure::new(code::CANCELLED, 0, "given up");
                    self.done(*token, Err(failure));
                }
                return;
            }
            Asked::Publish { token, .. }
            | Asked::Subscribe { token, .. }
            | Asked::Range { token, .. } => *token,
        };
        self.pace_of_asking();
        // The servers of images are reached without the broker.
        if let Asked::Range {
            url,
            offset,
            length,
            ..
        } = &asked
        {
            return self.range(token, url, *offset, *length);
        }
        if !self.connected {
            let failure = Failure::new(code::NOT_CONNECTED, 0, "there is no connection");
            return self.done(token, Err(failure));
        }
        // What is sent into a half-open connection goes on when that does, if it ever does.
        let now_ms = self.ground.now_ms();
        let at_ms = self.outage(OutageKind::HalfOpen).unwrap_or(now_ms);
        let process = Some(self.starts);
        self.pending.insert(token);
        let latency_ms = self.prepared.scenario.weather.latency_ms;
        match asked {
            Asked::Publish {
                topic,
                payload,
                qos,
                ..
            } => {
                let packet = Packet {
                    topic,
                    payload: payload.into(),
                };
                let mut out = Vec::new();
                self.ways.requests.carry(at_ms, packet, &mut out);
                for (at, packet) in out {
                    self.schedule(at, None, Happening::ToCloud(packet));
                }
                if qos == Qos::AtMostOnce {
                    return self.done(token, Ok(()));
                }
            }
            Asked::Subscribe { filter, on, .. } => {
                let session = self.session;
                let reached = Happening::Subscribed {
                    session,
                    filter,
                    on,
                };
                self.schedule(at_ms + latency_ms, process, reached);
            }
            Asked::Range { .. } | Asked::Cancel(_) => {}
        }
        let answered = at_ms + 2 * latency_ms;
        self.schedule(answered, process, Happening::Done(token));
    }

    /// Counts what the device asks for in one second of its time, and holds too much of it against it.
    fn pace_of_asking(&mut self) {
        let now_ms = self.ground.now_ms();
        let second = now_ms / 1000;
        if self.asked.0 != second {
            self.asked = (second, 0);
        }
        self.asked.1 += 1;
        if self.asked.1 == ASKED_MAX + 1 {
            let detail = format!("more than {ASKED_MAX} requests in one second");
            self.plant
                .judge(|_, found| found.add("asks in measure", now_ms, detail));
            self.is_spinning = true;
        }
    }

    /// The broker knows of a subscription, unless the session has ended since: it was a clean one.
    pub(super) fn reach_broker(&mut self, session: u32, filter: String, on: bool) {
        if !self.connected || session != self.session {
            return;
        }
        if on {
            self.subscriptions.insert(filter);
        } else {
            self.subscriptions.remove(&filter);
        }
    }

    /// Whether the broker hands a message on: an answer comes unasked at AWS; for notifications and blocks a device has to
    /// subscribe.
    fn is_handed_on(&self, message: &Outgoing) -> bool {
        let mut filters = self.subscriptions.iter();
        message.kind == Kind::Reply || filters.any(|filter| matches_filter(filter, &message.topic))
    }

    pub(super) fn reach_cloud(&mut self, packet: &Packet) {
        if self.outage(OutageKind::SilentCloud).is_some() {
            return;
        }
        let reason = self.outage(OutageKind::Unavailable);
        self.service
            .set_unavailable(reason.map(|_| "told to be".to_owned()));
        let now_ms = self.ground.now_ms();
        let outgoing = self
            .service
            .handle(now_ms, &self.thing, &packet.topic, &packet.payload);
        self.answer(outgoing);
    }

    /// Send what the services want sent.
    pub(super) fn answer(&mut self, outgoing: Vec<Outgoing>) {
        let now_ms = self.ground.now_ms();
        let mut out = Vec::new();
        for message in outgoing {
            let is_block = message.kind == Kind::Block;
            self.blocks_sent += u64::from(is_block);
            if !self.connected || !self.is_handed_on(&message) {
                continue;
            }
            let (way, qos) = if is_block {
                (&mut self.ways.blocks, Qos::AtMostOnce)
            } else {
                (&mut self.ways.replies, Qos::AtLeastOnce)
            };
            let packet = Packet {
                topic: message.topic.to_string(),
                payload: message.payload,
            };
            way.carry(now_ms, packet, &mut out);
            for (at, packet) in out.drain(..) {
                self.schedule(at, Some(self.starts), Happening::ToDevice(packet, qos));
            }
        }
    }

    /// A notification that comes late: of when the queue was empty.
    pub(super) fn hint_at_nothing(&mut self) {
        let wall_s = self.context().wall_s.unwrap_or(0);
        let hint = format!("{{\"timestamp\":{wall_s},\"execution\":{{}}}}");
        self.answer(vec![Outgoing {
            to: self.thing.clone(),
            topic: format!("$aws/things/{THING}/jobs/notify-next").into(),
            payload: hint.into(),
            qos: host_cloud::service::QoS::AtLeastOnce,
            kind: Kind::Notification,
        }]);
    }

    pub(super) fn reach_device(&mut self, packet: Packet, qos: Qos) {
        if !self.connected {
            return;
        }
        if let Some(until_ms) = self.outage(OutageKind::HalfOpen) {
            let process = Some(self.starts);
            return self.schedule(until_ms, process, Happening::ToDevice(packet, qos));
        }
        self.ground.note(|| Event::Heard {
            topic: packet.topic.clone(),
            length: packet.payload.len() as u64,
            crc: crc32c::crc32c(&packet.payload),
        });
        self.tell(Input::Message {
            topic: packet.topic,
            payload: packet.payload,
            qos,
        });
    }

    pub(super) fn link_up(&mut self) {
        let down = self.outage(OutageKind::Disconnected).is_some()
            || self.outage(OutageKind::HalfOpen).is_some();
        if down || self.connected {
            return;
        }
        self.connected = true;
        self.session += 1;
        self.subscriptions.clear();
        self.ground.note(|| Event::Note("connected".into()));
        let session_present = false;
        self.tell(Input::Connected { session_present });
    }

    pub(super) fn link_down(&mut self) {
        if !std::mem::take(&mut self.connected) {
            return;
        }
        self.ground.note(|| Event::Note("disconnected".into()));
        for token in std::mem::take(&mut self.pending) {
            let failure = Failure::new(code::NOT_CONNECTED, 0, "the connection is gone");
            self.done(token, Err(failure));
        }
        let detail = "the connection is gone".to_owned();
        self.tell(Input::Disconnected { reason: 4, detail });
    }
}

#[cfg(test)]
mod tests {
    use super::matches_filter;

    #[test]
    fn a_plus_is_one_level_and_a_hash_the_rest() {
        let rows = [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b/d", false),
            ("a/+", "a/b/c", false),
            ("a/+", "a", false),
            ("+/+", "+/b", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "ab/c", false),
            ("#", "a/b", true),
        ];
        for (filter, topic, wanted) in rows {
            assert_eq!(matches_filter(filter, topic), wanted, "{filter} {topic}");
        }
    }
}
