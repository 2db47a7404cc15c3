//! Many runs: what each seed draws, workers that make them, and one tally in the order of the runs.
//!
//! A swarm does not throw every fault at every run: each seed disables some kinds entirely and weights the rest, so that
//! what only shows without noise shows as well (one seed in four has one kind only). The tally does not depend on how many
//! workers there are: the same runs give the same one, to the byte.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use host_crypto::Hasher;

use crate::coverage::{Coverage, Move};
use crate::fault::{Fault, KINDS, Kind, Strike};
use crate::ground::{CutKind, Moment, Verb};
use crate::judge::Violation;
use crate::larder;
use crate::random::Random;
use crate::recipe::{Kitchen, Recipe, RecipeError, Served, UPDATE, story};
use crate::world::{BEGINS_MS, Report};

/// Seeds of 100 that tell the update of 64 blocks.
const UPDATES_OF_100: u64 = 50;

/// Seeds of 100 that tell of several files, several jobs or URLs, which many faults need; the rest tell any standard scenario.
const SEVERAL_OF_100: u64 = 25;

/// An update without faults takes some 15 s of virtual time; what goes wrong begins in this time.
const BEGINS_WITHIN_MS: u64 = 20_000;

/// Longest outage or spell, in milliseconds: beyond it a job may rightly be given up.
const LASTS_MAX_MS: u64 = 120_000;

/// Chances of a packet's fault, in cases of 1000.
const CHANCES: [u16; 5] = [10, 50, 150, 300, 600];

/// The highest of them for what is lost: more, and a job may rightly be given up.
const LOST_MAX: u16 = 300;

/// Longest bad weather, in milliseconds.
const WEATHER_MAX_MS: u64 = 300_000;

/// Most cuts of a seed: more, and a new image has used up its tries.
const CUTS_MAX: u64 = 3;

/// Where a medium ails.
const PLACES: [&str; 5] = ["", "app/", "app/record", "devices/", "targets/"];

/// Jumps of the clock, in seconds.
const JUMPS_S: [i64; 4] = [-3 * 365 * 86_400, -3600, 3600, 10 * 365 * 86_400];

/// What a seed is about: of this story, or of one that the seed draws.
///
/// # Errors
/// There is no such story, or no story of such a size.
pub fn draw(
    kitchen: &Kitchen,
    seed: u64,
    told: Option<&str>,
    blocks: Option<usize>,
) -> Result<Recipe, RecipeError> {
    let mut random = Random::stream(seed, "swarm");
    let name = match told {
        Some(name) => name.to_owned(),
        None => draw_story(&mut random),
    };
    let scenario = story(&name, blocks)?;
    let kinds = KINDS.iter().filter(|(kind, _)| kind.applies(&scenario));
    let kinds: Vec<_> = kinds.copied().collect();
    let calls = kitchen.calls(&name, blocks)?;
    let weather_ms = BEGINS_MS + random.below(WEATHER_MAX_MS);
    let single = random.below(4) == 0;
    let only = random.below_len(kinds.len());
    let mut faults = Vec::new();
    for (number, (kind, word)) in kinds.into_iter().enumerate() {
        // A stream for each kind: whether one strikes moves no other.
        let mut random = Random::stream(seed, word);
        let on = match single {
            true => number == only,
            // A quarter of them in a run: two thirds of all pairs meet within fifty seeds.
            false => random.below(4) == 0,
        };
        if on {
            strikes(kind, &mut random, weather_ms, &calls, &mut faults);
        }
    }
    Ok(Recipe {
        story: name,
        blocks,
        faults,
        seed,
    })
}

fn draw_story(random: &mut Random) -> String {
    let drawn = random.below(100);
    if drawn < UPDATES_OF_100 {
        return UPDATE.to_owned();
    }
    let mut standard = crate::scenario::standard();
    if drawn < UPDATES_OF_100 + SEVERAL_OF_100 {
        standard.retain(|story| story.files.len() > 1 || story.jobs() > 1 || story.by_url);
    }
    let at = random.below_len(standard.len());
    standard.swap_remove(at).name
}

