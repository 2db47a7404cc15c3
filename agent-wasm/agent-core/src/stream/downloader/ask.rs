//! Making requests: whether there is room for another one, for which blocks, and its bytes.

use alloc::string::String;
use alloc::vec::Vec;

use crate::jobs::Encoding;
use crate::stream::{Bitmap, BlockIndex, GetRequest, encode_get};
use crate::text::{push_decimal, read_number};

use super::{Downloader, Plane, RequestState, Step};

/// The client token of every request, the C agent's. A number follows where several requests are in flight.
const TOKEN: &str = "rdy";
/// Most bytes of a bitmap in a request, the service's limit: fewer than 12,288.
const BITMAP_MAX_BYTES: usize = 12_287;
/// Requests after which the line is measured anew, or a longer way would for ever look like a queue: 10 s of 100 Mbit/s.
const MEASURED_FOR: u32 = 1024;
/// Most blocks that are asked for or being written at a time, or a snapshot would not hold their numbers.
const WINDOW_MAX_BLOCKS: u32 = 4096;

impl Downloader {
    /// Whether another request fits the window, and there is something left to ask for.
    pub(super) fn has_room(&self) -> bool {
        if self.requests.len() >= self.pace.requests_max() as usize {
            return false;
        }
        let requested: usize = self
            .requests
            .iter()
            .map(|request| request.wanted.len())
            .sum();
        let (held, total) = self.progress();
        let busy = requested + self.writing.len();
        let missing = ((total - held) as usize).saturating_sub(busy);
        let expected: u32 = self.requests.iter().map(|request| request.remaining).sum();
        let taken = expected as usize + self.writing.len();
        let window = self.pace.window() * self.config.blocks_per_request;
        let free = (window.min(WINDOW_MAX_BLOCKS) as usize).saturating_sub(taken);
        missing > 0 && free >= missing.min(self.request_blocks() as usize)
    }

    /// Blocks of the next request.
    fn request_blocks(&self) -> u32 {
        let most = self.config.blocks_per_request;
        if self.pace.halves() {
            (most / 2).max(1)
        } else {
            most
        }
    }

    /// Makes the next request. A range is of blocks that follow each other. Alone in flight, a request has the whole map
    /// with the lowest blocks in its count, as the C agent's; else only what it shall bring, with an offset.
    pub(super) fn ask(&mut self, now_ms: u64) -> Step {
        let mut busy = self.held.clone();
        busy.insert_all(&self.writing);
        for request in &self.requests {
            busy.insert_all(&request.wanted);
        }
        let count = self.request_blocks();
        let plane = self.config.plane;
        let ranges = plane == Plane::Url;
        let mut wanted = Vec::new();
        let mut next = BlockIndex(0);
        while wanted.len() < count as usize
            && let Some(index) = busy.first_missing(next)
        {
            let first = *wanted.first().unwrap_or(&index.0);
            let far = index.0 / 8 - first / 8 >= BITMAP_MAX_BYTES as u32;
            if !wanted.is_empty() && (far || ranges && index != next) {
                break;
            }
            wanted.push(index.0);
            next = BlockIndex(index.0 + 1);
        }
        if self.requests.is_empty() {
            self.momentum += 1;
        }
        self.newest = self.newest.wrapping_add(1).max(1);
        if self.newest.is_multiple_of(MEASURED_FOR) {
            self.pace.measure_anew(now_ms);
        }
        let length = self.length_of(&wanted);
        let last = busy.first_missing(next).is_none();
        self.pace.on_request(now_ms, last);
        let step = match plane {
            Plane::Url => Step::Range {
                offset: self.offset_of(&wanted),
                length,
            },
            Plane::Stream(encoding) => Step::Request(self.encode(encoding, busy, &wanted)),
        };
        self.requests.push(RequestState {
            number: self.newest,
            remaining: wanted.len() as u32,
            wanted,
            overtaken: 0,
            asked_ms: now_ms,
        });
        step
    }

    /// Where the first of these blocks lies in the file.
    fn offset_of(&self, blocks: &[u32]) -> u64 {
        let first = blocks.first().map_or(0, |first| u64::from(*first));
        first * u64::from(self.config.grid.block_size())
    }

    /// Bytes in these blocks, if they follow each other; otherwise at least as many.
    pub(super) fn length_of(&self, blocks: &[u32]) -> u32 {
        let grid = &self.config.grid;
        let rest = grid.size().saturating_sub(self.offset_of(blocks));
        // At most 128 KiB, so it fits.
        rest.min(blocks.len() as u64 * u64::from(grid.block_size())) as u32
    }

    fn encode(&self, encoding: Encoding, busy: Bitmap, wanted: &[u32]) -> Vec<u8> {
        let alone = self.config.requests_in_flight == 1;
        let first = wanted.first().map_or(0, |first| first / 8);
        let whole = alone && busy.as_bytes().len() <= BITMAP_MAX_BYTES;
        let (bytes, offset) = if whole {
            (busy.into_missing(), 0)
        } else {
            let mut asked = Bitmap::new(busy.blocks());
            asked.insert_all(wanted);
            (asked.into_bytes(), first * 8)
        };
        let last = wanted.last().map_or(0, |last| last / 8);
        let slice = if whole {
            bytes.as_slice()
        } else {
            bytes.get(first as usize..=last as usize).unwrap_or(&[])
        };
        let mut token = String::from(TOKEN);
        if !alone {
            push_decimal(&mut token, self.newest.into());
        }
        let request = GetRequest {
            token: &token,
            file_id: self.config.file_id,
            block_size: self.config.grid.block_size(),
            offset,
            bitmap: slice,
            count: self.config.blocks_per_request,
        };
        encode_get(encoding, &request)
    }
}

/// The number in a token of ours; 0 if it has none.
pub(super) fn read_token(token: &[u8]) -> u32 {
    let digits = token.strip_prefix(TOKEN.as_bytes()).unwrap_or_default();
    let number = read_number(digits, 10).unwrap_or(0);
    u32::try_from(number).unwrap_or(0)
}
