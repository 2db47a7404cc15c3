//! How many chunks are under way at once. A larger window has to prove itself: what counts is the rate, losses included,
//! that was measured with each size, and the best one is used. So an upload is never slower than by stop and wait for
//! longer than a trial takes.
//!
//! A target that cannot receive while it writes flash loses with two what it would not lose with one, a lossy line loses
//! the same with both and recovers faster with two; only measuring tells them apart.

/// Largest window: servers have 4 buffers unless configured otherwise, a few have 8.
pub const WINDOW_MAX: usize = 8;
/// Answers before two are tried.
const FIRST: u32 = 16;
/// Answers of a measurement: at 352 bytes 11 KiB, so that the two or three pages erased meanwhile weigh alike.
const MEASURED: u32 = 32;
/// Losses that end a measurement early, if there are that many among so few answers: a target that is deaf while it writes
/// loses each other chunk, a line that loses one in a hundred of its lines one chunk in twenty.
const LOSSES_MAX: u32 = 4;
const ANSWERS_PER_LOSS: u32 = 4;
/// So many answers for each loss, and it is the line that loses: two are tried all the same, as they hear sooner what was
/// lost, and one has to be better by this much (in hundredths) to be gone back to, as it may have been measured in a lucky
/// moment.
const ANSWERS_PER_RARE_LOSS: u32 = 8;
const BETTER: u64 = 105;
/// Answers until a size that was slower is tried again; doubled each time.
const HOLD: u32 = 64;
const HOLD_MAX: u32 = 4096;

#[derive(Clone, Debug)]
pub(super) struct Window {
    max: usize,
    size: usize,
    /// Bytes a second with each size, index 0 = one chunk; 0 = not known.
    rates: [u64; WINDOW_MAX],
    /// After silence one chunk at a time, until one is answered.
    single: bool,
    hold: u32,
    next_hold: u32,
    answers: u32,
    losses: u32,
    bytes: u64,
    since_ms: Option<u64>,
}

