//! When silence has lasted too long, and when the next request may leave.
//!
//! The C agent bears ten seconds of silence, always: one lost block costs ten seconds. Here the time that is borne
//! follows the service: eight times the longest pause seen of late between a request and its blocks, at least one
//! second (less where tokens have said whose answer came, until nothing comes at all), at most the configured time-out,
//! which also holds until something is known. Each silence doubles it, up to six times the configured one, until a request
//! is answered that was not a repetition: an answer to a repeated one may be a late answer to the first, and says nothing
//! about the service, unless it has the token of its request. (Karn's rules, RFC 6298 sections 3 and 5.) Silence after some
//! of the blocks of a request is a loss, and halves it instead: else a line that loses a few blocks of every window would be
//! asked less and less. Ranges by URL end by themselves, so their silence is not looked at.
//!
//! How much is in flight follows the time that answers take. While that is less than a quarter above the shortest one
//! seen, the line is not full and the window grows; when it is half as much again, what was asked for waits in a queue,
//! and a quarter of the window goes. So the window is what the line needs, its rate times its round trip, and about half
//! of that more. Losses say nothing about the line: below MQTT and HTTP there is TCP, which does.

use super::{DownloadConfig, Plane};

/// Shortest silence that is borne, unless the configured time-out is shorter: a busy service may take so long.
const PATIENCE_MIN_MS: u64 = 1000;
/// The same where it is certain how long answers take. A line of a few milliseconds that loses messages would stand still most
/// of the time else; TCP's own repetition of what was lost, 200 ms and a round trip, is not to be taken for a loss. What is asked
/// for twice for nothing is a window at most, and twice that where the line has stood still for two of these.
const CERTAIN_PATIENCE_MIN_MS: u64 = 400;
/// Times the longest pause seen of late.
const PATIENCE_FACTOR: u64 = 8;
/// The same two where that is certain and nothing is left to ask for: a block that is missing then keeps the whole file
/// waiting, and asking for it twice costs little.
const LAST_PATIENCE_MIN_MS: u64 = 200;
const LAST_PATIENCE_FACTOR: u64 = 3;
/// Times the configured time-out, the most that doubling makes of it: 60 s by default, so that 32 requests take half an
/// hour.
const BACK_OFF_MAX_FACTOR: u64 = 6;
/// More doublings change nothing: 2^16 s are 18 h.
const DOUBLINGS_MAX: u32 = 16;
/// Up to so many requests in flight the window is what the operator says: too few to look for a better one.
const FIXED_MAX: u32 = 2;
/// Pause after a failed range, doubled by each further one without a good one between them.
const RANGE_HOLD_MS: u64 = 100;

/// The saved form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PaceState {
    /// Until silence has lasted too long.
    pub silence_in_ms: Option<u64>,
    /// Until the next request may leave.
    pub hold_in_ms: Option<u64>,
    /// Since the last request or usable block, none = it was a repetition.
    pub quiet_for_ms: Option<u64>,
    /// The next request is a repetition.
    pub repeats: bool,
    /// A usable block has come since the last request.
    pub heard: bool,
    /// Longest pause seen of late, none = nothing known.
    pub pause_ms: Option<u64>,
    /// Silences since the last certain answer.
    pub silences: u32,
    /// Bandwidth cap in bytes a second.
    pub allowance: Option<u64>,
    /// Requests' worth of blocks that may be in flight; 0 = as at the beginning.
    pub window: u32,
}

/// An instant that does not come, a duration that is not known, a cap that does not bind.
pub(super) const NEVER: u64 = u64::MAX;

const fn some(value: u64) -> Option<u64> {
    if value == NEVER { None } else { Some(value) }
}

