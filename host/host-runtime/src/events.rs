//! The ring of application events of one device: durable before anybody sees them, bounded, read with a cursor.
//!
//! The agent counts its events and has each one in its journal before it emits it; the ring takes every number once.
//! An event is shown to readers after it has reached the medium, so a reader never sees one that a power cut takes
//! back. Whoever reads through [`EventRing::next`] says by asking for the next event that it is done with the last one;
//! that place is durable too, so every event is delivered at least once. Not here: what an event means.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::agent::ApplicationEvent;
use crate::desk::Desk;
use crate::ports::workers::{Work, told};

use self::kept::Kept;

mod file;
mod kept;

/// Events kept. A job makes some five, so this is the story of the last fifty jobs.
pub const EVENTS_MAX: usize = 256;

/// Bytes of events kept: the documents of eight of the largest jobs.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// The log is written anew when it is twice as long as it was after the last time; below this length, in bytes, that is not
/// worth it. Some 300 bytes an event make 80 KiB of a full ring.
const LOG_BYTES_MIN: usize = 128 * 1024;

/// Most bytes of an event's document; the contract's limit.
pub const DOCUMENT_MAX_BYTES: usize = 128 * 1024;

/// Events that may wait for a medium that takes nothing. After that the oldest are lost, and counted.
const PENDING_MAX: usize = 64;

/// Time between two tries to write to a medium that failed, in milliseconds: a full disk does not heal in less.
const RETRY_MS: u64 = 5000;

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredEvent {
    /// Seconds since 1970 when it was emitted, if they were known.
    pub at_s: Option<u64>,
    /// What the agent said.
    #[serde(flatten)]
    pub event: ApplicationEvent,
}

/// The ring. Clones are the same ring; it can be read after its device has ended.
#[derive(Clone)]
pub struct EventRing {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for EventRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventRing")
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

struct Shared {
    ring: Mutex<Ring>,
    /// Readers wait on it: there is more on the medium, or the device has ended.
    news: Notify,
    desk: Arc<Desk>,
}

/// Names of the files in the state directory.
const LOG: &str = "events.log";
const CURSOR: &str = "cursor";

/// A write under way, and what is true when it has worked.
#[derive(Debug)]
struct Writing {
    /// So many of `pending` are on the medium.
    count: usize,
    /// Length of the log file.
    log_bytes: usize,
    /// It was written anew.
    is_anew: bool,
    /// The reader's place, if it is written too.
    cursor: Option<u64>,
}

/// What happens to the log file.
enum LogWrite {
    Nothing,
    Append(Vec<u8>),
    Anew(Vec<u8>),
}

#[derive(Default)]
struct Ring {
    /// On the medium, oldest first.
    events: VecDeque<Kept>,
    /// Sum of their sizes.
    bytes: usize,
    /// Bytes in the log file.
    log_bytes: usize,
    /// Bytes of the log file when it was last written anew.
    whole_bytes: usize,
    /// The log file may end in a torn record, or is too long: write it anew.
    rewrite: bool,
    /// What is on its way to the medium; mostly nothing is.
    pen: Option<Box<Pen>>,
    /// The last event that `next` has handed out.
    handed_out: u64,
    /// The last event that its reader is done with.
    done_with: u64,
    /// Of `done_with`, what is on the medium; `None` = nothing has ever been written there.
    done_with_stored: Option<u64>,
    /// There is a reader whose place is to be kept.
    has_reader: bool,
    /// The device has ended: nothing will come any more.
    ended: bool,
}

/// What is on its way to the medium.
#[derive(Default)]
struct Pen {
    /// Not on the medium yet.
    pending: VecDeque<StoredEvent>,
    /// The write under way.
    writing: Option<Writing>,
    /// How it ended, put here by its worker.
    end: Option<io::Result<()>>,
    /// Not before this instant.
    retry_at_ms: Option<u64>,
    /// Events that never reached the medium.
    lost: u64,
    last_error: Option<String>,
}

impl Pen {
    /// Whether there is nothing to be remembered.
    fn is_idle(&self) -> bool {
        let works = self.writing.is_some() || self.end.is_some() || self.retry_at_ms.is_some();
        !works && self.pending.is_empty() && self.lost == 0 && self.last_error.is_none()
    }
}

impl EventRing {
    /// Read a device's ring from its state files.
    ///
    /// # Errors
    /// What the medium says. Damage is no error: what can be read is kept.
    pub(crate) fn load(desk: Arc<Desk>) -> io::Result<Self> {
        let log = desk.file(LOG);
        let mut ring = Ring::default();
        if let Some(bytes) = desk.state.load(&log)? {
            let found = file::decode(&bytes);
            if let Some(lost) = found.lost_bytes {
                let left = found.items.len();
                tracing::warn!(
                    file = %log,
                    "the event log is damaged: {left} events can be read, {lost} bytes are lost"
                );
            }
            ring.rewrite = !found.is_whole;
            ring.log_bytes = bytes.len();
            ring.events
                .reserve_exact(found.items.len().min(EVENTS_MAX + 1));
            for event in found.items {
                ring.keep(event, &desk.device);
            }
            if ring.log_bytes > LOG_BYTES_MIN {
                ring.whole_bytes = ring.whole(&VecDeque::new()).len();
            }
        }
        let last = ring.last();
        let done_with = desk.state.load(&desk.file(CURSOR))?.and_then(|bytes| {
            std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok())
        });
        // A place beyond the end would hide events from their reader.
        ring.done_with = done_with.unwrap_or(0).min(last);
        ring.done_with_stored = done_with;
        // Nor may it stand there when there are more.
        ring.has_reader = done_with.is_some_and(|stored| stored != ring.done_with);
        ring.handed_out = ring.done_with;
        Ok(Self {
            shared: Arc::new(Shared {
                ring: Mutex::new(ring),
                news: Notify::new(),
                desk,
            }),
        })
    }