impl Window {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.clamp(1, WINDOW_MAX),
            size: 1,
            rates: [0; WINDOW_MAX],
            single: false,
            hold: 0,
            next_hold: HOLD,
            answers: 0,
            losses: 0,
            bytes: 0,
            since_ms: None,
        }
    }

    /// Chunks that may be under way now.
    pub(super) const fn now(&self) -> usize {
        if self.single { 1 } else { self.size }
    }

    /// The server took so many bytes.
    pub(super) fn on_answer(&mut self, now_ms: u64, bytes: u64) {
        self.single = false;
        let Some(since_ms) = self.since_ms else {
            // The first answer only starts the clock: what is measured is from answer to answer.
            self.since_ms = Some(now_ms);
            return;
        };
        self.answers += 1;
        self.bytes += bytes;
        self.hold = self.hold.saturating_sub(1);
        let enough = if self.size == 1 && self.known(1) == 0 {
            FIRST
        } else {
            MEASURED
        };
        if self.answers >= enough {
            self.judge(now_ms.saturating_sub(since_ms), now_ms);
        }
    }

    /// A chunk or its answer was lost. If only silence tells, one chunk at a time finds out how things are; a server that
    /// says where to go on is alive, and told in time only because another chunk came behind the lost one.
    pub(super) fn on_loss(&mut self, now_ms: u64, told: bool) {
        self.single |= !told;
        self.losses += 1;
        if self.losses >= LOSSES_MAX
            && self.answers < self.losses * ANSWERS_PER_LOSS
            && self.size > 1
            && let Some(since_ms) = self.since_ms
        {
            self.judge(now_ms.saturating_sub(since_ms), now_ms);
        }
    }

    /// The file has to grow first: what was measured says nothing about the line.
    pub(super) const fn on_starved(&mut self) {
        self.begin(None);
    }

    const fn begin(&mut self, since_ms: Option<u64>) {
        self.answers = 0;
        self.losses = 0;
        self.bytes = 0;
        self.since_ms = since_ms;
    }

    fn known(&self, size: usize) -> u64 {
        self.rates.get(size - 1).copied().unwrap_or(0)
    }

    fn judge(&mut self, ms: u64, now_ms: u64) {
        let rate = (self.bytes * 1000 / ms.max(1)).max(1);
        let before = self.known(self.size);
        if let Some(known) = self.rates.get_mut(self.size - 1) {
            *known = if before == 0 {
                rate
            } else {
                before.midpoint(rate)
            };
        }
        let rare = self.losses * ANSWERS_PER_RARE_LOSS <= self.answers;
        let some = self.losses > 0;
        self.begin(Some(now_ms));
        let larger = self.size + 1;
        // With one under way only silence tells of a loss, with two an answer does; a third one only adds to what a loss
        // costs, so it is tried when there was none.
        let worth = if self.size == 1 { rare } else { !some };
        if worth && larger <= self.max && self.known(larger) == 0 && self.is_best(self.size) {
            self.size = larger;
            return;
        }
        let best = (1..=self.max)
            .rev()
            .max_by_key(|size| self.known(*size))
            .unwrap_or(1);
        let close = 100 * self.known(best) < BETTER * self.known(self.size);
        let lucky = best == 1 && some && rare && close;
        let best = if lucky { self.size } else { best };
        if best < self.size {
            // It is tried again, but less and less often.
            self.hold = self.next_hold;
            self.next_hold = (self.next_hold * 2).min(HOLD_MAX);
        } else if self.hold == 0
            && larger <= self.max
            && let Some(known) = self.rates.get_mut(larger - 1)
        {
            *known = 0;
        }
        self.size = best;
    }

    fn is_best(&self, size: usize) -> bool {
        (1..=self.max).all(|other| self.known(other) <= self.known(size))
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    /// Runs `answers` answers, each taking what `ms` says for the window's size.
    fn run(window: &mut Window, now: &mut u64, answers: u32, ms: impl Fn(usize) -> u64) {
        for _ in 0..answers {
            *now += ms(window.now());
            window.on_answer(*now, 352);
        }
    }

    #[test]
    fn two_are_tried_after_sixteen_clean_answers_and_stay_if_faster() {
        let (mut window, mut now) = (Window::new(3), 0);
        run(&mut window, &mut now, 16, |_| 50);
        assert_eq!(window.now(), 1);
        run(&mut window, &mut now, 1, |_| 50);
        assert_eq!(window.now(), 2);
        run(&mut window, &mut now, 200, |size| 50 - 2 * size as u64);
        assert_eq!(window.now(), 3);
    }

    #[test]
    fn a_window_that_is_slower_is_given_up_and_tried_less_and_less() {
        let (mut window, mut now) = (Window::new(4), 0);
        let mut slow = 0;
        for _ in 0..4000 {
            slow += u32::from(window.now() > 1);
            run(
                &mut window,
                &mut now,
                1,
                |size| if size > 1 { 80 } else { 50 },
            );
        }
        assert_eq!(window.now(), 1);
        assert!(slow < 300, "{slow}");
    }

    #[test]
    fn losses_that_only_the_window_causes_end_it() {
        let (mut window, mut now) = (Window::new(2), 0);
        run(&mut window, &mut now, 17, |_| 50);
        assert_eq!(window.now(), 2);
        for _ in 0..4 {
            now += 300;
            window.on_loss(now, false);
        }
        run(&mut window, &mut now, 1, |_| 50);
        assert_eq!(window.now(), 1);
    }

    #[test]
    fn a_line_that_loses_now_and_then_does_not_end_a_window() {
        let (mut window, mut now) = (Window::new(2), 0);
        run(&mut window, &mut now, 17, |_| 48);
        for _ in 0..20 {
            assert_eq!(window.now(), 2);
            // Two in 32, each of which costs two chunks: a little slower than one at a time without losses.
            now += 180;
            window.on_loss(now, true);
            window.on_loss(now, true);
            run(&mut window, &mut now, 32, |_| 44);
        }
    }

    #[test]
    fn a_third_is_not_tried_on_a_line_that_loses() {
        let (mut window, mut now) = (Window::new(3), 0);
        run(&mut window, &mut now, 17, |_| 50);
        for _ in 0..20 {
            assert_eq!(window.now(), 2);
            // Faster than one at a time for all that.
            now += 180;
            window.on_loss(now, true);
            window.on_loss(now, true);
            run(&mut window, &mut now, 32, |_| 42);
        }
        run(&mut window, &mut now, 32, |_| 42);
        assert_eq!(window.now(), 3, "it has lost nothing");
    }

    #[test]
    fn silence_makes_it_one_until_the_next_answer_and_a_loss_that_is_told_does_not() {
        let (mut window, mut now) = (Window::new(2), 0);
        run(&mut window, &mut now, 17, |_| 50);
        window.on_loss(now, true);
        assert_eq!(window.now(), 2);
        window.on_loss(now, false);
        assert_eq!(window.now(), 1);
        run(&mut window, &mut now, 1, |_| 45);
        assert_eq!(window.now(), 2);
    }
}
