//! One fault as a value and as a word: `blocks-lost=300@60000`, `half-open=1000-9000`, `power=during-17`.
//!
//! A swarm draws faults, a shrinker takes them away, a command line repeats them; so each stands for itself, and taking
//! one away moves no other ([`random`](crate::random) gives each kind a stream of its own). `Fault::inflict` puts one
//! into a scenario. Not here: which faults a seed has (`swarm.rs`) and what they do (`net.rs`, `ailment.rs`, `ground.rs`).

use std::fmt;
use std::str::FromStr;

use host_runtime::agent::Command;

use crate::ailment::{Ailment, Spell};
use crate::ground::{Cut, CutKind, Moment};
use crate::net::{Odds, Outage, OutageKind, UrlTrouble, Weather};
use crate::scenario::{Deed, Ending, Scenario, When};
use crate::world::{BEGINS_MS, Report};

/// What can go wrong; [`KINDS`] has the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A publish of the device does not arrive, though the broker has acknowledged it.
    RequestsLost,
    /// It arrives twice.
    RequestsDoubled,
    /// It arrives late.
    RequestsDelayed,
    /// One bit of it is turned over.
    RequestsCorrupted,
    /// An answer or a notification of the job service does not arrive.
    RepliesLost,
    /// It arrives twice.
    RepliesDoubled,
    /// It arrives late.
    RepliesDelayed,
    /// One bit of it is turned over.
    RepliesCorrupted,
    /// A block does not arrive.
    BlocksLost,
    /// It arrives twice.
    BlocksDoubled,
    /// It arrives late.
    BlocksDelayed,
    /// One bit of it is turned over.
    BlocksCorrupted,
    /// There is no connection.
    Disconnected,
    /// The connection is dead and nobody has noticed.
    HalfOpen,
    /// The broker acknowledges, the services are silent.
    SilentCloud,
    /// The job service answers with an internal error.
    Unavailable,
    /// There is no space on the medium.
    Full,
    /// The medium is read-only.
    ReadOnly,
    /// Syncs fail.
    SyncFails,
    /// The process is killed.
    Kill,
    /// The power goes.
    Power,
    /// The wall clock jumps.
    Clock,
    /// The operator suspends the agent and resumes it.
    Suspend,
    /// The job is cancelled.
    Cancel,
    /// URLs of images have expired.
    UrlExpired,
    /// Their server fails.
    UrlFails,
    /// It sends the whole file in place of a range.
    UrlWhole,
    /// It sends half of a range.
    UrlShort,
    /// It has another file there.
    UrlOther,
    /// It sends some bytes and then nothing.
    UrlSlow,
    /// The host does not trust their server.
    UrlRefused,
    /// It sends another range than the one asked for.
    UrlRange,
    /// It redirects without end.
    UrlRedirects,
}

/// All kinds with their words, in the order of [`Kind`].
pub const KINDS: [(Kind, &str); 33] = [
    (Kind::RequestsLost, "requests-lost"),
    (Kind::RequestsDoubled, "requests-doubled"),
    (Kind::RequestsDelayed, "requests-delayed"),
    (Kind::RequestsCorrupted, "requests-corrupted"),
    (Kind::RepliesLost, "replies-lost"),
    (Kind::RepliesDoubled, "replies-doubled"),
    (Kind::RepliesDelayed, "replies-delayed"),
    (Kind::RepliesCorrupted, "replies-corrupted"),
    (Kind::BlocksLost, "blocks-lost"),
    (Kind::BlocksDoubled, "blocks-doubled"),
    (Kind::BlocksDelayed, "blocks-delayed"),
    (Kind::BlocksCorrupted, "blocks-corrupted"),
    (Kind::Disconnected, "disconnected"),
    (Kind::HalfOpen, "half-open"),
    (Kind::SilentCloud, "silent-cloud"),
    (Kind::Unavailable, "unavailable"),
    (Kind::Full, "full"),
    (Kind::ReadOnly, "read-only"),
    (Kind::SyncFails, "sync-fails"),
    (Kind::Kill, "kill"),
    (Kind::Power, "power"),
    (Kind::Clock, "clock"),
    (Kind::Suspend, "suspend"),
    (Kind::Cancel, "cancel"),
    (Kind::UrlExpired, "url-expired"),
    (Kind::UrlFails, "url-fails"),
    (Kind::UrlWhole, "url-whole"),
    (Kind::UrlShort, "url-short"),
    (Kind::UrlOther, "url-other"),
    (Kind::UrlSlow, "url-slow"),
    (Kind::UrlRefused, "url-refused"),
    (Kind::UrlRange, "url-range"),
    (Kind::UrlRedirects, "url-redirects"),
];

