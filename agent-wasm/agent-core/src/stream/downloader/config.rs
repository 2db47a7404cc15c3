//! What a downloader is told, and what it refuses to be told.

use core::fmt;

use crate::jobs::Encoding;
use crate::stream::BlockGrid;

/// Most payload bytes that one request brings, the service's limit.
pub const REQUEST_PAYLOAD_MAX_BYTES: u32 = 131_072;
/// Most blocks in a request: [`REQUEST_PAYLOAD_MAX_BYTES`] of the smallest block.
pub const BLOCKS_PER_REQUEST_MAX: u32 = 512;
/// Most requests in flight: 8 MiB, more than a gateway's line can use (200 ms of 100 Mbit/s are 20 requests), few enough
/// to look through.
pub const REQUESTS_IN_FLIGHT_MAX: u32 = 64;
/// Longest time to bear silence: a day.
pub const REQUEST_TIMEOUT_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// How blocks are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// From a stream, by messages.
    Stream(Encoding),
    /// By URL, in ranges.
    Url,
}

/// What a downloader is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownloadConfig {
    /// The way.
    pub plane: Plane,
    /// File in the stream.
    pub file_id: u32,
    /// The blocks.
    pub grid: BlockGrid,
    /// Blocks in a request; with the block size at most [`REQUEST_PAYLOAD_MAX_BYTES`].
    pub blocks_per_request: u32,
    /// Most requests in flight, 1 to [`REQUESTS_IN_FLIGHT_MAX`]. 1 is what the C agent does.
    pub requests_in_flight: u32,
    /// How long silence is borne before blocks are asked for again, until it is known how fast the service answers.
    pub request_timeout_ms: u64,
    /// Requests in a row without a usable block before the transfer is given up.
    pub momentum_max: u32,
    /// Progress is told every so many blocks.
    pub status_frequency: u32,
}

impl DownloadConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let payload = u64::from(self.blocks_per_request) * u64::from(self.grid.block_size());
        if payload == 0 || payload > u64::from(REQUEST_PAYLOAD_MAX_BYTES) {
            Err(ConfigError::BlocksPerRequest)
        } else if !(1..=REQUESTS_IN_FLIGHT_MAX).contains(&self.requests_in_flight) {
            Err(ConfigError::RequestsInFlight)
        } else if !(1..=REQUEST_TIMEOUT_MAX_MS).contains(&self.request_timeout_ms) {
            Err(ConfigError::RequestTimeout)
        } else if self.momentum_max == 0 {
            Err(ConfigError::MomentumMax)
        } else if self.status_frequency == 0 {
            Err(ConfigError::StatusFrequency)
        } else {
            Ok(())
        }
    }

    /// Blocks that may be asked for or being written at a time.
    pub(super) const fn window(&self) -> u32 {
        self.blocks_per_request * self.requests_in_flight
    }
}

/// Why a configuration cannot be followed. The operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `blocks_per_request` is 0, or more than [`REQUEST_PAYLOAD_MAX_BYTES`] of blocks.
    BlocksPerRequest,
    /// `requests_in_flight` is not 1 to 64.
    RequestsInFlight,
    /// `request_timeout_ms` is 0 or more than a day.
    RequestTimeout,
    /// `momentum_max` is 0.
    MomentumMax,
    /// `status_frequency` is 0.
    StatusFrequency,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlocksPerRequest => {
                "blocks_per_request must be at least 1 and bring at most 131072 bytes"
            }
            Self::RequestsInFlight => "requests_in_flight must be 1 to 64",
            Self::RequestTimeout => "request_timeout_ms must be 1 to 86400000",
            Self::MomentumMax => "momentum_max must be at least 1",
            Self::StatusFrequency => "status_frequency must be at least 1",
        })
    }
}

impl core::error::Error for ConfigError {}