    /// Take an event from the agent; a number that is there already is ignored.
    pub(crate) fn emit(&self, at_s: Option<u64>, event: ApplicationEvent) {
        let mut ring = self.lock();
        if event.sequence <= ring.last_taken() {
            tracing::debug!(sequence = event.sequence, "event stored already");
            return;
        }
        let pen = ring.pen();
        pen.pending.push_back(StoredEvent { at_s, event });
        // What a write under way has in hand cannot be taken out.
        let in_hand = pen.writing.as_ref().map_or(0, |writing| writing.count);
        if pen.pending.len() - in_hand > PENDING_MAX {
            pen.pending.remove(in_hand);
            pen.lost += 1;
        }
        drop(ring);
        (self.shared.desk.wake)();
    }

    /// Move the writing on; returns when to be called again at the latest.
    pub(crate) fn poll(&self, now_ms: u64) -> Option<u64> {
        let mut ring = self.lock();
        let end = ring.pen.as_mut().and_then(|pen| pen.end.take());
        if let Some(end) = end {
            ring.on_written(end, now_ms, &self.shared.desk.device);
            self.shared.news.notify_waiters();
        }
        if ring.is_writing() || !ring.has_work() {
            return None;
        }
        let pen = ring.pen();
        if let Some(at) = pen.retry_at_ms
            && at > now_ms
        {
            return Some(at);
        }
        pen.retry_at_ms = None;
        let work = self.next_write(&mut ring);
        // Workers may run it at once, on this thread.
        drop(ring);
        self.shared.desk.workers.run(work);
        None
    }

