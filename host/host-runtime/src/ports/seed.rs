//! Seeds for agents: what looks random in an agent comes from here, once at each start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where seeds come from. A simulation gives its own.
pub trait Seed: Send + Sync {
    /// Another seed at every call.
    fn seed(&self) -> u64;
}

/// Seeds that nobody outside this process can guess.
#[derive(Debug)]
pub struct SystemSeed {
    base: u64,
    count: AtomicU64,
}

impl SystemSeed {
    /// Take the base from the system's random source.
    ///
    /// # Errors
    /// The system has none.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            base: getrandom::u64().map_err(|e| std::io::Error::other(e.to_string()))?,
            count: AtomicU64::new(0),
        })
    }
}

impl Seed for SystemSeed {
    fn seed(&self) -> u64 {
        // SplitMix64: neighbouring counts give unrelated seeds (Steele, Lea, Flood 2014, section 4).
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut z = self
            .base
            .wrapping_add(count.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_seeds_of_a_process_are_the_same() {
        let seeds = SystemSeed::new().unwrap();
        let mut all: Vec<u64> = (0..1000).map(|_| seeds.seed()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1000);
    }
}
