//! The bandwidth cap of a process, and the shares of the devices that receive.
//!
//! An operator says how many bytes a second may come in, by time of day. Devices that receive an image share that: each
//! gets what it can use, and nobody less than an equal part unless it uses less. A device's agent is told its share
//! (`event.allowance`) and asks for no more; what it receives all the same is held against it here, so that envelopes and
//! heads are paid for too, and an agent that does not listen is slowed down at its own calls (`device/pace.rs`).
//!
//! No clock and no threads: whoever owns a seat tells the time. Not here: bytes that leave (a request is small), and what
//! other programs of the gateway do with its link.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::agent::Context;
use crate::ports::workers::Wake;

pub use self::cap::{Cap, RATE_MAX_BYTES_PER_S, Span, SpanError};

mod cap;
mod share;
#[cfg(test)]
mod tests;

/// No cap, as an agent is told.
pub const NO_CAP: u64 = u64::MAX;

/// Shares are looked at again after this long, in milliseconds: how fast an agent learns of the next hour's cap, or that
/// another device has become slower.
const LOOK_EVERY_MS: u64 = 1000;

/// Most bytes of one request; what one may bring at once must fit into the bucket.
const REQUEST_MAX_BYTES: u64 = 128 * 1024;

/// How far back envelopes are measured: eight requests.
const MEASURED_BYTES: u64 = 8 * REQUEST_MAX_BYTES;

/// A device that is not known to receive, and receives so much in one message, does. Control messages are smaller, and
/// what they cost is not worth a share.
const DATA_MIN_BYTES: u64 = 4096;

/// For how long such a message makes it one that receives, in milliseconds.
const TRAFFIC_MS: u64 = 2000;

/// The cap, shared. Clones are the same one.
#[derive(Clone)]
pub struct Bandwidth(Arc<Mutex<Shared>>);

impl fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = lock(&self.0);
        f.debug_struct("Bandwidth")
            .field("cap", &shared.cap)
            .field("seats", &shared.chairs.len())
            .finish_non_exhaustive()
    }
}

impl Bandwidth {
    /// Nobody receives yet.
    #[must_use]
    pub fn new(cap: Cap) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            cap,
            chairs: BTreeMap::new(),
            next: 0,
            filled_ms: 0,
            looked_ms: 0,
        })))
    }

    /// A place for a device; `wake` is called when another one changes its share.
    #[must_use]
    pub fn seat(&self, wake: Wake) -> Seat {
        let mut shared = lock(&self.0);
        let id = shared.next;
        shared.next += 1;
        shared.chairs.insert(id, Chair::new(wake));
        Seat {
            shared: Arc::clone(&self.0),
            id,
        }
    }
}

/// A device's place at the table; dropping it leaves its share to the others.
pub struct Seat {
    shared: Arc<Mutex<Shared>>,
    id: u64,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.chairs.remove(&self.id);
        // The others see it at their next look.
        shared.looked_ms = 0;
    }
}

impl Seat {
    /// The device receives an image, or no longer does.
    pub fn receives(&mut self, now: Context, receives: bool) {
        let mut shared = lock(&self.shared);
        if shared.chair(self.id, |chair| chair.receives != receives) {
            shared.chair(self.id, |chair| chair.receives = receives);
            shared.look(now);
        }
    }

    /// So many bytes have come that [`Seat::take`] was not asked for.
    pub fn on_bytes(&mut self, now: Context, bytes: u64) {
        let mut shared = lock(&self.shared);
        shared.notice(now, self.id, bytes);
        shared.chair(self.id, |chair| {
            if chair.is_active {
                chair.pay(bytes);
                chair.measure(bytes);
            }
        });
    }

    /// So many bytes of the image were in what came: what else came is envelope.
    pub fn on_payload(&mut self, bytes: u64) {
        lock(&self.shared).chair(self.id, |chair| chair.payload += bytes);
    }

