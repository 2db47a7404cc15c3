//! Kept connections, by server: who waits for one, who uses one, and when an idle one ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::connect::Connected;
use crate::url::Origin;

/// See the module.
pub(crate) struct Pool {
    connections_per_host_max: usize,
    idle_connections_max: usize,
    idle_connection_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Turns of the servers that somebody uses or waits for.
    turns: BTreeMap<Origin, Weak<Semaphore>>,
    /// Idle connections, the one used last at the end.
    idle: BTreeMap<Origin, Vec<Idle>>,
    idle_count: usize,
    is_reaping: bool,
}

struct Idle {
    connection: Connected,
    until: Instant,
}

/// One request's right to a connection. Who holds it may open one; who is done gives it back with the connection.
pub(crate) struct Turn {
    origin: Origin,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(limits: &crate::config::Limits) -> Self {
        Self {
            connections_per_host_max: limits.connections_per_host_max,
            idle_connections_max: limits.idle_connections_max,
            idle_connection_max: limits.idle_connection_max,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, first come first served.
    pub(crate) async fn turn(&self, origin: &Origin) -> Turn {
        let semaphore = {
            let mut state = self.lock();
            state.turns.retain(|_, turns| turns.strong_count() > 0);
            let known = state.turns.get(origin).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let made = Arc::new(Semaphore::new(self.connections_per_host_max));
                state.turns.insert(origin.clone(), Arc::downgrade(&made));
                made
            })
        };
        loop {
            // Nobody closes it, so the first try is the last.
            if let Ok(permit) = Arc::clone(&semaphore).acquire_owned().await {
                return Turn {
                    origin: origin.clone(),
                    _permit: permit,
                };
            }
        }
    }

    /// A connection that was used before and is open, as far as anybody can tell.
    pub(crate) fn reuse(&self, turn: &Turn) -> Option<Connected> {
        let mut state = self.lock();
        let now = Instant::now();
        loop {
            let idle = state.idle.get_mut(&turn.origin)?.pop()?;
            state.idle_count -= 1;
            if idle.until > now && !idle.connection.sender.is_closed() {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(crate) fn keep(self: &Arc<Self>, turn: &Turn, connection: Connected) {
        let mut state = self.lock();
        if connection.sender.is_closed() || state.idle_count >= self.idle_connections_max {
            return;
        }
        state.idle_count += 1;
        let idle = Idle {
            connection,
            until: Instant::now() + self.idle_connection_max,
        };
        state
            .idle
            .entry(turn.origin.clone())
            .or_default()
            .push(idle);
        if !std::mem::replace(&mut state.is_reaping, true) {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    /// Ends what has been idle for too long; when the next one will have been. None = there is none.
    fn purge(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        for list in state.idle.values_mut() {
            list.retain(|idle| idle.until > now && !idle.connection.sender.is_closed());
        }
        state.idle.retain(|_, list| !list.is_empty());
        state.idle_count = state.idle.values().map(Vec::len).sum();
        let next = state.idle.values().flatten().map(|idle| idle.until).min();
        state.is_reaping = next.is_some();
        next
    }
}

/// Runs while there are idle connections.
async fn reap(pool: Weak<Pool>) {
    while let Some(until) = pool.upgrade().and_then(|pool| pool.purge()) {
        sleep_until(until).await;
    }
}
