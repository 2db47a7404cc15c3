//! Deadlines by name, back-off and the jitter in it. Instants come in as values; nothing here reads a clock.

use crate::types::InstantMs;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Reply to a job question, or back-off before the next one.
    Ask,
    /// Next poll for a job.
    Poll,
    /// Next try of a subscription.
    Subscribe,
    /// Acknowledgement of a status, or back-off before it is repeated.
    Status,
    /// A target comes back.
    Restart,
    /// Verdict of the self-test, or a claim on an uncommitted image.
    Test,
    /// Reminder of a deferred activation.
    Reminder,
    /// End of the deferral.
    Limit,
    /// End of a deferred offer, or reminder of an open one.
    Offer,
    /// Answer to a custom job, or its end.
    Custom,
    /// Next try of a journal store.
    Journal,
    /// Look again while there is no connection.
    Link,
    /// Next try of an operation on a file.
    Retry,
    /// End of the shutdown.
    Shutdown,
}

impl Timer {
    /// Every timer, in the order of the slots.
    pub const ALL: [Self; 14] = [
        Self::Ask,
        Self::Poll,
        Self::Subscribe,
        Self::Status,
        Self::Restart,
        Self::Test,
        Self::Reminder,
        Self::Limit,
        Self::Offer,
        Self::Custom,
        Self::Journal,
        Self::Link,
        Self::Retry,
        Self::Shutdown,
    ];
}

/// No deadline.
pub(super) const NEVER: InstantMs = u64::MAX;

/// The deadlines that are set.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    pub(super) slots: [InstantMs; Timer::ALL.len()],
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self {
            slots: [NEVER; Timer::ALL.len()],
        }
    }

    pub(super) fn set(&mut self, timer: Timer, at: InstantMs) {
        if let Some(slot) = self.slots.get_mut(timer as usize) {
            *slot = at;
        }
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.set(timer, NEVER);
    }

    /// When it is due, [`NEVER`] if it is not set.
    pub(super) fn at(&self, timer: Timer) -> InstantMs {
        self.slots.get(timer as usize).copied().unwrap_or(NEVER)
    }

    pub(super) fn runs(&self, timer: Timer) -> bool {
        self.at(timer) != NEVER
    }

    pub(super) fn first(&self) -> InstantMs {
        self.slots.iter().copied().fold(NEVER, InstantMs::min)
    }

    /// Takes one timer that is due.
    pub(super) fn take_due(&mut self, now: InstantMs) -> Option<Timer> {
        let timer = Timer::ALL
            .into_iter()
            .find(|timer| self.at(*timer) <= now)?;
        self.stop(timer);
        Some(timer)
    }

    /// Moves every deadline, after time that does not count.
    pub(super) fn shift(&mut self, by: u64) {
        for slot in &mut self.slots {
            *slot = slot.saturating_add(by);
        }
    }
}

/// Shortest time for an answer of the job service, unless the configured one is shorter: RFC 6298 section 2.4 has the
/// same second, for a service that stalls for a moment is not asked twice.
const ANSWER_MIN_MS: u64 = 1000;

/// Times the configured time, the most that slow answers make of it: 60 s by default, which RFC 6298 section 2.5 allows
/// at least.
const ANSWER_MAX_FACTOR: u64 = 6;

/// The longest answer that is learned from: with twice the greatest configured time every bound is reached.
const TAUGHT_MAX_MS: u64 = 20 * 60_000;

/// How long the answers of the job service take (RFC 6298 section 2). Each try has a token of its own, so every answer
/// is to a known one, and repeated ones teach as well.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    /// Smoothed, in 1/8 ms; 0 = nothing known.
    pub(super) smoothed: u32,
    /// Mean deviation, in 1/4 ms.
    pub(super) spread: u32,
}

impl RoundTrip {
    /// An answer took so long.
    pub(super) fn learn(&mut self, took: u64) {
        // Something is known from now on, even of a service that takes no time.
        let took = took.clamp(1, TAUGHT_MAX_MS) as u32;
        if self.smoothed == 0 {
            self.smoothed = took * 8;
            self.spread = took * 2;
            return;
        }
        // What a saved state says may be anything.
        let deviation = took.abs_diff(self.smoothed / 8);
        self.spread = (self.spread - self.spread / 4).saturating_add(deviation);
        self.smoothed = (self.smoothed - self.smoothed / 8).saturating_add(took);
    }

