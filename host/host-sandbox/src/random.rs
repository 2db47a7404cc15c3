//! Everything in a world that looks random, from one seed.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): the state grows by the odd constant 0x9e3779b97f4a7c15, and its value is mixed by
//! two multiplications. It is a dozen lines that will give the same numbers in ten years, which is what a seed in a bug
//! report needs; it is good for nothing secret. Each part of a world draws from a stream of its own
//! ([`Random::stream`]), so that one more draw in one part moves nothing in another.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The stream of a seed for one part of a world.
    #[must_use]
    pub fn stream(seed: u64, part: &str) -> Self {
        let mut stream = Self(seed);
        for byte in part.bytes() {
            stream.0 = stream.number() ^ u64::from(byte);
        }
        stream
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if `end` is 0. The remainder favours small numbers by less than one in 2^32 for every
    /// `end` that a world uses.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// As [`below`](Self::below), for lengths in memory.
    pub fn below_len(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    /// Whether something happens that does so in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        // Nothing is drawn for what never happens: a fault that is off moves no other.
        per_mille != 0 && self.below(1000) < u64::from(per_mille)
    }

    /// Bytes of an image.
    #[must_use]
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let mut random = Random::new(0);
        let numbers: Vec<_> = (0..3).map(|_| random.number()).collect();
        // The reference numbers of the algorithm for seed 0.
        assert_eq!(
            numbers,
            [
                0xe220_a839_7b1d_cdaf,
                0x6e78_9e6a_a1b9_65f4,
                0x06c4_5d18_8009_454f
            ]
        );
    }

    #[test]
    fn parts_draw_from_streams_of_their_own() {
        let first = |part| Random::stream(7, part).number();
        assert_eq!(first("disk"), first("disk"));
        assert_ne!(first("disk"), first("network"));
        assert_ne!(first("disk"), Random::stream(8, "disk").number());
    }

    #[test]
    fn chances_fall_about_as_often_as_they_should() {
        let mut random = Random::new(1);
        let hits = (0..10_000).filter(|_| random.chance(300)).count();
        assert!((2800..3200).contains(&hits), "{hits}");
        assert!(!(0..1000).any(|_| random.chance(0)));
        assert!((0..1000).all(|_| random.chance(1000)));
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }
}
