//! Which blocks of a file are held, and the append-only log that remembers it.
//!
//! ```text
//! header   "OTADMAP1" | transfer number u64 | size u64 | block size u32 | crc u32
//! blocks   1 u16 | count u16 | first block u32 | count x CRC-32C of a block u32 | crc u32
//! mark     2 u16 | 0 u16     | entries covered u32                              | crc u32
//! ```
//!
//! Little-endian; each record ends with the CRC-32C of its other bytes. A block is entered after the storage took it, so
//! what is in the log was acknowledged, as far as this process is concerned. A mark says
//! that the data of the first so many entries was made durable; what stands behind the last mark is read again and
//! compared by CRC before it counts after a restart. Beyond a torn record nothing counts. One block costs 16 bytes,
//! 0.4 % at 4 KiB, or 4 in a run. Not here: files, syncing, reading.

use std::collections::VecDeque;

const MAGIC: &[u8; 8] = b"OTADMAP1";
const HEADER_BYTES: usize = 32;
const KIND_BLOCKS: u16 = 1;
const KIND_MARK: u16 = 2;

/// Blocks of one record when a map is written as a whole: 2 KiB of CRCs.
const RUN_MAX: usize = 512;

/// The grid on which a file's blocks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// Bytes of the file, at least 1.
    pub(super) size: u64,
    /// Bytes of a block, at least 1.
    pub(super) block: u32,
}

impl Grid {
    /// Blocks of the file. The specification was checked: they fit.
    pub(super) fn blocks(&self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.block))).unwrap_or(u32::MAX)
    }

    /// Where a block begins.
    pub(super) fn offset(&self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.block)
    }

    /// Bytes of a block; the last one may be shorter.
    pub(super) fn length(&self, index: u32) -> u32 {
        let rest = self.size.saturating_sub(self.offset(index));
        u32::try_from(rest).unwrap_or(u32::MAX).min(self.block)
    }
}

/// The map of one transfer.
#[derive(Debug)]
pub(super) struct BlockMap {
    grid: Grid,
    number: u64,
    held: Vec<u8>,
    held_blocks: u32,
    held_bytes: u64,
    prefix: u32,
    crcs: Vec<u32>,
    /// Entries of the log that a mark covers, or that a sync under way will.
    synced: u32,
    /// Blocks of the entries behind them, in the order of the log.
    unsynced: VecDeque<u32>,
    unsynced_bytes: u64,
}

/// A log that was read.
#[derive(Debug)]
pub(super) struct Replayed {
    /// What it says.
    pub(super) map: BlockMap,
    /// Whether it ends with something that is no record, or is no log of this transfer.
    pub(super) torn: bool,
}

impl BlockMap {
    /// Nothing held.
    pub(super) fn new(grid: Grid, number: u64) -> Self {
        let blocks = grid.blocks() as usize;
        Self {
            grid,
            number,
            held: vec![0; blocks.div_ceil(8)],
            held_blocks: 0,
            held_bytes: 0,
            prefix: 0,
            crcs: vec![0; blocks],
            synced: 0,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
        }
    }

    /// Read a log of transfer `number`.
    pub(super) fn replay(log: &[u8], grid: Grid, number: u64) -> Replayed {
        let mut map = Self::new(grid, number);
        if log.get(..HEADER_BYTES) != Some(&map.header()) {
            return Replayed { map, torn: true };
        }
        let mut rest = &log[HEADER_BYTES..];
        while let Some((record, behind)) = record(rest) {
            let known = match record.kind {
                KIND_BLOCKS => map.replay_blocks(record.value, record.body),
                KIND_MARK => map.replay_mark(record.value),
                _ => false,
            };
            if !known {
                break;
            }
            rest = behind;
        }
        Replayed {
            map,
            torn: !rest.is_empty(),
        }
    }