#[derive(Clone, Debug)]
pub(super) struct Pace {
    timeout_ms: u64,
    /// Ranges by URL: each has an end of its own.
    ranges: bool,
    /// Requests' worth of blocks that may be in flight.
    window: u32,
    window_max: u32,
    /// Shortest time for an answer.
    answer_ms: u64,
    /// Answers to earlier requests say nothing about the window; 0 = there was never a queue.
    sized_ms: u64,
    /// When silence will have lasted too long.
    silence_at: u64,
    /// Before this no request leaves; 0 = one may.
    hold_until: u64,
    /// The last request or usable block, unless the request was a repetition.
    quiet_since: u64,
    /// The next request is a repetition.
    repeats: bool,
    /// A usable block has come since the last request.
    heard: bool,
    pause_ms: u64,
    silences: u32,
    allowance: u64,
    /// The time of the next request has passed, or runs.
    paid: bool,
    /// Nothing is left to ask for.
    last: bool,
}

impl Pace {
    pub(super) fn of(config: &DownloadConfig) -> Self {
        Self::new(
            config.request_timeout_ms,
            config.requests_in_flight,
            config.plane == Plane::Url,
        )
    }

    fn new(timeout_ms: u64, window_max: u32, ranges: bool) -> Self {
        let mut pace = Self {
            timeout_ms,
            ranges,
            window: 1,
            window_max,
            answer_ms: NEVER,
            sized_ms: 0,
            silence_at: NEVER,
            hold_until: 0,
            quiet_since: NEVER,
            repeats: false,
            heard: false,
            pause_ms: NEVER,
            silences: 0,
            allowance: NEVER,
            paid: false,
            last: false,
        };
        pace.window = pace.first_window();
        pace
    }

    pub(super) fn restore(config: &DownloadConfig, now_ms: u64, state: &PaceState) -> Self {
        let mut pace = Self::of(config);
        if state.window != 0 {
            pace.window = state.window.min(pace.window_max);
        }
        pace.pause_ms = state.pause_ms.unwrap_or(NEVER);
        pace.silences = state.silences.min(DOUBLINGS_MAX);
        pace.allowance = state.allowance.unwrap_or(NEVER);
        pace.repeats = state.repeats;
        pace.heard = state.heard;
        if let Some(quiet_for_ms) = state.quiet_for_ms {
            pace.quiet_since = now_ms.saturating_sub(quiet_for_ms);
        }
        if let Some(hold_in_ms) = state.hold_in_ms {
            pace.hold_until = now_ms.saturating_add(hold_in_ms);
            pace.paid = true;
        }
        // A request without a timer would wait for ever.
        pace.listen(now_ms);
        if let Some(silence_in_ms) = state.silence_in_ms {
            pace.silence_at = now_ms.saturating_add(silence_in_ms);
        }
        pace
    }

    pub(super) fn state(&self, now_ms: u64) -> PaceState {
        PaceState {
            silence_in_ms: some(self.silence_at).map(|at| at.saturating_sub(now_ms)),
            hold_in_ms: some(self.hold()).map(|at| at.saturating_sub(now_ms)),
            quiet_for_ms: some(self.quiet_since).map(|since| now_ms.saturating_sub(since)),
            repeats: self.repeats,
            heard: self.heard,
            pause_ms: some(self.pause_ms),
            silences: self.silences,
            allowance: some(self.allowance),
            window: self.window,
        }
    }

    /// Requests' worth of blocks that may be in flight.
    pub(super) const fn window(&self) -> u32 {
        self.window
    }

    /// Whether the window follows the line.
    const fn follows(&self) -> bool {
        self.window_max > FIXED_MAX
    }

    /// Most requests that may be in flight, however few blocks they still lack.
    pub(super) const fn requests_max(&self) -> u32 {
        if self.follows() {
            self.window_max
        } else {
            self.window
        }
    }

    /// Whether the next request is half of one: the whole window is one, and the line would be empty between two. A cap,
    /// which whole requests pay, leaves it empty anyway.
    pub(super) const fn halves(&self) -> bool {
        self.follows() && self.window == 1 && self.allowance == NEVER
    }

    /// When silence will have lasted too long.
    pub(super) const fn silence(&self) -> u64 {
        self.silence_at
    }

