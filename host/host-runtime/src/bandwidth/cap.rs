//! How many bytes a second, by time of day.

/// Most bytes a second that can be said, 1 TB: room for sums in 64 bits.
pub const RATE_MAX_BYTES_PER_S: u64 = 1_000_000_000_000;

/// Minutes of a day.
const DAY_MIN: u16 = 24 * 60;

/// A cap with a table of the day. Times are UTC, since a gateway's idea of a local time changes under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    otherwise: Option<u64>,
    spans: Vec<Span>,
}

/// A part of the day with a cap of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from_min: u16,
    to_min: u16,
    bytes_per_s: Option<u64>,
}

/// A span that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// A time of day that there is not.
    #[error("minute {0} of the day, expected 0 to 1439")]
    Minute(u16),
    /// It begins where it ends.
    #[error("it begins and ends at the same minute")]
    Empty,
    /// More than can be said.
    #[error("{0} bytes a second, at most 1000000000000")]
    Rate(u64),
}

impl Span {
    /// From one minute of the day to before another, over midnight too; none = no cap, 0 = nothing at all.
    ///
    /// # Errors
    /// [`SpanError`].
    pub fn new(from_min: u16, to_min: u16, bytes_per_s: Option<u64>) -> Result<Self, SpanError> {
        if let Some(bad) = [from_min, to_min].into_iter().find(|m| *m >= DAY_MIN) {
            return Err(SpanError::Minute(bad));
        }
        if from_min == to_min {
            return Err(SpanError::Empty);
        }
        match bytes_per_s {
            Some(rate) if rate > RATE_MAX_BYTES_PER_S => Err(SpanError::Rate(rate)),
            Some(_) | None => Ok(Self {
                from_min,
                to_min,
                bytes_per_s,
            }),
        }
    }

    fn holds(&self, minute: u16) -> bool {
        if self.from_min < self.to_min {
            (self.from_min..self.to_min).contains(&minute)
        } else {
            minute >= self.from_min || minute < self.to_min
        }
    }
}

impl Cap {
    /// `otherwise` where no span is; none = no cap. Of spans that overlap the first one counts.
    #[must_use]
    pub fn new(otherwise: Option<u64>, spans: Vec<Span>) -> Self {
        Self {
            otherwise: otherwise.map(|rate| rate.min(RATE_MAX_BYTES_PER_S)),
            spans,
        }
    }

    /// Whether there is none at any time.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.otherwise.is_none() && self.spans.iter().all(|span| span.bytes_per_s.is_none())
    }

    /// The cap at a time, in seconds since 1970; none = no cap. Who does not know the time keeps the
    /// strictest of all but a pause: that would never end where no clock is to be had.
    #[must_use]
    pub fn at(&self, wall_s: Option<u64>) -> Option<u64> {
        let Some(wall_s) = wall_s else {
            let all = self.spans.iter().map(|span| span.bytes_per_s);
            return all
                .chain([self.otherwise])
                .flatten()
                .filter(|rate| *rate > 0)
                .min();
        };
        // Below 1440.
        let minute = (wall_s / 60 % u64::from(DAY_MIN)) as u16;
        let span = self.spans.iter().find(|span| span.holds(minute));
        span.map_or(self.otherwise, |span| span.bytes_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(hour: u64, minute: u64) -> Option<u64> {
        Some(86_400 * 20_000 + hour * 3600 + minute * 60 + 59)
    }

    #[test]
    fn a_table_of_the_day_says_which_cap_holds() {
        let day = Span::new(8 * 60, 18 * 60, Some(1000)).unwrap();
        let night = Span::new(23 * 60, 5 * 60, None).unwrap();
        let cap = Cap::new(Some(5000), vec![day, night]);
        let rows = [
            (minute(7, 59), Some(5000)),
            (minute(8, 0), Some(1000)),
            (minute(17, 59), Some(1000)),
            (minute(18, 0), Some(5000)),
            (minute(23, 0), None),
            (minute(0, 0), None),
            (minute(4, 59), None),
            (minute(5, 0), Some(5000)),
            (None, Some(1000)),
        ];
        for (wall_s, expected) in rows {
            assert_eq!(cap.at(wall_s), expected, "{wall_s:?}");
        }
        assert!(!cap.is_none());
        assert!(Cap::new(None, vec![night]).is_none());
    }

    #[test]
    fn who_does_not_know_the_time_keeps_the_strictest_cap_but_no_pause() {
        let day = Span::new(8 * 60, 18 * 60, Some(0)).unwrap();
        let night = Span::new(23 * 60, 5 * 60, Some(700)).unwrap();
        assert_eq!(Cap::new(Some(900), vec![day, night]).at(None), Some(700));
        assert_eq!(Cap::new(None, vec![day]).at(None), None);
    }

    #[test]
    fn a_span_that_cannot_be_is_named() {
        let rows = [
            ((1440, 0, Some(1)), SpanError::Minute(1440)),
            ((0, 1440, Some(1)), SpanError::Minute(1440)),
            ((7, 7, Some(1)), SpanError::Empty),
            (
                (0, 1, Some(RATE_MAX_BYTES_PER_S + 1)),
                SpanError::Rate(RATE_MAX_BYTES_PER_S + 1),
            ),
        ];
        for ((from, to, rate), error) in rows {
            assert_eq!(Span::new(from, to, rate), Err(error));
        }
        assert!(Span::new(0, 1439, Some(RATE_MAX_BYTES_PER_S)).is_ok());
    }
}