    /// The log of an empty map.
    pub(super) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.number.to_le_bytes());
        header[16..24].copy_from_slice(&self.grid.size.to_le_bytes());
        header[24..28].copy_from_slice(&self.grid.block.to_le_bytes());
        let crc = crc32c::crc32c(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// The whole log anew: what is synced, a mark, what is not.
    pub(super) fn log(&self) -> Vec<u8> {
        let mut log = self.header().to_vec();
        let mut fresh = vec![false; self.crcs.len()];
        for index in &self.unsynced {
            fresh[*index as usize] = true;
        }
        let synced = |index: &u32| self.holds(*index) && !fresh[*index as usize];
        let mut entries = 0;
        let mut index = 0;
        while index < self.grid.blocks() {
            let run: Vec<u32> = (index..self.grid.blocks())
                .take(RUN_MAX)
                .take_while(synced)
                .collect();
            if run.is_empty() {
                index += 1;
                continue;
            }
            let crcs: Vec<u32> = run.iter().map(|i| self.crcs[*i as usize]).collect();
            log.extend(blocks_record(index, &crcs));
            entries += crcs.len() as u32;
            index += crcs.len() as u32;
        }
        log.extend(mark_record(entries));
        for index in &self.unsynced {
            log.extend(blocks_record(*index, &[self.crcs[*index as usize]]));
        }
        log
    }

    /// After the whole log was written anew: its entries are counted from the start.
    pub(super) fn log_rewritten(&mut self) {
        self.synced = self.held_blocks - self.unsynced.len() as u32;
    }

    /// The record that enters blocks from `first` on.
    pub(super) fn record(first: u32, crcs: &[u32]) -> Vec<u8> {
        blocks_record(first, crcs)
    }

    /// The record that says that the first `covered` entries are durable.
    pub(super) fn mark(covered: u32) -> Vec<u8> {
        mark_record(covered)
    }

    /// Enter blocks whose record was appended.
    pub(super) fn enter(&mut self, first: u32, crcs: &[u32]) {
        for (index, crc) in (first..).zip(crcs) {
            self.crcs[index as usize] = *crc;
            self.hold(index);
            self.unsynced.push_back(index);
            self.unsynced_bytes += u64::from(self.grid.length(index));
        }
    }

    /// Entries of the log so far: what a sync that begins now will cover.
    pub(super) fn entries(&self) -> u32 {
        self.synced + self.unsynced.len() as u32
    }

    /// The first `covered` entries are durable.
    pub(super) fn synced(&mut self, covered: u32) {
        while self.synced < covered {
            let Some(index) = self.unsynced.pop_front() else {
                break;
            };
            self.synced += 1;
            self.unsynced_bytes -= u64::from(self.grid.length(index));
        }
    }

    /// A sync failed: what is behind the last mark may never reach the medium, whatever a read says now.
    pub(super) fn drop_unsynced(&mut self) {
        for index in std::mem::take(&mut self.unsynced) {
            self.release(index);
        }
        self.unsynced_bytes = 0;
    }

    /// Blocks behind the last mark with their CRC, to be read again.
    pub(super) fn suspects(&self) -> Vec<(u32, u32)> {
        self.unsynced
            .iter()
            .map(|index| (*index, self.crcs[*index as usize]))
            .collect()
    }

    /// What was read again: `bad` blocks are not held after all.
    pub(super) fn drop_blocks(&mut self, bad: &[u32]) {
        for index in bad {
            self.release(*index);
        }
        self.unsynced.retain(|index| !bad.contains(index));
        self.unsynced_bytes = self
            .unsynced
            .iter()
            .map(|index| u64::from(self.grid.length(*index)))
            .sum();
    }

    /// Everything held is durable.
    pub(super) fn all_synced(&mut self) {
        self.unsynced.clear();
        self.unsynced_bytes = 0;
        self.log_rewritten();
    }

    /// Whether a block is held.
    pub(super) fn holds(&self, index: u32) -> bool {
        self.held
            .get(index as usize / 8)
            .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// The CRC-32C of a block, if it is held.
    pub(super) fn crc(&self, index: u32) -> Option<u32> {
        self.holds(index).then(|| self.crcs[index as usize])
    }

    /// Whether all are.
    pub(super) fn complete(&self) -> bool {
        self.held_blocks == self.grid.blocks()
    }

    /// How many are not.
    pub(super) fn missing(&self) -> u32 {
        self.grid.blocks() - self.held_blocks
    }

    /// One bit a block: block i is bit i % 8 of byte i / 8.
    pub(super) fn bitmap(&self) -> Vec<u8> {
        self.held.clone()
    }

    /// Blocks held.
    pub(super) fn held_blocks(&self) -> u32 {
        self.held_blocks
    }

    /// Bytes held.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Bytes not held.
    pub(super) fn missing_bytes(&self) -> u64 {
        self.grid.size - self.held_bytes
    }

    /// Bytes held without a gap from the start.
    pub(super) fn prefix_bytes(&self) -> u64 {
        self.grid.offset(self.prefix).min(self.grid.size)
    }

    /// Bytes entered since the last mark.
    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    fn hold(&mut self, index: u32) {
        if self.holds(index) {
            return;
        }
        self.held[index as usize / 8] |= 1 << (index % 8);
        self.held_blocks += 1;
        self.held_bytes += u64::from(self.grid.length(index));
        while self.prefix < self.grid.blocks() && self.holds(self.prefix) {
            self.prefix += 1;
        }
    }

    fn release(&mut self, index: u32) {
        if !self.holds(index) {
            return;
        }
        self.held[index as usize / 8] &= !(1 << (index % 8));
        self.held_blocks -= 1;
        self.held_bytes -= u64::from(self.grid.length(index));
        self.prefix = self.prefix.min(index);
    }

    fn replay_blocks(&mut self, first: u32, body: &[u8]) -> bool {
        let crcs: Vec<u32> = body.chunks_exact(4).map(u32_at).collect();
        let end = u64::from(first) + crcs.len() as u64;
        // A block that stands twice was written twice: this build never does that.
        if crcs.is_empty()
            || end > u64::from(self.grid.blocks())
            || (first..).zip(&crcs).any(|(index, _)| self.holds(index))
        {
            return false;
        }
        self.enter(first, &crcs);
        true
    }

    fn replay_mark(&mut self, covered: u32) -> bool {
        if covered > self.entries() {
            return false;
        }
        self.synced(covered);
        true
    }
}

/// One record of a log.
struct Record<'l> {
    kind: u16,
    value: u32,
    body: &'l [u8],
}