fn strikes(kind: Kind, random: &mut Random, weather_ms: u64, calls: &[Verb], out: &mut Vec<Fault>) {
    let from_ms = random.below(BEGINS_WITHIN_MS);
    let until_ms = from_ms + 1 + random.below(LASTS_MAX_MS);
    let place = PLACES[random.below_len(PLACES.len())];
    let mut strike = |strike| out.push(Fault { kind, strike });
    let span = |place: &str| Strike::Span {
        from_ms,
        until_ms,
        place: place.to_owned(),
    };
    match kind {
        Kind::Full | Kind::ReadOnly | Kind::SyncFails => strike(span(place)),
        Kind::Disconnected
        | Kind::HalfOpen
        | Kind::SilentCloud
        | Kind::Unavailable
        | Kind::Suspend
        | Kind::UrlExpired
        | Kind::UrlFails
        | Kind::UrlWhole
        | Kind::UrlShort
        | Kind::UrlOther
        | Kind::UrlSlow
        | Kind::UrlRefused
        | Kind::UrlRange
        | Kind::UrlRedirects => strike(span("")),
        Kind::Kill | Kind::Power => {
            for _ in 0..=random.below(CUTS_MAX) {
                let call = 1 + random.below(calls.len() as u64 * 3 / 2);
                let moment = [Moment::Before, Moment::During, Moment::After][random.below_len(3)];
                strike(Strike::Call { moment, call });
            }
        }
        Kind::Clock => strike(Strike::Jump {
            seconds: JUMPS_S[random.below_len(JUMPS_S.len())],
            at_ms: from_ms,
        }),
        Kind::Cancel => strike(Strike::At(from_ms)),
        Kind::RequestsLost | Kind::RepliesLost | Kind::BlocksLost => strike(Strike::Chance {
            per_mille: CHANCES[random.below_len(CHANCES.len())].min(LOST_MAX),
            until_ms: weather_ms,
        }),
        Kind::RequestsDoubled
        | Kind::RequestsDelayed
        | Kind::RequestsCorrupted
        | Kind::RepliesDoubled
        | Kind::RepliesDelayed
        | Kind::RepliesCorrupted
        | Kind::BlocksDoubled
        | Kind::BlocksDelayed
        | Kind::BlocksCorrupted => strike(Strike::Chance {
            per_mille: CHANCES[random.below_len(CHANCES.len())],
            until_ms: weather_ms,
        }),
    }
}

/// Every cut of a story, for one seed: before, during and after each call, kill and power.
///
/// # Errors
/// There is no such story, or no story of such a size.
pub fn every_cut(
    kitchen: &Kitchen,
    name: &str,
    blocks: Option<usize>,
    seed: u64,
) -> Result<Vec<Recipe>, RecipeError> {
    let plain = Recipe {
        story: name.to_owned(),
        blocks,
        faults: Vec::new(),
        seed,
    };
    // The seed decides on nothing in a run without faults but the order of equals; its own calls are counted anyway.
    let calls = kitchen.run(&plain, false)?.report.verbs;
    let cuts = crate::explore::cuts(&calls, 0).into_iter();
    let recipe = |cut: crate::ground::Cut| {
        let kind = match cut.kind {
            CutKind::Kill => Kind::Kill,
            CutKind::Power => Kind::Power,
        };
        let (moment, call) = (cut.moment, cut.call);
        let strike = Strike::Call { moment, call };
        Recipe {
            faults: vec![Fault { kind, strike }],
            ..plain.clone()
        }
    };
    Ok(std::iter::once(plain.clone())
        .chain(cuts.map(recipe))
        .collect())
}

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its number among the runs, from 0.
    pub number: u64,
    /// What it was made of.
    pub recipe: Recipe,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

impl Failed {
    /// The invariants that did not hold, each once, in the order of their first violations.
    #[must_use]
    pub fn invariants(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for violation in &self.violations {
            if !names.contains(&violation.invariant) {
                names.push(violation.invariant);
            }
        }
        names
    }
}

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Runs made.
    pub runs: u64,
    /// Runs in which something was to go wrong.
    pub with_faults: u64,
    /// Cuts that have fallen.
    pub cuts: u64,
    /// Runs that failed.
    pub failures: u64,
    /// How many of them broke each invariant.
    pub broken: BTreeMap<&'static str, u64>,
    /// The first [`FAILED_MAX`] of each invariant, in order.
    pub failed: Vec<Failed>,
    /// Faults of each kind: how many there were, and how many of those never struck.
    pub faults: BTreeMap<Kind, (u64, u64)>,
    /// How the jobs ended, by the service's word.
    pub ends: BTreeMap<&'static str, u64>,
    /// What was tried.
    pub coverage: Coverage,
    /// Of everything that can be seen of all runs, in order; two tallies with one digest are of the same runs.
    digests: Hasher,
}

/// Failed runs of one invariant that are kept, at some hundred bytes each: what fails often hides nothing else.
pub const FAILED_MAX: u64 = 1000;

