//! The thread that moves the epoch on while a guest runs, and sleeps while none does.
//!
//! It reads no clock: a tick is one bounded wait. Nothing but the wall-clock net under the fuel hangs on it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::EngineWeak;

use super::Budget;

/// Shared by the thread and the callers.
#[derive(Debug, Default)]
struct Shared {
    /// Guest calls under way.
    running: AtomicUsize,
    /// The thread waits without a time-out; whoever begins a call has to wake it.
    asleep: AtomicBool,
    /// Epochs that have passed.
    epochs: Arc<AtomicU64>,
    /// True = end.
    stop: Mutex<bool>,
    wake: Condvar,
}

/// The thread's handle; ends it when dropped.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A guest call under way.
pub(super) struct Running<'a>(&'a Shared);

impl Ticker {
    /// Start the thread. It does not keep the engine alive.
    pub(super) fn start(engine: &wasmtime::Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("otad-epoch".into()).spawn({
            let (shared, engine) = (Arc::clone(&shared), engine.weak());
            move || run(&shared, &engine)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Epochs pass until the returned value is dropped.
    pub(super) fn enter(&self) -> Running<'_> {
        // Both sides write their own flag before they read the other's, so one of them sees it.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            let stop = self.shared.stop.lock();
            drop(stop.unwrap_or_else(PoisonError::into_inner));
            self.shared.wake.notify_one();
        }
        Running(&self.shared)
    }

    /// Epochs that have passed, counted on.
    pub(super) fn epochs(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.epochs)
    }

    /// Whether the thread waits for the next guest call.
    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.shared.asleep.load(Ordering::SeqCst)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self
            .shared
            .stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread would have been reported by it; there is nothing to save.
            drop(thread.join());
        }
    }
}

fn run(shared: &Shared, engine: &EngineWeak) {
    let tick = Duration::from_millis(Budget::TICK_MS);
    let mut stop = shared.stop.lock().unwrap_or_else(PoisonError::into_inner);
    while !*stop {
        shared.asleep.store(true, Ordering::SeqCst);
        if shared.running.load(Ordering::SeqCst) == 0 {
            stop = shared
                .wake
                .wait(stop)
                .unwrap_or_else(PoisonError::into_inner);
            shared.asleep.store(false, Ordering::SeqCst);
            continue;
        }
        shared.asleep.store(false, Ordering::SeqCst);
        let (guard, timeout) = shared
            .wake
            .wait_timeout(stop, tick)
            .unwrap_or_else(PoisonError::into_inner);
        stop = guard;
        if timeout.timed_out() {
            match engine.upgrade() {
                Some(engine) => {
                    engine.increment_epoch();
                    shared.epochs.fetch_add(1, Ordering::SeqCst);
                }
                None => return,
            }
        }
    }
}
