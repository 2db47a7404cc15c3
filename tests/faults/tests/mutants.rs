//! The judges are judged: an agent with one known fault of this field is found out by the sandbox, whichever it is.
//!
//! One component holds all faults; the setting `mutant` chooses one. `KNOWN` is where each was found: the test tries that
//! seed of that story. `OTAD_MUTANT_SEEDS` hunts anew, from seed 1, and prints what finds each, and after what time
//! (`--nocapture`); `OTAD_MUTANTS` names those that are hunted, such as `half-back,same-version`.
//! What stands in `MUTANTS` and not in `KNOWN` is hunted only then.

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
use host_runtime::engine::{Engine, EngineOptions};
use host_sandbox::Options;
use host_sandbox::recipe::Kitchen;
use host_sandbox::swarm::{self, Batch, Tally};

/// The fault, the story in which it was found (empty = the one that the seed draws), and the seed.
const KNOWN: &[(&str, &str, u64)] = &[
    ("doubled-requests", "", 12),
    ("lost-reply-hangs", "", 33),
    ("status-sent-once", "", 3),
    ("same-job-from-zero", "", 238),
    ("commit-untested", "", 2),
    ("cancel-unnoticed", "", 7),
    ("small-bitmap", "", 2),
    ("resume-stops", "", 9),
    ("duplicate-fails", "", 2),
    ("late-block-fails", "", 2),
    ("rejection-unheard", "", 7),
    ("refusal-untold", "", 11),
    ("progress-forgotten", "", 38),
    ("no-going-back", "", 7),
    ("same-version", "", 182),
    ("trap-on-repeat", "", 2),
    ("impatient", "", 2),
    ("block-size-mixed", "", 2),
    ("wall-clock-timer", "", 3),
    ("gives-up-asking", "", 75),
];

/// Seeds that are tried where the known one does not find its fault any more.
const SEEDS_AGAIN: u64 = 300;

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
        let engine = Engine::new(&EngineOptions::default()).unwrap();
        let bytes = guest_artifacts::AGENT_MUTANTS;
        Kitchen::new(Options {
            agent: AgentBuild::load(&engine, "mutants", bytes).unwrap(),
            ..Options::native(0)
        })
    })
}

/// Seeds until something is found.
fn hunt(kitchen: &Kitchen, story: Option<&str>, first: u64, runs: u64) -> Tally {
    let batch = Batch {
        runs,
        jobs: NonZeroUsize::new(2).unwrap(),
        first: true,
    };
    let draw = |n| swarm::draw(kitchen, n + first, story, None);
    swarm::make(kitchen, batch, &draw, &mut |_| {}).unwrap()
}

#[test]
fn every_known_fault_is_found() {
    let mut missed = Vec::new();
    for (name, ..) in KNOWN {
        assert!(MUTANTS.iter().any(|(known, _)| known == name), "{name}");
    }
    for (name, what) in MUTANTS {
        let known = KNOWN.iter().find(|(known, ..)| known == name);
        let (_, story, seed) = known.copied().unwrap_or((name, "", 1));
        if !is_wanted(name) || (known.is_none() && seeds().is_none()) {
            continue;
        }
        let story = Some(story).filter(|story| !story.is_empty());
        let kitchen = kitchen().clone().with_setting("mutant", name);
        let began = Instant::now();
        let tally = match seeds() {
            Some(seeds) => hunt(&kitchen, story, 1, seeds),
            // Where the stories have changed, another seed finds it.
            None => match hunt(&kitchen, story, seed, 1) {
                tally if tally.failures > 0 => tally,
                _ => hunt(&kitchen, story, 1, SEEDS_AGAIN),
            },
        };
        let ms = began.elapsed().as_millis();
        match tally.failed.first() {
            Some(failed) => println!(
                "{name}: seed {} in {ms} ms, {}: {}: {what}",
                failed.recipe.seed, failed.recipe.story, failed.violations[0].invariant
            ),
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
    let tally = hunt(kitchen(), None, 1, 20);
    assert_eq!((tally.runs, tally.failures), (20, 0));
    let native = Kitchen::new(Options::native(0));
    assert_eq!(tally.digest(), hunt(&native, None, 1, 20).digest());
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