    /// Highest number taken from the agent, on the medium or on its way there.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.lock().last_taken()
    }

    /// Events that the medium did not take.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lock().pen.as_ref().map_or(0, |pen| pen.lost)
    }

    /// Why the last write failed; `None` once one has worked again.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.lock().pen.as_ref()?.last_error.clone()
    }

    /// Stored events with numbers above `cursor`, oldest first, at most `max`. A gap means that the ring was full.
    #[must_use]
    pub fn after(&self, cursor: u64, max: usize) -> Vec<StoredEvent> {
        let ring = self.lock();
        ring.events
            .iter()
            .filter(|kept| kept.sequence > cursor)
            .take(max)
            .filter_map(Kept::open)
            .collect()
    }

    /// Wait for events with numbers above `cursor`; empty only when the device has ended and there are none.
    pub async fn wait_after(&self, cursor: u64, max: usize) -> Vec<StoredEvent> {
        loop {
            // News count from here on.
            let news = self.shared.news.notified();
            let events = self.after(cursor, max);
            if !events.is_empty() || self.lock().ended {
                return events;
            }
            news.await;
        }
    }

    /// The next event for the application, which is done with the one before. `None` when the device has ended. One
    /// reader at a time: two would share the events between them.
    pub async fn next(&self) -> Option<StoredEvent> {
        let cursor = {
            let mut ring = self.lock();
            ring.done_with = ring.handed_out;
            ring.has_reader = true;
            ring.handed_out
        };
        (self.shared.desk.wake)();
        let next = self.wait_after(cursor, 1).await.pop()?;
        self.lock().handed_out = next.event.sequence;
        Some(next)
    }

    /// Where a reader that works on several events at once goes on after a restart: it is done with this one and all
    /// before it. `None` = there has never been a reader.
    #[must_use]
    pub fn reader_place(&self) -> Option<u64> {
        let ring = self.lock();
        ring.done_with_stored.map(|_| ring.done_with)
    }

    /// The reader is done with this event and all before it; for readers who do not use [`next`](Self::next).
    pub fn set_reader_place(&self, sequence: u64) {
        {
            let mut ring = self.lock();
            ring.done_with = sequence;
            ring.handed_out = sequence;
            ring.has_reader = true;
        }
        (self.shared.desk.wake)();
    }

    /// Give back the room that is not used.
    pub(crate) fn shrink(&self) {
        let mut ring = self.lock();
        ring.events.shrink_to_fit();
        ring.pen.take_if(|pen| pen.is_idle());
    }

    /// Whether nothing is to be stored.
    pub(crate) fn is_quiet(&self) -> bool {
        let ring = self.lock();
        !ring.is_writing() && !ring.has_work()
    }

    /// The device has ended: readers stop waiting.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.shared.news.notify_waiters();
    }

    fn next_write(&self, ring: &mut Ring) -> Work {
        let (log, log_bytes) = ring.next_log_write();
        let cursor = ring.has_moved().then_some(ring.done_with);
        let pen = ring.pen();
        pen.writing = Some(Writing {
            count: pen.pending.len(),
            log_bytes,
            is_anew: matches!(log, LogWrite::Anew(_)),
            cursor,
        });
        if !matches!(log, LogWrite::Nothing) {
            // Until it has worked: it may leave half a record.
            ring.rewrite = true;
        }
        let (writer, shared) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        let lost = Err(io::Error::other("the worker that wrote them has died"));
        told(
            lost,
            move || writer.write(&log, cursor),
            move |end| {
                let mut ring = shared.ring.lock().unwrap_or_else(PoisonError::into_inner);
                ring.pen().end = Some(end);
                drop(ring);
                (shared.desk.wake)();
            },
        )
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.shared
            .ring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn write(&self, log: &LogWrite, cursor: Option<u64>) -> io::Result<()> {
        let desk = &self.desk;
        // The place first: one beyond the end would hide what the log is given.
        if let Some(cursor) = cursor {
            let place = cursor.to_string();
            desk.state.store(&desk.file(CURSOR), place.as_bytes())?;
        }
        match log {
            LogWrite::Nothing => Ok(()),
            LogWrite::Append(bytes) => desk.state.append(&desk.file(LOG), bytes, true),
            LogWrite::Anew(bytes) => desk.state.store(&desk.file(LOG), bytes),
        }
    }
}

