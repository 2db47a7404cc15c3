//! Whether another client uses the same client id: MQTT 3.1.1 has no word for it, so it is a suspicion. Pure: no clock.

use std::time::Duration;

use crate::back_off::BackOffLimits;

/// A connection that the broker closes so soon after it was made…
const SHORT_LIVED: Duration = Duration::from_secs(5);

/// …so many times in a row, is most likely taken over. Then the delay is not reset by a connection, or the two would throw
/// each other out twice a second.
const TAKEN_OVER_AFTER: u32 = 3;

/// So many of the longest delays: the other one comes back after two of them at the latest, jitter included.
const CALM_DELAYS: u32 = 3;

/// What became of the last connections.
#[derive(Debug)]
pub(crate) struct TakeOver {
    /// Connections in a row that the broker closed and that had not lasted.
    in_a_row: u32,
    /// A connection that lasted so long was disputed by nobody.
    calm: Duration,
}

impl TakeOver {
    pub(crate) fn new(back_off: BackOffLimits) -> Self {
        let calm = Duration::from_millis(back_off.cap_ms).saturating_mul(CALM_DELAYS);
        Self {
            in_a_row: 0,
            calm: calm.max(SHORT_LIVED),
        }
    }

    /// A connection of so long a life has ended; true = it was disputed by nobody.
    pub(crate) fn ended(&mut self, lived: Duration, by_broker: bool) -> bool {
        // As the delays grow, so do the lives in between.
        let enough = if self.is_suspected() {
            self.calm
        } else {
            SHORT_LIVED
        };
        if lived >= enough {
            self.in_a_row = 0;
        } else if by_broker {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else if !self.is_suspected() {
            self.in_a_row = 0;
        }
        lived >= self.calm
    }

    pub(crate) const fn is_suspected(&self) -> bool {
        self.in_a_row >= TAKEN_OVER_AFTER
    }

    pub(crate) const fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::back_off::BackOff;

    const LIMITS: BackOffLimits = BackOffLimits {
        base_ms: 500,
        cap_ms: 60_000,
    };

    #[test]
    fn two_clients_that_throw_each_other_out_come_to_the_longest_delay_and_stay_there() {
        let mut sides = [1, 2].map(|seed| (TakeOver::new(LIMITS), BackOff::new(LIMITS, seed)));
        let mut delays = Vec::new();
        // Each in turn is thrown out, and comes back after its delay: so long has the other one lived.
        let mut lived = Duration::ZERO;
        for turn in 0..40 {
            let (take_over, back_off) = &mut sides[turn % 2];
            if !take_over.is_suspected() {
                back_off.reset();
            }
            if take_over.ended(lived, true) {
                back_off.reset();
            }
            let delay = back_off.next_delay();
            delays.push(delay.base_ms);
            lived = Duration::from_millis(delay.total_ms());
        }
        assert!(
            delays[30..].iter().all(|ms| *ms == LIMITS.cap_ms),
            "{delays:?}"
        );
    }

    #[test]
    fn a_connection_that_nobody_disputes_ends_the_suspicion() {
        let mut take_over = TakeOver::new(LIMITS);
        for _ in 0..TAKEN_OVER_AFTER {
            assert!(!take_over.ended(Duration::from_secs(1), true));
        }
        assert!(take_over.is_suspected());
        // A cable that was pulled meanwhile says nothing of the other client.
        assert!(!take_over.ended(Duration::from_secs(60), false));
        assert!(take_over.is_suspected());
        assert!(take_over.ended(Duration::from_secs(180), true));
        assert!(!take_over.is_suspected());
    }

    #[test]
    fn now_and_then_a_short_connection_is_none() {
        let mut take_over = TakeOver::new(LIMITS);
        for _ in 0..10 {
            take_over.ended(Duration::from_secs(1), true);
            take_over.ended(Duration::from_secs(1), true);
            // Either it lasted, or it was not the broker's doing.
            take_over.ended(Duration::from_secs(6), true);
            assert!(!take_over.is_suspected());
            take_over.ended(Duration::from_secs(1), true);
            take_over.ended(Duration::from_secs(1), true);
            take_over.ended(Duration::from_secs(1), false);
            assert!(!take_over.is_suspected());
        }
    }
}