/// What a kind is made of.
enum Family {
    Packets,
    Outage(OutageKind),
    Spell(Ailment),
    Cut(CutKind),
    Clock,
    Suspend,
    Cancel,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        KINDS.get(self as usize).map_or("", |(_, word)| word)
    }

    fn family(self) -> Family {
        match self {
            Self::RequestsLost
            | Self::RequestsDoubled
            | Self::RequestsDelayed
            | Self::RequestsCorrupted
            | Self::RepliesLost
            | Self::RepliesDoubled
            | Self::RepliesDelayed
            | Self::RepliesCorrupted
            | Self::BlocksLost
            | Self::BlocksDoubled
            | Self::BlocksDelayed
            | Self::BlocksCorrupted => Family::Packets,
            Self::Disconnected => Family::Outage(OutageKind::Disconnected),
            Self::HalfOpen => Family::Outage(OutageKind::HalfOpen),
            Self::SilentCloud => Family::Outage(OutageKind::SilentCloud),
            Self::Unavailable => Family::Outage(OutageKind::Unavailable),
            Self::Full => Family::Spell(Ailment::Full),
            Self::ReadOnly => Family::Spell(Ailment::ReadOnly),
            Self::SyncFails => Family::Spell(Ailment::SyncFails),
            Self::Kill => Family::Cut(CutKind::Kill),
            Self::Power => Family::Cut(CutKind::Power),
            Self::Clock => Family::Clock,
            Self::Suspend => Family::Suspend,
            Self::Cancel => Family::Cancel,
            Self::UrlExpired => Family::Outage(OutageKind::Url(UrlTrouble::Expired)),
            Self::UrlFails => Family::Outage(OutageKind::Url(UrlTrouble::Fails)),
            Self::UrlWhole => Family::Outage(OutageKind::Url(UrlTrouble::Whole)),
            Self::UrlShort => Family::Outage(OutageKind::Url(UrlTrouble::Short)),
            Self::UrlOther => Family::Outage(OutageKind::Url(UrlTrouble::Other)),
            Self::UrlSlow => Family::Outage(OutageKind::Url(UrlTrouble::Slow)),
            Self::UrlRefused => Family::Outage(OutageKind::Url(UrlTrouble::Refused)),
            Self::UrlRange => Family::Outage(OutageKind::Url(UrlTrouble::Range)),
            Self::UrlRedirects => Family::Outage(OutageKind::Url(UrlTrouble::Redirects)),
        }
    }

    /// Where this kind's chance stands in a weather: the first twelve kinds are four of each of three kinds of packets.
    fn odds(self, weather: &mut Weather) -> Option<&mut u16> {
        let number = self as usize;
        let odds: &mut Odds = match number / 4 {
            0 => &mut weather.requests,
            1 => &mut weather.replies,
            2 => &mut weather.blocks,
            _ => return None,
        };
        Some(match number % 4 {
            0 => &mut odds.lost,
            1 => &mut odds.doubled,
            2 => &mut odds.delayed,
            _ => &mut odds.corrupted,
        })
    }

    /// Whether a story has anything that this can happen to.
    pub(crate) fn applies(self, scenario: &Scenario) -> bool {
        match self.family() {
            Family::Outage(OutageKind::Url(_)) => scenario.by_url,
            // An operator who acts already gets no second one.
            Family::Clock | Family::Suspend | Family::Cancel => scenario.deeds.is_empty(),
            // Of several targets one that cannot be written any more may stay behind.
            Family::Spell(_) => scenario.files.len() == 1,
            // TLS lets no such message through. Its service would call it invalid, and an agent may take that word as final.
            Family::Packets => self != Self::RequestsCorrupted,
            Family::Outage(_) | Family::Cut(_) => true,
        }
    }

    /// Whether an agent may never hear of a job unless it asks from time to time, which an operator has to set.
    fn may_hide_a_job(self) -> bool {
        matches!(self, Self::RepliesLost | Self::RepliesCorrupted)
    }

    /// Whether an update that would have been one may end otherwise, as long as it ends whole: what was corrupted, or
    /// could not be stored, may be given up for.
    fn may_change_the_end(self) -> bool {
        matches!(
            self,
            Self::RequestsCorrupted
                | Self::RepliesCorrupted
                | Self::BlocksCorrupted
                | Self::Full
                | Self::ReadOnly
                | Self::SyncFails
                | Self::Clock
                | Self::Cancel
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// When a fault strikes, and how hard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strike {
    /// Each packet in so many of 1000 cases, until an instant: `300@60000`.
    Chance {
        /// In cases of 1000.
        per_mille: u16,
        /// First millisecond without it.
        until_ms: u64,
    },
    /// From an instant to another, at places whose name begins so: `1000-9000`, `1000-9000@app/`.
    Span {
        /// First millisecond.
        from_ms: u64,
        /// First millisecond after it.
        until_ms: u64,
        /// Only for the storage; empty = everywhere.
        place: String,
    },
    /// At a call of the run: `during-17`.
    Call {
        /// When.
        moment: Moment,
        /// Its number, from 1.
        call: u64,
    },
    /// By so many seconds at an instant: `-3600@5000`.
    Jump {
        /// Forward, or back.
        seconds: i64,
        /// When.
        at_ms: u64,
    },
    /// At an instant: `5000`.
    At(u64),
}

impl Strike {
    fn spell(&self, ailment: Ailment) -> Option<Spell> {
        match self {
            Self::Span {
                from_ms,
                until_ms,
                place,
            } => Some(Spell {
                ailment,
                place: place.clone(),
                from_ms: *from_ms,
                until_ms: *until_ms,
            }),
            Self::Chance { .. } | Self::Call { .. } | Self::Jump { .. } | Self::At(_) => None,
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When, and how hard; of the form that [`Kind`] has.
    pub strike: Strike,
}

/// Why a word is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It has no `=`.
    #[error(
        "`{0}` is no fault; one looks like blocks-lost=300@60000, half-open=1000-9000 or power=during-17"
    )]
    Form(String),
    /// There is no such kind.
    #[error("no fault is called `{0}`; there are: {kinds}", kinds = kinds())]
    Kind(String),
    /// What follows the `=` is not what this kind needs.
    #[error("`{kind}={text}`: {kind} needs {form}")]
    Strike {
        /// The kind.
        kind: Kind,
        /// What was given.
        text: String,
        /// What it needs.
        form: Form,
    },
    /// The story's own deeds stand in the way.
    #[error("{kind} does not go with scenario `{scenario}`, in which an operator acts already")]
    Deeds {
        /// The kind.
        kind: Kind,
        /// The scenario.
        scenario: String,
    },
    /// The story has nothing that could fail so.
    #[error(
        "{kind} does not go with scenario `{scenario}`, whose images come by stream, not by URL"
    )]
    NoUrls {
        /// The kind.
        kind: Kind,
        /// The scenario.
        scenario: String,
    },
}

