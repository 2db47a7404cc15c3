//! The way between device and cloud, and what can go wrong on it: wrappers round a straight line, each with one fault.
//!
//! A [`Way`] takes a packet and says when which packets come out at its other end. Connections that go, and clouds that
//! are silent, concern all packets at once and are the world's ([`Outage`]).

use bytes::Bytes;

use crate::random::Random;

/// One message under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
}

/// One direction for one kind of message.
pub trait Way: Send {
    /// Take a packet; what comes out at which instant goes to `out`.
    fn carry(&mut self, now_ms: u64, packet: Packet, out: &mut Vec<(u64, Packet)>);
}

/// Every packet arrives, in order.
struct Straight {
    latency_ms: u64,
}

impl Way for Straight {
    fn carry(&mut self, now_ms: u64, packet: Packet, out: &mut Vec<(u64, Packet)>) {
        out.push((now_ms + self.latency_ms, packet));
    }
}

/// A chance that something happens to a packet, until the weather clears.
struct Lot {
    per_mille: u16,
    until_ms: u64,
    random: Random,
}

impl Lot {
    fn falls(&mut self, now_ms: u64) -> bool {
        now_ms < self.until_ms && self.random.chance(self.per_mille)
    }
}

struct Losing(Lot, Box<dyn Way>);

impl Way for Losing {
    fn carry(&mut self, now_ms: u64, packet: Packet, out: &mut Vec<(u64, Packet)>) {
        if !self.0.falls(now_ms) {
            self.1.carry(now_ms, packet, out);
        }
    }
}

/// Carries packets a second time: half of the copies follow at once, the others late, when nobody waits for them any more.
struct Doubling {
    lot: Lot,
    most_ms: u64,
    inner: Box<dyn Way>,
}

impl Way for Doubling {
    fn carry(&mut self, now_ms: u64, packet: Packet, out: &mut Vec<(u64, Packet)>) {
        if self.lot.falls(now_ms) {
            let late = self.lot.random.below(2) == 1;
            let delay = self.lot.random.below(self.most_ms);
            let copied_ms = if late { now_ms + delay } else { now_ms };
            self.inner.carry(copied_ms, packet.clone(), out);
        }
        self.inner.carry(now_ms, packet, out);
    }
}

/// Holds packets back, so that later ones overtake them.
struct Delaying {
    lot: Lot,
    most_ms: u64,
    inner: Box<dyn Way>,
}

impl Way for Delaying {
    fn carry(&mut self, now_ms: u64, packet: Packet, out: &mut Vec<(u64, Packet)>) {
        let first = out.len();
        self.inner.carry(now_ms, packet, out);
        if self.lot.falls(now_ms) {
            let delay = 1 + self.lot.random.below(self.most_ms);
            for (at, _) in &mut out[first..] {
                *at += delay;
            }
        }
    }
}

/// Turns over one bit.
struct Corrupting(Lot, Box<dyn Way>);

impl Way for Corrupting {
    fn carry(&mut self, now_ms: u64, mut packet: Packet, out: &mut Vec<(u64, Packet)>) {
        if self.0.falls(now_ms) && !packet.payload.is_empty() {
            let mut bytes = packet.payload.to_vec();
            let bit = self.0.random.below_len(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            packet.payload = bytes.into();
        }
        self.1.carry(now_ms, packet, out);
    }
}

/// How often something goes wrong with packets of one kind, in cases of 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Odds {
    /// Lost.
    pub lost: u16,
    /// Arrives twice, the second time maybe late.
    pub doubled: u16,
    /// Arrives late.
    pub delayed: u16,
    /// One bit is turned over.
    pub corrupted: u16,
}

impl Odds {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        lost: 0,
        doubled: 0,
        delayed: 0,
        corrupted: 0,
    };
}

/// What the network is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Time from one end to the other, in milliseconds.
    pub latency_ms: u64,
    /// Longest delay of what is delayed, and of a second copy.
    pub delay_max_ms: u64,
    /// From this instant on nothing goes wrong any more.
    pub until_ms: u64,
    /// What the device publishes. A lost request was acknowledged by the broker.
    pub requests: Odds,
    /// Answers and notifications of the job service.
    pub replies: Odds,
    /// Blocks, and what else the stream service says.
    pub blocks: Odds,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency_ms: 20,
            delay_max_ms: 3000,
            until_ms: 0,
            requests: Odds::NONE,
            replies: Odds::NONE,
            blocks: Odds::NONE,
        }
    }
}

