//! What to ask for next, and what a block message or a range is worth.
//!
//! A block is missing, requested, being written, or held. The caller publishes or fetches what [`Downloader::poll`] gives
//! it, hands every block message to [`Downloader::on_message`] and every range to [`Downloader::on_range`], writes what
//! they say, and tells when the host has acknowledged it. Nothing else makes a block held.
//!
//! ```text
//!            poll            on_message, on_range     on_written
//!  missing ---------> requested ------------> writing ----------> held
//!     ^                  | deadline, refusal,    | on_write_failed
//!     +------------------+ pause                 |
//!     +------------------------------------------+
//! ```
//!
//! A request is over when as many new blocks have come as it could bring, whichever they were, so a service that
//! answers with other blocks than the lowest ones slows nothing down. With several requests in flight each has a token of
//! its own, which its blocks bring back: so it is known how long an answer takes, and a request whose answer later ones
//! have overtaken is lost and asked again at once. Requests and blocks in writing together never exceed the window, which
//! [`Pace`](super::pace) sizes. Not here: who publishes, who stores, when a transfer as a whole has taken too long.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::text::row;

use super::pace::{NEVER, Pace};
use super::{Bitmap, BlockGrid, BlockIndex, DecodeError, decode_data};

mod ask;
mod config;
mod state;

use ask::read_token;
pub use config::{
    BLOCKS_PER_REQUEST_MAX, ConfigError, DownloadConfig, Plane, REQUEST_PAYLOAD_MAX_BYTES,
    REQUEST_TIMEOUT_MAX_MS, REQUESTS_IN_FLIGHT_MAX,
};
pub use state::{DownloadState, RequestState, StateError};

/// Blocks of later requests in a row, after which what an earlier one has not brought counts as lost: one or two may
/// have gone another way. Doubled whenever a block proves that it was not.
const OVERTAKEN_MIN: u32 = 3;
/// Most of them: more blocks than a window has.
const OVERTAKEN_MAX: u32 = 1 << 16;

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before the deadline or the next event.
    Wait,
    /// Publish this on the stream's get topic, with QoS 0. Its number is [`Downloader::newest`].
    Request(Vec<u8>),
    /// Fetch this range, then say [`Downloader::on_range`] or [`Downloader::on_request_failed`] with
    /// [`Downloader::newest`].
    Range {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Every block is held.
    Complete,
    /// `momentum_max` requests in a row brought nothing usable: give the transfer up.
    GaveUp,
}

/// What a block message is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'m> {
    /// Write it, then say [`Downloader::on_written`] or [`Downloader::on_write_failed`].
    Write(Block<'m>),
    /// Forget it.
    Dropped(DropReason),
}

/// A block to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'m> {
    /// Which.
    pub index: BlockIndex,
    /// Where in the file.
    pub offset: u64,
    /// The bytes, exactly as many as the block has.
    pub data: Cow<'m, [u8]>,
}

/// Why a block message was forgotten. None of these harms the transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It cannot be decoded.
    Undecodable(DecodeError),
    /// It is of another file.
    OtherFile,
    /// The file has no such block.
    IndexOutOfRange,
    /// `l` is not the length of this block.
    WrongBlockLength,
    /// There are not `l` bytes.
    WrongPayloadLength,
    /// It is held or being written already.
    Duplicate,
    /// Nothing is expected now: paused, given up or complete.
    Unexpected,
    /// The storage has not acknowledged a whole window of blocks yet, and this one was not asked for.
    WindowFull,
}

impl DropReason {
    /// The number in a failure, append-only.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Undecodable(_) => 1,
            Self::OtherFile => 2,
            Self::IndexOutOfRange => 3,
            Self::WrongBlockLength => 4,
            Self::WrongPayloadLength => 5,
            Self::Duplicate => 6,
            Self::Unexpected => 7,
            Self::WindowFull => 8,
        }
    }

    /// What was wrong, for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        row(DROPS, self.code() as usize)
    }
}

/// By the codes.
pub(crate) const DROPS: &str = "\n\
the block message cannot be decoded\n\
the block is of another file\n\
the file has no such block\n\
the block has the wrong length\n\
the payload is not as long as the message says\n\
the block is held already\n\
no block is expected now\n\
more blocks than asked for\n";

