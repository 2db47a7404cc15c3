//! Losses from a seed: the n-th thing judged is lost or not, whatever the threads do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Direction, Verdict};
use crate::mqtt::Packet;

/// Chooses what is lost. Clones share the count.
#[derive(Debug, Clone)]
pub struct Loss {
    per_mille: u64,
    seed: u64,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    judged: AtomicU64,
    lost: AtomicU64,
}

impl Loss {
    /// Loses so many of a thousand, the same ones for the same seed.
    #[must_use]
    pub fn new(per_mille: u64, seed: u64) -> Self {
        Self {
            per_mille,
            seed,
            counts: Arc::default(),
        }
    }

    /// Loses PUBLISH messages whose topic is chosen, in both directions; for [`Proxy::start_filtered`].
    ///
    /// [`Proxy::start_filtered`]: super::Proxy::start_filtered
    pub fn of_topics(
        &self,
        is_chosen: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> impl Fn(Direction, &Packet) -> Verdict + Send + Sync + 'static {
        let loss = self.clone();
        move |_, packet| match packet.message() {
            Some((topic, _)) if is_chosen(topic) && loss.judge().is_some() => Verdict::Drop,
            _ => Verdict::Pass,
        }
    }

    /// How many things were judged so far.
    #[must_use]
    pub fn judged(&self) -> u64 {
        self.counts.judged.load(Ordering::Relaxed)
    }

    /// How many of them were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Judges the next thing: none = it goes on, else it is lost, with a number that chooses where it is cut.
    pub(super) fn judge(&self) -> Option<u64> {
        let index = self.counts.judged.fetch_add(1, Ordering::Relaxed);
        let drawn = mixed(self.seed ^ mixed(index));
        if drawn % 1000 >= self.per_mille {
            return None;
        }
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
        Some(mixed(drawn))
    }
}

/// The finalizer of splitmix64: every bit of the input reaches every bit of the output.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(per_mille: u64, seed: u64, count: usize) -> Vec<usize> {
        let loss = Loss::new(per_mille, seed);
        (0..count).filter(|_| loss.judge().is_some()).collect()
    }

    #[test]
    fn the_same_seed_loses_the_same_ones_and_another_seed_others() {
        assert_eq!(lost(50, 1, 4096), lost(50, 1, 4096));
        assert_ne!(lost(50, 1, 4096), lost(50, 2, 4096));
    }

    #[test]
    fn as_many_are_lost_as_was_said() {
        for (per_mille, seed) in [(0, 3), (50, 4), (500, 5), (1000, 6)] {
            let count = lost(per_mille, seed, 100_000).len() as u64;
            assert!(
                count.abs_diff(per_mille * 100) < 500,
                "{count} at {per_mille}"
            );
        }
    }

    #[test]
    fn clones_share_the_count() {
        let loss = Loss::new(1000, 0);
        assert!(loss.clone().judge().is_some());
        assert_eq!((loss.judged(), loss.lost()), (1, 1));
    }
}
