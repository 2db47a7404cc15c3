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