/// What a written block changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Tell the cloud: blocks held, blocks in all. Never the last block.
    pub progress: Option<(u32, u32)>,
    /// Every block is held.
    pub complete: bool,
}

/// Counters over the block messages of a transfer. They do not wrap. The C agent counts a duplicate nowhere; here it is
/// dropped, so that every message seen is in one of the other two once nothing is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Messages seen.
    pub received: u32,
    /// Blocks acknowledged by the host.
    pub processed: u32,
    /// Messages forgotten.
    pub dropped: u32,
}

impl Statistics {
    /// Counts a block message by its verdict.
    pub const fn count(&mut self, verdict: &Verdict<'_>) {
        self.received = self.received.saturating_add(1);
        if let Verdict::Dropped(_) = verdict {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Counts a block message that no downloader was there for.
    pub const fn count_unexpected(&mut self) {
        self.received = self.received.saturating_add(1);
        self.dropped = self.dropped.saturating_add(1);
    }

    /// Counts an acknowledged block.
    pub const fn count_written(&mut self) {
        self.processed = self.processed.saturating_add(1);
    }
}

/// The transfer of one file.
#[derive(Clone, Debug)]
pub struct Downloader {
    config: DownloadConfig,
    held: Bitmap,
    /// Ascending, at most a window.
    writing: Vec<u32>,
    /// Oldest first, at most `requests_in_flight`. A block is wanted by at most one.
    requests: Vec<RequestState>,
    pace: Pace,
    /// Number of the newest request; 0 = there was none.
    newest: u32,
    /// See [`OVERTAKEN_MIN`].
    overtaken_max: u32,
    momentum: u32,
    paused: bool,
    gave_up: bool,
    last_drop: Option<DropReason>,
}

impl Downloader {
    /// Begins with nothing held, or goes on with what the storage holds, as `pal.reopen` or a journal says.
    ///
    /// # Errors
    /// [`StateError`] if the configuration cannot be followed, or the map is of another file.
    pub fn new(config: DownloadConfig, held: Option<&[u8]>) -> Result<Self, StateError> {
        config.check()?;
        let blocks = config.grid.count();
        let held = match held {
            None => Bitmap::new(blocks),
            Some(held) => Bitmap::from_bytes(blocks, held)?,
        };
        Ok(Self {
            held,
            writing: Vec::new(),
            requests: Vec::new(),
            pace: Pace::of(&config),
            newest: 0,
            overtaken_max: OVERTAKEN_MIN,
            momentum: 0,
            paused: false,
            gave_up: false,
            last_drop: None,
            config,
        })
    }

    /// What to do now. Call it after every event and at the deadline until it says [`Step::Wait`].
    pub fn poll(&mut self, now_ms: u64) -> Step {
        if self.held.is_full() {
            return Step::Complete;
        }
        if self.gave_up {
            return Step::GaveUp;
        }
        if self.paused {
            return Step::Wait;
        }
        let silent = self.pace.silence() <= now_ms || mutant!(Impatient);
        if !self.requests.is_empty() && silent {
            // Whatever has not come is missing again.
            self.requests.clear();
            self.pace.on_silence();
        }
        // 128 KiB at most.
        let bytes = self.config.blocks_per_request * self.config.grid.block_size();
        let ready = self.pace.may_ask(now_ms, bytes);
        if !ready || !self.has_room() {
            return Step::Wait;
        }
        if self.momentum >= self.config.momentum_max && self.requests.is_empty() {
            self.gave_up = true;
            return Step::GaveUp;
        }
        self.ask(now_ms)
    }

    /// When to call [`Downloader::poll`] again at the latest; none while everything asked for is being written, while
    /// paused, and at the end.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if self.paused || self.gave_up || self.held.is_full() {
            return None;
        }
        let mut next = self.pace.hold();
        if !self.requests.is_empty() {
            next = next.min(self.pace.silence());
        }
        (next != NEVER).then_some(next)
    }

