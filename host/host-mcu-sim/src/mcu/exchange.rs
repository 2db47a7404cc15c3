//! From a line that has arrived to the bytes of an answer, with all that chance and rules do on the way. What the server
//! answers is not decided here.

use smp_core::frame::Framing;

use crate::config::MS;
use crate::fault::{self, Effect};
use crate::flash::CutPoint;
use crate::server::{Answer, Running};

use super::{Fate, Mcu, State};

/// What a log line between two lines of an answer looks like.
const LOG_LINE: &[u8] = b"[00:00:01.000,000] <inf> app: still here\r\n";

impl Mcu {
    pub(super) fn on_arrival(&mut self) {
        let Some(arrival) = self.uplink.pop() else {
            return;
        };
        // Nobody listened when it began.
        let listens = matches!(self.state, State::Serving | State::Recovering);
        if !listens || arrival.begin_ns < self.up_since_ns {
            return;
        }
        let mut arrival = arrival;
        if self.config.framing == Framing::Console && !self.passes(&mut arrival.bytes) {
            return;
        }
        let reads_on_ns = if self.config.timing.receives_while_flashing {
            0
        } else {
            self.flash.free_ns()
        };
        self.inbox.push(arrival, reads_on_ns, &self.config.timing);
    }

    /// Chance on the way up: the fate of a packet is drawn at its first line.
    fn passes(&mut self, line: &mut [u8]) -> bool {
        let chance = self.config.chance;
        if line.starts_with(&[0x06, 0x09]) {
            self.uplink_fate = if self.random.strikes(chance.lose_request) {
                Fate::Vanishes
            } else {
                Fate::Passes
            };
            if self.random.strikes(chance.garble) {
                fault::garble(line, &mut self.random);
            }
        }
        self.uplink_fate == Fate::Passes && !self.random.strikes(chance.lose_line)
    }

    pub(super) fn on_packet(&mut self) {
        let Some(packet) = self.inbox.pop_packet() else {
            return;
        };
        if !matches!(self.state, State::Serving | State::Recovering) {
            return;
        }
        let at_ns = self.now_ns;
        self.flash.begin_at(at_ns);
        let effects = self
            .server
            .seen(&packet)
            .map_or_else(Vec::new, |seen| self.rules.strike(seen));
        for effect in &effects {
            self.apply(*effect);
        }
        if effects.contains(&Effect::LoseRequest) || self.state == State::Silent || !self.is_plugged
        {
            return;
        }
        let running = Running {
            flash: &mut self.flash,
            mode: self.config.mode,
            active: self.running,
            uploaded_bytes: &mut self.stats.uploaded_bytes,
            uptime_ms: (at_ns - self.up_since_ns) / MS,
        };
        let answer = self.server.answer(running, &packet, &effects);
        if let Some(cut_ns) = self.flash.cut_at_ns() {
            self.timers.cut_ns = Some(self.timers.cut_ns.map_or(cut_ns, |other| other.min(cut_ns)));
            return;
        }
        let done_ns = self.flash.free_ns().max(at_ns) + self.config.timing.turnaround_ns;
        self.server_free_ns = done_ns;
        if let Some(answer) = answer {
            self.send(done_ns, &answer, &effects);
        }
    }

    /// What a rule does beside changing the answer.
    pub(super) fn apply(&mut self, effect: Effect) {
        let ms = |count: u32| u64::from(count) * MS;
        match effect {
            Effect::PowerCut(after) => {
                self.timers.cut_ns = Some(self.now_ns.saturating_add(ms(after)));
            }
            Effect::CutAtOperation(count) => self.flash.plan_cut(count.into(), CutPoint::Within),
            Effect::WriteError => self.flash.refuse(1, 0),
            Effect::EraseError => self.flash.refuse(0, 1),
            Effect::Silence if self.state != State::Starting => self.state = State::Silent,
            Effect::Unplug(time) => {
                self.is_plugged = false;
                self.uplink.clear(self.now_ns);
                self.downlink.cut(self.now_ns);
                self.timers.plug_ns = Some(self.now_ns.saturating_add(ms(time)));
            }
            Effect::LoseRequest
            | Effect::LoseResponse
            | Effect::GarbleResponse
            | Effect::RepeatResponse
            | Effect::DelayResponse(_)
            | Effect::Answer(_)
            | Effect::Busy
            | Effect::NoMatch
            | Effect::OtherHash
            | Effect::Silence => {}
        }
    }

    fn send(&mut self, done_ns: u64, answer: &Answer, effects: &[Effect]) {
        self.stats.answered += 1;
        let chance = self.config.chance;
        let mut bytes = self.with_log_lines(self.config.framing.encode(&answer.packet));
        let has = |effect| effects.contains(&effect);
        if has(Effect::GarbleResponse) || self.random.strikes(chance.garble) {
            fault::garble(&mut bytes, &mut self.random);
        }
        let delay_ms = effects.iter().find_map(|effect| match effect {
            Effect::DelayResponse(ms) => Some(*ms),
            _ => None,
        });
        let late_ns = match delay_ms {
            Some(ms) => Some(u64::from(ms) * MS),
            None => self
                .random
                .strikes(chance.late_response)
                .then_some(chance.late_ns),
        };
        let is_lost = has(Effect::LoseResponse) || self.random.strikes(chance.lose_response);
        let is_double = has(Effect::RepeatResponse) || self.random.strikes(chance.repeat_response);
        let timing = self.config.timing;
        // The server is busy until the last byte has left, also where nobody receives it.
        self.server_free_ns = done_ns + timing.bytes_ns(bytes.len());
        if !is_lost && self.is_plugged {
            if let Some(late_ns) = late_ns {
                self.downlink.send_late(done_ns + late_ns, bytes, &timing);
            } else {
                if is_double {
                    self.downlink.send(done_ns, bytes.clone(), &timing);
                }
                self.server_free_ns = self.downlink.send(done_ns, bytes, &timing);
            }
        }
        if let Some(reset) = answer.reset {
            self.to_recovery = reset.to_recovery && self.config.recovery.is_some();
            let at_ns = self.server_free_ns + timing.reset_ns;
            self.timers.reset_ns.get_or_insert(at_ns);
        }
    }

    fn with_log_lines(&mut self, wire: Vec<u8>) -> Vec<u8> {
        let per_mille = self.config.chance.log_line;
        if per_mille == 0 || self.config.framing == Framing::Raw {
            return wire;
        }
        let mut mixed = Vec::with_capacity(wire.len());
        for line in wire.split_inclusive(|byte| *byte == b'\n') {
            if self.random.strikes(per_mille) {
                mixed.extend_from_slice(LOG_LINE);
            }
            mixed.extend_from_slice(line);
        }
        mixed
    }
}
