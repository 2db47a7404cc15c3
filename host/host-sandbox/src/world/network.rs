//! The network of a world: what the device sends, what the services answer, connections and their ends.

use host_cloud::service::{Kind, Outgoing};
use host_runtime::mailbox::Input;
use host_runtime::types::{Failure, Outcome, Qos, Token, code};

use super::{Happening, World};
use crate::net::{OutageKind, Packet};
use crate::trace::Event;
use crate::wire::Asked;

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
                if self.pending.contains(token) {
                    let failure = Failure::new(code::CANCELLED, 0, "given up");
                    self.done(*token, Err(failure));
                }
                return;
            }
            Asked::Publish { token, .. } | Asked::Other(token) | Asked::Http(token) => *token,
        };
        if !self.connected {
            let failure = Failure::new(code::NOT_CONNECTED, 0, "there is no connection");
            return self.done(token, Err(failure));
        }
        if let Asked::Http(_) = asked {
            let failure = Failure::new(code::UNSUPPORTED, 0, "there is no HTTP here");
            return self.done(token, Err(failure));
        }
        // What is sent into a half-open connection goes on when that does, if it ever does.
        let now_ms = self.ground.now_ms();
        let at_ms = self.outage(OutageKind::HalfOpen).unwrap_or(now_ms);
        let process = Some(self.starts);
        self.pending.insert(token);
        if let Asked::Publish {
            topic,
            payload,
            qos,
            ..
        } = asked
        {
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
        let answered = at_ms + 2 * self.prepared.scenario.weather.latency_ms;
        self.schedule(answered, process, Happening::Done(token));
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
        for message in outgoing {
            let is_block = message.kind == Kind::Block;
            self.blocks_sent += u64::from(is_block);
            if !self.connected {
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
            let mut out = Vec::new();
            way.carry(now_ms, packet, &mut out);
            for (at, packet) in out {
                self.schedule(at, Some(self.starts), Happening::ToDevice(packet, qos));
            }
        }
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
