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

    /// Microseconds since [`new`](Self::new), for what is over in less than a millisecond.
    pub(crate) fn now_us(&self) -> u128 {
        self.start.elapsed().as_micros()
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

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: u64 = 400 * 365 + 97;

/// An instant for people: `2026-11-21 07:14:03Z`.
#[must_use]
pub fn utc(wall_s: u64) -> String {
    let (days, second) = (wall_s / DAY_S, wall_s % DAY_S);
    let (year, month, day) = date(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}Z")
}

/// Year, month and day of a number of days since 1970-01-01. Years begin in March here, so that the odd day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    // 1970-01-01 is day 719,468 of a calendar that begins on 0000-03-01: 1970 years x 365.2425 - 60.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let in_month = day - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + late, month, in_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_told_in_utc() {
        let rows = [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_772_323_200, "2026-03-01 00:00:00Z"),
            (1_795_245_243, "2026-11-21 07:14:03Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"),
        ];
        for (wall_s, wanted) in rows {
            assert_eq!(utc(wall_s), wanted, "{wall_s}");
        }
        // Whatever a damaged file says.
        assert!(utc(u64::MAX).ends_with('Z'));
    }

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
