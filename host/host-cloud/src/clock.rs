//! Wall-clock milliseconds that never go backwards while the process runs.
//!
//! The wall clock is read once; from then on the runtime's monotonic clock counts, so that a stepped system clock ends
//! no job early, and so that a test can let the runtime's clock stand.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall_ms: u64,
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the cloud's one reading of the wall clock; the service gets time as a value"
        )]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            wall_ms: millis(wall.unwrap_or_default()),
            start: Instant::now(),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.wall_ms + millis(self.start.elapsed())
    }

    /// The instant of a time of this clock, for sleeping.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.start + Duration::from_millis(at_ms.saturating_sub(self.wall_ms))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
