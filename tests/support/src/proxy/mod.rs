//! A TCP proxy that misbehaves on order: a link with a delay, a rate and losses, which also stalls, refuses and cuts
//! connections, drops or repeats whole MQTT messages and cuts HTTP range responses on plaintext ones.
//!
//! Bytes are never changed or reordered: what TCP cannot do, this does not do either. Losses are messages and
//! responses, never segments, since the kernel's TCP is on both sides. The link has one rate a direction, shared by
//! all connections. [`Proxy::half_open`] is a router that forgot its connections: both ends stay connected, nothing
//! moves any more, not even the end of the stream; [`Proxy::stall`] does so for a while and for new ones too.
//!
//! ```text
//!  client ──▶ reader ──▶ [filter] ──▶ queue (bounded, due times) ──▶ writer ──▶ upstream
//!  client ◀── writer ◀── queue ◀── [filter] ◀── reader ◀───────────────────────── upstream
//! ```
//!
//! ```
//! use std::time::Duration;
//! use support::proxy::{Loss, Proxy};
//!
//! let (_server, upstream) = support::net::listen()?;
//! // 100 Mbit/s and 50 ms there and back; one of twenty blocks is lost, the same ones in each run.
//! let loss = Loss::new(50, 7);
//! let link = Proxy::start_filtered(upstream, loss.of_topics(|topic| topic.contains("/data/")))?;
//! link.set_rate(Some(12_500_000));
//! link.set_delay(Duration::from_millis(25));
//! assert_eq!((loss.judged(), loss.lost()), (0, 0));
//! # Ok::<(), support::Error>(())
//! ```

mod link;
mod loss;
mod pipe;
mod response;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::deadline::{Deadline, wait_until};
use crate::mqtt::Packet;
use crate::{Error, net};

use link::Link;
pub use link::{Flow, LINK_QUEUE};
pub use loss::Loss;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server behind the proxy.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens to one MQTT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is lost.
    Drop,
    /// It goes on twice.
    Repeat,
}

/// Judges each MQTT packet. It is called in the order of the stream, from several threads for several connections.
pub type Filter = Arc<dyn Fn(Direction, &Packet) -> Verdict + Send + Sync>;

/// A running proxy; dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    sieve: Sieve,
}

/// What looks at the bytes before they go on.
enum Sieve {
    /// Nothing does.
    Open,
    /// Each MQTT packet is judged.
    Messages(Filter),
    /// Some of the HTTP range responses are cut.
    RangeResponses(Loss),
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    delay: Duration,
    /// The link, up and down.
    links: [Link; 2],
    stalled: bool,
    /// Connections that nothing goes through any more.
    forgotten: BTreeSet<u64>,
    refusing: bool,
    stopping: bool,
    accepted: u64,
    live: BTreeMap<u64, [TcpStream; 2]>,
    /// What has gone, up and down.
    flows: [Flow; 2],
    /// Cut everything once so many bytes were forwarded, up and down.
    cut_at: [Option<u64>; 2],
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }
}

impl State {
    fn cut(&mut self) -> usize {
        let live = std::mem::take(&mut self.live);
        self.forgotten.clear();
        for stream in live.values().flatten() {
            // It may be gone already, which is what we want.
            let _gone = stream.shutdown(Shutdown::Both);
        }
        live.len()
    }
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `upstream`.
    ///
    /// # Errors
    /// No port is free.
    pub fn start(upstream: SocketAddr) -> Result<Self, Error> {
        Self::start_inner(upstream, Sieve::Open)
    }

    /// The same for plaintext MQTT, with a filter that sees each packet.
    ///
    /// # Errors
    /// No port is free.
    pub fn start_filtered(
        upstream: SocketAddr,
        filter: impl Fn(Direction, &Packet) -> Verdict + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::start_inner(upstream, Sieve::Messages(Arc::new(filter)))
    }

    /// The same for plaintext HTTP/1.1: of the 206 answers with a `Content-Length`, `loss` chooses those whose body ends
    /// somewhere in its middle, with the connection.
    ///
    /// # Errors
    /// No port is free.
    pub fn start_cutting(upstream: SocketAddr, loss: &Loss) -> Result<Self, Error> {
        Self::start_inner(upstream, Sieve::RangeResponses(loss.clone()))
    }

