//! Where work goes that takes longer than a device's turn may: reading back and hashing an image, fsync.

use std::sync::{Arc, Mutex, PoisonError};

/// Work to do off the device's task. It delivers its own result (through a [`Reply`]).
pub type Work = Box<dyn FnOnce() + Send>;

/// Runs work that takes long. The sandbox runs it inline, in order.
pub trait Workers: Send + Sync {
    /// Queue `work`; bounded by the number of operations under way, which the runtime limits.
    fn run(&self, work: Work);
}

/// Tokio's blocking pool.
#[derive(Clone, Debug)]
pub struct BlockingPool(tokio::runtime::Handle);

impl BlockingPool {
    /// The pool of the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self(tokio::runtime::Handle::current())
    }
}

impl Workers for BlockingPool {
    fn run(&self, work: Work) {
        // Not joined on purpose: the result comes back through the work's own reply.
        drop(self.0.spawn_blocking(work));
    }
}

/// How a result finds its way back: call it once, from any thread, and the device's task wakes.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Wakes the device's task.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Work whose end its owner looks for. A worker that dies is an end, too.
pub(crate) struct Errand<T>(Arc<Mutex<Option<T>>>);

impl<T: Send + 'static> Errand<T> {
    /// Let a worker do it. `lost` is the end if it dies; `wake` tells of the end.
    pub(crate) fn start(
        workers: &dyn Workers,
        wake: &Wake,
        lost: T,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Self {
        let place = Arc::new(Mutex::new(None));
        let (theirs, wake) = (Arc::clone(&place), Arc::clone(wake));
        workers.run(told(lost, work, move |end| {
            *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
            wake();
        }));
        Self(place)
    }

    /// How it ended; none while it goes on, and once it was told.
    pub(crate) fn end(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Work that tells how it ended however it ends; `lost` is the end if its worker dies.
pub(crate) fn told<T: Send + 'static>(
    lost: T,
    work: impl FnOnce() -> T + Send + 'static,
    tell: impl FnOnce(T) + Send + 'static,
) -> Work {
    let mut word = Word(Some((lost, tell)));
    Box::new(move || {
        let end = work();
        if let Some((lost, _)) = &mut word.0 {
            *lost = end;
        }
    })
}

/// An end, and who is told of it when this goes.
struct Word<T, F: FnOnce(T)>(Option<(T, F)>);

impl<T, F: FnOnce(T)> Drop for Word<T, F> {
    fn drop(&mut self) {
        if let Some((end, tell)) = self.0.take() {
            tell(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{StepWorkers, no_wake};

    #[test]
    fn an_errand_ends_once_also_when_its_worker_dies() {
        struct Grave;
        impl Workers for Grave {
            fn run(&self, _: Work) {}
        }
        let workers = StepWorkers::default();
        let done = Errand::start(&workers, &no_wake(), 0, || 7);
        assert_eq!(done.end(), None);
        workers.run_one();
        assert_eq!((done.end(), done.end()), (Some(7), None));
        let lost = Errand::start(&Grave, &no_wake(), 0, || 7);
        assert_eq!(lost.end(), Some(0));
    }
}