impl Ring {
    fn last(&self) -> u64 {
        self.events.back().map_or(0, |kept| kept.sequence)
    }

    fn last_taken(&self) -> u64 {
        let pending = self.pen.as_ref().and_then(|pen| pen.pending.back());
        pending.map_or_else(|| self.last(), |stored| stored.event.sequence)
    }

    fn pen(&mut self) -> &mut Pen {
        self.pen.get_or_insert_default()
    }

    fn is_writing(&self) -> bool {
        self.pen.as_ref().is_some_and(|pen| pen.writing.is_some())
    }

    fn has_work(&self) -> bool {
        self.pen.as_ref().is_some_and(|pen| !pen.pending.is_empty()) || self.has_moved()
    }

    /// Whether the reader's place is another one than on the medium.
    fn has_moved(&self) -> bool {
        self.has_reader && self.done_with_stored != Some(self.done_with)
    }

    /// The pending events as a change of the log file, and its length after that.
    fn next_log_write(&self) -> (LogWrite, usize) {
        let pending = self.pen.as_ref().map(|pen| &pen.pending);
        let Some(pending) = pending.filter(|pending| !pending.is_empty()) else {
            return (LogWrite::Nothing, self.log_bytes);
        };
        // So events that the ring has let go leave the file, and no more is written anew than was appended.
        let long = self.log_bytes > LOG_BYTES_MIN.max(2 * self.whole_bytes);
        if self.rewrite || long || self.log_bytes == 0 {
            let bytes = self.whole(pending);
            let length = bytes.len();
            return (LogWrite::Anew(bytes), length);
        }
        let bytes = file::encode(pending.iter());
        let length = self.log_bytes + bytes.len();
        (LogWrite::Append(bytes), length)
    }

    /// The log with these events more.
    fn whole(&self, more: &VecDeque<StoredEvent>) -> Vec<u8> {
        let kept: Vec<StoredEvent> = self.events.iter().filter_map(Kept::open).collect();
        file::encode_all(kept.iter().chain(more))
    }

    fn on_written(&mut self, end: io::Result<()>, now_ms: u64, device: &str) {
        let pen = self.pen();
        let Some(writing) = pen.writing.take() else {
            return;
        };
        match end {
            Ok(()) => {
                pen.last_error = None;
                let written: Vec<_> = pen.pending.drain(..writing.count).collect();
                pen.pending.shrink_to_fit();
                if writing.count > 0 {
                    self.rewrite = false;
                }
                self.log_bytes = writing.log_bytes;
                if writing.is_anew {
                    self.whole_bytes = writing.log_bytes;
                }
                if let Some(cursor) = writing.cursor {
                    self.done_with_stored = Some(cursor);
                }
                for event in written {
                    self.keep(event, device);
                }
            }
            Err(e) => {
                tracing::warn!(
                    device,
                    "application events are not stored: {e}; trying again"
                );
                pen.last_error = Some(format!("application events are not stored: {e}"));
                pen.retry_at_ms = Some(now_ms + RETRY_MS);
            }
        }
    }

    /// Keep an event that is on the medium; the oldest make room.
    fn keep(&mut self, event: StoredEvent, device: &str) {
        let sequence = event.event.sequence;
        let Some(event) = Kept::new(event) else {
            return tracing::error!(device, sequence, "the event cannot be kept");
        };
        self.bytes += event.size;
        // An event is rare, and most devices have few.
        self.events.reserve_exact(1);
        self.events.push_back(event);
        while self.events.len() > EVENTS_MAX
            || (self.bytes > EVENT_BYTES_MAX && self.events.len() > 1)
        {
            if let Some(old) = self.events.pop_front() {
                self.bytes -= old.size;
            }
        }
    }
}

#[cfg(test)]
mod tests;