fn kinds() -> String {
    KINDS.map(|(_, word)| word).join(", ")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.kind)?;
        match &self.strike {
            Strike::Chance {
                per_mille,
                until_ms,
            } => write!(f, "{per_mille}@{until_ms}"),
            Strike::Span {
                from_ms,
                until_ms,
                place,
            } if place.is_empty() => write!(f, "{from_ms}-{until_ms}"),
            Strike::Span {
                from_ms,
                until_ms,
                place,
            } => write!(f, "{from_ms}-{until_ms}@{place}"),
            Strike::Call { moment, call } => {
                let moment = match moment {
                    Moment::Before => "before",
                    Moment::During => "during",
                    Moment::After => "after",
                };
                write!(f, "{moment}-{call}")
            }
            Strike::Jump { seconds, at_ms } => write!(f, "{seconds}@{at_ms}"),
            Strike::At(at_ms) => write!(f, "{at_ms}"),
        }
    }
}

/// Latest instant of a fault: a day, more than any run lasts that is no deferral.
const INSTANT_MAX_MS: u64 = 24 * 3600 * 1000;

/// Farthest jump of the clock: a century.
const JUMP_MAX_S: i64 = 100 * 365 * 24 * 3600;

/// How a strike is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// With names in place of values.
    pub syntax: &'static str,
    /// What the names are, with their units.
    pub needs: &'static str,
    /// Such as.
    pub example: &'static str,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, such as {}", self.needs, self.example)
    }
}

