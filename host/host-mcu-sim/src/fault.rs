//! What goes wrong on purpose: chance on the line, and rules of the form "at this request, this happens".
//!
//! Both are values round the ports of a simulated MCU; its server has no branch for them but the answers that a rule gives.
//! Rules have a text form, for command lines: `lose-response@upload-last`, `power-cut=40@upload*30`.

use std::fmt;
use std::str::FromStr;

use crate::random::Random;

/// Chance on the line, each in per mille of packets (or lines, where it says so).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chance {
    /// Requests that vanish.
    pub lose_request: u16,
    /// Responses that vanish.
    pub lose_response: u16,
    /// Single lines of either direction that vanish.
    pub lose_line: u16,
    /// Packets of either direction with a damaged byte.
    pub garble: u16,
    /// Responses that come twice.
    pub repeat_response: u16,
    /// Responses that come late, by [`Chance::late_ns`].
    pub late_response: u16,
    /// How late, in nanoseconds.
    pub late_ns: u64,
    /// Response lines before which the MCU logs a line of its own.
    pub log_line: u16,
}

impl Chance {
    /// Loses the given share of packets, half of them on either way.
    #[must_use]
    pub const fn losing(per_mille: u16) -> Self {
        Self {
            lose_request: per_mille / 2,
            lose_response: per_mille.div_ceil(2),
            lose_line: 0,
            garble: 0,
            repeat_response: 0,
            late_response: 0,
            late_ns: 0,
            log_line: 0,
        }
    }
}

/// Which request a rule waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Any.
    Any,
    /// Echo.
    Echo,
    /// `image list`.
    List,
    /// Test or confirm.
    StateWrite,
    /// The upload's request with offset 0.
    UploadFirst,
    /// Any upload request.
    Upload,
    /// The upload request that makes the file whole.
    UploadLast,
    /// Erase.
    Erase,
    /// Reset.
    Reset,
    /// No request, but a start of the bootloader.
    Boot,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The request never arrives.
    LoseRequest,
    /// It is done, and the answer vanishes.
    LoseResponse,
    /// It is done, and the answer is damaged.
    GarbleResponse,
    /// The answer comes twice.
    RepeatResponse,
    /// The answer comes so many milliseconds late.
    DelayResponse(u32),
    /// It is answered with this generic code, and not done.
    Answer(u8),
    /// It is answered "busy", and not done.
    Busy,
    /// The power fails so many milliseconds after the request arrived, or the start began, and comes back.
    PowerCut(u32),
    /// The power fails at that many flash operations after it, counted from 1, in the middle of the operation.
    CutAtOperation(u32),
    /// The next write on the flash fails.
    WriteError,
    /// The next erase on the flash fails.
    EraseError,
    /// The upload's answer says that the bytes do not match.
    NoMatch,
    /// The list gives other hashes than those of the images that do not run.
    OtherHash,
    /// The MCU says nothing any more, until it is reset.
    Silence,
    /// The plug is pulled, for so many milliseconds.
    Unplug(u32),
}

/// When what happens, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What happens.
    pub effect: Effect,
    /// At which request.
    pub trigger: Trigger,
    /// At which of them, counted from 1.
    pub at: u32,
    /// How many of them from there on.
    pub times: u32,
}

impl Rule {
    /// Happens once, at the first such request.
    #[must_use]
    pub const fn once(effect: Effect, trigger: Trigger) -> Self {
        Self {
            effect,
            trigger,
            at: 1,
            times: 1,
        }
    }

    /// Happens at the `at`th such request, counted from 1.
    #[must_use]
    pub const fn nth(effect: Effect, trigger: Trigger, at: u32) -> Self {
        Self {
            effect,
            trigger,
            at,
            times: 1,
        }
    }

    /// Happens at each such request.
    #[must_use]
    pub const fn always(effect: Effect, trigger: Trigger) -> Self {
        Self {
            effect,
            trigger,
            at: 1,
            times: u32::MAX,
        }
    }
}

/// A rule's text that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no fault: {reason}; write EFFECT[=NUMBER]@REQUEST[*NTH], such as lose-response@upload-last"
)]
pub struct RuleError {
    text: String,
    reason: &'static str,
}

const TRIGGERS: &[(&str, Trigger)] = &[
    ("any", Trigger::Any),
    ("echo", Trigger::Echo),
    ("list", Trigger::List),
    ("state-write", Trigger::StateWrite),
    ("upload-first", Trigger::UploadFirst),
    ("upload", Trigger::Upload),
    ("upload-last", Trigger::UploadLast),
    ("erase", Trigger::Erase),
    ("reset", Trigger::Reset),
    ("boot", Trigger::Boot),
];

impl FromStr for Rule {
    type Err = RuleError;

    /// Reads `EFFECT[=NUMBER]@REQUEST[*NTH]`; `*all` is each of them.
    fn from_str(text: &str) -> Result<Self, RuleError> {
        let fail = |reason| RuleError {
            text: text.to_owned(),
            reason,
        };
        let (effect, place) = text.split_once('@').ok_or_else(|| fail("it has no `@`"))?;
        let (name, number) = match effect.split_once('=') {
            Some((name, number)) => {
                let number = number.parse().map_err(|_| fail("the number is none"))?;
                (name, Some(number))
            }
            None => (effect, None),
        };
        let effect = Effect::parse(name, number).ok_or_else(|| fail("the effect is unknown"))?;
        let (place, nth) = match place.split_once('*') {
            Some((place, nth)) => (place, Some(nth)),
            None => (place, None),
        };
        let trigger = TRIGGERS
            .iter()
            .find(|(name, _)| *name == place)
            .map(|(_, trigger)| *trigger)
            .ok_or_else(|| fail("the request is unknown"))?;
        match nth {
            None => Ok(Self::once(effect, trigger)),
            Some("all") => Ok(Self::always(effect, trigger)),
            Some(nth) => {
                let nth: u32 = nth.parse().map_err(|_| fail("the count is none"))?;
                Ok(Self::nth(effect, trigger, nth.max(1)))
            }
        }
    }
}

