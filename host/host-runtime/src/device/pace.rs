//! The bandwidth cap at a device's calls: what its agent is told, and what waits when it asks for more.
//!
//! A range says how many bytes it will bring, so it begins when they may come. What a publish brings nobody knows before;
//! of a device that has received far more than its share, publishes with QoS 0 wait until it has nearly paid: requests for
//! blocks are among them, what has to be acknowledged never is. (MQTT keeps the order of each QoS only.) An agent that
//! keeps to its allowance sees neither.

use std::collections::VecDeque;

use crate::agent::Context;
use crate::bandwidth::Seat;
use crate::ports::transport::Transport;
use crate::types::{Qos, Token};

/// What a range costs beside its bytes: head, and the envelopes of eight TLS records.
const RANGE_HEAD_BYTES: u64 = 700;

/// What a message costs beside topic and payload: MQTT's header and the envelope of a TLS record.
const MESSAGE_HEAD_BYTES: usize = 40;

/// Debt at which publishes wait: eight requests of the largest window, which may all be answered before the first of
/// their bytes is counted.
const DEBT_MAX_BYTES: u64 = 8 * 128 * 1024;

/// Bytes of calls that may wait: the ranges that an agent may have under way, 64 with URLs of the largest size, three
/// times. An agent that makes calls without end would fill the memory with what is held back of them.
const HELD_MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a call that waits counts beside its texts.
const CALL_BYTES: usize = 1024;

/// An allowance that has changed by less than this part is not told.
const NEWS_PART: u64 = 128;

/// A call that waits.
enum Held {
    Range {
        token: Token,
        url: String,
        offset: u64,
        length: u32,
    },
    Publish {
        token: Token,
        topic: String,
        payload: Vec<u8>,
    },
}

impl Held {
    fn bytes(&self) -> usize {
        let texts = match self {
            Self::Range { url, .. } => url.len(),
            Self::Publish { topic, payload, .. } => topic.len() + payload.len(),
        };
        CALL_BYTES + texts
    }
}

/// A device's part in the cap; without a seat nothing waits and nothing is told.
#[derive(Default)]
pub(super) struct Pace {
    seat: Option<Seat>,
    /// What the agent was told last, none = nothing.
    told: Option<u64>,
    held: VecDeque<Held>,
}

impl Pace {
    pub(super) fn new(seat: Option<Seat>) -> Self {
        Self {
            seat,
            ..Self::default()
        }
    }

    /// The agent does, or does not, receive an image.
    pub(super) fn receives(&mut self, now: Context, receives: bool) {
        if let Some(seat) = &mut self.seat {
            seat.receives(now, receives);
        }
    }

    /// A message came.
    pub(super) fn on_message(&mut self, now: Context, bytes: usize) {
        if let Some(seat) = &mut self.seat {
            seat.on_bytes(now, (bytes + MESSAGE_HEAD_BYTES) as u64);
        }
    }

    /// Bytes of the image were among what came.
    pub(super) fn on_payload(&mut self, bytes: usize) {
        if let Some(seat) = &mut self.seat {
            seat.on_payload(bytes as u64);
        }
    }

    /// Another instance of the agent, which knows nothing of a cap.
    pub(super) fn forget(&mut self) {
        self.told = None;
    }

    /// What the agent has to be told now.
    pub(super) fn news(&mut self, now: Context) -> Option<u64> {
        let allowance = self.seat.as_mut()?.allowance(now);
        let is_news = self.told.is_none_or(|told| {
            let is_edge = (told == 0) != (allowance == 0);
            is_edge || told.abs_diff(allowance) > told / NEWS_PART
        });
        is_news.then(|| {
            self.told = Some(allowance);
            allowance
        })
    }

