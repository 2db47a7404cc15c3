//! The swarm: the shipped agent gets over everything, the same seeds are the same runs, and a failure is made small.
//!
//! `OTAD_SWARM_SEEDS` says how many seeds (60 if it does not).

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be set up has nothing to test"
)]

use std::num::NonZeroUsize;

use host_runtime::engine::{Engine, EngineOptions, Time};
use host_runtime::plugin::ComponentPlugin;
use host_runtime::types::Setting;
use host_sandbox::fault::{Fault, KINDS, Kind};
use host_sandbox::recipe::{Kitchen, Recipe, RecipeError, UPDATE};
use host_sandbox::shrink::shrink;
use host_sandbox::swarm::{self, Batch, Tally};
use host_sandbox::{Options, Quirk, Shipped, native_pal};

fn seeds() -> u64 {
    let given = std::env::var("OTAD_SWARM_SEEDS").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(60)
}

fn jobs(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn run(kitchen: &Kitchen, runs: u64, workers: usize) -> Tally {
    let batch = Batch {
        runs,
        jobs: jobs(workers),
        first: false,
    };
    let draw = |n| swarm::draw(kitchen, n + 1, None, None);
    let mut last = 0;
    swarm::make(kitchen, batch, &draw, &mut |tally| {
        assert!(tally.runs > last, "progress goes forward");
        last = tally.runs;
    })
    .unwrap()
}

fn told(tally: &Tally) -> String {
    let lines = tally.failed.iter().map(|failed| {
        let faults: Vec<_> = failed.recipe.faults.iter().map(Fault::to_string).collect();
        let (seed, story) = (failed.recipe.seed, &failed.recipe.story);
        let faults = faults.join(" ");
        format!("seed {seed} {story} {faults}: {:?}\n", failed.violations)
    });
    lines.collect()
}

#[test]
fn the_agent_gets_over_whatever_the_swarm_draws() {
    let kitchen = Kitchen::new(Options::native(0));
    let tally = run(&kitchen, seeds(), 2);
    assert_eq!(
        (tally.runs, tally.failures),
        (seeds(), 0),
        "{}",
        told(&tally)
    );
    assert!(tally.with_faults > seeds() / 2);
    let (seen, _) = tally.coverage.pairs();
    assert!(seen > 100, "{seen} pairs of change and fault");
}

#[test]
fn the_same_seeds_are_the_same_runs_with_any_number_of_workers() {
    let kitchen = Kitchen::new(Options::native(0));
    let (one, three) = (run(&kitchen, 70, 1), run(&kitchen, 70, 3));
    assert_eq!(one.digest(), three.digest());
    assert_ne!(three.digest(), run(&kitchen, 69, 2).digest());
    assert_eq!((one.coverage, one.ends), (three.coverage, three.ends));
}

#[test]
fn the_shipped_component_goes_the_same_way_through_the_swarm() {
    let native = Kitchen::new(Options::native(0));
    let agent = |time| Options {
        agent: Shipped::load_in(time).unwrap().agent,
        ..Options::native(0)
    };
    let counted = Kitchen::new(agent(Time::Virtual));
    let hasty = Kitchen::hasty(
        agent(Time::Hasty),
        || Err("no good agent breaks".to_owned()),
    );
    for seed in 1..=seeds() / 6 {
        let recipe = swarm::draw(&native, seed, None, None).unwrap();
        let one = native.run(&recipe, true).unwrap();
        for wasm in [&counted, &hasty] {
            let other = wasm.run(&recipe, true).unwrap();
            let first = one.report.trace.first_difference(&other.report.trace);
            assert_eq!(first, None, "seed {seed}");
            assert_eq!(one.moves, other.moves, "seed {seed}");
        }
    }
}

#[test]
fn what_breaks_in_haste_is_judged_with_its_instructions_counted() {
    let options = |time, deed: &str| {
        let engine = Engine::new(&EngineOptions {
            time,
            ..EngineOptions::default()
        });
        let bytes = guest_artifacts::FLASH_FILE_MUTANTS;
        Options {
            pal: ComponentPlugin::load(&engine.unwrap(), "deeds", bytes).unwrap(),
            pal_settings: vec![Setting {
                key: "deed".to_owned(),
                value: deed.to_owned(),
            }],
            ..Options::native(0)
        }
    };
    let recipe = Recipe {
        story: UPDATE.into(),
        blocks: Some(4),
        faults: Vec::new(),
        seed: 1,
    };
    for deed in ["spins", "panics"] {
        let hasty = Kitchen::hasty(options(Time::Hasty, deed), move || {
            Ok(options(Time::Virtual, deed))
        });
        let counted = Kitchen::new(options(Time::Virtual, deed));
        let (one, other) = (hasty.run(&recipe, true), counted.run(&recipe, true));
        assert_eq!(one.unwrap().report, other.unwrap().report, "{deed}");
        let alone = Kitchen::hasty(options(Time::Hasty, deed), || Err("not here".to_owned()));
        let wanted = RecipeError::Again("not here".to_owned());
        assert_eq!(alone.run(&recipe, false).unwrap_err(), wanted, "{deed}");
    }
}

#[test]
fn seeds_draw_single_kinds_and_mixtures_and_every_kind_is_drawn() {
    let kitchen = Kitchen::new(Options::native(0));
    let mut drawn = vec![0; KINDS.len()];
    let mut single = 0;
    for seed in 0..400 {
        let story = if seed % 2 == 0 { UPDATE } else { "by-url" };
        let recipe = swarm::draw(&kitchen, seed, Some(story), None).unwrap();
        let mut kinds: Vec<_> = recipe.faults.iter().map(|fault| fault.kind).collect();
        kinds.dedup();
        single += u32::from(kinds.len() == 1);
        for kind in kinds {
            drawn[kind as usize] += 1;
        }
        for fault in &recipe.faults {
            assert_eq!(fault.to_string().parse(), Ok(fault.clone()));
        }
    }
    let never = Kind::RequestsCorrupted as usize;
    assert_eq!(drawn.remove(never), 0);
    assert!(drawn.iter().all(|n| *n > 20), "{drawn:?}");
    assert!(single > 60, "{single}");
}

#[test]
fn a_failure_is_made_as_small_as_what_causes_it() {
    let kitchen = Kitchen::new(Options {
        pal: native_pal(Some(Quirk::CommitsUntested)),
        ..Options::native(0)
    });
    let words = [
        "blocks-lost=100@60000",
        "requests-delayed=300@50000",
        "half-open=500-9000",
    ];
    let recipe = Recipe {
        story: UPDATE.into(),
        blocks: None,
        faults: words.iter().map(|word| word.parse().unwrap()).collect(),
        seed: 5,
    };
    let failed = kitchen.run(&recipe, false).unwrap().report.violations;
    let invariant = failed.first().unwrap().invariant;
    let small = shrink(&kitchen, &recipe, invariant).unwrap();
    assert_eq!(
        (small.recipe.faults.len(), small.recipe.blocks),
        (0, Some(1))
    );
    let report = small.served.report;
    assert!(report.violations.iter().any(|v| v.invariant == invariant));
    assert!(!report.trace.events().is_empty());
}

#[test]
fn an_order_that_had_no_answer_is_not_given_again_after_another_one() {
    // The power fails while the agent is suspended; the operator resumes it, and the update restarts the process before he would
    // ask why the first order had no answer.
    let faults = [
        "requests-lost=300@2128",
        "power=after-11",
        "suspend=8054-9358",
    ];
    let recipe = Recipe {
        story: UPDATE.into(),
        blocks: Some(1),
        faults: faults.iter().map(|word| word.parse().unwrap()).collect(),
        seed: 27481,
    };
    let kitchen = Kitchen::new(Options::native(0));
    let report = kitchen.run(&recipe, false).unwrap().report;
    assert_eq!((report.violations, report.cuts.len()), (Vec::new(), 1));
}

#[test]
fn a_fault_has_struck_where_its_time_has_come() {
    let rows = [
        ("power=during-17", true),
        ("power=during-999999", false),
        ("half-open=1500-2500", true),
        ("half-open=80000000-80000001", false),
        ("clock=60@1200", true),
        ("clock=60@80000000", false),
        ("blocks-lost=10@3000", true),
        ("blocks-lost=0@3000", false),
        ("blocks-lost=10@1000", false),
        ("half-open=0-1000", false),
        ("full=1200-9000@app/slot-b", true),
        ("full=1200-9000@slot-b", false),
        ("full=0-1000", false),
    ];
    let kitchen = Kitchen::new(Options::native(0));
    for (word, struck) in rows {
        let fault: Fault = word.parse().unwrap();
        let recipe = Recipe {
            story: UPDATE.into(),
            blocks: Some(4),
            faults: vec![fault.clone()],
            seed: 1,
        };
        let report = kitchen.run(&recipe, false).unwrap().report;
        assert_eq!(fault.struck(&report), struck, "{word}");
    }
}