/// The first record and what is behind it; `None` if there is no whole one.
fn record(log: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let head: &[u8; 8] = log.first_chunk()?;
    let count = usize::from(u16::from_le_bytes([head[2], head[3]]));
    let (body_end, end) = (8 + count * 4, 12 + count * 4);
    let whole = log.get(..end)?;
    if crc32c::crc32c(&whole[..body_end]) != u32_at(&whole[body_end..]) {
        return None;
    }
    let record = Record {
        kind: u16::from_le_bytes([head[0], head[1]]),
        value: u32_at(&head[4..]),
        body: &whole[8..body_end],
    };
    Some((record, &log[end..]))
}

fn blocks_record(first: u32, crcs: &[u32]) -> Vec<u8> {
    let count = u16::try_from(crcs.len()).unwrap_or(u16::MAX);
    let body = crcs.iter().take(usize::from(count));
    sealed(
        KIND_BLOCKS,
        count,
        first,
        body.flat_map(|c| c.to_le_bytes()),
    )
}

fn mark_record(covered: u32) -> Vec<u8> {
    sealed(KIND_MARK, 0, covered, [])
}

fn sealed(kind: u16, count: u16, value: u32, body: impl IntoIterator<Item = u8>) -> Vec<u8> {
    let mut record = Vec::with_capacity(12 + usize::from(count) * 4);
    record.extend(kind.to_le_bytes());
    record.extend(count.to_le_bytes());
    record.extend(value.to_le_bytes());
    record.extend(body);
    let crc = crc32c::crc32c(&record);
    record.extend(crc.to_le_bytes());
    record
}

/// The first four bytes; the callers have checked that they are there.
fn u32_at(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