    /// Whether so many bytes may be asked for now; then they are paid for.
    pub fn take(&mut self, now: Context, bytes: u64) -> bool {
        let mut shared = lock(&self.shared);
        shared.notice(now, self.id, bytes.max(DATA_MIN_BYTES));
        shared.chair(self.id, |chair| {
            let may = chair.missing(bytes) == 0;
            if may {
                chair.pay(bytes);
            }
            may
        })
    }

    /// Milliseconds until [`Seat::take`] is worth another try.
    #[must_use]
    pub fn wait_ms(&self, bytes: u64) -> u64 {
        lock(&self.shared).chair(self.id, |chair| match chair.share {
            0 => LOOK_EVERY_MS,
            share => chair.missing(bytes).div_ceil(share).clamp(1, LOOK_EVERY_MS),
        })
    }

    /// Bytes received beyond what the share allowed.
    #[must_use]
    pub fn debt_bytes(&self) -> u64 {
        lock(&self.shared).chair(self.id, |chair| chair.debt_bytes())
    }

    /// What the agent may ask for, in payload bytes a second: its share, less a part of its debt. [`NO_CAP`] = as much as
    /// it likes.
    pub fn allowance(&mut self, now: Context) -> u64 {
        let mut shared = lock(&self.shared);
        shared.poll(now);
        shared.chair(self.id, |chair| chair.allowance())
    }

    /// When shares are looked at again; none = it has none.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let mut shared = lock(&self.shared);
        let at = shared.looked_ms + LOOK_EVERY_MS;
        shared.chair(self.id, |chair| chair.is_active.then_some(at))
    }
}

struct Shared {
    cap: Cap,
    chairs: BTreeMap<u64, Chair>,
    next: u64,
    /// Up to when the buckets are filled.
    filled_ms: u64,
    looked_ms: u64,
}

impl Shared {
    fn chair<R>(&mut self, id: u64, look: impl FnOnce(&mut Chair) -> R) -> R {
        // A seat puts its chair there and takes it away.
        look(self.chairs.entry(id).or_insert_with(|| {
            let nobody: Wake = Arc::new(|| {});
            Chair::new(nobody)
        }))
    }

    fn poll(&mut self, now: Context) {
        if now.now_ms >= self.looked_ms + LOOK_EVERY_MS {
            self.look(now);
        } else {
            self.fill(now.now_ms);
        }
    }

    /// Bytes come for this one: if it was not known to receive, it is now.
    fn notice(&mut self, now: Context, id: u64, bytes: u64) {
        let news = bytes >= DATA_MIN_BYTES
            && self.chair(id, |chair| {
                chair.busy_until_ms = now.now_ms + TRAFFIC_MS;
                !chair.is_active
            });
        if news {
            self.look(now);
        } else {
            self.poll(now);
        }
    }

    fn fill(&mut self, now_ms: u64) {
        let ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = self.filled_ms.max(now_ms);
        for chair in self.chairs.values_mut() {
            chair.fill(ms);
        }
    }

    /// Shares the cap anew.
    fn look(&mut self, now: Context) {
        self.fill(now.now_ms);
        self.looked_ms = now.now_ms;
        let rate = self.cap.at(now.wall_s);
        for chair in self.chairs.values_mut() {
            chair.look(now.now_ms);
        }
        let active = || self.chairs.values().filter(|chair| chair.is_active);
        let shares = match rate {
            Some(rate) => share::split(rate, &active().map(|c| c.demand).collect::<Vec<_>>()),
            None => vec![NO_CAP; active().count()],
        };
        let receiving = self.chairs.values_mut().filter(|chair| chair.is_active);
        for (chair, share) in receiving.zip(shares) {
            if chair.share != share {
                chair.share = share;
                // It may be this very device, which is then polled once more.
                (chair.wake)();
            }
        }
        // What one would have that begins now; its first request finds its true share.
        let resting = self.chairs.values_mut().filter(|chair| !chair.is_active);
        for chair in resting {
            chair.share = rate.unwrap_or(NO_CAP);
        }
    }
}

