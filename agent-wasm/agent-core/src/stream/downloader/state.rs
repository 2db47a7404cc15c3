//! A downloader put down and taken up again: by another instance, another build, after a park.

use alloc::vec::Vec;
use core::fmt;

use crate::stream::BitmapError;
use crate::stream::pace::{NEVER, Pace, PaceState};

use super::{ConfigError, DownloadConfig, Downloader};

/// Everything that another downloader needs to go on: durations, no instants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DownloadState {
    /// Blocks held, as [`Bitmap::as_bytes`](crate::stream::Bitmap::as_bytes).
    pub held: Vec<u8>,
    /// Blocks being written, ascending.
    pub writing: Vec<u32>,
    /// Requests in flight, oldest first.
    pub requests: Vec<RequestState>,
    /// Requests in a row without a usable block.
    pub momentum: u32,
    /// Timers and what they have learned.
    pub pace: PaceState,
    /// Paused.
    pub paused: bool,
    /// Given up.
    pub gave_up: bool,
    /// Number of the newest request, 0 = there was none.
    pub newest: u32,
}

/// A request in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestState {
    /// Blocks that it should bring, ascending, less those that came.
    pub wanted: Vec<u32>,
    /// Blocks that it may still bring.
    pub remaining: u32,
    /// From 1, one more for each request.
    pub number: u32,
    /// Blocks of later requests that have come since its own last one. Begins anew in another downloader.
    pub overtaken: u32,
    /// When it was made; `u64::MAX` once it has brought a block, and in another downloader.
    pub asked_ms: u64,
}

/// Why a saved state cannot be gone on from. The saver is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The configuration is refused.
    Config(ConfigError),
    /// The map is of another file.
    Bitmap(BitmapError),
    /// This block is named that the file does not have, that is in two states at once, or that is out of order.
    Block(u32),
}

impl From<ConfigError> for StateError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<BitmapError> for StateError {
    fn from(error: BitmapError) -> Self {
        Self::Bitmap(error)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the settings do not fit the saved transfer"),
            Self::Bitmap(_) => f.write_str("the saved block map does not fit the file"),
            Self::Block(index) => write!(f, "block {index} of the saved transfer contradicts it"),
        }
    }
}

impl core::error::Error for StateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Bitmap(error) => Some(error),
            Self::Block(_) => None,
        }
    }
}

impl Downloader {
    /// Goes on where another downloader was saved. Requests that do not fit a changed configuration are forgotten, and
    /// their blocks asked for again.
    ///
    /// # Errors
    /// [`StateError`] if the state is of another file or contradicts itself.
    pub fn restore(
        config: DownloadConfig,
        now_ms: u64,
        state: DownloadState,
    ) -> Result<Self, StateError> {
        let mut downloader = Self::new(config, Some(&state.held))?;
        // Every block at most once, ascending, and none that is held.
        let mut seen = downloader.held.clone();
        let mut wrong = seen.insert_all(&state.writing);
        for request in &state.requests {
            let twice = seen.insert_all(&request.wanted);
            wrong = wrong.or(twice);
        }
        if let Some(index) = wrong {
            return Err(StateError::Block(index));
        }
        downloader.writing = state.writing;
        let fits = |request: &RequestState| {
            (1..=config.blocks_per_request).contains(&request.remaining)
                && request.wanted.len() <= config.blocks_per_request as usize
        };
        let few = state.requests.len() <= config.requests_in_flight as usize;
        if few && state.requests.iter().all(fits) {
            downloader.requests = state.requests;
        }
        for request in &mut downloader.requests {
            (request.overtaken, request.asked_ms) = (0, NEVER);
        }
        downloader.newest = state.newest;
        downloader.momentum = state.momentum;
        downloader.pace = Pace::restore(&config, now_ms, &state.pace);
        downloader.paused = state.paused;
        downloader.gave_up = state.gave_up;
        Ok(downloader)
    }

    /// What [`Downloader::restore`] needs.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> DownloadState {
        DownloadState {
            held: Vec::from(self.held.as_bytes()),
            writing: self.writing.clone(),
            requests: self.requests.clone(),
            momentum: self.momentum,
            pace: self.pace.state(now_ms),
            paused: self.paused,
            gave_up: self.gave_up,
            newest: self.newest,
        }
    }
}
