//! Deadlines for tests: the one place of the judges that reads a clock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest that a test should wait for something that normally takes milliseconds: a busy machine with one core, in an
/// unoptimised build, compiling guests at the same time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An instant after which waiting is over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    waited: Duration,
}

/// The instant of now.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "a deadline needs the real clock; nothing judged is given this value"
)]
pub fn now() -> Instant {
    Instant::now()
}

impl Deadline {
    /// The deadline after so long.
    #[must_use]
    pub fn after(waited: Duration) -> Self {
        Self {
            at: now() + waited,
            waited,
        }
    }

    /// What is left until then, none once it has passed.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.at
            .checked_duration_since(now())
            .filter(|left| !left.is_zero())
    }

    /// How long it was in all.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// Lets so much time pass: before a kill at an instant that nobody announces, and between two looks at another process
/// up to a deadline. Never in place of an event.
pub fn pass(time: Duration) {
    let nothing = Mutex::new(());
    let guard = nothing.lock().unwrap_or_else(PoisonError::into_inner);
    let _passed = wait_until(
        guard,
        &Condvar::new(),
        Deadline::after(time),
        |()| None::<()>,
    );
}

/// Waits at a condition variable until `look` finds something; none = the deadline has passed.
pub fn wait_until<'a, T, R>(
    mut guard: MutexGuard<'a, T>,
    changed: &Condvar,
    deadline: Deadline,
    mut look: impl FnMut(&mut T) -> Option<R>,
) -> (MutexGuard<'a, T>, Option<R>) {
    loop {
        if let Some(found) = look(&mut guard) {
            return (guard, Some(found));
        }
        let Some(left) = deadline.left() else {
            return (guard, None);
        };
        guard = changed
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}