    /// When the next request may leave, if none may now.
    pub(super) const fn hold(&self) -> u64 {
        if self.hold_until == 0 {
            NEVER
        } else {
            self.hold_until
        }
    }

    /// Whether a request for so many bytes may leave now; with a cap, once the time that they take has passed. Looks again
    /// after a time-out where none may leave at all.
    pub(super) fn may_ask(&mut self, now_ms: u64, payload_bytes: u32) -> bool {
        if self.hold_until <= now_ms {
            self.hold_until = 0;
            let wait = if self.allowance == 0 {
                self.timeout_ms
            } else if self.allowance == NEVER || self.paid {
                return true;
            } else {
                (u64::from(payload_bytes) * 1000).div_ceil(self.allowance)
            };
            self.hold_until = now_ms.saturating_add(wait);
            self.paid = self.allowance != 0;
        }
        false
    }

    pub(super) fn on_request(&mut self, now_ms: u64, last: bool) {
        self.last = last;
        // A long pause counts at once and is forgotten by an eighth a request.
        if self.pause_ms != NEVER {
            self.pause_ms -= self.pause_ms / 8;
        }
        self.quiet_since = if self.repeats { NEVER } else { now_ms };
        self.repeats = false;
        self.heard &= self.ranges;
        self.paid = false;
        self.listen(now_ms);
    }

    /// A usable block came; the first one of a known request says when that was made. A storage that lags behind has no
    /// use for a larger window.
    pub(super) fn on_block(&mut self, now_ms: u64, asked_ms: u64, storage_lags: bool) {
        self.heard = true;
        if asked_ms != NEVER {
            self.quiet_since = asked_ms;
            self.size_window(now_ms, asked_ms, storage_lags);
        }
        if self.quiet_since != NEVER {
            let pause = now_ms.saturating_sub(self.quiet_since);
            if self.pause_ms == NEVER || self.pause_ms < pause {
                self.pause_ms = pause;
            }
            self.quiet_since = now_ms;
            self.silences = 0;
        }
        self.listen(now_ms);
    }

    /// A request was answered for the first time. One that says how long answers take at best does not say yet whether
    /// more would fit; nor does one that took less than the clock can tell apart.
    fn size_window(&mut self, now_ms: u64, asked_ms: u64, storage_lags: bool) {
        if asked_ms < self.sized_ms {
            return;
        }
        // Half of all time: one and a half of it is still a time.
        let answer_ms = now_ms.saturating_sub(asked_ms).min(NEVER / 2);
        let least = self.answer_ms;
        self.answer_ms = least.min(answer_ms);
        if !self.follows() {
            self.window = self.window_max;
            return;
        }
        if least == NEVER || storage_lags {
            return;
        }
        let part = self.window.div_ceil(4);
        if answer_ms > least + least / 2 + 1 {
            self.resize(now_ms, self.window - part);
        } else if answer_ms < least + least / 4 {
            if self.sized_ms == 0 {
                // Threefold a round trip until it is too much for the first time.
                self.window = (self.window + 2).min(self.window_max);
            } else {
                self.resize(now_ms, self.window + part);
            }
        }
    }

    /// Half of the window is less than the line needs, so what comes next has waited nowhere.
    pub(super) fn measure_anew(&mut self, now_ms: u64) {
        self.answer_ms = NEVER;
        self.resize(now_ms, self.window / 2);
    }

    fn resize(&mut self, now_ms: u64, window: u32) {
        self.window = window.clamp(1, self.window_max);
        self.sized_ms = now_ms;
    }

    /// Nothing is known of the line.
    const fn forget_line(&mut self, window: u32) {
        self.window = window;
        self.answer_ms = NEVER;
        self.sized_ms = 0;
    }

    const fn first_window(&self) -> u32 {
        if self.follows() { 1 } else { self.window_max }
    }

    fn listen(&mut self, now_ms: u64) {
        if !self.ranges {
            self.silence_at = now_ms.saturating_add(self.patience());
        }
    }