fn instant(text: &str) -> Option<u64> {
    text.parse().ok().filter(|at| *at <= INSTANT_MAX_MS)
}

fn span(text: &str, place: &str) -> Option<Strike> {
    let (from, until) = text.split_once('-')?;
    let (from_ms, until_ms) = (instant(from)?, instant(until)?);
    (from_ms < until_ms).then(|| Strike::Span {
        from_ms,
        until_ms,
        place: place.to_owned(),
    })
}

impl Kind {
    /// What follows its word and a `=`; README.md has the table.
    #[must_use]
    pub fn form(self) -> Form {
        let (syntax, needs, example) = match self.family() {
            Family::Packets => (
                "N@UNTIL",
                "cases of 1000 (N) and a last instant in ms",
                "300@60000",
            ),
            Family::Outage(_) | Family::Suspend => {
                ("FROM-UNTIL", "two instants in ms", "1000-9000")
            }
            Family::Spell(_) => (
                "FROM-UNTIL[@PLACE]",
                "two instants in ms and maybe what the names of places begin with",
                "1000-9000@app/",
            ),
            Family::Cut(_) => (
                "MOMENT-CALL",
                "before, during or after, and the number of a call",
                "during-17",
            ),
            Family::Clock => (
                "SECONDS@AT",
                "seconds, forward or back, and an instant in ms",
                "-3600@5000",
            ),
            Family::Cancel => ("AT", "an instant in ms", "5000"),
        };
        Form {
            syntax,
            needs,
            example,
        }
    }

    fn strike(self, text: &str) -> Option<Strike> {
        match self.family() {
            Family::Packets => {
                let (chance, until) = text.split_once('@')?;
                let per_mille = chance.parse().ok().filter(|chance| *chance <= 1000)?;
                let until_ms = instant(until)?;
                Some(Strike::Chance {
                    per_mille,
                    until_ms,
                })
            }
            Family::Outage(_) | Family::Suspend => span(text, ""),
            Family::Spell(_) => match text.split_once('@') {
                Some((times, place)) => span(times, place),
                None => span(text, ""),
            },
            Family::Cut(_) => {
                let (moment, call) = text.split_once('-')?;
                let moment = match moment {
                    "before" => Moment::Before,
                    "during" => Moment::During,
                    "after" => Moment::After,
                    _ => return None,
                };
                let call = call.parse().ok().filter(|call| *call > 0)?;
                Some(Strike::Call { moment, call })
            }
            Family::Clock => {
                let (seconds, at) = text.split_once('@')?;
                let seconds: i64 = seconds.parse().ok()?;
                let at_ms = instant(at)?;
                let known = (-JUMP_MAX_S..=JUMP_MAX_S).contains(&seconds);
                known.then_some(Strike::Jump { seconds, at_ms })
            }
            Family::Cancel => instant(text).map(Strike::At),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (word, rest) = text
            .split_once('=')
            .ok_or_else(|| FaultError::Form(text.to_owned()))?;
        let kind = KINDS.iter().find(|(_, known)| *known == word);
        let (kind, _) = *kind.ok_or_else(|| FaultError::Kind(word.to_owned()))?;
        let strike = kind.strike(rest).ok_or_else(|| FaultError::Strike {
            kind,
            text: rest.to_owned(),
            form: kind.form(),
        })?;
        Ok(Self { kind, strike })
    }
}

impl Fault {
    /// Whether it may strike at this instant; a cut is of no instant.
    #[must_use]
    pub fn is_about(&self, at_ms: u64) -> bool {
        match &self.strike {
            Strike::Chance { until_ms, .. } => at_ms < *until_ms,
            Strike::Span {
                from_ms, until_ms, ..
            } => (*from_ms..*until_ms).contains(&at_ms),
            Strike::Call { .. } => false,
            // What comes of it takes a while.
            Strike::Jump { at_ms: from, .. } | Strike::At(from) => {
                (*from..*from + AFTERMATH_MS).contains(&at_ms)
            }
        }
    }

