//! One connection after the other: how many of a process may be begun in a second.
//!
//! Back-off and jitter spread what a fleet of gateways does; a gateway with a thousand connections is a fleet of its own, and
//! its connections are lost and begun together. Not here: how long each waits for itself (`back_off.rs`).

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets so many attempts to connect through in a second, in the order in which they come. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Turnstile {
    gap: Duration,
    /// Not before this instant.
    next: Arc<Mutex<Option<Instant>>>,
}

impl Turnstile {
    /// One that lets so many through in a second.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        Self {
            gap: Duration::from_secs(1) / per_second.get(),
            next: Arc::default(),
        }
    }

    /// Take the next turn; when it is. One that is not used is lost.
    pub(crate) fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + self.gap);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_connections_that_are_lost_together_come_back_at_the_rate_that_is_set() {
        let turnstile = Turnstile::new(NonZeroU32::new(50).expect("not zero"));
        let begun = Instant::now();
        let mut of_second = [0_u32; 20];
        for _ in 0..1000 {
            let turn = turnstile.take(begun).duration_since(begun);
            of_second[usize::try_from(turn.as_secs()).unwrap()] += 1;
        }
        assert_eq!(of_second, [50; 20]);
    }

    #[test]
    fn who_comes_alone_does_not_wait_and_time_without_anybody_saves_nothing_up() {
        let turnstile = Turnstile::new(NonZeroU32::new(10).expect("not zero"));
        let begun = Instant::now();
        assert_eq!(turnstile.take(begun), begun);
        let later = begun + Duration::from_secs(60);
        assert_eq!(turnstile.take(later), later);
        let gap = Duration::from_millis(100);
        assert_eq!(turnstile.clone().take(later), later + gap);
        assert_eq!(turnstile.take(later), later + 2 * gap);
    }
}
