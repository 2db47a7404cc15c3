//! One direction of a link: when bytes leave it, and what has gone. Time is a value here.

use std::time::{Duration, Instant};

/// How much may wait in front of a link with a rate, as time of that link. 100 ms: the buffer of an ordinary router,
/// and long enough that a reader that wakes late on a busy machine leaves no hole in the link.
pub const LINK_QUEUE: Duration = Duration::from_millis(100);

/// One direction, shared by all connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Link {
    bytes_per_s: Option<u64>,
    /// When the last byte that was sent leaves it.
    free: Option<Instant>,
}

impl Link {
    pub(super) fn set_rate(&mut self, bytes_per_s: Option<u64>) {
        *self = Self {
            bytes_per_s,
            free: None,
        };
    }

    /// Puts bytes on the link behind all that is there; returns when the last one leaves it. An idle link saves nothing
    /// up, so no more than the rate goes through in any span of time.
    pub(super) fn send(&mut self, now: Instant, bytes: usize) -> Instant {
        let Some(rate) = self.bytes_per_s else {
            return now;
        };
        let begin = self.free.map_or(now, |free| free.max(now));
        let left = begin + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        self.free = Some(left);
        left
    }

    /// From when on the next bytes may be put on it.
    pub(super) fn has_room_at(&self) -> Instant {
        // A link without a rate is never full; any instant that has passed says so.
        let now = crate::deadline::now();
        self.free
            .and_then(|free| free.checked_sub(LINK_QUEUE))
            .unwrap_or(now)
    }
}

/// What has gone in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    bytes: u64,
    /// Bytes of the first write: when they began is not known.
    first_bytes: u64,
    span: Option<(Instant, Instant)>,
}

impl Flow {
    pub(super) fn count(&mut self, now: Instant, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes += bytes;
        let first = self.span.map_or_else(
            || {
                self.first_bytes = bytes;
                now
            },
            |(first, _)| first,
        );
        self.span = Some((first, now));
    }

    /// Bytes that have gone.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From the first write to the last.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.span
            .map_or(Duration::ZERO, |(first, last)| last - first)
    }

    /// Payload bytes a second between the first write and the last; none = too little has gone to tell.
    #[must_use]
    pub fn bytes_per_s(&self) -> Option<f64> {
        let seconds = self.lasted().as_secs_f64();
        (seconds > 0.0).then(|| (self.bytes - self.first_bytes) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_busy_exactly_as_long_as_its_bytes_take() {
        let begin = crate::deadline::now();
        let mut link = Link::default();
        link.set_rate(Some(12_500_000));
        let mut left = begin;
        // A second's worth in pieces of uneven sizes, all at once.
        let mut sent = 0;
        while sent < 12_500_000 {
            let bytes = (sent % 16_000 + 1).min(12_500_000 - sent);
            left = link.send(begin, bytes);
            sent += bytes;
        }
        let off = left.duration_since(begin).as_secs_f64() - 1.0;
        assert!(off.abs() < 0.001, "off by {off} s");
    }

    #[test]
    fn an_idle_link_saves_nothing_up() {
        let begin = crate::deadline::now();
        let mut link = Link::default();
        link.set_rate(Some(1000));
        assert_eq!(link.send(begin, 100) - begin, Duration::from_millis(100));
        let later = begin + Duration::from_secs(5);
        assert_eq!(link.send(later, 100) - later, Duration::from_millis(100));
        assert_eq!(link.send(later, 100) - later, Duration::from_millis(200));
        assert_eq!(
            link.has_room_at(),
            later + Duration::from_millis(200) - LINK_QUEUE
        );
    }

    #[test]
    fn the_rate_of_a_flow_is_that_between_its_first_and_last_write() {
        let begin = crate::deadline::now();
        let mut flow = Flow::default();
        assert_eq!(flow.bytes_per_s(), None);
        flow.count(begin, 500);
        assert_eq!(flow.bytes_per_s(), None);
        flow.count(begin + Duration::from_secs(1), 1000);
        flow.count(begin + Duration::from_secs(2), 1000);
        assert_eq!((flow.bytes(), flow.lasted().as_secs()), (2500, 2));
        assert_eq!(flow.bytes_per_s(), Some(1000.0));
    }
}