    pub(super) fn on_silence(&mut self) {
        self.silence_at = NEVER;
        self.repeats = true;
        // Where blocks come and some are missing, the line loses them: waiting longer would bring none of them back.
        if self.heard {
            self.silences = self.silences.saturating_sub(1);
        } else {
            self.on_outage();
        }
    }

    /// Nothing comes: whoever is there again is not met by a whole window.
    fn on_outage(&mut self) {
        self.silences = (self.silences + 1).min(DOUBLINGS_MAX);
        self.forget_line(1);
    }

    /// A request failed. All that fail before the next one may leave are one failure; a range that fails among others
    /// that come is repeated at once.
    pub(super) fn on_failure(&mut self, now_ms: u64) {
        if self.hold_until > now_ms || (self.ranges && core::mem::take(&mut self.heard)) {
            return;
        }
        // Nothing is certain any more: a refusal is borne for as long as the silence of a service that nobody knows.
        self.answer_ms = NEVER;
        let wait = if self.ranges {
            (RANGE_HOLD_MS << self.silences).min(self.timeout_ms)
        } else {
            self.patience()
        };
        self.hold_until = now_ms.saturating_add(wait);
        self.on_outage();
    }

    /// What one plane has taught says nothing about the other.
    pub(super) const fn on_change(&mut self, ranges: bool) {
        self.ranges = ranges;
        self.heard = false;
        self.pause_ms = NEVER;
        self.silences = 0;
    }

    pub(super) fn on_pause(&mut self) {
        self.silence_at = NEVER;
        self.hold_until = 0;
        self.quiet_since = NEVER;
        self.repeats = false;
        self.forget_line(self.first_window());
    }

    /// What the next request has begun to pay it goes on paying, or each change would let one out at once.
    pub(super) fn set_allowance(&mut self, bytes_per_s: Option<u64>) {
        let before = core::mem::replace(&mut self.allowance, bytes_per_s.unwrap_or(NEVER));
        if before == 0 || self.allowance == NEVER {
            self.hold_until = 0;
            self.paid = false;
        }
    }