    fn start_inner(upstream: SocketAddr, sieve: Sieve) -> Result<Self, Error> {
        let (listener, addr) = net::listen()?;
        let state = State {
            upstream,
            delay: Duration::ZERO,
            links: [Link::default(); 2],
            stalled: false,
            forgotten: BTreeSet::new(),
            refusing: false,
            stopping: false,
            accepted: 0,
            live: BTreeMap::new(),
            flows: [Flow::default(); 2],
            cut_at: [None; 2],
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            sieve,
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { addr, shared })
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where later connections go: a server that came back on another port.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.change(|state| state.upstream = upstream);
    }

    /// Delays bytes that come from now on by so long, in each direction.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.change(|state| state.delay = delay);
    }

    /// Limits each direction to so many payload bytes, all connections together; none = as fast as it goes. Up to
    /// [`LINK_QUEUE`] waits in front of the link, then the sender is held up.
    pub fn set_rate(&self, bytes_per_s: Option<u64>) {
        self.shared.change(|state| {
            for link in &mut state.links {
                link.set_rate(bytes_per_s);
            }
        });
    }

    /// Lets nothing through any longer, with all connections open.
    pub fn stall(&self) {
        self.shared.change(|state| state.stalled = true);
    }

    /// Ends [`Self::stall`]; what has waited goes on.
    pub fn resume(&self) {
        self.shared.change(|state| state.stalled = false);
    }

    /// Forgets all connections of now, and returns how many: they stay open, and nothing goes through them any more,
    /// neither bytes nor the end. New ones work. Only [`Self::cut`] or the end of the proxy ends them.
    pub fn half_open(&self) -> usize {
        self.shared.change(|state| {
            let before = state.forgotten.len();
            state.forgotten.extend(state.live.keys());
            state.forgotten.len() - before
        })
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refusing: bool) {
        self.shared.change(|state| state.refusing = refusing);
    }

    /// Cuts all connections and returns how many there were. New ones are welcome.
    pub fn cut(&self) -> usize {
        self.shared.change(State::cut)
    }

    /// Cuts all connections once, when so many more bytes have gone in this direction.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.change(|state| {
            let index = direction as usize;
            state.cut_at[index] = Some(state.flows[index].bytes() + bytes);
        });
    }

    /// Connections that were ever accepted and not refused.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Connections that are open now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.shared.lock().live.len()
    }

    /// Bytes that have gone in this direction.
    #[must_use]
    pub fn forwarded(&self, direction: Direction) -> u64 {
        self.flow(direction).bytes()
    }

    /// Bytes that have gone in this direction, with the instants of the first and the last: the payload rate.
    #[must_use]
    pub fn flow(&self, direction: Direction) -> Flow {
        self.shared.lock().flows[direction as usize]
    }

    /// Starts counting [`Self::flow`] of both directions anew. What [`Self::cut_after`] still waits for is dropped.
    pub fn reset_flows(&self) {
        self.shared.change(|state| {
            state.flows = [Flow::default(); 2];
            state.cut_at = [None; 2];
        });
    }

    /// Waits until `count` connections have ever been accepted. False = the deadline passed.
    #[must_use]
    pub fn wait_accepted(&self, count: u64, wait: Duration) -> bool {
        self.wait_for(wait, |state| state.accepted >= count)
    }

    /// Waits until so many bytes have gone in this direction. False = the deadline passed.
    #[must_use]
    pub fn wait_forwarded(&self, direction: Direction, bytes: u64, wait: Duration) -> bool {
        self.wait_for(wait, |state| {
            state.flows[direction as usize].bytes() >= bytes
        })
    }

    fn wait_for(&self, wait: Duration, reached: impl Fn(&State) -> bool) -> bool {
        let look = |state: &mut State| reached(state).then_some(());
        wait_until(
            self.shared.lock(),
            &self.shared.changed,
            Deadline::after(wait),
            look,
        )
        .1
        .is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.stopping = true;
            state.cut();
        });
        // Wakes the accepting thread. If nobody listens any more it has ended already.
        let _woken = TcpStream::connect(self.addr);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let (stopping, refusing, upstream) = {
            let state = shared.lock();
            (state.stopping, state.refusing, state.upstream)
        };
        if stopping {
            break;
        }
        let Ok(client) = client else { continue };
        if refusing {
            continue;
        }
        // A server that is down looks to the client like a connection that closes at once.
        let Ok(server) = TcpStream::connect(upstream) else {
            continue;
        };
        pipe::join(client, server, shared);
    }
}

#[cfg(test)]
mod tests;