impl Tally {
    /// SHA-256 of how every run went, in order.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *self.digests.clone().finish().sha256()
    }

    /// At most so many failures in the order of the runs, each with an invariant of its own to look at: one of each invariant
    /// first, so that what fails often hides nothing else.
    #[must_use]
    pub fn first_of_each(&self, max: usize) -> Vec<(&Failed, &'static str)> {
        let mut seen = BTreeSet::new();
        let (mut news, mut others) = (Vec::new(), Vec::new());
        for one in &self.failed {
            let invariants = one.invariants();
            match invariants.iter().find(|name| seen.insert(**name)) {
                Some(new) => news.push((one, *new)),
                None => others.extend(invariants.first().map(|name| (one, *name))),
            }
        }
        news.append(&mut others);
        news.truncate(max);
        news.sort_by_key(|(one, _)| one.number);
        news
    }

    fn count(&mut self, number: u64, recipe: Recipe, served: Served) {
        let Served { report, moves } = served;
        self.runs += 1;
        self.with_faults += u64::from(!recipe.faults.is_empty());
        self.cuts += report.cuts.len() as u64;
        for fault in &recipe.faults {
            let (all, never) = self.faults.entry(fault.kind).or_default();
            *all += 1;
            *never += u64::from(!fault.struck(&report));
        }
        *self.ends.entry(report.status.as_str()).or_default() += 1;
        self.coverage.count(&recipe.faults, &report, &moves);
        self.digests.update(&seen(number, &recipe, &report, &moves));
        if !report.violations.is_empty() {
            let violations = report.violations;
            self.fail(Failed {
                number,
                recipe,
                violations,
            });
        }
    }

    fn fail(&mut self, failed: Failed) {
        self.failures += 1;
        let mut is_kept = false;
        for invariant in failed.invariants() {
            let count = self.broken.entry(invariant).or_default();
            *count += 1;
            is_kept |= *count <= FAILED_MAX;
        }
        if is_kept {
            self.failed.push(failed);
        }
    }

    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.with_faults += other.with_faults;
        self.cuts += other.cuts;
        // Of a chunk all are kept: it has fewer runs than that.
        other
            .failed
            .into_iter()
            .for_each(|failed| self.fail(failed));
        for (kind, (all, never)) in other.faults {
            let sums = self.faults.entry(kind).or_default();
            *sums = (sums.0 + all, sums.1 + never);
        }
        for (word, count) in other.ends {
            *self.ends.entry(word).or_default() += count;
        }
        self.coverage.add(&other.coverage);
        self.digests.update(other.digests.finish().sha256());
    }
}

/// All that can be seen of a run, in few bytes.
fn seen(number: u64, recipe: &Recipe, report: &Report, moves: &[Move]) -> Vec<u8> {
    let Report {
        violations,
        status,
        reason,
        ended_at_ms,
        verbs,
        cuts,
        blocks_sent,
        starts,
        mcus,
        deeds_done,
        swaps,
        // They change nothing that is not seen here.
        spells: _,
        // A swarm parks nobody, and its builds do not break.
        parks: _,
        returns: _,
        trace: _,
    } = report;
    let numbers = [
        number,
        *ended_at_ms,
        *blocks_sent,
        (*starts).into(),
        *deeds_done as u64,
    ];
    let words = (recipe, violations, status, reason, cuts, mcus, swaps);
    let mut seen = format!("{numbers:?} {words:?}").into_bytes();
    seen.extend(verbs.iter().map(|verb| *verb as u8));
    for change in moves {
        seen.extend(change.at_ms.to_le_bytes());
        seen.extend([change.from, change.to, change.start.into()]);
    }
    seen
}

/// How many runs are made.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Runs.
    pub runs: u64,
    /// Workers.
    pub jobs: NonZeroUsize,
    /// End with the first failure, by number.
    pub first: bool,
}

/// Runs that a worker takes at once: enough that handing them over costs nothing, few enough for smooth progress.
const CHUNK: u64 = 32;

/// Chunks that are waited for are few: a worker takes the next number.
struct Merge<'p> {
    tally: Tally,
    next: u64,
    waiting: BTreeMap<u64, Tally>,
    error: Option<RecipeError>,
    progress: &'p mut (dyn FnMut(&Tally) + Send),
}

