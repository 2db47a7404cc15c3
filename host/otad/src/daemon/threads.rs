//! The threads that devices live on: a few, each with a runtime of its own, and a device stays on one of them together with
//! its connection.
//!
//! A message is read, understood by the agent, written and answered in a row, so a second thread would not bring any of that
//! forward: it would be woken, find the same socket, and have each block's memory fetched from another core. Devices are many
//! where cores are to be kept busy. What must not wait for devices (the control socket, hooks, the watchdog) lives on the
//! process's own runtime.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, EnterGuard, Runtime};

use crate::exit::{Exit, Failed};

/// Most threads for devices, on however many cores.
const THREADS_MAX: usize = 8;

/// Threads for devices, one a core; each begins with its first device.
#[derive(Debug)]
pub struct Threads(Box<[OnceLock<Runtime>]>);

impl Default for Threads {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = cores.min(THREADS_MAX);
        Self((0..threads).map(|_| OnceLock::new()).collect())
    }
}

impl Threads {
    /// Where the `index`th device is to be made: what it spawns while the guard lives runs there.
    ///
    /// # Errors
    /// [`Exit::Failed`]: the system has no further thread.
    pub(super) fn enter(&self, index: usize) -> Result<Option<EnterGuard<'_>>, Failed> {
        let Some(place) = self.0.get(index % self.0.len().max(1)) else {
            return Ok(None);
        };
        if place.get().is_none() {
            // One worker of a runtime that may have several: a plugin that blocks is taken over by another one.
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("otad-devices")
                .enable_all()
                .build()
                .map_err(|e| Failed::chain(Exit::Failed, "starting a thread for devices", &e))?;
            drop(place.set(runtime));
        }
        Ok(place.get().map(Runtime::enter))
    }

    /// End all of them; what still runs then may take so long, and is cut off.
    pub(crate) fn end(self, within: Duration) {
        let began = Instant::now();
        for runtime in self.0.into_iter().filter_map(OnceLock::into_inner) {
            runtime.shutdown_timeout(within.saturating_sub(began.elapsed()));
        }
    }
}
