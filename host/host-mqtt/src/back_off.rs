//! How long to wait before the next attempt to connect. Pure: no clock, no random source of its own.

/// Bounds of the delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOffLimits {
    /// First delay.
    pub base_ms: u64,
    /// Longest delay before jitter.
    pub cap_ms: u64,
}

impl Default for BackOffLimits {
    /// Base as in the FreeRTOS demos; the cap keeps a fleet of 10,000 below some 100 attempts a second on average
    /// (10,000 / (1.5 × 60 s)), for as long as an outage lasts.
    fn default() -> Self {
        Self {
            base_ms: 500,
            cap_ms: 60_000,
        }
    }
}

/// One delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// Doubles from base to cap.
    pub base_ms: u64,
    /// Between 0 and `base_ms`, so that devices that lost their broker together do not come back together.
    pub jitter_ms: u64,
}

impl Delay {
    /// What to wait.
    #[must_use]
    pub const fn total_ms(self) -> u64 {
        self.base_ms.saturating_add(self.jitter_ms)
    }
}

/// Exponential back-off with jitter.
#[derive(Clone, Debug)]
pub struct BackOff {
    limits: BackOffLimits,
    next_ms: u64,
    random: u64,
}

impl BackOff {
    /// One that begins at the base; the same seed gives the same jitter.
    #[must_use]
    pub fn new(limits: BackOffLimits, seed: u64) -> Self {
        Self {
            limits,
            next_ms: limits.base_ms.min(limits.cap_ms),
            random: seed,
        }
    }

    /// An attempt failed, or a connection ended: wait so long.
    pub fn next_delay(&mut self) -> Delay {
        let base_ms = self.next_ms;
        self.next_ms = base_ms.saturating_mul(2).min(self.limits.cap_ms);
        Delay {
            base_ms,
            // The bias of the modulus is below 2^-40 for any delay that anybody configures.
            jitter_ms: self.next_random() % base_ms.saturating_add(1).max(1),
        }
    }

    /// A connection was made: begin at the base again.
    pub fn reset(&mut self) {
        self.next_ms = self.limits.base_ms.min(self.limits.cap_ms);
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::{BackOff, BackOffLimits};

    const LIMITS: BackOffLimits = BackOffLimits {
        base_ms: 500,
        cap_ms: 5000,
    };

    fn bases(back_off: &mut BackOff, count: usize) -> Vec<u64> {
        (0..count).map(|_| back_off.next_delay().base_ms).collect()
    }

    #[test]
    fn delays_double_to_the_cap_and_begin_again_after_a_connection() {
        let mut back_off = BackOff::new(LIMITS, 1);
        assert_eq!(bases(&mut back_off, 6), [500, 1000, 2000, 4000, 5000, 5000]);
        back_off.reset();
        assert_eq!(bases(&mut back_off, 2), [500, 1000]);
    }

    #[test]
    fn odd_limits_do_not_overflow_or_divide_by_zero() {
        let rows = [(0, 0, 0), (700, 100, 100), (u64::MAX, u64::MAX, u64::MAX)];
        for (base_ms, cap_ms, expected) in rows {
            let mut back_off = BackOff::new(BackOffLimits { base_ms, cap_ms }, 3);
            for _ in 0..3 {
                let delay = back_off.next_delay();
                assert_eq!(delay.base_ms, expected);
                assert!(delay.jitter_ms <= delay.base_ms);
                assert!(delay.total_ms() >= delay.base_ms);
            }
        }
    }

    #[test]
    fn jitter_spreads_a_thousand_devices_over_the_whole_interval() {
        // Ten buckets of 50 ms; 100 are expected in each. Five sigma of a binomial are 5 * sqrt(90), that is 48.
        let mut buckets = [0_u32; 10];
        for seed in 0..1000 {
            let delay = BackOff::new(LIMITS, seed).next_delay();
            assert!(delay.jitter_ms <= 500);
            buckets[usize::try_from(delay.jitter_ms / 51).unwrap()] += 1;
        }
        assert!(
            buckets.iter().all(|n| (52..=148).contains(n)),
            "{buckets:?}"
        );
    }

    #[test]
    fn ten_thousand_devices_without_their_endpoint_make_two_hundred_attempts_a_second_at_most() {
        let mut attempts = vec![0_u32; 600];
        for seed in 0..10_000 {
            let mut back_off = BackOff::new(BackOffLimits::default(), seed);
            let mut at_ms = back_off.next_delay().total_ms();
            while let Some(second) = attempts.get_mut(usize::try_from(at_ms / 1000).unwrap()) {
                *second += 1;
                at_ms += back_off.next_delay().total_ms();
            }
        }
        // The first two minutes are the doublings up to the cap: 120 s are 0.5 + 1 + 2 + ... + 32 + 56.5.
        let most = attempts[120..].iter().max();
        assert!(most <= Some(&200), "{attempts:?}");
        // Before that each of them has come nine times at most.
        assert!(
            attempts[..120].iter().sum::<u32>() <= 90_000,
            "{attempts:?}"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_delays() {
        let delays = |seed| {
            let mut back_off = BackOff::new(LIMITS, seed);
            (0..8).map(|_| back_off.next_delay()).collect::<Vec<_>>()
        };
        assert_eq!(delays(9), delays(9));
        assert_ne!(delays(9), delays(10));
    }
}
