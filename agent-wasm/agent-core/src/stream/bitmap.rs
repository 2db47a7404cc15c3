//! One bit a block, least significant bit first, as the stream service and the host count them.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::BlockIndex;

/// A set of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    bytes: Vec<u8>,
    blocks: u32,
    set: u32,
}

/// Why bytes are not the map of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitmapError {
    /// So many bytes where another number belongs.
    WrongLength {
        /// Bytes given.
        bytes: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// A bit is set beyond the last block.
    BitBeyondEnd,
}

impl fmt::Display for BitmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongLength { bytes, expected } => {
                write!(f, "the block map has {bytes} bytes, expected {expected}")
            }
            Self::BitBeyondEnd => f.write_str("the block map has a bit beyond the last block"),
        }
    }
}

impl core::error::Error for BitmapError {}

impl Bitmap {
    /// No block of `blocks`.
    #[must_use]
    pub fn new(blocks: u32) -> Self {
        Self {
            bytes: vec![0; byte_len(blocks)],
            blocks,
            set: 0,
        }
    }

    /// The set that these bytes say.
    ///
    /// # Errors
    /// [`BitmapError`] if they are the map of another file.
    pub fn from_bytes(blocks: u32, bytes: &[u8]) -> Result<Self, BitmapError> {
        let expected = byte_len(blocks);
        if bytes.len() != expected {
            return Err(BitmapError::WrongLength {
                bytes: bytes.len(),
                expected,
            });
        }
        let used = blocks % 8;
        if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
            return Err(BitmapError::BitBeyondEnd);
        }
        let set = bytes.iter().map(|byte| byte.count_ones()).sum();
        Ok(Self {
            bytes: Vec::from(bytes),
            blocks,
            set,
        })
    }

    /// The bytes: bit `i % 8` of byte `i / 8` is block `i`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Blocks in the file.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Blocks in the set.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.set
    }

    /// Whether every block is in the set.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.set == self.blocks
    }

    /// Whether a block is in the set; no for a block that the file does not have.
    #[must_use]
    pub fn contains(&self, index: BlockIndex) -> bool {
        index.0 < self.blocks
            && self
                .bytes
                .get(byte_of(index.0))
                .is_some_and(|byte| byte & mask_of(index.0) != 0)
    }

    /// Puts a block into the set; whether it was not there before. A block that the file does not have is not put.
    pub fn insert(&mut self, index: BlockIndex) -> bool {
        if index.0 >= self.blocks || self.contains(index) {
            return false;
        }
        let Some(byte) = self.bytes.get_mut(byte_of(index.0)) else {
            return false;
        };
        *byte |= mask_of(index.0);
        self.set += 1;
        true
    }

    /// Puts blocks into the set; the first that was there before, or that is less than the one before it.
    pub(super) fn insert_all(&mut self, blocks: &[u32]) -> Option<u32> {
        let mut wrong = None;
        let mut least = 0;
        for index in blocks {
            if !self.insert(BlockIndex(*index)) || *index < least {
                wrong = wrong.or(Some(*index));
            }
            least = *index;
        }
        wrong
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes of the other blocks.
    pub(super) fn into_missing(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        for byte in &mut bytes {
            *byte = !*byte;
        }
        let used = self.blocks % 8;
        if used != 0
            && let Some(last) = bytes.last_mut()
        {
            *last &= (1 << used) - 1;
        }
        bytes
    }

    /// Takes a block out of the set; whether it was there.
    pub fn remove(&mut self, index: BlockIndex) -> bool {
        if !self.contains(index) {
            return false;
        }
        let Some(byte) = self.bytes.get_mut(byte_of(index.0)) else {
            return false;
        };
        *byte &= !mask_of(index.0);
        self.set -= 1;
        true
    }

    /// The first block from `from` on that is not in the set.
    #[must_use]
    pub fn first_missing(&self, from: BlockIndex) -> Option<BlockIndex> {
        let mut index = from.0;
        while index < self.blocks {
            let byte = self.bytes.get(byte_of(index)).copied()?;
            // What is missing in this byte from this bit on.
            let missing = !byte & (0xff << (index % 8));
            if missing != 0 {
                let found = index - index % 8 + missing.trailing_zeros();
                return (found < self.blocks).then_some(BlockIndex(found));
            }
            index = index - index % 8 + 8;
        }
        None
    }

    /// The runs of blocks that are not in the set, as first block and count, in order.
    pub fn missing_ranges(&self) -> impl Iterator<Item = (BlockIndex, u32)> + '_ {
        let mut from = BlockIndex(0);
        core::iter::from_fn(move || {
            let first = self.first_missing(from)?;
            let mut end = first.0;
            while end < self.blocks && !self.contains(BlockIndex(end)) {
                end += 1;
            }
            from = BlockIndex(end);
            Some((first, end - first.0))
        })
    }
}