/// Make runs; `recipe` says what the n-th one is. `progress` is told of the tally so far, always of the first runs.
///
/// # Errors
/// A recipe that cannot be made.
pub fn make(
    kitchen: &Kitchen,
    batch: Batch,
    recipe: &(dyn Fn(u64) -> Result<Recipe, RecipeError> + Sync),
    progress: &mut (dyn FnMut(&Tally) + Send),
) -> Result<Tally, RecipeError> {
    let chunks = batch.runs.div_ceil(CHUNK);
    let taken = AtomicU64::new(0);
    let end = AtomicU64::new(chunks);
    let merge = Mutex::new(Merge {
        tally: Tally::default(),
        next: 0,
        waiting: BTreeMap::new(),
        error: None,
        progress,
    });
    let work = || loop {
        let chunk = taken.fetch_add(1, Ordering::SeqCst);
        if chunk >= end.load(Ordering::SeqCst) {
            return;
        }
        let made = one_chunk(kitchen, batch, chunk, recipe);
        let mut merge = merge.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = match made {
            Ok(tally) => {
                let ends = batch.first && tally.failures > 0;
                merge.waiting.insert(chunk, tally);
                ends
            }
            Err(error) => {
                merge.error.get_or_insert(error);
                true
            }
        };
        if ends {
            end.fetch_min(chunk + 1, Ordering::SeqCst);
        }
        merge.go_on(end.load(Ordering::SeqCst));
    };
    std::thread::scope(|scope| {
        let workers = batch.jobs.get().min(usize::try_from(chunks).unwrap_or(1));
        for _ in 1..workers {
            scope.spawn(|| larder::open(work));
        }
        larder::open(work);
    });
    let merge = merge.into_inner().unwrap_or_else(PoisonError::into_inner);
    match merge.error {
        Some(error) => Err(error),
        None => Ok(merge.tally),
    }
}

impl Merge<'_> {
    fn go_on(&mut self, end: u64) {
        while self.next < end {
            let Some(tally) = self.waiting.remove(&self.next) else {
                return;
            };
            self.next += 1;
            self.tally.add(tally);
            (self.progress)(&self.tally);
        }
    }
}

fn one_chunk(
    kitchen: &Kitchen,
    batch: Batch,
    chunk: u64,
    recipe: &(dyn Fn(u64) -> Result<Recipe, RecipeError> + Sync),
) -> Result<Tally, RecipeError> {
    let mut tally = Tally::default();
    let from = chunk * CHUNK;
    for number in from..batch.runs.min(from + CHUNK) {
        let recipe = recipe(number)?;
        let served = kitchen.run(&recipe, false)?;
        tally.count(number, recipe, served);
        if batch.first && tally.failures > 0 {
            break;
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(number: u64, names: &[&'static str]) -> Failed {
        let violation = |invariant: &&'static str| Violation {
            invariant,
            at_ms: 1,
            detail: String::new(),
        };
        Failed {
            number,
            recipe: Recipe {
                story: UPDATE.to_owned(),
                blocks: None,
                faults: Vec::new(),
                seed: number,
            },
            violations: names.iter().map(violation).collect(),
        }
    }

    #[test]
    fn of_each_invariant_one_failure_comes_first() {
        let mut tally = Tally::default();
        let first = |tally: &Tally| -> Vec<_> {
            let first = tally.first_of_each(3).into_iter();
            first.map(|(one, name)| (one.number, name)).collect()
        };
        (0..20).for_each(|number| tally.fail(failed(number, &["often"])));
        assert_eq!(first(&tally), [(0, "often"), (1, "often"), (2, "often")]);
        tally.fail(failed(20, &["often", "seldom"]));
        assert_eq!(first(&tally), [(0, "often"), (1, "often"), (20, "seldom")]);
        tally.fail(failed(21, &["third"]));
        tally.fail(failed(22, &["fourth"]));
        assert_eq!(first(&tally), [(0, "often"), (20, "seldom"), (21, "third")]);
    }

    #[test]
    fn what_fails_often_keeps_nothing_else_out_of_the_tally() {
        let mut tally = Tally::default();
        for number in 0..FAILED_MAX + 5 {
            tally.fail(failed(number, &["often", "often"]));
        }
        tally.fail(failed(7000, &["often", "once"]));
        assert_eq!(tally.failures, FAILED_MAX + 6);
        let broken: Vec<_> = tally.broken.iter().collect();
        assert_eq!(broken, [(&"often", &(FAILED_MAX + 6)), (&"once", &1)]);
        let last = tally.failed.last().map(|failed| failed.number);
        assert_eq!(
            (tally.failed.len() as u64, last),
            (FAILED_MAX + 1, Some(7000))
        );
    }
}
