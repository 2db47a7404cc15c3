//! How long to wait for the answer to a chunk: the smoothed turnaround and four times its deviation.

/// Longest wait without having seen an answer: one second, or four times the time on the line and a little.
const FIRST_MS: u64 = 1000;
const FIRST_MARGIN_MS: u64 = 250;
/// No wait is shorter: USB adapters and schedulers hold things back for tens of ms.
const MIN_MS: u64 = 300;
/// But where every answer has come in time so far it may be as short as this, and twice the longest turnaround: most of
/// what a lost line costs is the wait for an answer that does not come.
const QUICK_MIN_MS: u64 = 50;
/// Answers that have to be seen for that: a page of flash of 4 KiB at the least.
const QUICK_AFTER: u32 = 16;
/// No wait is longer but after losses: a page takes tens to hundreds of ms to erase.
const MAX_MS: u64 = 5000;
/// Nor after losses; servers that erase while they receive may take that long.
const BACKED_OFF_MAX_MS: u64 = 10_000;

/// Times in 1/8 ms (smoothed) and 1/4 ms (deviation), as usual for integers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    first_ms: u64,
    smoothed: Option<(u64, u64)>,
    backed_off: u32,
    /// The longest turnaround in 1/64 ms, which is forgotten by a hundred answers or so.
    longest: u64,
    answers: u32,
    /// An answer came after its wait: there are things that this one has not seen yet.
    careful: bool,
}

impl Timer {
    /// `line_ms`: how long a packet is on the line.
    pub(super) fn new(line_ms: u64) -> Self {
        Self {
            first_ms: FIRST_MS.max(4 * line_ms + FIRST_MARGIN_MS),
            smoothed: None,
            backed_off: 0,
            longest: 0,
            answers: 0,
            careful: false,
        }
    }

    /// An answer came so long after its request had left.
    pub(super) fn sample(&mut self, ms: u64) {
        self.backed_off = 0;
        self.answers = self.answers.saturating_add(1);
        self.longest = (64 * ms).max(self.longest - self.longest / 128);
        self.smoothed = Some(match self.smoothed {
            None => (8 * ms, 2 * ms),
            Some((mean, deviation)) => {
                let error = ms.abs_diff(mean / 8);
                (mean - mean / 8 + ms, deviation - deviation / 4 + error)
            }
        });
    }

    /// The answer to a request came after its wait was over.
    pub(super) fn was_too_short(&mut self) {
        self.careful = true;
    }

    fn min_ms(&self) -> u64 {
        if self.careful || self.answers < QUICK_AFTER {
            return MIN_MS;
        }
        (2 * self.longest / 64).clamp(QUICK_MIN_MS, MIN_MS)
    }

    /// No answer came: the next wait is twice as long.
    pub(super) fn back_off(&mut self) {
        self.backed_off = (self.backed_off + 1).min(5);
    }

    pub(super) fn wait_ms(&self) -> u64 {
        let plain = self.smoothed.map_or(self.first_ms, |(mean, deviation)| {
            (mean / 8 + deviation).clamp(self.min_ms(), MAX_MS)
        });
        // The first time-out after good answers is not doubled: it is a lost frame, not a slow target.
        let doublings = self.backed_off.saturating_sub(1);
        (plain << doublings).min(BACKED_OFF_MAX_MS.max(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::{MIN_MS, QUICK_AFTER, QUICK_MIN_MS, Timer};

    #[test]
    fn the_wait_follows_the_turnaround_and_grows_with_losses() {
        let mut timer = Timer::new(45);
        assert_eq!(timer.wait_ms(), 1000);
        for _ in 1..QUICK_AFTER {
            timer.sample(5);
            assert_eq!(timer.wait_ms(), MIN_MS);
        }
        timer.sample(5);
        assert_eq!(timer.wait_ms(), QUICK_MIN_MS);
        for _ in 0..40 {
            timer.sample(600);
        }
        assert!((600..900).contains(&timer.wait_ms()), "{}", timer.wait_ms());
        let plain = timer.wait_ms();
        timer.back_off();
        assert_eq!(timer.wait_ms(), plain);
        timer.back_off();
        assert_eq!(timer.wait_ms(), 2 * plain);
        for _ in 0..100 {
            timer.back_off();
        }
        assert!((9_000..=10_000).contains(&timer.wait_ms()));
    }

    #[test]
    fn an_answer_that_came_too_late_makes_the_timer_careful_for_good() {
        let mut timer = Timer::new(45);
        for _ in 0..QUICK_AFTER {
            timer.sample(5);
        }
        timer.was_too_short();
        assert_eq!(timer.wait_ms(), MIN_MS);
        for _ in 0..1000 {
            timer.sample(5);
        }
        assert_eq!(timer.wait_ms(), MIN_MS);
    }
}
