//! The threads that devices live on: a few, each with a runtime of its own, and a device stays on one of them together with
//! its connection, if it has one of its own.
//!
//! A message is read, understood by the agent, written and answered in a row, so a second thread would not bring any of that
//! forward: it would be woken, find the same socket, and have each block's memory fetched from another core. Devices are many
//! where cores are to be kept busy. What must not wait for devices (the control socket, hooks, the watchdog) lives on the
//! process's own runtime.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};

use crate::exit::{Exit, Failed};

/// Most threads for devices, on however many cores.
pub(super) const THREADS_MAX: usize = 8;

/// How long all of them may take to end. Devices have ended by then, and what takes time for them is done by workers elsewhere.
const END_MAX: Duration = Duration::from_secs(1);

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
    /// [`Exit::Failed`]: the system has no further descriptors for a runtime.
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

    /// End all of them, each within its share of a second; what still runs then is cut off.
    pub(crate) fn end(self) {
        let threads = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for runtime in self.0.into_iter().filter_map(OnceLock::into_inner) {
            runtime.shutdown_timeout(END_MAX / threads.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread::ThreadId;

    use super::*;

    /// Where what the `index`th device spawns runs.
    fn thread_of(threads: &Threads, index: usize) -> ThreadId {
        let there = threads.enter(index).unwrap();
        let (told, tells) = std::sync::mpsc::sync_channel(1);
        drop(tokio::spawn(async move {
            // A task that waits for another one comes back to the same thread.
            let inner = tokio::spawn(async { thread::current().id() }).await;
            told.send((inner.ok(), thread::current().id())).ok();
        }));
        let (inner, outer) = tells.recv().unwrap();
        drop(there);
        assert_eq!(inner, Some(outer));
        outer
    }

    #[test]
    fn each_device_stays_on_one_thread_and_neighbours_have_different_ones() {
        let threads = Threads(vec![OnceLock::new(), OnceLock::new()].into());
        let first: Vec<ThreadId> = (0..6).map(|index| thread_of(&threads, index)).collect();
        let again: Vec<ThreadId> = (0..6).map(|index| thread_of(&threads, index)).collect();
        assert_eq!(first, again);
        let [even, odd] = [0, 1].map(|rest| first.iter().skip(rest).step_by(2));
        let [even, odd] = [even.collect(), odd.collect()].map(|of: HashSet<_>| of);
        assert_eq!((even.len(), odd.len()), (1, 1));
        assert_ne!(even, odd);
        threads.end();
    }

    #[test]
    fn a_thread_begins_with_its_first_device() {
        let threads = Threads(vec![OnceLock::new(), OnceLock::new()].into());
        drop(threads.enter(2).unwrap());
        let begun: Vec<bool> = threads.0.iter().map(|of| of.get().is_some()).collect();
        assert_eq!(begun, [true, false]);
        threads.end();
    }
}