const fn byte_len(blocks: u32) -> usize {
    blocks.div_ceil(8) as usize
}

const fn byte_of(index: u32) -> usize {
    (index / 8) as usize
}

const fn mask_of(index: u32) -> u8 {
    1 << (index % 8)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(blocks: u32, set: &[u32]) -> Bitmap {
        let mut bitmap = Bitmap::new(blocks);
        for index in set {
            assert!(bitmap.insert(BlockIndex(*index)));
        }
        bitmap
    }

    #[test]
    fn bit_k_is_the_least_significant_first() {
        // The service's example, counted from 20: blocks 20, 21, 24 and 43.
        assert_eq!(of(24, &[0, 1, 4, 23]).as_bytes(), [0x13, 0x00, 0x80]);
        assert_eq!(of(3, &[0, 1, 2]).as_bytes(), [0x07]);
    }

    #[test]
    fn a_block_counts_once_and_only_if_the_file_has_it() {
        let mut bitmap = Bitmap::new(9);
        assert!(bitmap.insert(BlockIndex(8)));
        assert!(!bitmap.insert(BlockIndex(8)));
        assert!(!bitmap.insert(BlockIndex(9)));
        assert!(!bitmap.insert(BlockIndex(15)));
        assert!(!bitmap.insert(BlockIndex(u32::MAX)));
        assert_eq!((bitmap.count(), bitmap.is_full()), (1, false));
        assert!(!bitmap.contains(BlockIndex(9)) && !bitmap.contains(BlockIndex(u32::MAX)));
        assert!(bitmap.remove(BlockIndex(8)) && !bitmap.remove(BlockIndex(8)));
        assert_eq!(bitmap, Bitmap::new(9));
        assert!((0..9).all(|index| bitmap.insert(BlockIndex(index))) && bitmap.is_full());
    }

    #[test]
    fn bytes_of_another_file_are_refused() {
        let wrong = |bytes, expected| Err(BitmapError::WrongLength { bytes, expected });
        assert_eq!(
            Bitmap::from_bytes(9, &[0xff, 0x01]).map(|bitmap| bitmap.is_full()),
            Ok(true)
        );
        assert_eq!(
            Bitmap::from_bytes(9, &[0xff, 0x02]),
            Err(BitmapError::BitBeyondEnd)
        );
        assert_eq!(Bitmap::from_bytes(9, &[0xff]), wrong(1, 2));
        assert_eq!(Bitmap::from_bytes(8, &[0xff, 0]), wrong(2, 1));
        assert_eq!(
            Bitmap::from_bytes(16, &[0xff, 0xff]).map(|bitmap| bitmap.count()),
            Ok(16)
        );
    }

    #[test]
    fn the_largest_map_fits_a_message() {
        let mut bitmap = Bitmap::new(1_048_576);
        assert_eq!(bitmap.as_bytes().len(), 131_072);
        assert!(bitmap.insert(BlockIndex(1_048_575)));
        assert_eq!(
            bitmap.missing_ranges().last(),
            Some((BlockIndex(0), 1_048_575))
        );
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            blocks in 1u32..70,
            changes in prop::collection::vec((any::<bool>(), 0u32..80), 0..100),
        ) {
            let (mut bitmap, mut model) = (Bitmap::new(blocks), BTreeSet::new());
            for (insert, index) in changes {
                let changed = if insert {
                    index < blocks && model.insert(index)
                } else {
                    model.remove(&index)
                };
                let block = BlockIndex(index);
                let done = if insert { bitmap.insert(block) } else { bitmap.remove(block) };
                prop_assert_eq!(done, changed);
            }
            prop_assert_eq!(bitmap.count() as usize, model.len());
            let mut missing = Vec::new();
            for (first, count) in bitmap.missing_ranges() {
                missing.extend(first.0..first.0 + count);
            }
            let expected: Vec<u32> = (0..blocks).filter(|index| !model.contains(index)).collect();
            prop_assert_eq!(&missing, &expected);
            for from in 0..=blocks {
                let next = expected.iter().copied().find(|index| *index >= from);
                prop_assert_eq!(bitmap.first_missing(BlockIndex(from)), next.map(BlockIndex));
            }
            prop_assert_eq!(Bitmap::from_bytes(blocks, bitmap.as_bytes()), Ok(bitmap));
        }
    }
}
