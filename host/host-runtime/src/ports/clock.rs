//! Time, the only place beside the adapters' I/O loops that reads it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A device's clock.
pub trait Clock: Send + Sync {
    /// Milliseconds; never goes back, begins anywhere in each process.
    fn now_ms(&self) -> u64;
    /// Seconds since 1970 if known. May jump: no decision may hang on it but certificate validity.
    fn wall_s(&self) -> Option<u64>;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that begins at 0 now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock port")]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "u64 milliseconds last 584 million years"
    )]
    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock port")]
    fn wall_s(&self) -> Option<u64> {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(|d| d.as_secs())
    }
}
