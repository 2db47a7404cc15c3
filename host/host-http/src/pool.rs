//! Kept connections, by server: who waits for one, who uses one, and when an idle one ends; and servers that asked to be
//! left alone for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::connect::Connected;
use crate::url::Origin;

/// See the module.
pub(crate) struct Pool {
    connections_per_host_max: usize,
    idle_connections_max: usize,
    idle_connection_max: Duration,
    retry_after_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The servers that somebody uses or waits for.
    doors: BTreeMap<Origin, Weak<Door>>,
    /// Idle connections, the one used last at the end.
    idle: BTreeMap<Origin, Vec<Idle>>,
    idle_count: usize,
    /// Servers that nobody may ask before then.
    busy: BTreeMap<Origin, Instant>,
    is_reaping: bool,
}

struct Idle {
    connection: Connected,
    until: Instant,
}

/// The way in to one server.
struct Door {
    turns: Arc<Semaphore>,
    /// A connection has come back.
    returned: Notify,
}

/// One request's right to a connection. Who holds it may open one; who is done gives it back with the connection.
pub(crate) struct Turn {
    origin: Origin,
    door: Arc<Door>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(limits: &crate::config::Limits) -> Self {
        Self {
            connections_per_host_max: limits.connections_per_host_max,
            idle_connections_max: limits.idle_connections_max,
            idle_connection_max: limits.idle_connection_max,
            retry_after_max: limits.retry_after_max,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn, first come first served, and until the server may be asked.
    pub(crate) async fn turn(&self, origin: &Origin) -> Turn {
        let door = {
            let mut state = self.lock();
            state.doors.retain(|_, door| door.strong_count() > 0);
            let known = state.doors.get(origin).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let made = Arc::new(Door {
                    turns: Arc::new(Semaphore::new(self.connections_per_host_max)),
                    returned: Notify::new(),
                });
                state.doors.insert(origin.clone(), Arc::downgrade(&made));
                made
            })
        };
        loop {
            // Nobody closes it: a try fails never.
            let Ok(permit) = Arc::clone(&door.turns).acquire_owned().await else {
                continue;
            };
            // Looked at last: whoever had the turn before may have heard that the server is busy.
            let Some(until) = self.busy_until(origin) else {
                return Turn {
                    origin: origin.clone(),
                    door,
                    _permit: permit,
                };
            };
            drop(permit);
            sleep_until(until).await;
        }
    }

    fn busy_until(&self, origin: &Origin) -> Option<Instant> {
        let until = self.lock().busy.get(origin).copied();
        until.filter(|until| *until > Instant::now())
    }

    /// A server asks to be left alone for so long; nobody does so for longer than the limit.
    pub(crate) fn put_off(&self, turn: &Turn, asked: Duration) {
        let now = Instant::now();
        let until = now + asked.min(self.retry_after_max);
        let busy = &mut self.lock().busy;
        busy.retain(|_, until| *until > now);
        let known = busy.entry(turn.origin.clone()).or_insert(until);
        *known = until.max(*known);
    }

    /// Turns for connections ahead of their requests, until with them there are so many connections; none for a server
    /// that one request alone is for, and none while a request waits for its own turn. One that comes later may have to
    /// wait for such a connection, which was begun before its own would have been.
    pub(crate) fn turns_ahead(&self, origin: &Origin, wanted: usize) -> Vec<Turn> {
        let state = self.lock();
        let Some(door) = state.doors.get(origin).and_then(Weak::upgrade) else {
            return Vec::new();
        };
        let used = self.connections_per_host_max - door.turns.available_permits();
        let idle = state.idle.get(origin).map_or(0, Vec::len);
        let missing = match used {
            0 | 1 => 0,
            _ => wanted.saturating_sub(used + idle),
        };
        let turn = |_| {
            let permit = Arc::clone(&door.turns).try_acquire_owned().ok()?;
            Some(Turn {
                origin: origin.clone(),
                door: Arc::clone(&door),
                _permit: permit,
            })
        };
        (0..missing).map_while(turn).collect()
    }

    /// Waits for a connection that comes back, or was made ahead.
    pub(crate) async fn returned(&self, turn: &Turn) -> Connected {
        loop {
            if let Some(connection) = self.reuse(turn) {
                return connection;
            }
            turn.door.returned.notified().await;
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
        turn.door.returned.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::url::Target;

    #[tokio::test]
    async fn connections_are_made_ahead_for_several_requests_and_no_more_than_there_may_be() {
        let pool = Pool::new(&Limits {
            connections_per_host_max: 6,
            ..Limits::default()
        });
        let origin = Target::parse("https://images.example/x").unwrap().origin;
        assert!(pool.turns_ahead(&origin, 4).is_empty(), "nobody asks there");
        let _first = pool.turn(&origin).await;
        assert!(pool.turns_ahead(&origin, 4).is_empty(), "one range alone");
        let _second = pool.turn(&origin).await;
        let ahead = pool.turns_ahead(&origin, 4);
        assert_eq!(ahead.len(), 2);
        assert!(
            pool.turns_ahead(&origin, 4).is_empty(),
            "they are on their way"
        );
        drop(ahead);
        assert_eq!(
            pool.turns_ahead(&origin, 100).len(),
            4,
            "no more than may be"
        );
    }
}