impl Weather {
    /// Whether nothing ever goes wrong.
    #[must_use]
    pub fn is_fair(&self) -> bool {
        let all = [self.requests, self.replies, self.blocks];
        self.until_ms == 0 || all.iter().all(|odds| *odds == Odds::NONE)
    }

    /// The way of one kind of packets.
    #[must_use]
    pub fn way(&self, odds: Odds, seed: u64, name: &str) -> Box<dyn Way> {
        let mut way: Box<dyn Way> = Box::new(Straight {
            latency_ms: self.latency_ms,
        });
        let lot = |per_mille: u16, fault: &str| {
            (per_mille > 0).then(|| Lot {
                per_mille,
                until_ms: self.until_ms,
                random: Random::stream(seed, &format!("{name} {fault}")),
            })
        };
        if let Some(lot) = lot(odds.delayed, "delayed") {
            way = Box::new(Delaying {
                lot,
                most_ms: self.delay_max_ms,
                inner: way,
            });
        }
        if let Some(lot) = lot(odds.corrupted, "corrupted") {
            way = Box::new(Corrupting(lot, way));
        }
        if let Some(lot) = lot(odds.doubled, "doubled") {
            way = Box::new(Doubling {
                lot,
                most_ms: self.delay_max_ms,
                inner: way,
            });
        }
        if let Some(lot) = lot(odds.lost, "lost") {
            way = Box::new(Losing(lot, way));
        }
        way
    }
}

/// What concerns all packets of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// What it is.
    pub kind: OutageKind,
    /// First millisecond.
    pub from_ms: u64,
    /// First millisecond after it.
    pub until_ms: u64,
}

/// What an outage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageKind {
    /// There is no connection, and the device is told.
    Disconnected,
    /// Nothing arrives and nothing fails, until the keep-alive ends the connection.
    HalfOpen,
    /// The broker acknowledges, the services behind it neither hear nor answer.
    SilentCloud,
    /// The job service answers whatever would change its state with `InternalError`.
    Unavailable,
    /// Whoever asks for a range has this trouble.
    Url(UrlTrouble),
}

/// What can be wrong with a range, as far as an HTTP client of the host lets an agent see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlTrouble {
    /// 403: the URL has expired.
    Expired,
    /// 503: the server has a bad time.
    Fails,
    /// 200 and the whole file in place of a range.
    Whole,
    /// Half of the range, from a host that does not look.
    Short,
    /// The range of another file: another size.
    Other,
    /// Bytes trickle until the host's time is over.
    Slow,
    /// TLS that is not trusted: the host asks nothing there.
    Refused,
    /// Another range than the one asked for, or fewer bytes than announced: the host takes nothing of it.
    Range,
    /// Redirects without end: the host ends it.
    Redirects,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Instants and payloads at which each of 100 packets arrives, in order of arrival.
    fn arrivals(odds: Odds) -> Vec<(u64, Vec<u8>)> {
        let weather = Weather {
            until_ms: 50,
            ..Weather::default()
        };
        let mut way = weather.way(odds, 1, "test");
        let mut out = Vec::new();
        for n in 0..100_u64 {
            let packet = Packet {
                topic: "t".into(),
                payload: vec![n as u8, 0].into(),
            };
            way.carry(n, packet, &mut out);
        }
        out.sort_by_key(|(at, _)| *at);
        out.into_iter()
            .map(|(at, packet)| (at, packet.payload.to_vec()))
            .collect()
    }

    #[test]
    fn in_fair_weather_all_arrive_in_order() {
        let wanted: Vec<_> = (0..100_u64).map(|n| (n + 20, vec![n as u8, 0])).collect();
        assert_eq!(arrivals(Odds::NONE), wanted);
    }

    #[test]
    fn each_fault_does_what_it_says_until_the_weather_clears() {
        let all = 1000;
        let lost = arrivals(Odds {
            lost: all,
            ..Odds::NONE
        });
        assert_eq!(lost.len(), 50);
        let doubled = arrivals(Odds {
            doubled: all,
            ..Odds::NONE
        });
        assert_eq!(doubled.len(), 150);
        let delayed = arrivals(Odds {
            delayed: all,
            ..Odds::NONE
        });
        assert!(
            delayed.windows(2).any(|two| two[0].1 > two[1].1),
            "overtaken"
        );
        let corrupted = arrivals(Odds {
            corrupted: all,
            ..Odds::NONE
        });
        let wrong = corrupted
            .iter()
            .zip(0_u8..)
            .filter(|((_, bytes), n)| *bytes != [*n, 0]);
        assert_eq!(wrong.count(), 50);
    }
}
