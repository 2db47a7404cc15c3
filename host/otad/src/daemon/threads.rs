//! The threads that devices live on: a few, each with a runtime of its own, and a device stays on one of them together with
//! its connection, if it has one of its own.
//!
//! A message is read, understood by the agent, written and answered in a row, so a second thread would not bring any of that
//! forward: it would be woken, find the same socket, and have each block's memory fetched from another core. Devices are many
//! where cores are to be kept busy. What must not wait for devices (the control socket, hooks, the watchdog) lives on the
//! process's own runtime.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::exit::{Exit, Failed};

/// Most threads for devices, on however many cores.
pub(super) const THREADS_MAX: usize = 8;

/// How long all of them may take to end. Devices have ended by then, and what takes time for them is done by workers elsewhere.
const END_MAX: Duration = Duration::from_secs(1);

/// Threads for devices, one a core, and so at least one; each begins with its first device.
#[derive(Debug)]
pub struct Threads(Box<[Mutex<Option<Runtime>>]>);

impl Default for Threads {
    fn default() -> Self {
        Self::of(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

impl Threads {
    fn of(cores: NonZeroUsize) -> Self {
        let threads = cores.get().min(THREADS_MAX);
        Self((0..threads).map(|_| Mutex::default()).collect())
    }

    /// Where the `index`th device is to be made: what it spawns while that is entered runs there.
    ///
    /// # Errors
    /// [`Exit::Failed`]: the system has no further descriptors for a runtime.
    pub(super) fn place(&self, index: usize) -> Result<Handle, Failed> {
        // In range, as there is at least one.
        let place = self.0[index % self.0.len()].lock();
        // To the end, so that nobody makes a second one: a runtime must not be dropped among the tasks of another.
        let mut place = place.unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*place {
            return Ok(runtime.handle().clone());
        }
        // One worker of a runtime that may have several: a plugin that blocks is taken over by another one.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otad-devices")
            .enable_all()
            .build()
            .map_err(|e| Failed::chain(Exit::Failed, "starting a thread for devices", &e))?;
        let handle = runtime.handle().clone();
        *place = Some(runtime);
        Ok(handle)
    }

    /// End all of them, each within its share of a second; what still runs then is cut off.
    pub(crate) fn end(self) {
        let threads = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for place in self.0 {
            let Some(runtime) = place.into_inner().unwrap_or_else(PoisonError::into_inner) else {
                continue;
            };
            runtime.shutdown_timeout(END_MAX / threads.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread::ThreadId;

    use super::*;

    fn threads(cores: usize) -> Threads {
        Threads::of(NonZeroUsize::new(cores).unwrap())
    }

    /// Where what the `index`th device spawns runs.
    fn thread_of(threads: &Threads, index: usize) -> ThreadId {
        let there = threads.place(index).unwrap();
        let _there = there.enter();
        let (told, tells) = std::sync::mpsc::sync_channel(1);
        drop(tokio::spawn(async move {
            // A task that waits for another one comes back to the same thread.
            let inner = tokio::spawn(async { thread::current().id() }).await;
            told.send((inner.ok(), thread::current().id())).ok();
        }));
        let (inner, outer) = tells.recv().unwrap();
        assert_eq!(inner, Some(outer));
        outer
    }

    #[test]
    fn each_device_stays_on_one_thread_and_neighbours_have_different_ones() {
        let threads = threads(2);
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
        let threads = threads(2);
        threads.place(2).unwrap();
        let begun = |of: &Mutex<Option<Runtime>>| of.lock().unwrap().is_some();
        let begun: Vec<bool> = threads.0.iter().map(begun).collect();
        assert_eq!(begun, [true, false]);
        threads.end();
    }

    #[test]
    fn there_are_as_many_threads_as_cores_up_to_a_limit() {
        for (cores, count) in [(1, 1), (3, 3), (THREADS_MAX + 1, THREADS_MAX)] {
            assert_eq!(threads(cores).0.len(), count, "{cores} cores");
        }
    }
}