    /// Whether a call of so many bytes may wait, if it has to.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let held: usize = self.held.iter().map(Held::bytes).sum();
        held + CALL_BYTES + bytes <= HELD_MAX_BYTES
    }

    pub(super) fn http_get(
        &mut self,
        now: Context,
        transport: &mut dyn Transport,
        token: Token,
        url: &str,
        (offset, length): (u64, u32),
    ) {
        // First come first served: what waits goes first.
        if self.holds(|held| matches!(held, Held::Range { .. })) || !self.may_fetch(now, length) {
            let url = url.to_owned();
            return self.held.push_back(Held::Range {
                token,
                url,
                offset,
                length,
            });
        }
        transport.http_get(token, url, offset, length);
    }

    pub(super) fn publish(
        &mut self,
        transport: &mut dyn Transport,
        token: Token,
        topic: &str,
        payload: Vec<u8>,
        qos: Qos,
    ) {
        let waits = qos == Qos::AtMostOnce
            && (self.owes() || self.holds(|held| matches!(held, Held::Publish { .. })));
        if waits {
            let topic = topic.to_owned();
            return self.held.push_back(Held::Publish {
                token,
                topic,
                payload,
            });
        }
        transport.publish(token, topic, payload, qos);
    }

    /// Give up what waits; false = it does not.
    pub(super) fn cancel(&mut self, of: Token) -> bool {
        let before = self.held.len();
        self.held.retain(|held| match held {
            Held::Range { token, .. } | Held::Publish { token, .. } => *token != of,
        });
        self.held.len() != before
    }

    /// The connection is gone: what waits for it ends like everything else that was under way.
    pub(super) fn on_disconnected(&mut self, transport: &mut dyn Transport) {
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Publish {
                    token,
                    topic,
                    payload,
                } => transport.publish(token, &topic, payload, Qos::AtMostOnce),
                Held::Range { .. } => self.held.push_back(held),
            }
        }
    }

    /// Let go what may; returns when to look again.
    pub(super) fn poll(&mut self, now: Context, transport: &mut dyn Transport) -> Option<u64> {
        let (mut wait_ms, mut kept) = (None, VecDeque::new());
        let (mut ranges_wait, mut publishes_wait) = (false, self.owes());
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Range {
                    token,
                    url,
                    offset,
                    length,
                } => {
                    if !ranges_wait && self.may_fetch(now, length) {
                        transport.http_get(token, &url, offset, length);
                        continue;
                    }
                    if !ranges_wait {
                        ranges_wait = true;
                        wait_ms = self.seat.as_ref().map(|seat| seat.wait_ms(cost(length)));
                    }
                    kept.push_back(Held::Range {
                        token,
                        url,
                        offset,
                        length,
                    });
                }
                Held::Publish {
                    token,
                    topic,
                    payload,
                } => {
                    if !publishes_wait {
                        transport.publish(token, &topic, payload, Qos::AtMostOnce);
                        // One at a time: what it brings is not known yet.
                        publishes_wait = self.seat.is_some();
                        continue;
                    }
                    wait_ms = wait_ms.or(Some(PUBLISH_LOOK_MS)).min(Some(PUBLISH_LOOK_MS));
                    kept.push_back(Held::Publish {
                        token,
                        topic,
                        payload,
                    });
                }
            }
        }
        self.held = kept;
        let look = self.seat.as_ref().and_then(Seat::deadline_ms);
        let held = wait_ms.map(|ms| now.now_ms + ms);
        [look, held].into_iter().flatten().min()
    }

    fn holds(&self, which: impl Fn(&Held) -> bool) -> bool {
        self.held.iter().any(which)
    }

    fn may_fetch(&mut self, now: Context, length: u32) -> bool {
        let Some(seat) = &mut self.seat else {
            return true;
        };
        seat.take(now, cost(length))
    }

    fn owes(&self) -> bool {
        let debt = self.seat.as_ref().map(Seat::debt_bytes);
        debt.is_some_and(|debt| debt > DEBT_MAX_BYTES)
    }
}

/// How often publishes that wait are looked at, in milliseconds.
const PUBLISH_LOOK_MS: u64 = 50;

fn cost(length: u32) -> u64 {
    u64::from(length) + RANGE_HEAD_BYTES
}
