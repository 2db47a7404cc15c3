//! When silence has lasted too long, and when the next request may leave.
//!
//! The C agent bears ten seconds of silence, always: one lost block costs ten seconds. Here the time that is borne
//! follows the service: eight times the longest pause seen of late between a request and its blocks, at least one
//! second, at most the configured time-out, which also holds until something is known. Each silence doubles it, up to
//! six times the configured one, until a request is answered that was not a repetition: an answer to a repeated one may
//! be a late answer to the first, and says nothing about the service. (Karn's rules, RFC 6298 sections 3 and 5.)

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
    /// Longest pause seen of late, none = nothing known.
    pub pause_ms: Option<u64>,
    /// Silences since the last certain answer.
    pub silences: u32,
    /// Bandwidth cap in bytes a second.
    pub allowance: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Pace {
    timeout_ms: u64,
    /// When silence will have lasted too long.
    silence_at: Option<u64>,
    /// Before this no request leaves.
    hold_until: Option<u64>,
    /// The last request or usable block, unless the request was a repetition.
    quiet_since: Option<u64>,
    /// The next request is a repetition.
    repeats: bool,
    pause_ms: Option<u64>,
    silences: u32,
    allowance: Option<u64>,
}

impl Pace {
    pub(super) const fn new(timeout_ms: u64) -> Self {
        Self {
            timeout_ms,
            silence_at: None,
            hold_until: None,
            quiet_since: None,
            repeats: false,
            pause_ms: None,
            silences: 0,
            allowance: None,
        }
    }

    pub(super) fn restore(timeout_ms: u64, now_ms: u64, state: &PaceState) -> Self {
        let at = |in_ms: u64| now_ms.saturating_add(in_ms);
        let mut pace = Self::new(timeout_ms);
        pace.pause_ms = state.pause_ms;
        pace.silences = state.silences.min(DOUBLINGS_MAX);
        pace.allowance = state.allowance;
        pace.hold_until = state.hold_in_ms.map(at);
        // A request without a timer would wait for ever.
        pace.silence_at = Some(at(state.silence_in_ms.unwrap_or_else(|| pace.patience())));
        pace
    }

    pub(super) fn state(&self, now_ms: u64) -> PaceState {
        PaceState {
            silence_in_ms: self.silence_at.map(|at| at.saturating_sub(now_ms)),
            hold_in_ms: self.hold_until.map(|at| at.saturating_sub(now_ms)),
            pause_ms: self.pause_ms,
            silences: self.silences,
            allowance: self.allowance,
        }
    }

    pub(super) const fn silence(&self) -> Option<u64> {
        self.silence_at
    }

    pub(super) const fn hold(&self) -> Option<u64> {
        self.hold_until
    }

    pub(super) fn is_silent(&self, now_ms: u64) -> bool {
        self.silence_at.is_some_and(|at| at <= now_ms)
    }

    /// Whether a request may leave now; looks again after a time-out where none may leave at all.
    pub(super) fn may_ask(&mut self, now_ms: u64) -> bool {
        if self.hold_until.is_some_and(|until| until <= now_ms) {
            self.hold_until = None;
        }
        if self.hold_until.is_none() && self.allowance == Some(0) {
            self.hold_until = Some(now_ms.saturating_add(self.timeout_ms));
        }
        self.hold_until.is_none()
    }

    pub(super) fn on_request(&mut self, now_ms: u64, payload_bytes: u64) {
        // A long pause counts at once and is forgotten by an eighth a request.
        self.pause_ms = self.pause_ms.map(|longest| longest - longest / 8);
        self.silence_at = Some(now_ms.saturating_add(self.patience()));
        self.quiet_since = if self.repeats { None } else { Some(now_ms) };
        self.repeats = false;
        if let Some(bytes_per_s) = self.allowance {
            let ms = payload_bytes
                .saturating_mul(1000)
                .div_ceil(bytes_per_s.max(1));
            self.hold_until = Some(now_ms.saturating_add(ms));
        }
    }

    pub(super) fn on_block(&mut self, now_ms: u64) {
        if let Some(since) = self.quiet_since {
            let pause = now_ms.saturating_sub(since);
            self.pause_ms = self.pause_ms.max(Some(pause));
            self.quiet_since = Some(now_ms);
            self.silences = 0;
        }
        self.silence_at = Some(now_ms.saturating_add(self.patience()));
    }

    pub(super) fn on_silence(&mut self) {
        self.silence_at = None;
        self.repeats = true;
        self.silences = self.silences.saturating_add(1).min(DOUBLINGS_MAX);
    }

    pub(super) fn on_failure(&mut self, now_ms: u64) {
        self.hold_until = Some(now_ms.saturating_add(self.patience()));
        self.silences = self.silences.saturating_add(1).min(DOUBLINGS_MAX);
    }

    pub(super) const fn on_pause(&mut self) {
        self.silence_at = None;
        self.hold_until = None;
        self.quiet_since = None;
        self.repeats = false;
    }

    pub(super) const fn set_allowance(&mut self, bytes_per_s: Option<u64>) {
        self.allowance = bytes_per_s;
        self.hold_until = None;
    }

    /// How long silence is borne now.
    fn patience(&self) -> u64 {
        let known = self
            .pause_ms
            .map(|pause| pause.saturating_mul(PATIENCE_FACTOR));
        let base = known.map_or(self.timeout_ms, |ms| {
            ms.max(PATIENCE_MIN_MS).min(self.timeout_ms)
        });
        let most = self.timeout_ms.saturating_mul(BACK_OFF_MAX_FACTOR);
        base.saturating_mul(1 << self.silences).min(most)
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
                Expect(at) => assert_eq!(pace.silence(), Some(*at), "step {step}"),
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
    fn a_short_time_out_is_not_made_longer_by_what_is_learned() {
        let mut pace = Pace::new(50);
        pace.on_request(0, 0);
        assert_eq!(pace.silence(), Some(50));
        pace.on_block(20);
        assert_eq!(pace.silence(), Some(70));
    }

    #[test]
    fn a_bandwidth_cap_spreads_requests() {
        let mut pace = Pace::new(10_000);
        assert!(pace.may_ask(0));
        pace.set_allowance(Some(1000));
        pace.on_request(0, 4096);
        assert_eq!(pace.hold(), Some(4096));
        assert!(!pace.may_ask(4095));
        assert!(pace.may_ask(4096));
        pace.set_allowance(Some(0));
        assert!(!pace.may_ask(5000));
        assert_eq!(pace.hold(), Some(15_000));
        // Nothing has changed when the time is over.
        assert!(!pace.may_ask(15_000));
        assert_eq!(pace.hold(), Some(25_000));
        pace.set_allowance(None);
        assert!(pace.may_ask(15_001));
    }

    #[test]
    fn clocks_at_their_end_do_no_harm() {
        let mut pace = Pace::new(u64::MAX);
        pace.set_allowance(Some(1));
        pace.on_request(u64::MAX, u64::MAX);
        pace.on_block(0);
        for _ in 0..100 {
            pace.on_silence();
            pace.on_failure(u64::MAX);
            pace.on_request(u64::MAX - 1, 1);
        }
        assert_eq!(pace.silence(), Some(u64::MAX));
        let state = pace.state(u64::MAX);
        assert_eq!(
            Pace::restore(1, u64::MAX, &state)
                .state(u64::MAX)
                .silence_in_ms,
            Some(0)
        );
    }
}