    /// A message came on the stream's data topic.
    pub fn on_message<'m>(&mut self, now_ms: u64, message: &'m [u8]) -> Verdict<'m> {
        match self.judge(message) {
            Ok((block, number)) => {
                self.take(now_ms, block.index.0, number);
                Verdict::Write(block)
            }
            Err(reason) => {
                self.last_drop = Some(reason);
                if mutant!(DoubledRequests) && reason == DropReason::Duplicate {
                    self.requests.clear();
                }
                Verdict::Dropped(reason)
            }
        }
    }

    /// A range came: the blocks that its bytes are, in this order, to be written; none if it is not what the request of
    /// this number asked for, which is over.
    pub fn on_range(&mut self, now_ms: u64, number: u32, length: usize) -> Option<Vec<u32>> {
        let (wanted, asked_ms) = self.end_request(number)?;
        if self.length_of(&wanted) as usize != length {
            self.pace.on_failure(now_ms);
            return None;
        }
        for index in &wanted {
            self.put_in_writing(*index);
        }
        self.heard_of(now_ms, asked_ms);
        Some(wanted)
    }

    /// The host acknowledged a block. Of a block that was not being written nothing changes.
    pub fn on_written(&mut self, index: BlockIndex) -> Held {
        let new = take_out(&mut self.writing, index.0) && self.held.insert(index);
        let (held, total) = self.progress();
        let due = held == 1 || held.is_multiple_of(self.config.status_frequency);
        let progress = (new && due && held < total).then_some((held, total));
        Held {
            progress,
            complete: self.held.is_full(),
        }
    }

    /// The storage refused a block; it is missing again.
    pub fn on_write_failed(&mut self, index: BlockIndex) {
        take_out(&mut self.writing, index.0);
    }

    /// A request did not leave, or it was refused: what it asked for is missing again, and is asked for when the deadline
    /// comes. Of a request that is not in flight nothing changes.
    pub fn on_request_failed(&mut self, now_ms: u64, number: u32) {
        if self.end_request(number).is_some() {
            self.pace.on_failure(now_ms);
        }
    }

    /// The number of the request that was made last.
    #[must_use]
    pub const fn newest(&self) -> u32 {
        self.newest
    }

    /// The number of the request with this token; the newest one's if the token does not say.
    #[must_use]
    pub fn number_of(&self, token: &str) -> u32 {
        match read_token(token.as_bytes()) {
            0 => self.newest,
            number => number,
        }
    }

    /// Takes a request out of the list; what it asked for and when.
    fn end_request(&mut self, number: u32) -> Option<(Vec<u32>, u64)> {
        let mut requests = self.requests.iter_mut();
        let request = requests.find(|request| request.number == number)?;
        request.remaining = 0;
        let ended = (core::mem::take(&mut request.wanted), request.asked_ms);
        self.sweep();
        Some(ended)
    }

    /// Drops what is over, and what later answers have overtaken.
    fn sweep(&mut self) {
        let most = self.overtaken_max;
        self.requests
            .retain(|request| request.remaining > 0 && request.overtaken < most);
    }

    /// Goes on by another way: what was asked for is missing again, what is held or being written stays so.
    pub fn change_plane(&mut self, plane: Plane, momentum_max: u32) {
        self.pause();
        self.paused = false;
        self.gave_up = false;
        self.momentum = 0;
        self.config.plane = plane;
        self.config.momentum_max = momentum_max;
        self.pace.on_change(plane == Plane::Url);
    }

    /// The connection is gone, or an operator suspends: nothing is asked for and nothing is taken. Requests in flight
    /// are gone, and do not count as unanswered.
    pub fn pause(&mut self) {
        self.paused = true;
        let in_flight = u32::from(!self.requests.is_empty());
        self.momentum = self.momentum.saturating_sub(in_flight);
        self.requests.clear();
        self.pace.on_pause();
    }

    /// Ask again.
    pub const fn resume(&mut self) {
        self.paused = false;
    }

    /// This device's share of the bandwidth, in payload bytes a second; 0 = ask for nothing, none = no cap.
    pub fn set_allowance(&mut self, bytes_per_s: Option<u64>) {
        self.pace.set_allowance(bytes_per_s);
    }

    /// The blocks of the file.
    #[must_use]
    pub const fn grid(&self) -> &BlockGrid {
        &self.config.grid
    }

    /// Blocks held, blocks in all.
    #[must_use]
    pub const fn progress(&self) -> (u32, u32) {
        (self.held.count(), self.config.grid.count())
    }

    /// Blocks held, as [`Bitmap::as_bytes`].
    #[must_use]
    pub fn held(&self) -> &[u8] {
        self.held.as_bytes()
    }

    /// Requests in a row without a usable block.
    #[must_use]
    pub const fn momentum(&self) -> u32 {
        self.momentum
    }

    /// The first block that is neither held nor being written, for people.
    #[must_use]
    pub fn waits_for(&self) -> Option<BlockIndex> {
        let mut index = self.held.first_missing(BlockIndex(0))?;
        while self.writing.binary_search(&index.0).is_ok() {
            index = self.held.first_missing(BlockIndex(index.0 + 1))?;
        }
        Some(index)
    }

    /// Blocks that the storage has not acknowledged yet, ascending.
    #[must_use]
    pub fn writing(&self) -> &[u32] {
        &self.writing
    }

    /// Why the last unusable message was forgotten, since the last usable one. Tells a bad stream from a silent one.
    #[must_use]
    pub const fn last_drop(&self) -> Option<DropReason> {
        self.last_drop
    }

    /// The block of a message, and the number of the request that its token names.
    fn judge<'m>(&self, message: &'m [u8]) -> Result<(Block<'m>, u32), DropReason> {
        let Plane::Stream(encoding) = self.config.plane else {
            return Err(DropReason::Unexpected);
        };
        if self.paused || self.gave_up || self.held.is_full() {
            return Err(DropReason::Unexpected);
        }
        let data = decode_data(encoding, message).map_err(DropReason::Undecodable)?;
        if data.file_id != u64::from(self.config.file_id) && !mutant!(OtherFileTaken) {
            return Err(DropReason::OtherFile);
        }
        let index = u32::try_from(data.index).map_err(|_| DropReason::IndexOutOfRange)?;
        let index = BlockIndex(index);
        let grid = &self.config.grid;
        let (Some(offset), Some(length)) = (grid.offset(index), grid.block_len(index)) else {
            return Err(DropReason::IndexOutOfRange);
        };
        if data.size != u64::from(length) {
            return Err(DropReason::WrongBlockLength);
        }
        if data.payload.len() as u64 != data.size {
            return Err(DropReason::WrongPayloadLength);
        }
        if mutant!(SmallBitmap) && index.0 >= 32 {
            return Err(DropReason::Duplicate);
        }
        if self.held.contains(index) || self.writing.binary_search(&index.0).is_ok() {
            return Err(DropReason::Duplicate);
        }
        if self.writing.len() >= self.config.window() as usize {
            return Err(DropReason::WindowFull);
        }
        let offset = if mutant!(BlockSizeMixed) {
            u64::from(index.0) * 1024
        } else {
            offset
        };
        let block = Block {
            index,
            offset,
            data: data.payload,
        };
        Ok((block, read_token(&data.token)))
    }

    /// A usable block came, with the number of its request if that is known.
    fn take(&mut self, now_ms: u64, index: u32, number: u32) {
        self.put_in_writing(index);
        let mut asked_ms = NEVER;
        let mut known = number == 0;
        // Without a token a block belongs to the request that wants it; the C agent's only one takes any.
        let only = known && self.requests.len() == 1;
        for request in &mut self.requests {
            let wants = take_out(&mut request.wanted, index);
            let named = request.number == number;
            if named {
                known = true;
                // The first block tells how long answers take.
                asked_ms = core::mem::replace(&mut request.asked_ms, NEVER);
            }
            if named || wants || only {
                request.overtaken = 0;
                request.remaining = request.remaining.saturating_sub(1);
            } else if request.number < number {
                request.overtaken += 1;
            }
        }
        if !known {
            // Its request was taken for lost.
            self.overtaken_max = (self.overtaken_max * 2).min(OVERTAKEN_MAX);
        }
        self.sweep();
        self.heard_of(now_ms, asked_ms);
    }

    fn heard_of(&mut self, now_ms: u64, asked_ms: u64) {
        self.momentum = 0;
        self.last_drop = None;
        let storage_lags = self.writing.len() > 2 * self.config.blocks_per_request as usize;
        self.pace.on_block(now_ms, asked_ms, storage_lags);
    }

    fn put_in_writing(&mut self, index: u32) {
        if let Err(at) = self.writing.binary_search(&index) {
            self.writing.insert(at, index);
        }
    }
}

/// Takes a block out of an ascending list; whether it was there.
fn take_out(list: &mut Vec<u32>, index: u32) -> bool {
    let place = list.binary_search(&index);
    if let Ok(at) = place {
        list.remove(at);
    }
    place.is_ok()
}

#[cfg(test)]
mod link;
#[cfg(test)]
mod tests;
