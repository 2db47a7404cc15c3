//! How a file is cut into blocks.

use core::fmt;

/// Smallest block, the service's limit.
pub const BLOCK_SIZE_MIN: u32 = 256;
/// Largest block, the service's limit.
pub const BLOCK_SIZE_MAX: u32 = 131_072;
/// Most blocks in a file: the map of their bits has 128 KiB, which still fits a snapshot.
pub const BLOCKS_MAX_COUNT: u32 = 1_048_576;

/// Number of a block in its file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockIndex(pub u32);

/// The blocks of a file: all of one size, the last one as long as the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockGrid {
    size: u64,
    block_size: u32,
    count: u32,
}

/// Why there is no grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridError {
    /// The file has no bytes.
    ZeroSize,
    /// The block size is not 256 to 131072.
    BadBlockSize(u32),
    /// So many blocks are more than [`BLOCKS_MAX_COUNT`].
    TooManyBlocks(u64),
}

impl fmt::Display for GridError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("the file has 0 bytes"),
            Self::BadBlockSize(size) => {
                write!(
                    f,
                    "blocks of {size} bytes, expected {BLOCK_SIZE_MIN} to {BLOCK_SIZE_MAX}"
                )
            }
            Self::TooManyBlocks(count) => {
                write!(f, "{count} blocks, at most {BLOCKS_MAX_COUNT} are allowed")
            }
        }
    }
}

impl core::error::Error for GridError {}

impl BlockGrid {
    /// Cuts a file of `size` bytes.
    ///
    /// # Errors
    /// [`GridError`]: the size is the job's fault, the block size the configuration's.
    pub fn new(size: u64, block_size: u32) -> Result<Self, GridError> {
        if !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size) {
            return Err(GridError::BadBlockSize(block_size));
        }
        if size == 0 {
            return Err(GridError::ZeroSize);
        }
        let count = size.div_ceil(u64::from(block_size));
        match u32::try_from(count) {
            Ok(count) if count <= BLOCKS_MAX_COUNT => Ok(Self {
                size,
                block_size,
                count,
            }),
            Ok(_) | Err(_) => Err(GridError::TooManyBlocks(count)),
        }
    }

    /// Bytes in the file.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes in every block but the last.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Blocks in the file, at least 1.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of a block; none if the file has no such block.
    #[must_use]
    pub fn block_len(&self, index: BlockIndex) -> Option<u32> {
        let offset = self.offset(index)?;
        // At most block_size, so it fits.
        Some((self.size - offset).min(u64::from(self.block_size)) as u32)
    }

    /// Offset of a block in the file; none if the file has no such block.
    #[must_use]
    pub fn offset(&self, index: BlockIndex) -> Option<u64> {
        (index.0 < self.count).then(|| u64::from(index.0) * u64::from(self.block_size))
    }

    /// The block that begins at this offset.
    #[must_use]
    pub fn index_at(&self, offset: u64) -> Option<BlockIndex> {
        let block_size = u64::from(self.block_size);
        if offset >= self.size || !offset.is_multiple_of(block_size) {
            return None;
        }
        u32::try_from(offset / block_size).ok().map(BlockIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_cut_at_the_block_size_and_the_last_block_is_the_rest() {
        // size, block size, count, length of the last block
        let rows = [
            (1, 1024, 1, 1),
            (1023, 1024, 1, 1023),
            (1024, 1024, 1, 1024),
            (1025, 1024, 2, 1),
            (2500, 1024, 3, 452),
            (10_446, 4096, 3, 2254),
            (10_240, 4096, 3, 2048),
            (40 << 20, 65_536, 640, 65_536),
            (256 << 20, 256, BLOCKS_MAX_COUNT, 256),
            (1000, 300, 4, 100),
            // The C agent refuses both: rounded up to whole blocks they pass 32 bits.
            (4_294_963_220, 4096, BLOCKS_MAX_COUNT, 20),
            (4_294_967_297, 65_536, 65_537, 1),
        ];
        for (size, block_size, count, last) in rows {
            let grid = BlockGrid::new(size, block_size).unwrap();
            assert_eq!(grid.count(), count, "{size}/{block_size}");
            assert_eq!(
                grid.block_len(BlockIndex(count - 1)),
                Some(last),
                "{size}/{block_size}"
            );
            assert_eq!(grid.block_len(BlockIndex(count)), None);
            assert_eq!(grid.offset(BlockIndex(count)), None);
            if count > 1 {
                assert_eq!(grid.block_len(BlockIndex(0)), Some(block_size));
            }
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_refuse_one_past_it() {
        let most = u64::from(BLOCKS_MAX_COUNT);
        assert_eq!(BlockGrid::new(0, 4096), Err(GridError::ZeroSize));
        for block_size in [0, BLOCK_SIZE_MIN - 1, BLOCK_SIZE_MAX + 1] {
            assert_eq!(
                BlockGrid::new(1, block_size),
                Err(GridError::BadBlockSize(block_size))
            );
        }
        for block_size in [BLOCK_SIZE_MIN, BLOCK_SIZE_MAX] {
            let limit = most * u64::from(block_size);
            assert!(BlockGrid::new(limit, block_size).is_ok());
            assert_eq!(
                BlockGrid::new(limit + 1, block_size),
                Err(GridError::TooManyBlocks(most + 1))
            );
        }
        assert_eq!(
            BlockGrid::new(u64::MAX, 256),
            Err(GridError::TooManyBlocks(1 << 56))
        );
    }

    #[test]
    fn an_offset_finds_its_block_only_on_the_grid() {
        let grid = BlockGrid::new(2500, 1024).unwrap();
        let rows = [
            (0, Some(0)),
            (1024, Some(1)),
            (2048, Some(2)),
            (1, None),
            (3072, None),
            (2500, None),
        ];
        for (offset, index) in rows {
            assert_eq!(grid.index_at(offset), index.map(BlockIndex), "{offset}");
        }
    }
}
