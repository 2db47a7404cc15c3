//! Where work goes that takes longer than a device's turn may: reading back and hashing an image, fsync.

use std::sync::Arc;

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
