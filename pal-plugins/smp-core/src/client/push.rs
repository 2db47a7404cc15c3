//! An upload: chunks in order, from the offset that the server says.
//!
//! ```text
//!            offset 0 with size and name             chunks                  all there
//!   First ────────────────────────────────► Body ───────────────► Done
//!     ▲                                      │ answer says 0, or nothing is answered
//!     │ not listed (3 times at most)         ▼
//!     └─────────────────────────────────── Looking ── listed ──► Done
//! ```
//!
//! Silence leads there, too, and no listed image leads back to `First` before the console's echo was refused (`Asking`).
//!
//! A server that lost its upload and one that has just finished it both say 0: the list of images tells which. A target may
//! also have restarted into its bootloader's own server, which would write the image over the one that is to run: so no first
//! chunk is ever sent again without asking what answers.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::command::{Command, Order, PAUSE_MS};
use super::timer::Timer;
use super::window::Window;
use super::{ClientError, Link, Sent, Source};
use crate::frame::Framing;
use crate::header::{Header, Version};
use crate::reply::{ImageState, Reply};
use crate::request::{Request, Upload};

/// Times that an upload begins anew.
const RESTARTS_MAX: u8 = 3;
/// Wait for the first answer: the server erases the whole slot before it.
const FIRST_MS: u64 = 40_000;
/// Tries of the first chunk before the upload begins anew.
const FIRST_TRIES: u8 = 2;
/// Looks after the first of these, 3 s each, of a target that answers none: it may erase still, and is waited for as long once
/// more.
const FIRST_LOOKS: u8 = 13;
/// Tries of a chunk before the target is asked for its images.
const CHUNK_TRIES: u8 = 8;
/// Answers one after the other to chunks of which nothing was taken, before the same: a chunk that came twice is answered so
/// once, and each of a window.
const TAKES_NOTHING_MAX: u8 = 64;
/// So many tries in vain, and packets become half as large, down to two lines: a receiver that empties its line buffers
/// slower than the line fills them answers no packet of its own size, ever. Of a first chunk each try is long.
const SMALLER_AFTER_TRIES: u8 = 3;
const PACKET_MIN_BYTES: usize = 160;
/// Chunks are multiples of this where they are large enough: flash is written in units, and a server that takes only
/// whole ones asks for the rest again.
const UNIT_BYTES: usize = 32;
const SMALL_UNIT_BYTES: usize = 8;

/// What is uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes in all.
    pub size: u64,
    /// Name of the upload: a later one with the same name goes on where this one stopped. The file's SHA-256 where it is
    /// known, and the server may then check it.
    pub name: Vec<u8>,
    /// `name` is the file's SHA-256: what the server says about it counts.
    pub name_is_digest: bool,
    /// Number of the image; none = not sent.
    pub image: Option<u32>,
    /// Send `image` with each chunk: recovery wants that. Without it an upload does not go on into a recovery.
    pub repeat_image: bool,
    /// Number of the image in the list of images.
    pub listed_image: u32,
}

/// An upload under way.
#[derive(Debug)]
pub(super) struct Push {
    plan: Plan,
    packet_max: usize,
    at: At,
    /// What the server expects next.
    acknowledged: u64,
    /// What is sent next.
    next: u64,
    /// As far as anything was ever sent in this session.
    sent_to: u64,
    flight: VecDeque<Flying>,
    window: Window,
    timer: Option<Timer>,
    /// Requests whose answers were not waited for any longer: one that comes after all says that the wait was too short.
    given_up: Vec<Header>,
    tries: u8,
    /// Answers that took nothing.
    idle: u8,
    restarts: u8,
    starved: bool,
}

