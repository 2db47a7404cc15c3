//! What to ask for next, and what a block message is worth.
//!
//! A block is missing, requested, being written, or held. The caller publishes what [`Downloader::poll`] gives it,
//! hands every block message to [`Downloader::on_message`], writes what that says, and tells when the storage has
//! acknowledged it. Nothing else makes a block held.
//!
//! ```text
//!            poll                on_message           on_written
//!  missing ---------> requested ------------> writing ----------> held
//!     ^                  | deadline, refusal,    | on_write_failed
//!     +------------------+ pause                 |
//!     +------------------------------------------+
//! ```

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use super::{BitmapError, BlockGrid, BlockIndex, DecodeError};

/// Most payload bytes that one request brings, the service's limit.
pub const REQUEST_PAYLOAD_MAX_BYTES: u32 = 131_072;
/// Most blocks in a request: [`REQUEST_PAYLOAD_MAX_BYTES`] of the smallest block.
pub const BLOCKS_PER_REQUEST_MAX: u32 = 512;

/// What a downloader is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownloadConfig {
    /// File in the stream.
    pub file_id: u32,
    /// The blocks.
    pub grid: BlockGrid,
    /// Blocks in a request; with the block size at most [`REQUEST_PAYLOAD_MAX_BYTES`].
    pub blocks_per_request: u32,
    /// Requests in flight, 1 to 8. 1 is what the C agent does.
    pub requests_in_flight: u32,
    /// How long silence is borne before blocks are asked for again.
    pub request_timeout_ms: u64,
    /// Requests in a row without a usable block before the transfer is given up.
    pub momentum_max: u32,
    /// Progress is told every so many blocks.
    pub status_frequency: u32,
}

/// Why a configuration cannot be followed. The operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `blocks_per_request` is 0, or more than [`REQUEST_PAYLOAD_MAX_BYTES`] of blocks.
    BlocksPerRequest,
    /// `requests_in_flight` is not 1 to 8.
    RequestsInFlight,
    /// `request_timeout_ms` is 0 or more than a day.
    RequestTimeout,
    /// `momentum_max` is 0.
    MomentumMax,
    /// `status_frequency` is 0.
    StatusFrequency,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before the deadline or the next event.
    Wait,
    /// Publish this on the stream's get topic, with QoS 0.
    Request(Vec<u8>),
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
}

/// What a written block changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Tell the cloud: blocks held, blocks in all.
    pub progress: Option<(u32, u32)>,
    /// Every block is held.
    pub complete: bool,
}

/// Counters over the block messages of a transfer, as the C agent counts. They do not wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Messages seen.
    pub received: u32,
    /// Blocks acknowledged by the storage.
    pub processed: u32,
    /// Messages forgotten.
    pub dropped: u32,
}

/// Everything that another downloader needs to go on: durations, no instants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadState {
    /// Blocks held, as [`super::Bitmap::as_bytes`].
    pub held: Vec<u8>,
    /// Blocks being written.
    pub writing: Vec<u32>,
    /// Requests in flight, oldest first.
    pub requests: Vec<RequestState>,
    /// Requests in a row without a usable block.
    pub momentum: u32,
    /// Time until the deadline, none if there is none.
    pub deadline_in_ms: Option<u64>,
    /// Smoothed time between a request and its blocks, 0 = not known.
    pub response_ms: u64,
    /// Paused.
    pub paused: bool,
}

/// A request in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestState {
    /// Blocks that it should bring, ascending, less those that came.
    pub wanted: Vec<u32>,
    /// Blocks that it may still bring.
    pub remaining: u32,
}

/// Why a saved state cannot be gone on from. The saver is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The configuration is refused.
    Config(ConfigError),
    /// The map is of another file.
    Bitmap(BitmapError),
    /// A block is named that the file does not have, or in two states at once.
    Blocks,
}

/// The transfer of one file.
#[derive(Clone, Debug)]
pub struct Downloader {
    config: DownloadConfig,
}

