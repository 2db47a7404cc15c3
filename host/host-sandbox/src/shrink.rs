//! A failed run made small: as few faults, as few blocks, as short a trace as still fail the same invariant.
//!
//! Greedy: each fault is taken away, each that stays is made weaker, the files are made smaller; what still fails is kept,
//! until nothing helps any more. Faults draw from streams of their own, so that taking one away leaves the others as
//! they were. It does not promise the smallest run, only a smaller one.

use crate::fault::{Fault, Strike};
use crate::recipe::{Kitchen, Recipe, Served};

/// Most runs for one failure: some ten faults, six rounds, and a run is a millisecond.
pub const SHRINK_RUNS_MAX: u32 = 400;

/// A failure made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What still fails.
    pub recipe: Recipe,
    /// How, with its trace.
    pub served: Served,
    /// Runs that it took.
    pub runs: u32,
}

struct Shrinker<'k> {
    kitchen: &'k Kitchen,
    invariant: &'static str,
    runs: u32,
}

impl Shrinker<'_> {
    /// Run it; its trace if it fails as the first one did.
    fn fails(&mut self, recipe: &Recipe) -> Option<Served> {
        if self.runs >= SHRINK_RUNS_MAX {
            return None;
        }
        self.runs += 1;
        // A story that a smaller size does not go with is no smaller failure.
        let served = self.kitchen.run(recipe, true).ok()?;
        let same = |v: &crate::judge::Violation| v.invariant == self.invariant;
        served.report.violations.iter().any(same).then_some(served)
    }
}

/// Make a failure of `invariant` small; none if it does not fail so.
#[must_use]
pub fn shrink(kitchen: &Kitchen, failed: &Recipe, invariant: &'static str) -> Option<Shrunk> {
    let mut shrinker = Shrinker {
        kitchen,
        invariant,
        runs: 0,
    };
    let mut best = failed.clone();
    let mut served = shrinker.fails(&best)?;
    loop {
        let smaller = candidates(&best);
        let found = smaller
            .into_iter()
            .find_map(|recipe| Some((shrinker.fails(&recipe)?, recipe)));
        match found {
            Some((fails, recipe)) => (served, best) = (fails, recipe),
            None => break,
        }
    }
    Some(Shrunk {
        recipe: best,
        served,
        runs: shrinker.runs,
    })
}

/// What is smaller than a recipe, the smallest first.
fn candidates(recipe: &Recipe) -> Vec<Recipe> {
    let mut all = Vec::new();
    let faults = recipe.faults.len();
    let with = |faults: Vec<Fault>| Recipe {
        faults,
        ..recipe.clone()
    };
    if faults > 3 {
        let (first, second) = recipe.faults.split_at(faults / 2);
        all.extend([with(first.to_vec()), with(second.to_vec())]);
    }
    for at in 0..faults {
        let mut fewer = recipe.faults.clone();
        fewer.remove(at);
        all.push(with(fewer));
    }
    for blocks in [1, 2, 4, 9, 18] {
        if recipe.blocks.is_none_or(|now| blocks < now) {
            let blocks = Some(blocks);
            all.push(Recipe {
                blocks,
                ..recipe.clone()
            });
        }
    }
    for at in 0..faults {
        let mut weaker = recipe.faults.clone();
        if let Some(fault) = weaker.get_mut(at)
            && weaken(&mut fault.strike)
        {
            all.push(with(weaker));
        }
    }
    all
}

/// A span half as long, a weather that clears in half the time; false if it is short already.
fn weaken(strike: &mut Strike) -> bool {
    const SHORT_MS: u64 = 2000;
    match strike {
        Strike::Chance { until_ms, .. } if *until_ms > SHORT_MS => {
            *until_ms /= 2;
            true
        }
        Strike::Span {
            from_ms, until_ms, ..
        } if *until_ms - *from_ms > SHORT_MS => {
            *until_ms = *from_ms + (*until_ms - *from_ms) / 2;
            true
        }
        Strike::Chance { .. }
        | Strike::Span { .. }
        | Strike::Call { .. }
        | Strike::Jump { .. }
        | Strike::At(_) => false,
    }
}