#[derive(Debug)]
enum At {
    /// The chunk that begins the upload is to be sent or awaited.
    First,
    /// All others.
    Body,
    /// Until then the line is left alone; then as before.
    Pause { until_ms: u64, first: bool },
    /// The images are asked for.
    Looking {
        command: Command,
        /// The first chunk had no answer and gets another try; it counts as no restart.
        retries_first: bool,
    },
    /// Whether that was the application is asked.
    Asking {
        command: Command,
        retries_first: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Flying {
    sent: Sent,
    offset: u64,
    length: u64,
    until_ms: u64,
}

/// A chunk that is a unit shorter than `room`, if it takes fewer lines and costs less than a hundredth of the rate.
fn shorter(room: usize, unit: usize, overhead: usize, framing: Framing) -> usize {
    let short = room.saturating_sub(unit);
    let (packet, other) = (room + overhead, short + overhead);
    let fewer = framing.pieces(other) < framing.pieces(packet);
    let cheap = 100 * short * framing.wire_bytes(packet) >= 99 * room * framing.wire_bytes(other);
    if fewer && cheap { short } else { room }
}

type End = Option<Result<Reply, ClientError>>;

impl Push {
    pub(super) fn new(now_ms: u64, plan: Plan, packet_max: usize, window: usize) -> Self {
        Self {
            plan,
            packet_max,
            at: At::Pause {
                until_ms: now_ms,
                first: true,
            },
            acknowledged: 0,
            next: 0,
            sent_to: 0,
            flight: VecDeque::new(),
            window: Window::new(window),
            timer: None,
            given_up: Vec::new(),
            tries: 0,
            idle: 0,
            restarts: 0,
            starved: false,
        }
    }

    pub(super) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) const fn is_starved(&self) -> bool {
        self.starved
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match &self.at {
            At::First | At::Body => self.silent_at_ms(),
            At::Pause { until_ms, .. } => Some(*until_ms),
            At::Looking { command, .. } | At::Asking { command, .. } => Some(command.deadline()),
        }
    }

    /// When nothing more is to be expected: a server that lost a chunk says so when it gets the one behind it.
    fn silent_at_ms(&self) -> Option<u64> {
        self.flight.back().map(|flying| flying.until_ms)
    }

    pub(super) fn poll(&mut self, now_ms: u64, link: &mut Link, source: &mut impl Source) -> End {
        if let At::Looking {
            command,
            retries_first,
        } = &mut self.at
        {
            let looked = command.poll(now_ms, link)?;
            let retries_first = *retries_first;
            return self.on_looked(now_ms, link, looked, retries_first, source);
        }
        if let At::Asking {
            command,
            retries_first,
        } = &mut self.at
        {
            let asked = command.poll(now_ms, link)?;
            let retries_first = *retries_first;
            return match asked {
                Ok(_) => Some(Err(ClientError::Recovery)),
                Err(ClientError::Refused(_)) => self.begin_anew(now_ms, retries_first),
                Err(error) => Some(Err(error)),
            };
        }
        while let Some((header, payload)) = link.inbox.pop_front() {
            let answered = |flying: &Flying| header.answers(&flying.sent.header);
            let Some(place) = self.flight.iter().position(answered) else {
                if self
                    .given_up
                    .iter()
                    .any(|given_up| header.answers(given_up))
                    && let Some(timer) = &mut self.timer
                {
                    timer.was_too_short();
                }
                continue;
            };
            match Reply::decode(&header, &payload) {
                Ok(Reply::Upload { offset, matches }) => {
                    let Some(flying) = self.flight.remove(place) else {
                        continue;
                    };
                    if let Some(end) = self.on_offset(now_ms, link, flying, offset, matches) {
                        return Some(end);
                    }
                    if matches!(self.at, At::Looking { .. }) {
                        return None;
                    }
                }
                Ok(Reply::Refused(refusal)) => return Some(Err(ClientError::Refused(refusal))),
                // As if it had not come.
                Ok(_) | Err(_) => {}
            }
        }
        match self.at {
            At::Pause { until_ms, first } if now_ms >= until_ms => {
                self.at = if first { At::First } else { At::Body };
            }
            At::Pause { .. } => return None,
            At::First | At::Body | At::Looking { .. } | At::Asking { .. } => {
                if self.silent_at_ms().is_some_and(|at_ms| now_ms >= at_ms) {
                    return self.on_silence(now_ms, link);
                }
            }
        }
        self.fill(now_ms, link, source)
    }

    /// Sends as much as the window and the file allow.
    fn fill(&mut self, now_ms: u64, link: &mut Link, source: &mut impl Source) -> End {
        self.starved = false;
        loop {
            let first = matches!(self.at, At::First);
            let room = if first { 1 } else { self.window.now() };
            if self.flight.len() >= room || self.next >= self.plan.size {
                return None;
            }
            let Some(most) = self.chunk_max(first, link.framing) else {
                return Some(Err(ClientError::TooSmall));
            };
            let whole = most.min(self.plan.size - self.next);
            let length = whole.min(source.held().saturating_sub(self.next));
            let length = if length == whole {
                whole
            } else {
                if !self.flight.is_empty() {
                    return None;
                }
                // The file comes more slowly than it goes: what there is of it goes while the line is idle anyway.
                self.window.on_starved();
                let units = length - length % UNIT_BYTES as u64;
                if units == 0 {
                    self.starved = true;
                    return None;
                }
                units
            };
            let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
            if !source.read(self.next, &mut data) {
                return Some(Err(ClientError::Source));
            }
            let sent = link.send(now_ms, &Request::Upload(self.chunk(first, &data)));
            let line_ms = link.wire_us(link.framing.wire_bytes(self.packet_max)) / 1000;
            let timer = self.timer.get_or_insert_with(|| Timer::new(line_ms));
            let wait_ms = if first { FIRST_MS } else { timer.wait_ms() };
            self.flight.push_back(Flying {
                sent,
                offset: self.next,
                length,
                until_ms: sent.left_ms + wait_ms,
            });
            self.next += length;
            self.sent_to = self.sent_to.max(self.next);
        }
    }

    fn chunk<'a>(&'a self, first: bool, data: &'a [u8]) -> Upload<'a> {
        let image = self.plan.image.filter(|_| first || self.plan.repeat_image);
        Upload {
            offset: Some(self.next),
            data: Some(data),
            size: first.then_some(self.plan.size),
            sha: first.then_some(&self.plan.name[..]),
            image,
            upgrade: false,
        }
    }

    /// Data that fits: what is left of the packet after everything else. Where several packets are under way a shorter one
    /// that needs a line less and carries as much of the line counts as the better one: each line lost costs them all.
    fn chunk_max(&self, first: bool, framing: Framing) -> Option<u64> {
        let empty = Request::Upload(self.chunk(first, &[])).encode(Version::V2, 0);
        // A byte string of up to 23 bytes has its length in one byte, larger ones in up to three.
        let room = self.packet_max.checked_sub(empty.len() + 2)?;
        let unit = if room >= 4 * UNIT_BYTES {
            UNIT_BYTES
        } else {
            SMALL_UNIT_BYTES
        };
        let room = room - room % unit;
        let room = if first || self.window.now() == 1 {
            room
        } else {
            shorter(room, unit, empty.len() + 2, framing)
        };
        // The first chunk has to hold the image's header.
        let least = if first { UNIT_BYTES } else { SMALL_UNIT_BYTES };
        (room >= least).then_some(room as u64)
    }

    fn on_offset(
        &mut self,
        now_ms: u64,
        link: &mut Link,
        flying: Flying,
        offset: u64,
        matches: Option<bool>,
    ) -> End {
        let first = matches!(self.at, At::First | At::Pause { first: true, .. });
        if matches == Some(false) && self.plan.name_is_digest {
            return Some(Err(ClientError::Mismatch));
        }
        if offset > self.plan.size || offset == 0 {
            // It lost the upload, has just finished it, or somebody else uploads something else.
            self.look(now_ms, link, false);
            return None;
        }
        if first {
            self.sent_to = self.sent_to.max(offset);
        } else if offset < self.acknowledged || offset > self.sent_to {
            // No session of ours goes back, or where nothing was sent: it is somebody else's, and our bytes behind
            // theirs would be neither's image.
            self.look(now_ms, link, false);
            return None;
        }
        if offset == self.plan.size {
            return Some(Ok(Reply::Upload { offset, matches }));
        }
        let expected = flying.offset + flying.length;
        if !first && let Some(timer) = &mut self.timer {
            timer.sample(now_ms.saturating_sub(flying.sent.left_ms));
        }
        if offset > self.acknowledged {
            (self.tries, self.idle) = (0, 0);
            if !first {
                self.window.on_answer(now_ms, offset - self.acknowledged);
            }
        } else if !first {
            self.window.on_loss(now_ms, true);
            self.idle += 1;
            if self.idle == TAKES_NOTHING_MAX {
                self.look(now_ms, link, false);
                return None;
            }
        }
        self.acknowledged = offset;
        self.at = At::Body;
        if offset == expected {
            // What flew before it was taken, though its answer was lost.
            self.flight.retain(|other| other.offset >= offset);
        } else {
            // Dropped for a gap, taken in part, or further on than thought: go on exactly there, at once. Answers to what
            // is still under way say the same and are not waited for.
            self.flight.clear();
            self.next = offset;
        }
        None
    }

    fn on_silence(&mut self, now_ms: u64, link: &mut Link) -> End {
        let first = matches!(self.at, At::First);
        self.tries += 1;
        self.window.on_loss(now_ms, false);
        self.next = self.acknowledged;
        if first || self.tries.is_multiple_of(SMALLER_AFTER_TRIES) {
            let half = (self.packet_max / 2).max(PACKET_MIN_BYTES);
            self.packet_max = self.packet_max.min(half);
        }
        if first || self.tries >= CHUNK_TRIES {
            self.look(now_ms, link, first && self.tries < FIRST_TRIES);
            return None;
        }
        if let Some(timer) = &mut self.timer {
            timer.back_off();
        }
        self.given_up = self.flight.drain(..).map(|f| f.sent.header).collect();
        link.clear();
        self.at = At::Pause {
            until_ms: now_ms + PAUSE_MS,
            first: false,
        };
        None
    }

    fn look(&mut self, now_ms: u64, link: &mut Link, retries_first: bool) {
        self.flight.clear();
        link.clear();
        self.at = At::Looking {
            command: Command::new(now_ms, Order::Images, link),
            retries_first,
        };
    }

    fn on_looked(
        &mut self,
        now_ms: u64,
        link: &mut Link,
        looked: Result<Reply, ClientError>,
        retries_first: bool,
        source: &mut impl Source,
    ) -> End {
        let images = match looked {
            Ok(Reply::Images(images)) => images,
            Ok(_) => return Some(Err(ClientError::Malformed)),
            Err(ClientError::Silent) if retries_first && self.tries < FIRST_LOOKS => {
                self.tries += 1;
                self.look(now_ms, link, true);
                return None;
            }
            Err(error) => return Some(Err(error)),
        };
        let hash = source.hash();
        let there = |image: &ImageState| {
            image.image == self.plan.listed_image
                && !image.active
                && hash.as_ref().is_some_and(|hash| *hash == image.hash)
        };
        if images.iter().any(there) {
            return Some(Ok(Reply::Upload {
                offset: self.plan.size,
                matches: None,
            }));
        }
        // Of several images a server may call but the application's own active.
        let runs = |image: &ImageState| image.active;
        if self.plan.repeat_image {
            return self.begin_anew(now_ms, retries_first);
        }
        if !images.iter().any(runs) {
            return Some(Err(ClientError::Recovery));
        }
        self.at = At::Asking {
            command: Command::new(now_ms, Order::ConsoleEchoOff, link),
            retries_first,
        };
        None
    }

    fn begin_anew(&mut self, now_ms: u64, retries_first: bool) -> End {
        if !retries_first {
            if self.restarts == RESTARTS_MAX {
                return Some(Err(ClientError::Restarts));
            }
            self.restarts += 1;
            self.tries = 0;
        }
        self.acknowledged = 0;
        self.next = 0;
        self.sent_to = 0;
        self.at = At::Pause {
            until_ms: now_ms,
            first: true,
        };
        None
    }
}