    /// How long silence is borne now.
    #[inline(never)]
    fn patience(&self) -> u64 {
        // The time-out has at most a day, so nothing here overflows.
        let (factor, least) = if self.answer_ms == NEVER {
            (PATIENCE_FACTOR, PATIENCE_MIN_MS)
        } else if self.last {
            (LAST_PATIENCE_FACTOR, LAST_PATIENCE_MIN_MS)
        } else {
            (PATIENCE_FACTOR, CERTAIN_PATIENCE_MIN_MS)
        };
        let pause = self.pause_ms.min(self.timeout_ms) * factor;
        let base = pause.max(least).min(self.timeout_ms);
        (base << self.silences).min(self.timeout_ms * BACK_OFF_MAX_FACTOR)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// What happens, in order.
    enum Do {
        /// A request of no payload leaves.
        Request(u64),
        /// A usable block comes.
        Block(u64),
        /// Silence has lasted too long.
        Silence,
        /// Silence will have lasted too long at this instant.
        Expect(u64),
    }

    use Do::{Block, Expect, Request, Silence};

    fn check(script: &[Do]) {
        let mut pace = Pace::new(10_000, 1, false);
        for (step, what) in script.iter().enumerate() {
            match what {
                Request(now) => pace.on_request(*now, false),
                Block(now) => pace.on_block(*now, NEVER, false),
                Silence => pace.on_silence(),
                Expect(at) => assert_eq!(pace.silence(), *at, "step {step}"),
            }
        }
    }

    #[test]
    fn nothing_known_the_configured_time_is_borne_and_doubled_up_to_six_times() {
        check(&[
            Request(0),
            Expect(10_000),
            Silence,
            Request(10_000),
            Expect(30_000),
            Silence,
            Request(30_000),
            Expect(70_000),
            Silence,
            Request(70_000),
            Expect(130_000),
            Silence,
            Request(130_000),
            Expect(190_000),
        ]);
    }

    #[test]
    fn a_service_that_answers_fast_is_given_a_second() {
        check(&[
            Request(0),
            Block(5),
            Expect(1005),
            Block(6),
            Expect(1006),
            Request(7),
            Expect(1007),
        ]);
    }

    #[test]
    fn a_service_that_answers_slowly_is_given_eight_times_its_pause_but_not_more_than_configured() {
        check(&[
            Request(0),
            Block(400),
            Expect(3600),
            Block(401),
            Expect(3601),
        ]);
        check(&[Request(0), Block(3000), Expect(13_000)]);
    }

    #[test]
    fn a_long_pause_is_forgotten_by_an_eighth_a_request() {
        check(&[Request(0), Block(800), Request(800), Expect(800 + 700 * 8)]);
    }

    #[test]
    fn an_answer_to_a_repetition_teaches_nothing_and_ends_no_back_off() {
        check(&[
            Request(0),
            Block(5),
            Request(5),
            Silence,
            Request(1005),
            Expect(3005),
            // The late answer to the first request.
            Block(1006),
            Expect(3006),
            // The next request is no repetition; its answer counts.
            Request(1010),
            Expect(3010),
            Block(1012),
            Expect(2012),
        ]);
    }

    #[test]
    fn a_line_that_loses_some_blocks_of_every_request_is_not_asked_less_and_less() {
        check(&[
            Request(0),
            Block(5),
            Silence,
            Request(1005),
            Block(1010),
            Expect(2010),
            Silence,
            // This request is lost.
            Request(2010),
            Silence,
            Request(3010),
            Expect(5010),
            Block(3015),
            Silence,
            Request(5015),
            Expect(6015),
        ]);
    }

    #[test]
    fn a_short_time_out_is_not_made_longer_by_what_is_learned() {
        let mut pace = Pace::new(50, 1, false);
        pace.on_request(0, false);
        assert_eq!(pace.silence(), 50);
        pace.on_block(20, NEVER, false);
        assert_eq!(pace.silence(), 70);
    }

    #[test]
    fn where_answers_are_known_silence_is_borne_for_less_than_a_second_until_nothing_comes() {
        let mut pace = Pace::new(10_000, 32, false);
        pace.on_request(0, false);
        assert_eq!(pace.silence(), 10_000);
        pace.on_block(1, 0, false);
        assert_eq!(pace.silence(), 401);
        // Some of it came: a loss.
        pace.on_silence();
        pace.on_request(401, false);
        assert_eq!(pace.silence(), 801);
        // Nothing came.
        pace.on_silence();
        pace.on_request(801, false);
        assert_eq!(pace.silence(), 2801);
    }

    #[test]
    fn a_refused_request_is_made_again_after_a_second_or_what_is_configured() {
        for (timeout_ms, pause) in [(10_000, 1000), (300, 300)] {
            let mut pace = Pace::new(timeout_ms, 32, false);
            pace.on_request(0, false);
            pace.on_block(1, 0, false);
            pace.on_failure(1);
            assert_eq!(pace.hold(), 1 + pause);
        }
    }

    #[test]
    fn a_bandwidth_cap_spreads_requests() {
        let mut pace = Pace::new(10_000, 1, false);
        assert!(pace.may_ask(0, 4096));
        pace.set_allowance(Some(1000));
        // The time comes first, so that a small file is no way round the cap.
        assert!(!pace.may_ask(0, 4096));
        assert_eq!(pace.hold(), 4096);
        assert!(!pace.may_ask(4095, 4096));
        // A change is no way round it either.
        pace.set_allowance(Some(900));
        assert!(!pace.may_ask(4095, 4096));
        assert!(pace.may_ask(4096, 4096));
        pace.on_request(4096, false);
        assert!(!pace.may_ask(4096, 900));
        assert_eq!(pace.hold(), 5096);
        pace.set_allowance(Some(0));
        assert!(!pace.may_ask(5096, 900) || !pace.may_ask(5096, 900));
        pace.on_request(5096, false);
        assert!(!pace.may_ask(5096, 900));
        assert_eq!(pace.hold(), 15_096);
        // Nothing has changed when the time is over.
        assert!(!pace.may_ask(15_096, 900));
        assert_eq!(pace.hold(), 25_096);
        pace.set_allowance(None);
        assert!(pace.may_ask(15_097, 900));
    }

    /// The windows after these answers, each of `(asked, answered)`.
    fn windows(answers: &[(u64, u64)]) -> Vec<u32> {
        let mut pace = Pace::new(10_000, 32, false);
        let mut window_after = |(asked, answered): &(u64, u64)| {
            pace.on_block(*answered, *asked, false);
            pace.window()
        };
        answers.iter().map(&mut window_after).collect()
    }

    #[test]
    fn answers_as_fast_as_the_fastest_widen_the_window() {
        let answers = [(0, 50), (0, 55), (50, 100), (50, 111), (60, 160)];
        // The first one tells how long it takes; one that takes a quarter longer is no reason.
        assert_eq!(windows(&answers), [1, 3, 5, 7, 5]);
    }

    #[test]
    fn an_answer_that_has_waited_takes_a_quarter_of_the_window_once_a_round_trip() {
        let mut answers = vec![(0, 50); 8];
        answers.extend([(50, 130), (60, 140), (129, 220), (131, 230), (230, 280)]);
        let found = windows(&answers);
        // Asked before the window shrank, (60, 140) and (129, 220) say nothing of it.
        assert_eq!(found[7..], [15, 11, 11, 11, 8, 10]);
    }

    #[test]
    fn a_line_whose_round_trip_the_clock_cannot_tell_needs_no_window() {
        let answers = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 3), (3, 4), (4, 4)];
        assert_eq!(windows(&answers), [1; 7]);
    }

    #[test]
    fn a_way_that_has_become_longer_is_found_out() {
        let mut pace = Pace::new(10_000, 32, false);
        for at in 0..10 {
            pace.on_block(at + 50, at, false);
        }
        for at in (1000..3000).step_by(200) {
            pace.on_block(at + 200, at, false);
        }
        assert_eq!(pace.window(), 1);
        pace.measure_anew(3200);
        for at in (3200..4200).step_by(200) {
            pace.on_block(at + 200, at, false);
        }
        // Four times by a quarter; the first answer only tells how long it takes.
        assert_eq!(pace.window(), 5);
    }

    #[test]
    fn a_storage_that_lags_behind_widens_nothing() {
        let mut pace = Pace::new(10_000, 32, false);
        for at in 0..10 {
            pace.on_block(at + 50, at, true);
        }
        assert_eq!(pace.window(), 1);
    }

    #[test]
    fn clocks_at_their_end_do_no_harm() {
        let mut pace = Pace::new(crate::stream::REQUEST_TIMEOUT_MAX_MS, 1, false);
        pace.set_allowance(Some(1));
        pace.on_request(u64::MAX, true);
        pace.may_ask(u64::MAX, u32::MAX);
        pace.on_block(0, NEVER, false);
        for _ in 0..3 {
            pace.on_block(u64::MAX, 0, false);
        }
        for _ in 0..100 {
            pace.on_silence();
            pace.on_failure(u64::MAX);
            pace.on_request(u64::MAX - 1, false);
            pace.may_ask(u64::MAX - 1, 1);
        }
        assert_eq!(pace.silence(), u64::MAX);
        let state = pace.state(u64::MAX);
        let config = DownloadConfig {
            plane: Plane::Url,
            file_id: 0,
            grid: crate::stream::BlockGrid::new(1, 256).unwrap(),
            blocks_per_request: 1,
            requests_in_flight: 1,
            request_timeout_ms: 1,
            momentum_max: 1,
            status_frequency: 1,
        };
        let restored = Pace::restore(&config, u64::MAX, &state);
        assert_eq!((restored.silence(), restored.hold()), (u64::MAX, u64::MAX));
    }
}
