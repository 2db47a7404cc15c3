//! Cuts: every one of every standard scenario, pairs, and many at random. Counts grow with `OTAD_WORLD_RUNS`.

use std::sync::OnceLock;

use host_sandbox::explore::{self, Found};
use host_sandbox::random::Random;
use host_sandbox::scenario::{Ending, Prepared, Quality, Scenario, by_name, standard};
use host_sandbox::trace::Event;
use host_sandbox::{Cut, CutKind, Moment, Options, Shipped, Verb};

/// Runs of each test that does not make all: few unless somebody asks for more.
fn runs() -> usize {
    let asked = std::env::var("OTAD_WORLD_RUNS").ok();
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(200)
        .max(1)
}

/// Whether everything is to be done that there is.
fn all() -> bool {
    runs() >= 10_000
}

/// Of so many runs that there are, one of how many is made.
fn stride(there_are: usize) -> usize {
    if all() {
        1
    } else {
        there_are.div_ceil(runs()).max(1)
    }
}

#[expect(clippy::print_stdout, reason = "figures, with --nocapture")]
fn check(name: &str, found: &Found) {
    if let Some(failed) = found.failed.first() {
        let cuts: Vec<_> = failed.cuts.iter().map(ToString::to_string).collect();
        panic!(
            "{name}: {} of {} runs failed, seed {} with {cuts:?}: {:#?}",
            found.failures, found.runs, failed.seed, failed.violations
        );
    }
    println!(
        "{name}: {} calls, {} runs, {} cuts, at most {} blocks fetched again",
        found.calls, found.runs, found.cuts, found.refetched_max
    );
}

#[test]
fn every_cut_of_every_standard_scenario_is_survived() {
    let scenarios = standard();
    // Some five modes for each of some 200 calls; a few of the shortest one, too.
    let stride = stride(scenarios.len() * 1000).min(150);
    for scenario in scenarios {
        let prepared = scenario.prepare();
        let found = explore::every_cut(&prepared, &Options::native(1), stride);
        let name = &prepared.scenario.name;
        // A world in which nothing is called has nothing to say.
        assert!(found.calls > 20, "{name}: {} calls", found.calls);
        assert!(found.cuts > 0, "{name}: {found:?}");
        check(name, &found);
    }
}

#[test]
fn every_cut_of_an_update_by_the_shipped_components_is_survived() {
    static SHIPPED: OnceLock<Shipped> = OnceLock::new();
    let shipped = SHIPPED.get_or_init(|| Shipped::load().unwrap());
    let names: Vec<_> = if all() {
        standard()
            .into_iter()
            .map(|scenario| scenario.name)
            .collect()
    } else {
        vec!["short".to_owned()]
    };
    for name in names {
        let prepared = by_name(&name).unwrap().prepare();
        let found = explore::every_cut(&prepared, &shipped.options(1), stride(800));
        check(&name, &found);
    }
}

/// The shortest update, and the shortest one that goes back.
fn short_ones() -> [Prepared; 2] {
    let mut back = by_name("short").expect("it is a standard one");
    back.name = "short-unhealthy".to_owned();
    back.files[0].quality = Quality::Unhealthy;
    back.ending = Ending::Kept("");
    let short = by_name("short").expect("it is a standard one");
    [short.prepare(), back.prepare()]
}

#[test]
fn pairs_of_cuts_are_survived() {
    let stride = stride(800 * 800);
    for prepared in short_ones() {
        let found = explore::every_pair(&prepared, &Options::native(1), stride);
        check(&format!("pairs of {}", prepared.scenario.name), &found);
    }
}

/// A process is killed between the write of a record, the plugin's or the host's, and its sync, and the power goes some
/// time later: whatever was said and done meanwhile stays true.
#[test]
fn a_record_that_a_killed_process_has_not_synced_is_durable_before_it_is_believed() {
    for prepared in short_ones() {
        let name = &prepared.scenario.name;
        let traced = Options {
            trace: true,
            ..Options::native(1)
        };
        let learned = explore::run(&prepared, traced);
        let mut found = Found::default();
        for (_, event) in learned.trace.events() {
            let Event::Call {
                number,
                verb: Verb::Write,
                place,
                ..
            } = event
            else {
                continue;
            };
            if place != "app/record" && !place.ends_with("/app/record.json") {
                continue;
            }
            let kill = Cut {
                call: *number,
                moment: Moment::After,
                kind: CutKind::Kill,
            };
            let killed = Options {
                cuts: vec![kill],
                ..Options::native(1)
            };
            found.add(explore::every_power_cut_after(&prepared, &killed, kill));
        }
        assert!(found.runs > 50, "{name}: {found:?}");
        check(name, &found);
    }
}

/// What a process has begun is looked at when it is done, not when something else happens by chance.
#[test]
fn a_process_that_is_killed_when_all_is_done_has_nothing_to_wait_for() {
    let prepared = by_name("short").unwrap().prepare();
    let learned = explore::run(&prepared, Options::native(1));
    let calls = learned.verbs.len() as u64;
    for call in calls - 10..=calls {
        let kill = Cut {
            call,
            moment: Moment::After,
            kind: CutKind::Kill,
        };
        let options = Options {
            cuts: vec![kill],
            ..Options::native(1)
        };
        let report = explore::run(&prepared, options);
        let later_ms = report.ended_at_ms - learned.ended_at_ms;
        assert!(later_ms < 2000, "{kill}: {later_ms} ms later");
    }
}

#[test]
fn many_cuts_at_random_are_survived() {
    let prepared: Vec<_> = standard().into_iter().map(Scenario::prepare).collect();
    let learn = |prepared| explore::run(prepared, Options::native(1)).verbs.len() as u64;
    let calls: Vec<_> = prepared.iter().map(learn).collect();
    let mut found = Found::default();
    for seed in 0..runs() as u64 {
        let which = Random::stream(seed, "which scenario").below_len(prepared.len());
        let options = Options::native(seed);
        let one = explore::random_cuts(&prepared[which], &options, calls[which], 6);
        if !one.failed.is_empty() {
            check(&prepared[which].scenario.name, &one);
        }
        found.add(one);
    }
    check("random cuts", &found);
}