/// A device at the table.
struct Chair {
    receives: bool,
    /// Data came of late.
    busy_until_ms: u64,
    /// It has a share.
    is_active: bool,
    /// Bytes a second.
    share: u64,
    /// What it may have now, in thousandths of a byte; below 0 it has had more than that.
    level: i64,
    /// Bytes since `since_ms`, to see what it can use.
    used: u64,
    since_ms: u64,
    /// Bytes of messages of late, and of the image in them.
    messages: u64,
    payload: u64,
    /// Bytes a second that it can use at most; none = all that it is given.
    demand: Option<u64>,
    wake: Wake,
}

impl Chair {
    fn new(wake: Wake) -> Self {
        Self {
            receives: false,
            busy_until_ms: 0,
            is_active: false,
            share: NO_CAP,
            level: 0,
            used: 0,
            since_ms: 0,
            messages: 0,
            payload: 0,
            demand: None,
            wake,
        }
    }

    /// The bucket holds one request and what comes in 20 ms, so nothing worth mentioning is saved up.
    fn depth(&self) -> i64 {
        let bytes = REQUEST_MAX_BYTES + self.share.min(RATE_MAX_BYTES_PER_S) / 50;
        i64::try_from(bytes * 1000).unwrap_or(i64::MAX)
    }

    fn fill(&mut self, ms: u64) {
        if self.share == NO_CAP {
            self.level = self.depth();
            return;
        }
        if self.is_active {
            let more = i64::try_from(self.share.saturating_mul(ms)).unwrap_or(i64::MAX);
            self.level = self.level.saturating_add(more).min(self.depth());
        }
    }

    fn look(&mut self, now_ms: u64) {
        let was_active = self.is_active;
        self.is_active = self.receives || now_ms < self.busy_until_ms;
        if self.is_active && !was_active {
            // Who rested has saved nothing up.
            self.level = self.level.min(0);
            (self.used, self.since_ms, self.demand) = (0, now_ms, None);
            (self.messages, self.payload) = (0, 0);
        }
        let ms = now_ms.saturating_sub(self.since_ms);
        if self.is_active && ms >= share::watched_ms(self.share) {
            self.demand = share::demand(self.share, self.used.saturating_mul(1000) / ms.max(1));
            (self.used, self.since_ms) = (0, now_ms);
        }
    }

    fn pay(&mut self, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        if self.share != NO_CAP {
            let cost = i64::try_from(bytes.saturating_mul(1000)).unwrap_or(i64::MAX);
            self.level = self.level.saturating_sub(cost);
        }
    }

    /// Thousandths of a byte that are missing for so many bytes.
    fn missing(&self, bytes: u64) -> u64 {
        if self.share == NO_CAP {
            return 0;
        }
        // What is larger than the bucket goes when it is full.
        let cost = i64::try_from(bytes.saturating_mul(1000)).unwrap_or(i64::MAX);
        let missing = cost.min(self.depth()).saturating_sub(self.level);
        u64::try_from(missing).unwrap_or(0)
    }

    fn debt_bytes(&self) -> u64 {
        u64::try_from(self.level.saturating_neg()).unwrap_or(0) / 1000
    }

    fn allowance(&self) -> u64 {
        if self.share == NO_CAP {
            return NO_CAP;
        }
        let payload = self.payload_part();
        // A debt is paid back within some seconds.
        payload - (self.debt_bytes() / 4).min(payload / 4)
    }

    fn measure(&mut self, bytes: u64) {
        self.messages += bytes;
        if self.messages > MEASURED_BYTES {
            self.messages /= 2;
            self.payload /= 2;
        }
    }

    /// Of the share, what is left for the image when its messages are as they have been. Ranges say what they cost, and do
    /// not count here.
    fn payload_part(&self) -> u64 {
        if self.messages < REQUEST_MAX_BYTES / 2 || self.payload >= self.messages {
            return self.share;
        }
        // Both are small; a part below a half is no envelope but blocks that came in vain.
        let payload = self.payload.max(self.messages / 2);
        self.share / self.messages * payload + self.share % self.messages * payload / self.messages
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
