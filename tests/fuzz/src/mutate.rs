//! A seeded mutator: good inputs, damaged in the ways that find faults in parsers. No coverage, no learning; cargo-fuzz
//! has these.

/// SplitMix64: small, seeded, good enough to shuffle bytes.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed for one target.
    #[must_use]
    pub fn new(seed: u64, target: &str) -> Self {
        let mix = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(target.bytes().fold(seed, mix))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % (end.max(1) as u64)) as usize
    }
}

/// Longest input: what the largest limit of a parser lets in, and a little more, so that the limit itself is tried.
const INPUT_MAX_BYTES: usize = 256 * 1024;

/// Bytes and texts that parsers of numbers, names, JSON and CBOR are known to stumble over.
const WORDS: [&[u8]; 34] = [
    b"0",
    b"-1",
    b"255",
    b"256",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e999",
    b"1.5",
    b"null",
    b"true",
    b"\"\"",
    b"{}",
    b"[]",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x9f",
    b"\xbf",
    b"\xff",
    b"../",
];

/// Makes inputs of a corpus.
#[derive(Clone, Debug)]
pub struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    random: Random,
}

impl<'a> Mutator<'a> {
    /// Inputs of this corpus, by these numbers.
    #[must_use]
    pub fn new(corpus: &'a [Vec<u8>], random: Random) -> Self {
        Self { corpus, random }
    }

    /// The next input: noise now and then, otherwise a good one with some damage.
    pub fn input(&mut self) -> Vec<u8> {
        if self.corpus.is_empty() || self.random.below(32) == 0 {
            let length = self.random.below(200);
            return (0..length).map(|_| self.random.number() as u8).collect();
        }
        let mut bytes = self.pick().to_vec();
        // Mostly one or two: more, and the first check refuses it.
        let damages = 1 << self.random.below(4);
        for _ in 0..damages {
            self.damage(&mut bytes);
        }
        bytes.truncate(INPUT_MAX_BYTES);
        bytes
    }

    fn pick(&mut self) -> &'a [u8] {
        let at = self.random.below(self.corpus.len());
        &self.corpus[at]
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(bytes.len() + 1);
        let to = (at + random.below(24)).min(bytes.len());
        match random.below(11) {
            0 => bytes.insert(at, random.number() as u8),
            1 => drop(bytes.drain(at..to)),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => bytes[at] = random.number() as u8,
            4 => bytes.truncate(at),
            5 => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            6 => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..to, word.iter().copied());
            }
            7 => {
                // A part of it again: duplicate members, longer lists.
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
            8 => self.repeat(bytes, at),
            9 => self.number(bytes, at),
            _ => self.splice(bytes, at),
        }
    }

    /// The same bytes many times: nesting, and fields at their limits.
    fn repeat(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let piece: Vec<u8> = bytes[at..]
            .iter()
            .copied()
            .take(1 + self.random.below(4))
            .collect();
        let times = 1 << self.random.below(14);
        if piece.len() * times < INPUT_MAX_BYTES {
            bytes.splice(at..at, piece.repeat(times));
        }
    }

    /// Another number where one stands.
    fn number(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let Some(begin) = bytes[at..]
            .iter()
            .position(u8::is_ascii_digit)
            .map(|n| at + n)
        else {
            return;
        };
        let length = bytes[begin..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        let shift = self.random.below(64);
        let number = self.random.number() >> shift;
        let near = if self.random.below(2) == 0 {
            number
        } else {
            1_u64 << (63 - shift)
        };
        bytes.splice(begin..begin + length, near.to_string().into_bytes());
    }

    /// The beginning of one input and the end of another.
    fn splice(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let other = self.pick();
        let from = self.random.below(other.len() + 1);
        bytes.truncate(at);
        bytes.extend_from_slice(&other[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_they_differ() {
        let corpus = vec![b"{\"a\":17,\"b\":[1,2,3]}".to_vec(), b"short".to_vec()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(&corpus, Random::new(seed, "x"));
            (0..300).map(|_| mutator.input()).collect::<Vec<_>>()
        };
        let first = inputs(1);
        assert_eq!(first, inputs(1));
        assert_ne!(first, inputs(2));
        let mut distinct = first.clone();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 200, "{}", distinct.len());
        assert!(first.iter().all(|bytes| bytes.len() <= INPUT_MAX_BYTES));
    }
}