impl Effect {
    fn parse(name: &str, number: Option<u32>) -> Option<Self> {
        Some(match (name, number) {
            ("lose-request", None) => Self::LoseRequest,
            ("lose-response", None) => Self::LoseResponse,
            ("garble-response", None) => Self::GarbleResponse,
            ("repeat-response", None) => Self::RepeatResponse,
            ("delay-response", Some(ms)) => Self::DelayResponse(ms),
            ("answer", Some(rc)) => Self::Answer(u8::try_from(rc).ok()?),
            ("busy", None) => Self::Busy,
            ("power-cut", ms) => Self::PowerCut(ms.unwrap_or_default()),
            ("cut-at-operation", Some(count)) => Self::CutAtOperation(count.max(1)),
            ("write-error", None) => Self::WriteError,
            ("erase-error", None) => Self::EraseError,
            ("no-match", None) => Self::NoMatch,
            ("other-hash", None) => Self::OtherHash,
            ("silence", None) => Self::Silence,
            ("unplug", Some(ms)) => Self::Unplug(ms),
            _ => return None,
        })
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TRIGGERS.iter().find(|(_, trigger)| trigger == self);
        formatter.write_str(name.map_or("", |(name, _)| name))
    }
}

/// What the rules know of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) trigger: Trigger,
    /// An upload with offset 0.
    pub(crate) is_first: bool,
    /// An upload that makes the file whole.
    pub(crate) is_last: bool,
}

/// The rules with their counts.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<(Rule, u32)>,
}

impl Rules {
    pub(crate) fn new(rules: &[Rule]) -> Self {
        Self {
            rules: rules.iter().map(|rule| (*rule, 0)).collect(),
        }
    }

    pub(crate) fn add(&mut self, rule: Rule) {
        self.rules.push((rule, 0));
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Counts a request and says what happens at it.
    pub(crate) fn strike(&mut self, seen: Seen) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (rule, count) in &mut self.rules {
            if !rule.trigger.fits(seen) {
                continue;
            }
            *count = count.saturating_add(1);
            if *count >= rule.at && *count - rule.at < rule.times {
                effects.push(rule.effect);
            }
        }
        effects
    }
}

impl Trigger {
    fn fits(self, seen: Seen) -> bool {
        match self {
            Self::Any => seen.trigger != Self::Boot,
            Self::UploadFirst => seen.trigger == Self::Upload && seen.is_first,
            Self::UploadLast => seen.trigger == Self::Upload && seen.is_last,
            other => seen.trigger == other,
        }
    }
}

/// Damages one byte of a packet's lines, never a line's end: the framing stays, the check fails.
pub(crate) fn garble(lines: &mut [u8], random: &mut Random) {
    let places: Vec<usize> = (0..lines.len())
        .filter(|index| lines[*index].is_ascii_alphanumeric())
        .collect();
    if places.is_empty() {
        return;
    }
    let choice = usize::try_from(random.below(places.len() as u64)).unwrap_or_default();
    let byte = &mut lines[places[choice]];
    *byte = if *byte == b'A' { b'B' } else { b'A' };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_text() {
        for (text, rule) in [
            (
                "lose-response@upload-last",
                Rule::once(Effect::LoseResponse, Trigger::UploadLast),
            ),
            (
                "power-cut=40@upload*30",
                Rule::nth(Effect::PowerCut(40), Trigger::Upload, 30),
            ),
            ("busy@reset*all", Rule::always(Effect::Busy, Trigger::Reset)),
            (
                "answer=8@echo",
                Rule::once(Effect::Answer(8), Trigger::Echo),
            ),
        ] {
            assert_eq!(text.parse(), Ok(rule), "{text}");
        }
        for text in [
            "",
            "busy",
            "x@reset",
            "busy@x",
            "busy=@reset",
            "answer=300@any",
            "busy@reset*x",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_strikes_at_its_request_and_no_other() {
        let upload = |is_first, is_last| Seen {
            trigger: Trigger::Upload,
            is_first,
            is_last,
        };
        let mut rules = Rules::new(&[
            Rule::nth(Effect::LoseRequest, Trigger::Upload, 2),
            Rule::once(Effect::NoMatch, Trigger::UploadLast),
        ]);
        assert_eq!(rules.strike(upload(true, false)), []);
        assert_eq!(rules.strike(upload(false, false)), [Effect::LoseRequest]);
        assert_eq!(rules.strike(upload(false, true)), [Effect::NoMatch]);
        assert_eq!(rules.strike(upload(false, true)), []);
    }

    #[test]
    fn garbling_changes_one_byte_and_keeps_the_lines() {
        let mut lines = *b"\x06\tABCD\n";
        garble(&mut lines, &mut Random::new(1));
        let changed = lines.iter().zip(b"\x06\tABCD\n").filter(|(a, b)| a != b);
        assert_eq!(changed.count(), 1);
        assert_eq!((lines[0], lines[6]), (6, b'\n'));
    }
}
