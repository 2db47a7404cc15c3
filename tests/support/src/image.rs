//! Bytes from seeds: images that look random, and choices that a failing test can repeat.

/// A small generator (SplitMix64): the same seed gives the same numbers on every machine. Nothing secret may use it.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias is below 2^-32 for bounds up to 2^32.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// True in `share` of 1000 cases.
    pub fn per_mille(&mut self, share: u64) -> bool {
        self.below(1000) < share
    }

    /// Fills a buffer.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// An image of `size` bytes from a seed.
#[must_use]
pub fn random_bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    Random::new(seed).fill(&mut bytes);
    bytes
}

/// The seed of a randomised test: `OTAD_SEED` in decimal or 0x hex, or the given one. Print it when the test fails.
#[must_use]
pub fn seed(default: u64) -> u64 {
    std::env::var("OTAD_SEED")
        .ok()
        .and_then(|text| parse_seed(&text))
        .unwrap_or(default)
}

fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes_for_ever() {
        // Do not change: seeds in bug reports would lose their meaning.
        assert_eq!(Random::new(0).next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random_bytes(7, 11), random_bytes(7, 11));
        assert_eq!(random_bytes(7, 11)[..8], random_bytes(7, 8));
        assert_ne!(random_bytes(7, 64), random_bytes(8, 64));
        assert_eq!(random_bytes(7, 0), []);
    }

    #[test]
    fn seeds_are_read_in_both_notations() {
        assert_eq!(parse_seed("17"), Some(17));
        assert_eq!(parse_seed("0xff"), Some(255));
        assert_eq!(parse_seed("x"), None);
    }
}
