//! A candidate beside the live agent: it is asked what the live one is asked, given the live answers where it calls the
//! same, and nothing that it does leaves.
//!
//! The candidate runs in a thread of its own, behind a queue: the live agent only hands copies over, and never waits. A
//! queue that is full, a call that the live agent did not make, a trap or a refusal end the shadow run, with a report; the
//! live agent does not notice. The candidate has the budget of any agent: fuel, time, memory. The report tells what differs
//! as a trace would, without images and secrets. Not here: what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::replay::{Difference, Follower};
use super::tap::{Ask, Exchange, Listener};
use super::{AgentBuild, Event};

/// Exchanges that may wait for the candidate: it has the time that the live agent's storage and network take.
pub const WAITING_MAX: usize = 1024;

/// Bytes of events that may wait: some seconds of blocks on a fast line.
pub const WAITING_MAX_BYTES: usize = 8 * 1024 * 1024;

/// How a shadow run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShadowEnd {
    /// The candidate did something else.
    Differs(Box<Difference>),
    /// The candidate is slower than the live agent, or the live agent said more at once than is kept; this many exchanges
    /// were followed.
    FellBehind(u64),
    /// The device has ended; the candidate did the same all the way.
    Over(u64),
}

/// Who is told how the run ended, once, on the shadow's thread.
pub type Report = Box<dyn FnOnce(ShadowEnd) + Send>;

/// Listens for a candidate. Give it to [`tapped`](super::tap::tapped).
#[derive(Debug)]
pub struct Shadow {
    /// Nothing once the run has ended.
    way: Option<SyncSender<Exchange>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    behind: AtomicBool,
    waiting_bytes: AtomicUsize,
}

impl Shadow {
    /// Let a candidate follow. It begins with the next start of the live agent.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(candidate: Arc<AgentBuild>, report: Report) -> std::io::Result<Self> {
        let (way, arriving) = sync_channel(WAITING_MAX);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("shadow".to_owned())
            .spawn(move || {
                let end = follow(&candidate, &arriving, &of_thread);
                of_thread.ended.store(true, Ordering::SeqCst);
                // Those who hand over see that nobody takes any more.
                drop(arriving);
                report(end);
            })?;
        Ok(Self {
            way: Some(way),
            shared,
        })
    }
}

fn follow(
    candidate: &Arc<AgentBuild>,
    arriving: &Receiver<Exchange>,
    shared: &Shared,
) -> ShadowEnd {
    let mut follower = Follower::live(candidate);
    let mut began = false;
    while let Ok(exchange) = arriving.recv() {
        let bytes = weight(&exchange);
        began |= matches!(exchange.ask, Ask::Start(_));
        if began && let Err(difference) = follower.follow(exchange) {
            return ShadowEnd::Differs(difference);
        }
        shared.waiting_bytes.fetch_sub(bytes, Ordering::SeqCst);
    }
    match shared.behind.load(Ordering::SeqCst) {
        true => ShadowEnd::FellBehind(follower.exchanges),
        false => ShadowEnd::Over(follower.exchanges),
    }
}

/// Bytes that an exchange holds, as far as they count.
fn weight(exchange: &Exchange) -> usize {
    let calls = exchange.calls.iter();
    let said: usize = calls
        .map(|(order, answer)| order.bytes() + answer.bytes())
        .sum();
    let asked = match &exchange.ask {
        Ask::Event(Event::Messages(messages)) => messages.iter().map(|m| m.payload.len()).sum(),
        Ask::Event(Event::HttpResponse { body, .. }) => body.len(),
        Ask::Event(Event::Custom { bytes, .. }) => bytes.len(),
        Ask::Event(_) | Ask::Start(_) | Ask::Status | Ask::Snapshot => 0,
    };
    said + asked
}

impl Listener for Shadow {
    fn hear(&mut self, exchange: Exchange) {
        let Some(way) = &self.way else { return };
        let bytes = weight(&exchange);
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::SeqCst);
        let full = waiting + bytes > WAITING_MAX_BYTES;
        let sent = match full {
            true => Err(TrySendError::Full(exchange)),
            false => way.try_send(exchange),
        };
        if let Err(error) = sent {
            if matches!(error, TrySendError::Full(_)) {
                self.shared.behind.store(true, Ordering::SeqCst);
            }
            self.way = None;
        }
    }

    fn miss(&mut self) {
        if self.way.take().is_some() {
            self.shared.behind.store(true, Ordering::SeqCst);
        }
    }

    fn is_listening(&self) -> bool {
        self.way.is_some() && !self.shared.ended.load(Ordering::SeqCst)
    }
}
