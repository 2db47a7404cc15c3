//! Every cut of a scenario: learn its calls, cut before, during and after each, kill and power, and let each run end.

use crate::ground::{Cut, CutKind, Moment, Verb};
use crate::judge::{self, Violation};
use crate::random::Random;
use crate::scenario::Prepared;
use crate::world::{Options, Report, World};

/// A run that an invariant did not survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Seed of the run.
    pub seed: u64,
    /// Its cuts.
    pub cuts: Vec<Cut>,
    /// What did not hold.
    pub violations: Vec<Violation>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Calls of the run without a cut.
    pub calls: u64,
    /// Runs made.
    pub runs: u64,
    /// Cuts that have fallen in them.
    pub cuts: u64,
    /// Most blocks that a run has fetched more than once.
    pub refetched_max: u64,
    /// Runs that failed.
    pub failures: u64,
    /// The first of them.
    pub failed: Vec<Failed>,
}

/// Failed runs that are kept.
const FAILED_MAX: usize = 16;

impl Found {
    fn count(&mut self, prepared: &Prepared, seed: u64, cuts: Vec<Cut>, report: &Report) {
        self.runs += 1;
        self.cuts += report.cuts.len() as u64;
        let scenario = &prepared.scenario;
        let blocks = scenario.blocks() * scenario.jobs() as u64;
        let again = report.blocks_sent.saturating_sub(blocks);
        self.refetched_max = self.refetched_max.max(again);
        self.failures += u64::from(!report.violations.is_empty());
        if !report.violations.is_empty() && self.failed.len() < FAILED_MAX {
            self.failed.push(Failed {
                seed,
                cuts,
                violations: report.violations.clone(),
            });
        }
    }

    /// Add what was found elsewhere.
    pub fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.runs += other.runs;
        self.cuts += other.cuts;
        self.refetched_max = self.refetched_max.max(other.refetched_max);
        self.failures += other.failures;
        self.failed.extend(other.failed);
        self.failed.truncate(FAILED_MAX);
    }
}

/// Run a scenario once.
#[must_use]
pub fn run(prepared: &Prepared, options: Options) -> Report {
    World::new(prepared, options, judge::standard()).run()
}

/// Every cut of one run, in all modes that make a difference for the call; of every `stride` of them one, by the seed.
#[must_use]
pub fn every_cut(prepared: &Prepared, options: &Options, stride: usize) -> Found {
    let learned = run(prepared, options.clone());
    let mut found = Found {
        calls: learned.verbs.len() as u64,
        ..Found::default()
    };
    found.count(prepared, options.seed, Vec::new(), &learned);
    let stride = stride.max(1);
    let first = Random::stream(options.seed, "first cut").below_len(stride);
    for cut in cuts(&learned.verbs, 0)
        .into_iter()
        .skip(first)
        .step_by(stride)
    {
        let options = Options {
            cuts: vec![cut],
            ..options.clone()
        };
        let report = run(prepared, options.clone());
        found.count(prepared, options.seed, vec![cut], &report);
    }
    found
}

/// Pairs of cuts: the second one at a call after the first one, which it does not count anew. Of every `stride` of them
/// one is made, each with a seed of its own.
#[must_use]
pub fn every_pair(prepared: &Prepared, options: &Options, stride: usize) -> Found {
    let learned = run(prepared, options.clone());
    let mut found = Found {
        calls: learned.verbs.len() as u64,
        ..Found::default()
    };
    let stride = stride.max(1);
    let firsts = cuts(&learned.verbs, 0);
    // Where few are made, few first ones are followed.
    let rarely = stride.div_ceil(firsts.len().max(1));
    let mut number = Random::stream(options.seed, "first pair").below_len(stride);
    for first in firsts.into_iter().step_by(rarely) {
        let once = Options {
            cuts: vec![first],
            ..options.clone()
        };
        let after = run(prepared, once.clone());
        for second in cuts(&after.verbs, first.call) {
            number += 1;
            if !number.is_multiple_of(stride.div_ceil(rarely)) {
                continue;
            }
            let both = Options {
                cuts: vec![first, second],
                seed: options.seed ^ (first.call << 32) ^ second.call,
                ..once.clone()
            };
            let report = run(prepared, both.clone());
            found.count(prepared, both.seed, both.cuts, &report);
        }
    }
    found
}

/// The power goes after each call that follows a cut which `options` bring already.
#[must_use]
pub fn every_power_cut_after(prepared: &Prepared, options: &Options, first: Cut) -> Found {
    let after = run(prepared, options.clone());
    let mut found = Found::default();
    for call in first.call + 1..=after.verbs.len() as u64 {
        let power = Cut {
            call,
            moment: Moment::After,
            kind: CutKind::Power,
        };
        let both = Options {
            cuts: vec![first, power],
            ..options.clone()
        };
        let report = run(prepared, both.clone());
        found.count(prepared, both.seed, both.cuts, &report);
    }
    found
}

/// A run with so many cuts at random calls of a run of `calls` calls.
#[must_use]
pub fn random_cuts(prepared: &Prepared, options: &Options, calls: u64, most: u64) -> Found {
    let mut random = Random::stream(options.seed, "which cuts");
    let count = 1 + random.below(most);
    let cuts = (0..count).map(|_| Cut {
        call: 1 + random.below(calls + calls / 2),
        moment: [Moment::Before, Moment::During, Moment::After][random.below_len(3)],
        kind: [CutKind::Kill, CutKind::Power][random.below_len(2)],
    });
    let options = Options {
        cuts: cuts.collect(),
        ..options.clone()
    };
    let report = run(prepared, options.clone());
    let mut found = Found::default();
    found.count(prepared, options.seed, options.cuts, &report);
    found
}

/// The cuts of calls after `from`.
pub(crate) fn cuts(verbs: &[Verb], from: u64) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (call, verb) in (1..).zip(verbs) {
        if call <= from {
            continue;
        }
        for kind in [CutKind::Kill, CutKind::Power] {
            for moment in [Moment::Before, Moment::During, Moment::After] {
                if moment != Moment::During || verb.can_tear() {
                    cuts.push(Cut { call, moment, kind });
                }
            }
        }
    }
    cuts
}
