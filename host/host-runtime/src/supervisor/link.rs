//! What a device's task and its handles share: questions on their way in, and what is shown without being asked.
//!
//! One small allocation in place of channels, which have room for some from the beginning: a gateway may have very many
//! devices, and nearly all of them are asked nothing. Not here: what a question is about (`supervisor.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::sync::{Notify, Semaphore};

use super::{Request, Seen};

/// Questions that may wait for a device; a status page with some watchers asks a few a second.
pub(super) const REQUESTS_MAX: usize = 64;

/// The task on one side, the handles on the other.
pub(super) struct Link {
    /// Wakes those who wait for news.
    news: Notify,
    /// Questions that may still be put.
    room: Semaphore,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// Few, and mostly none.
    requests: Vec<Request>,
    seen: Seen,
    /// There is something to do for the task.
    woken: bool,
    /// Wakes the task.
    task: Option<Waker>,
    /// The last handle is gone.
    left: bool,
    /// The task has gone.
    closed: bool,
}

impl Link {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            news: Notify::new(),
            room: Semaphore::new(REQUESTS_MAX),
            inside: Mutex::default(),
        })
    }

    /// There is something to do for the task.
    pub(super) fn wake(&self) {
        let waker = {
            let mut inside = self.lock();
            inside.woken = true;
            inside.task.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether there was something to do since this was last asked; otherwise the task is woken when there is.
    pub(super) fn is_woken(&self, waker: &Waker) -> bool {
        let mut inside = self.lock();
        let woken = std::mem::take(&mut inside.woken);
        if !woken && !inside.task.as_ref().is_some_and(|of| of.will_wake(waker)) {
            inside.task = Some(waker.clone());
        }
        woken
    }

    /// Put a question; waits while too many wait already. One that finds no task is dropped.
    pub(super) async fn ask(&self, request: Request) {
        // Closed with its task.
        let Ok(room) = self.room.acquire().await else {
            return;
        };
        let refused = {
            let mut inside = self.lock();
            if inside.closed {
                Some(request)
            } else {
                room.forget();
                inside.requests.push(request);
                None
            }
        };
        drop(refused);
        self.wake();
    }

    /// The oldest question.
    pub(super) fn take(&self) -> Option<Request> {
        let mut inside = self.lock();
        let request = (!inside.requests.is_empty()).then(|| inside.requests.remove(0));
        if inside.requests.is_empty() {
            inside.requests = Vec::new();
        }
        drop(inside);
        self.room.add_permits(usize::from(request.is_some()));
        request
    }

    /// The last handle is gone.
    pub(super) fn leave(&self) {
        self.lock().left = true;
        self.wake();
    }

    /// Whether it is.
    pub(super) fn is_left(&self) -> bool {
        self.lock().left
    }

    /// What is shown now.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.lock().seen)
    }

    /// Show something else; who waits is told if `change` says that it is news.
    pub(super) fn show(&self, change: impl FnOnce(&mut Seen) -> bool) {
        let is_news = change(&mut self.lock().seen);
        if is_news {
            self.news.notify_waiters();
        }
    }

    /// Wait until `look` finds something in what is shown; none = the task has gone, and there will be nothing more.
    pub(super) async fn find<T>(&self, mut look: impl FnMut(&Seen) -> Option<T>) -> Option<T> {
        loop {
            // News count from here on.
            let news = self.news.notified();
            {
                let inside = self.lock();
                let found = look(&inside.seen);
                if found.is_some() || inside.closed {
                    return found;
                }
            }
            news.await;
        }
    }

    /// Wait until the task has gone, and the device with it.
    pub(super) async fn closed(&self) {
        self.find(|_| None::<()>).await;
    }

    /// Whether it has.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The task has gone: questions get no answer any more, and nothing else will be shown.
    fn close(&self) {
        let waiting = {
            let mut inside = self.lock();
            inside.closed = true;
            (std::mem::take(&mut inside.requests), inside.task.take())
        };
        self.room.close();
        // Whoever asked sees it by this.
        drop(waiting);
        self.news.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task's end of a link: closes it when it goes, however it goes, or when it never comes.
pub(super) struct TaskEnd(pub(super) Arc<Link>);

impl Drop for TaskEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}
