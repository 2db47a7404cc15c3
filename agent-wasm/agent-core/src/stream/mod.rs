//! MQTT file streams, and ranges by URL: the messages, the grid and map of blocks, and the downloader that decides what to
//! ask next.
//!
//! Bytes and the time come in, requests and verdicts go out. Nothing is written or published here: a block counts as
//! held when the caller says that the host has acknowledged it.

mod bitmap;
mod codec;
mod downloader;
mod grid;
mod one_by_one;
mod pace;

pub use bitmap::{Bitmap, BitmapError};
pub use codec::{
    DataMessage, DecodeError, GetRequest, Member, Rejection, decode_data, decode_rejected,
    encode_get,
};
pub(crate) use downloader::DROPS;
pub use downloader::{
    BLOCKS_PER_REQUEST_MAX, Block, ConfigError, DownloadConfig, DownloadState, Downloader,
    DropReason, Held, Plane, REQUEST_PAYLOAD_MAX_BYTES, REQUEST_TIMEOUT_MAX_MS,
    REQUESTS_IN_FLIGHT_MAX, RequestState, StateError, Statistics, Step, Verdict,
};
pub use grid::{
    BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, BLOCKS_MAX_COUNT, BlockGrid, BlockIndex, GridError,
};
pub use one_by_one::OneByOne;
pub use pace::PaceState;
