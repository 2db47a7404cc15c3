//! The judges are judged: an agent with one known fault of this field is found out by the sandbox, whichever it is.
//!
//! One component holds all faults; the setting `mutant` chooses one. `KNOWN` is where each was found: the test tries that
//! seed. `OTAD_MUTANT_SEEDS` hunts anew, from seed 1, and prints what finds each, and after what time (`--nocapture`);
//! `OTAD_MUTANTS` names those that are hunted, such as `half-back,same-version`. What finds a fault must be nothing to the
//! same build without it.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "what cannot be set up has nothing to test; how long a hunt takes is its answer"
)]

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::time::Instant;

use agent_core::mutant::MUTANTS;
use host_runtime::agent::AgentBuild;
use host_runtime::engine::{Engine, EngineOptions, Time};
use host_sandbox::Options;
use host_sandbox::recipe::Kitchen;
use host_sandbox::swarm::{self, Batch, Tally};

/// The fault, and the seed that found it.
const KNOWN: &[(&str, u64)] = &[
    ("doubled-requests", 21),
    ("lost-reply-hangs", 6),
    ("status-sent-once", 3),
    ("same-job-from-zero", 46),
    ("commit-untested", 2),
    ("cancel-unnoticed", 10),
    ("small-bitmap", 5),
    ("resume-stops", 9),
    ("duplicate-fails", 21),
    ("late-block-fails", 63),
    ("other-file-taken", 1529),
    ("rejection-unheard", 4),
    ("refusal-untold", 43),
    ("reconnect-forgets", 65),
    ("hint-is-cancel", 92),
    ("progress-forgotten", 46),
    ("gateway-first", 8),
    ("no-going-back", 8),
    ("same-version", 4),
    ("trap-on-repeat", 3),
    ("impatient", 5),
    ("block-size-mixed", 5),
    ("wall-clock-timer", 1),
    ("gives-up-asking", 109),
    ("no-back-off", 1),
    ("nameless-status", 1),
    ("half-back", 8),
    ("journal-lost", 35),
    ("reported-uncommitted", 2),
    ("accepted-unheard", 837),
];

/// Seeds that are tried where the known one does not find its fault any more.
const SEEDS_AGAIN: u64 = 3000;

/// How many seeds are hunted in; none = only those that are known.
fn seeds() -> Option<u64> {
    std::env::var("OTAD_MUTANT_SEEDS").ok()?.parse().ok()
}

fn is_wanted(name: &str) -> bool {
    let wanted = std::env::var("OTAD_MUTANTS");
    wanted.map_or(true, |names| names.split(',').any(|wanted| wanted == name))
}

fn kitchen() -> &'static Kitchen {
    static KITCHEN: OnceLock<Kitchen> = OnceLock::new();
    KITCHEN.get_or_init(|| {
        let engine = Engine::new(&EngineOptions {
            time: Time::Virtual,
            ..EngineOptions::default()
        })
        .unwrap();
        let bytes = guest_artifacts::AGENT_MUTANTS;
        Kitchen::new(Options {
            agent: AgentBuild::load(&engine, "mutants", bytes).unwrap(),
            ..Options::native(0)
        })
    })
}

/// Seeds until something is found.
fn hunt(kitchen: &Kitchen, first: u64, runs: u64) -> Tally {
    let batch = Batch {
        runs,
        jobs: NonZeroUsize::new(2).unwrap(),
        first: true,
    };
    let draw = |n| swarm::draw(kitchen, n + first, None, None);
    swarm::make(kitchen, batch, &draw, &mut |_| {}).unwrap()
}

#[test]
fn every_known_fault_is_found() {
    let mut missed = Vec::new();
    let known = KNOWN.iter().map(|(name, _)| *name);
    assert!(known.eq(MUTANTS.iter().map(|(name, _)| *name)));
    for ((name, seed), (_, what)) in KNOWN.iter().zip(MUTANTS) {
        if !is_wanted(name) {
            continue;
        }
        let mutant = kitchen().clone().with_setting("mutant", name);
        let began = Instant::now();
        let tally = match seeds() {
            Some(seeds) => hunt(&mutant, 1, seeds),
            // Where the stories have changed, another seed finds it.
            None => match hunt(&mutant, *seed, 1) {
                tally if tally.failures > 0 => tally,
                _ => hunt(&mutant, 1, SEEDS_AGAIN),
            },
        };
        let ms = began.elapsed().as_millis();
        match tally.failed.first() {
            Some(failed) => {
                let (recipe, invariant) = (&failed.recipe, failed.violations[0].invariant);
                let (seed, story) = (recipe.seed, &recipe.story);
                println!("{name}: seed {seed} in {ms} ms, {story}: {invariant}: {what}");
                let without = kitchen().run(recipe, false).unwrap().report.violations;
                assert_eq!(without, [], "{name}: seed {seed}");
            }
            None => {
                println!("{name}: NOT FOUND in {ms} ms: {what}");
                missed.push(*name);
            }
        }
    }
    assert_eq!(missed, [""; 0]);
}

#[test]
fn the_build_with_faults_is_the_shipped_one_as_long_as_none_is_chosen() {
    let tally = hunt(kitchen(), 1, 20);
    assert_eq!((tally.runs, tally.failures), (20, 0));
    let native = Kitchen::new(Options::native(0));
    assert_eq!(tally.digest(), hunt(&native, 1, 20).digest());
}

#[test]
fn nothing_of_the_faults_is_in_the_agent_that_ships() {
    let has = |bytes: &[u8], word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
    for (name, _) in MUTANTS {
        let name = name.as_bytes();
        assert!(has(guest_artifacts::AGENT_MUTANTS, name));
        assert!(!has(guest_artifacts::AGENT, name));
    }
    assert!(guest_artifacts::guest("agent-mutants").is_none());
}