    /// Whether it had its time in a run: its call was made, its instant came, something met its spell. A chance may have been
    /// there in vain.
    #[must_use]
    pub fn struck(&self, report: &Report) -> bool {
        match (self.kind.family(), &self.strike) {
            (Family::Spell(ailment), strike) => {
                let spell = strike.spell(ailment);
                spell.is_some_and(|spell| report.spells.contains(&spell))
            }
            (Family::Cut(kind), Strike::Call { moment, call }) => {
                let (call, moment) = (*call, *moment);
                report.cuts.contains(&Cut { call, moment, kind })
            }
            (_, Strike::Call { .. }) => false,
            (
                _,
                Strike::Chance {
                    per_mille,
                    until_ms,
                },
            ) => *per_mille > 0 && *until_ms > BEGINS_MS,
            (
                _,
                Strike::Span {
                    from_ms, until_ms, ..
                },
            ) => *from_ms < report.ended_at_ms && *until_ms > BEGINS_MS,
            (_, Strike::Jump { at_ms: at, .. } | Strike::At(at)) => *at < report.ended_at_ms,
        }
    }

    /// Put it into a scenario, or among the cuts.
    fn inflict(&self, scenario: &mut Scenario, deeds: &mut Vec<(u64, Deed)>, cuts: &mut Vec<Cut>) {
        match (self.kind.family(), &self.strike) {
            (
                Family::Packets,
                Strike::Chance {
                    per_mille,
                    until_ms,
                },
            ) => {
                let weather = &mut scenario.weather;
                weather.until_ms = weather.until_ms.max(*until_ms);
                if let Some(odds) = self.kind.odds(weather) {
                    *odds = *per_mille;
                }
            }
            (
                Family::Outage(kind),
                Strike::Span {
                    from_ms, until_ms, ..
                },
            ) => {
                scenario.outages.push(Outage {
                    kind,
                    from_ms: *from_ms,
                    until_ms: *until_ms,
                });
            }
            (Family::Spell(ailment), strike) => scenario.spells.extend(strike.spell(ailment)),
            (Family::Cut(kind), Strike::Call { moment, call }) => cuts.push(Cut {
                call: *call,
                moment: *moment,
                kind,
            }),
            (Family::Clock, Strike::Jump { seconds, at_ms }) => {
                deeds.push((*at_ms, Deed::JumpWall(*seconds)));
            }
            (
                Family::Suspend,
                Strike::Span {
                    from_ms, until_ms, ..
                },
            ) => {
                deeds.push((*from_ms, Deed::Order(Command::Suspend)));
                deeds.push((*until_ms, Deed::Order(Command::Resume)));
            }
            (Family::Cancel, Strike::At(at_ms)) => deeds.push((*at_ms, Deed::Cancel(true))),
            // No kind has a strike of another one's: `Kind::strike` makes them, and the swarm.
            _ => {}
        }
    }
}

/// How long what an operator did is counted as about.
const AFTERMATH_MS: u64 = 10_000;

/// What an agent in a network that loses notifications is set to.
const POLL_MS: u64 = 600_000;

/// More cuts than this may use up the tries of a launcher.
const CUTS_OF_A_TOLD_END: usize = 2;

/// Put faults into a scenario; returns the cuts among them. What its ending is worth after that is decided here: faults
/// that an update gets over do not change it.
///
/// # Errors
/// A deed where the story has its own; trouble with URLs where it has none.
pub fn inflict(faults: &[Fault], scenario: &mut Scenario) -> Result<Vec<Cut>, FaultError> {
    let mut deeds = Vec::new();
    let mut cuts = Vec::new();
    let told = scenario.deeds.len();
    for fault in faults {
        if matches!(fault.kind.family(), Family::Outage(OutageKind::Url(_))) && !scenario.by_url {
            return Err(FaultError::NoUrls {
                kind: fault.kind,
                scenario: scenario.name.clone(),
            });
        }
        fault.inflict(scenario, &mut deeds, &mut cuts);
        if told > 0 && !deeds.is_empty() {
            return Err(FaultError::Deeds {
                kind: fault.kind,
                scenario: scenario.name.clone(),
            });
        }
    }
    deeds.sort_by_key(|(at, _)| *at);
    let deeds = deeds.into_iter().map(|(at, deed)| (When::At(at), deed));
    scenario.deeds.extend(deeds);
    if faults.iter().any(|fault| fault.kind.may_hide_a_job()) {
        let poll = ("poll_interval_ms".to_owned(), POLL_MS.to_string());
        scenario.settings.push(poll);
    }
    let changed = faults.iter().any(|fault| fault.kind.may_change_the_end());
    if changed || cuts.len() > CUTS_OF_A_TOLD_END {
        scenario.ending = Ending::Whole;
    }
    Ok(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_stand_in_the_order_of_the_kinds() {
        for (number, (kind, word)) in KINDS.iter().enumerate() {
            assert_eq!(*kind as usize, number, "{word}");
            assert_eq!(kind.word(), *word);
        }
    }

    #[test]
    fn each_kind_takes_the_example_of_its_form_and_the_readme_has_all_forms() {
        let readme = include_str!("../README.md");
        for (kind, word) in KINDS {
            let form = kind.form();
            let fault = format!("{word}={}", form.example).parse::<Fault>();
            assert_eq!(fault.map(|fault| fault.kind), Ok(kind));
            let needs = format!("{}, such as `{}`", form.needs, form.example);
            let row = format!("| `{}` | {needs} | ", form.syntax);
            let row = readme.lines().find(|line| line.starts_with(&row));
            // `blocks-lost` stands there as `blocks-` with `lost`, `url-slow` as `url-…`.
            let named = |row: &str| {
                let (first, second) = word.split_once('-').unwrap_or((word, ""));
                let parts = [format!("`{first}-`"), format!("`{second}`")];
                row.contains(&format!("`{word}`"))
                    || parts.iter().all(|part| row.contains(part))
                    || row.contains(&format!("`{first}-…`"))
            };
            assert!(row.is_some_and(named), "{word}={}", form.syntax);
        }
    }

    #[test]
    fn a_fault_is_read_back_as_it_is_written() {
        for word in [
            "blocks-lost=300@60000",
            "requests-corrupted=1@0",
            "half-open=1000-9000",
            "full=0-5@app/record",
            "sync-fails=1-2",
            "kill=before-1",
            "power=during-17",
            "clock=-3600@5000",
            "suspend=100-2000",
            "cancel=5000",
            "url-whole=5-9000",
        ] {
            let fault = word.parse::<Fault>().map(|fault| fault.to_string());
            assert_eq!(fault.as_deref(), Ok(word));
        }
    }

    #[test]
    fn a_word_that_is_no_fault_says_what_one_looks_like() {
        for (word, says) in [
            ("power", "looks like"),
            (
                "flood=1-2",
                "no fault is called `flood`; there are: requests-lost",
            ),
            ("power=at-17", "needs before, during or after"),
            ("power=after-0", "needs before"),
            ("blocks-lost=1001@5", "needs cases of 1000"),
            ("half-open=9-9", "two instants"),
            ("half-open=0-99999999999", "two instants"),
            ("clock=99999999999@1", "needs seconds"),
        ] {
            let error = word.parse::<Fault>().map_err(|error| error.to_string());
            assert!(error.is_err_and(|text| text.contains(says)), "{word}");
        }
    }

    #[test]
    fn faults_that_an_update_gets_over_leave_its_ending_alone() {
        let ending = |words: &[&str]| {
            let faults: Vec<Fault> = words.iter().filter_map(|word| word.parse().ok()).collect();
            assert_eq!(faults.len(), words.len());
            let mut scenario = Scenario::plain("x", 4);
            let cuts = inflict(&faults, &mut scenario).map(|cuts| cuts.len());
            (cuts, scenario.ending, scenario.deeds.len())
        };
        let both = ["blocks-lost=300@600", "kill=before-9", "suspend=1-2"];
        assert_eq!(ending(&both), (Ok(1), Ending::Updated, 2));
        assert_eq!(ending(&["full=1-2"]), (Ok(0), Ending::Whole, 0));
        let many = ["kill=before-9", "kill=before-19", "power=during-29"];
        assert_eq!(ending(&many), (Ok(3), Ending::Whole, 0));
    }

    #[test]
    fn an_operator_who_acts_already_gets_no_second_one() {
        let mut scenario = Scenario::plain("told", 4);
        scenario.deeds = vec![(When::At(1), Deed::JumpWall(1))];
        let fault = Fault {
            kind: Kind::Cancel,
            strike: Strike::At(5),
        };
        let refused = inflict(&[fault], &mut scenario).map_err(|error| error.to_string());
        assert!(refused.is_err_and(|text| text.contains("does not go with scenario `told`")));
    }
}