impl Downloader {
    /// Begins with nothing held.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: DownloadConfig) -> Result<Self, ConfigError> {
        Ok(Self { config })
    }

    /// Goes on with what the storage holds, as `pal.reopen` or a journal says.
    ///
    /// # Errors
    /// [`StateError`] if the map is of another file.
    pub fn reopen(config: DownloadConfig, held: &[u8]) -> Result<Self, StateError> {
        let _ = held;
        Ok(Self { config })
    }

    /// Goes on where another downloader was saved.
    ///
    /// # Errors
    /// [`StateError`] if the state is of another file or contradicts itself.
    pub fn restore(
        config: DownloadConfig,
        now_ms: u64,
        state: DownloadState,
    ) -> Result<Self, StateError> {
        let _ = (now_ms, state);
        Ok(Self { config })
    }

    /// What [`Downloader::restore`] needs.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> DownloadState {
        let _ = now_ms;
        unimplemented!()
    }

    /// What to do now. Call it after every event and at the deadline until it says [`Step::Wait`].
    pub fn poll(&mut self, now_ms: u64) -> Step {
        let _ = now_ms;
        unimplemented!()
    }

    /// When to call [`Downloader::poll`] again at the latest; none while everything asked for is being written, while
    /// paused, and at the end.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        unimplemented!()
    }

    /// A message came on the stream's data topic.
    pub fn on_message<'m>(&mut self, now_ms: u64, message: &'m [u8]) -> Verdict<'m> {
        let _ = (now_ms, message);
        unimplemented!()
    }

    /// The storage acknowledged a block.
    pub fn on_written(&mut self, now_ms: u64, index: BlockIndex) -> Held {
        let _ = (now_ms, index);
        unimplemented!()
    }

    /// The storage refused a block; it is missing again.
    pub fn on_write_failed(&mut self, index: BlockIndex) {
        let _ = index;
        unimplemented!()
    }

    /// The request that was published last did not leave, or the service refused one: what was asked for is missing
    /// again and is asked for at the deadline.
    pub fn on_request_failed(&mut self, now_ms: u64) {
        let _ = now_ms;
        unimplemented!()
    }

    /// The connection is gone, or an operator suspends: nothing is asked for, nothing is taken, momentum is kept.
    pub fn pause(&mut self) {
        unimplemented!()
    }

    /// Ask again.
    pub fn resume(&mut self) {
        unimplemented!()
    }

    /// This device's share of the bandwidth, in payload bytes a second; 0 = ask for nothing, none = no cap.
    pub fn set_allowance(&mut self, bytes_per_s: Option<u64>) {
        let _ = bytes_per_s;
        unimplemented!()
    }

    /// Blocks held, blocks in all.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        unimplemented!()
    }

    /// Blocks held, as [`super::Bitmap::as_bytes`].
    #[must_use]
    pub fn held(&self) -> &[u8] {
        unimplemented!()
    }

    /// Requests in a row without a usable block.
    #[must_use]
    pub fn momentum(&self) -> u32 {
        unimplemented!()
    }

    /// The first block that is waited for, for people.
    #[must_use]
    pub fn waits_for(&self) -> Option<BlockIndex> {
        unimplemented!()
    }

    /// Blocks that the storage has not acknowledged yet.
    #[must_use]
    pub fn writing(&self) -> &[u32] {
        unimplemented!()
    }

    /// Why the last unusable message was forgotten, since the last usable one. Tells a bad stream from a silent one.
    #[must_use]
    pub fn last_drop(&self) -> Option<DropReason> {
        unimplemented!()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlocksPerRequest => {
                "blocks_per_request must be at least 1 and bring at most 131072 bytes"
            }
            Self::RequestsInFlight => "requests_in_flight must be 1 to 8",
            Self::RequestTimeout => "request_timeout_ms must be 1 to 86400000",
            Self::MomentumMax => "momentum_max must be at least 1",
            Self::StatusFrequency => "status_frequency must be at least 1",
        })
    }
}

impl core::error::Error for ConfigError {}
