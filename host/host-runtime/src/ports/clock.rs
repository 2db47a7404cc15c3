//! Time, the only place beside the adapters' I/O loops that reads it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A device's clock.
pub trait Clock: Send + Sync {
    /// Milliseconds; never goes back, begins anywhere in each process.
    fn now_ms(&self) -> u64;
    /// Seconds since 1970 if known; a clock that was never set is not. May jump: no decision may hang on it but certificate validity.
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
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        known(since_1970.as_secs())
    }
}

/// 2026-01-01T00:00:00Z, before the first release: (56 years x 365 + 14 leap days) x 86,400 s. A clock that says less
/// has not been set since the power came: boards without a battery begin in 1970, or on the day their system was built.
const KNOWN_FROM_S: u64 = (56 * 365 + 14) * 86_400;

/// Wall time, unless it cannot be.
fn known(wall_s: u64) -> Option<u64> {
    (wall_s >= KNOWN_FROM_S).then_some(wall_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_an_unknown_time() {
        let rows = [
            (0, None),
            // 2025-12-31T23:59:59Z.
            (1_767_225_599, None),
            (1_767_225_600, Some(1_767_225_600)),
        ];
        for (wall_s, wanted) in rows {
            assert_eq!(known(wall_s), wanted, "{wall_s}");
        }
    }
}
