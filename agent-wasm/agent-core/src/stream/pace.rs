//! When silence has lasted too long, and when the next request may leave.
//!
//! The C agent bears ten seconds of silence, always: one lost block costs ten seconds. Here the time that is borne
//! follows the service: eight times the longest pause seen of late between a request and its blocks, at least one
//! second, at most the configured time-out, which also holds until something is known. Each silence doubles it, up to
//! six times the configured one, until a request is answered that was not a repetition: an answer to a repeated one may
//! be a late answer to the first, and says nothing about the service, unless it has the token of its request. (Karn's
//! rules, RFC 6298 sections 3 and 5.) Silence after some of the blocks of a request is a loss, and halves it instead: else
//! a line that loses a few blocks of every window would be asked less and less. Ranges by URL end by themselves, so their
//! silence is not looked at.
//!
//! How many requests are in flight follows the time that answers take. As long as that is not much more than the shortest
//! one seen, the line is not full, and every answer makes one more; when it is far more, they only wait in a queue, and it
//! makes one less. Losses say nothing about the line: below MQTT and HTTP there is TCP, which does.

use super::{DownloadConfig, Plane};

/// Shortest silence that is borne, unless the configured time-out is shorter: a busy service may take so long.
const PATIENCE_MIN_MS: u64 = 1000;
/// Times the longest pause seen of late.
const PATIENCE_FACTOR: u64 = 8;
/// The same two where it is certain how long answers take and nothing is left to ask for: a block that is missing then
/// keeps the whole file waiting, and asking for it twice costs little.
const LAST_PATIENCE_MIN_MS: u64 = 200;
const LAST_PATIENCE_FACTOR: u64 = 3;
/// Times the configured time-out, the most that doubling makes of it: 60 s by default, so that 32 requests take half an
/// hour.
const BACK_OFF_MAX_FACTOR: u64 = 6;
/// More doublings change nothing: 2^16 s are 18 h.
const DOUBLINGS_MAX: u32 = 16;
/// Requests in flight at first and after a pause. 200 ms of 100 Mbit/s are 20 requests, so three doublings are enough.
const WINDOW_FIRST: u32 = 4;
/// Queueing that is no queueing: clocks count milliseconds, services take turns.
const QUEUE_MIN_MS: u64 = 20;
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
    /// Requests that may be in flight; 0 = as at the beginning.
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
    /// Requests that may be in flight.
    window: u32,
    window_max: u32,
    /// Shortest time for an answer.
    answer_ms: u64,
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
        Self {
            timeout_ms,
            ranges,
            window: WINDOW_FIRST.min(window_max),
            window_max,
            answer_ms: NEVER,
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
        }
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

    /// Requests that may be in flight.
    pub(super) const fn window(&self) -> u32 {
        self.window
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

    /// A usable block came; the first one of a known request says when that was made.
    pub(super) fn on_block(&mut self, now_ms: u64, asked_ms: u64) {
        self.heard = true;
        if asked_ms != NEVER {
            self.quiet_since = asked_ms;
            self.size_window(now_ms.saturating_sub(asked_ms));
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

    /// An answer took so long.
    fn size_window(&mut self, answer_ms: u64) {
        self.answer_ms = self.answer_ms.min(answer_ms);
        let least = self.answer_ms.min(self.timeout_ms);
        if answer_ms <= 2 * least + QUEUE_MIN_MS {
            self.window = (self.window + 1).min(self.window_max);
        } else if answer_ms > 4 * least + 5 * QUEUE_MIN_MS && self.window > 2 {
            self.window -= 1;
        }
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
        self.window = 1;
        self.answer_ms = NEVER;
    }

    /// A request failed. All that fail before the next one may leave are one failure; a range that fails among others
    /// that come is repeated at once.
    pub(super) fn on_failure(&mut self, now_ms: u64) {
        if self.hold_until > now_ms || (self.ranges && core::mem::take(&mut self.heard)) {
            return;
        }
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
        self.window = WINDOW_FIRST.min(self.window_max);
        self.answer_ms = NEVER;
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
        let (factor, least) = if self.last && self.answer_ms != NEVER {
            (LAST_PATIENCE_FACTOR, LAST_PATIENCE_MIN_MS)
        } else {
            (PATIENCE_FACTOR, PATIENCE_MIN_MS)
        };
        let pause = self.pause_ms.min(self.timeout_ms) * factor;
        let base = pause.max(least).min(self.timeout_ms);
        (base << self.silences).min(self.timeout_ms * BACK_OFF_MAX_FACTOR)
    }
}

#[cfg(test)]
mod tests {
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
                Block(now) => pace.on_block(*now, NEVER),
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
        pace.on_block(20, NEVER);
        assert_eq!(pace.silence(), 70);
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

    #[test]
    fn clocks_at_their_end_do_no_harm() {
        let mut pace = Pace::new(crate::stream::REQUEST_TIMEOUT_MAX_MS, 1, false);
        pace.set_allowance(Some(1));
        pace.on_request(u64::MAX, true);
        pace.may_ask(u64::MAX, u32::MAX);
        pace.on_block(0, NEVER);
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
