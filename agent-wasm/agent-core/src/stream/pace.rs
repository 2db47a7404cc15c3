//! When silence has lasted too long, and when the next request may leave.
//!
//! The C agent bears ten seconds of silence, always: one lost block costs ten seconds. Here the time that is borne
//! follows the service: eight times the longest pause seen of late between a request and its blocks, at least one
//! second, at most the configured time-out, which also holds until something is known. Each silence doubles it, up to
//! six times the configured one, until a request is answered that was not a repetition: an answer to a repeated one may
//! be a late answer to the first, and says nothing about the service. (Karn's rules, RFC 6298 sections 3 and 5.) Silence
//! after some of the blocks of a request is a loss, and halves it instead: else a line that loses a few blocks of every
//! window would be asked less and less.

/// Shortest silence that is borne, unless the configured time-out is shorter: a busy service may take so long.
const PATIENCE_MIN_MS: u64 = 1000;
/// Times the longest pause seen of late.
const PATIENCE_FACTOR: u64 = 8;
/// Times the configured time-out, the most that doubling makes of it: 60 s by default, so that 32 requests take half an
/// hour.
const BACK_OFF_MAX_FACTOR: u64 = 6;
/// More doublings change nothing: 2^16 s are 18 h.
const DOUBLINGS_MAX: u32 = 16;

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
}

/// An instant that does not come, a duration that is not known, a cap that does not bind.
pub(super) const NEVER: u64 = u64::MAX;

const fn some(value: u64) -> Option<u64> {
    if value == NEVER { None } else { Some(value) }
}

#[derive(Clone, Debug)]
pub(super) struct Pace {
    timeout_ms: u64,
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
}

impl Pace {
    pub(super) const fn new(timeout_ms: u64) -> Self {
        Self {
            timeout_ms,
            silence_at: NEVER,
            hold_until: 0,
            quiet_since: NEVER,
            repeats: false,
            heard: false,
            pause_ms: NEVER,
            silences: 0,
            allowance: NEVER,
        }
    }

    pub(super) fn restore(timeout_ms: u64, now_ms: u64, state: &PaceState) -> Self {
        let mut pace = Self::new(timeout_ms);
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
        }
        // A request without a timer would wait for ever.
        let silence_in_ms = state.silence_in_ms.unwrap_or_else(|| pace.patience());
        pace.silence_at = now_ms.saturating_add(silence_in_ms);
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
        }
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

    /// Whether a request may leave now; looks again after a time-out where none may leave at all.
    pub(super) fn may_ask(&mut self, now_ms: u64) -> bool {
        if self.hold_until <= now_ms {
            self.hold_until = 0;
            if self.allowance == 0 {
                self.hold_until = now_ms.saturating_add(self.timeout_ms);
            }
        }
        self.hold_until == 0
    }

    pub(super) fn on_request(&mut self, now_ms: u64, payload_bytes: u32) {
        // A long pause counts at once and is forgotten by an eighth a request.
        if self.pause_ms != NEVER {
            self.pause_ms -= self.pause_ms / 8;
        }
        self.quiet_since = if self.repeats { NEVER } else { now_ms };
        self.repeats = false;
        self.heard = false;
        self.listen(now_ms);
        if self.allowance != NEVER {
            let ms = (u64::from(payload_bytes) * 1000).div_ceil(self.allowance.max(1));
            self.hold_until = now_ms.saturating_add(ms);
        }
    }

    pub(super) fn on_block(&mut self, now_ms: u64) {
        self.heard = true;
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

    fn listen(&mut self, now_ms: u64) {
        self.silence_at = now_ms.saturating_add(self.patience());
    }

    pub(super) fn on_silence(&mut self) {
        self.silence_at = NEVER;
        self.repeats = true;
        // Where blocks come and some are missing, the line loses them: waiting longer would bring none of them back.
        self.silences = if self.heard {
            self.silences.saturating_sub(1)
        } else {
            (self.silences + 1).min(DOUBLINGS_MAX)
        };
    }

    pub(super) fn on_failure(&mut self, now_ms: u64) {
        self.hold_until = now_ms.saturating_add(self.patience());
        self.silences = (self.silences + 1).min(DOUBLINGS_MAX);
    }

    pub(super) const fn on_pause(&mut self) {
        self.silence_at = NEVER;
        self.hold_until = 0;
        self.quiet_since = NEVER;
        self.repeats = false;
    }

    pub(super) fn set_allowance(&mut self, bytes_per_s: Option<u64>) {
        self.allowance = bytes_per_s.unwrap_or(NEVER);
        self.hold_until = 0;
    }

    /// How long silence is borne now.
    #[inline(never)]
    fn patience(&self) -> u64 {
        // The time-out has at most a day, so nothing here overflows.
        let pause = self.pause_ms.min(self.timeout_ms) * PATIENCE_FACTOR;
        let base = pause.max(PATIENCE_MIN_MS).min(self.timeout_ms);
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
        let mut pace = Pace::new(10_000);
        for (step, what) in script.iter().enumerate() {
            match what {
                Request(now) => pace.on_request(*now, 0),
                Block(now) => pace.on_block(*now),
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
        let mut pace = Pace::new(50);
        pace.on_request(0, 0);
        assert_eq!(pace.silence(), 50);
        pace.on_block(20);
        assert_eq!(pace.silence(), 70);
    }

    #[test]
    fn a_bandwidth_cap_spreads_requests() {
        let mut pace = Pace::new(10_000);
        assert!(pace.may_ask(0));
        pace.set_allowance(Some(1000));
        pace.on_request(0, 4096);
        assert_eq!(pace.hold(), 4096);
        assert!(!pace.may_ask(4095));
        assert!(pace.may_ask(4096));
        pace.set_allowance(Some(0));
        assert!(!pace.may_ask(5000));
        assert_eq!(pace.hold(), 15_000);
        // Nothing has changed when the time is over.
        assert!(!pace.may_ask(15_000));
        assert_eq!(pace.hold(), 25_000);
        pace.set_allowance(None);
        assert!(pace.may_ask(15_001));
    }

    #[test]
    fn clocks_at_their_end_do_no_harm() {
        let mut pace = Pace::new(crate::stream::REQUEST_TIMEOUT_MAX_MS);
        pace.set_allowance(Some(1));
        pace.on_request(u64::MAX, u32::MAX);
        pace.on_block(0);
        for _ in 0..100 {
            pace.on_silence();
            pace.on_failure(u64::MAX);
            pace.on_request(u64::MAX - 1, 1);
        }
        assert_eq!(pace.silence(), u64::MAX);
        let state = pace.state(u64::MAX);
        let restored = Pace::restore(1, u64::MAX, &state);
        assert_eq!((restored.silence(), restored.hold()), (u64::MAX, u64::MAX));
    }
}