    /// How long an answer is waited for, as long as none is missing.
    pub(super) fn patience(&self, configured: u64) -> u64 {
        if self.smoothed == 0 {
            return configured;
        }
        // Four deviations, kept in quarters.
        let wait = u64::from(self.smoothed / 8) + u64::from(self.spread);
        wait.max(ANSWER_MIN_MS.min(configured))
            .min(configured * ANSWER_MAX_FACTOR)
    }
}

/// Numbers that look random: SplitMix64, seeded at each start.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The delay before try `tries` + 1: the base at first, then doubled up to a maximum, with up to a quarter on top,
    /// so that a thousand devices do not come back at once.
    pub(super) fn back_off(&mut self, base: u64, max: u64, tries: u32) -> u64 {
        // The longest base, ten minutes in milliseconds, has 20 bits.
        let doubled = (base << tries.min(20)).min(max.max(base));
        if tries == 0 {
            return doubled;
        }
        doubled + self.next() % (doubled / 4 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stand_in_the_order_of_the_timers() {
        for (at, timer) in Timer::ALL.iter().enumerate() {
            assert_eq!(*timer as usize, at);
        }
    }

    #[test]
    fn a_due_timer_is_taken_once_and_the_rest_stay() {
        let mut timers = Timers::new();
        assert_eq!(timers.first(), NEVER);
        timers.set(Timer::Ask, 10);
        timers.set(Timer::Poll, 20);
        assert_eq!(timers.first(), 10);
        assert_eq!(timers.take_due(9), None);
        assert_eq!(timers.take_due(10), Some(Timer::Ask));
        assert_eq!(timers.take_due(10), None);
        timers.shift(5);
        assert_eq!(timers.at(Timer::Poll), 25);
        assert!(!timers.runs(Timer::Ask));
    }

    fn learned(took: &[u64]) -> RoundTrip {
        let mut trip = RoundTrip::default();
        took.iter().for_each(|took| trip.learn(*took));
        trip
    }

    #[test]
    fn nothing_known_an_answer_has_the_configured_time() {
        assert_eq!(learned(&[]).patience(10_000), 10_000);
        assert_eq!(learned(&[]).patience(10), 10);
    }

    #[test]
    fn an_answer_has_the_usual_time_and_four_deviations() {
        // The first answer: three times as long, as a deviation of half of it is assumed.
        assert_eq!(learned(&[2000]).patience(10_000), 6000);
        // Always the same: the deviation is forgotten.
        let steady = learned(&[2000; 64]).patience(10_000);
        assert!((2000..2100).contains(&steady), "{steady}");
        // Once in a while much longer: time for that.
        let wild: alloc::vec::Vec<u64> = (0..64).map(|at| 500 + at % 4 * 1000).collect();
        let wild = learned(&wild).patience(10_000);
        assert!((5000..8000).contains(&wild), "{wild}");
    }

    #[test]
    fn the_time_for_an_answer_has_a_least_and_a_greatest_value() {
        assert_eq!(learned(&[0; 9]).patience(10_000), 1000);
        assert_eq!(learned(&[0; 9]).patience(50), 50);
        assert_eq!(learned(&[u64::MAX; 9]).patience(10_000), 60_000);
        assert_eq!(learned(&[40_000]).patience(600_000), 120_000);
        let slow = learned(&[u64::MAX, 0, u64::MAX]);
        assert_eq!(slow.patience(600_000), 3_468_750);
        assert_eq!(slow.patience(10), 60);
        let mut damaged = RoundTrip {
            smoothed: u32::MAX,
            spread: u32::MAX,
        };
        damaged.learn(u64::MAX);
        assert_eq!(damaged.patience(10_000), 60_000);
    }

    #[test]
    fn back_off_begins_at_the_base_doubles_to_the_maximum_and_jitters_by_a_quarter() {
        for seed in 0..100 {
            let mut random = Random(seed);
            assert_eq!(random.back_off(1000, 8000, 0), 1000);
            for (tries, base) in [(1, 2000), (2, 4000), (3, 8000), (4, 8000), (u32::MAX, 8000)] {
                let delay = random.back_off(1000, 8000, tries);
                assert!(
                    (base..=base + base / 4).contains(&delay),
                    "{tries}: {delay}"
                );
            }
        }
    }
}
