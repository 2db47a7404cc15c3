//! Chance that repeats: the same seed gives the same faults. Nothing here is meant to be hard to guess.

/// Steele, Lea and Flood's `splitmix64`.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `per_mille` of 1000 cases.
    pub(crate) const fn strikes(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < per_mille as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_strikes_about_as_often_as_asked() {
        let mut random = Random::new(7);
        let struck = (0..10_000).filter(|_| random.strikes(100)).count();
        assert!((800..1200).contains(&struck), "{struck}");
        assert_eq!(Random::new(3).next(), Random::new(3).next());
        assert!(!Random::new(1).strikes(0));
    }
}
