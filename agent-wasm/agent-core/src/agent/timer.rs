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

/// Numbers that look random: SplitMix64, seeded at each start.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
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
