//! Agents that are parked whenever they have nothing to do: the same end as if they never were, whatever wakes them.
//! `OTAD_PARK_SEEDS` says how many devices live through two days (4 if it does not).

use host_cloud::service::ExecutionStatus;
use host_runtime::agent::Command;
use host_sandbox::net::{Outage, OutageKind};
use host_sandbox::random::Random;
use host_sandbox::scenario::{Deed, Prepared, Scenario, When, standard};
use host_sandbox::{Options, Report, Shipped, explore};

const HOUR_MS: u64 = 3_600_000;

/// How long a device of these tests is left awake without an event, in milliseconds.
const QUIET_MS: u64 = 30_000;

fn seeds() -> u64 {
    let given = std::env::var("OTAD_PARK_SEEDS").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(4).max(1)
}

fn run(prepared: &Prepared, options: Options, park_after_ms: Option<u64>) -> Report {
    let options = Options {
        park_after_ms,
        ..options
    };
    explore::run(prepared, options)
}

/// Jobs at random instants of two days, with orders and lost connections between them.
fn two_days(seed: u64) -> Scenario {
    let mut random = Random::stream(seed, "two days");
    let mut scenario = Scenario::plain("two-days", 4);
    let mut left_ms = 48 * HOUR_MS;
    loop {
        let pause_ms = 1 + random.below(8 * HOUR_MS);
        if pause_ms > left_ms {
            break;
        }
        left_ms -= pause_ms;
        if random.chance(500) {
            let order = Deed::Order(Command::CheckForUpdate);
            scenario.deeds.push((When::AfterEnd(pause_ms / 2), order));
        }
        scenario
            .deeds
            .push((When::AfterEnd(pause_ms), Deed::NextJob));
    }
    for _ in 0..4 {
        let from_ms = random.below(48 * HOUR_MS);
        scenario.outages.push(Outage {
            kind: OutageKind::Disconnected,
            from_ms,
            until_ms: from_ms + 1 + random.below(HOUR_MS),
        });
    }
    scenario
}

#[test]
fn two_days_of_random_jobs_end_as_if_the_device_had_never_been_parked() {
    for seed in 1..=seeds() {
        let prepared = two_days(seed).prepare();
        let jobs = prepared.scenario.jobs() as u64;
        let awake = run(&prepared, Options::native(seed), None);
        let parked = run(&prepared, Options::native(seed), Some(QUIET_MS));
        assert_eq!((&awake.violations, awake.parks), (&Vec::new(), 0));
        assert_eq!(parked.violations, [], "seed {seed}");
        assert!(
            parked.parks >= jobs,
            "seed {seed}: {} parks, {jobs} jobs",
            parked.parks
        );
        let end = |report: &Report| {
            let Report {
                status,
                reason,
                blocks_sent,
                starts,
                deeds_done,
                ..
            } = report.clone();
            (status, reason, blocks_sent, starts, deeds_done)
        };
        assert_eq!(end(&parked), end(&awake), "seed {seed}");
        assert_eq!(parked.status, ExecutionStatus::Succeeded);
    }
}

#[test]
fn the_shipped_agent_does_an_update_that_comes_while_it_is_parked() {
    let shipped = Shipped::load().expect("it runs here");
    let mut scenario = Scenario::plain("parked-between", 4);
    scenario.deeds = vec![(When::AfterEnd(HOUR_MS), Deed::NextJob)];
    let prepared = scenario.prepare();
    let report = run(&prepared, shipped.options(1), Some(QUIET_MS));
    assert_eq!(report.violations, []);
    assert_eq!(report.status, ExecutionStatus::Succeeded);
    // Between the two jobs; after the second one the run is over.
    assert!(report.parks >= 1);
}

/// The shortest time there is: parked at every instant at which nothing is under way.
#[test]
fn every_standard_scenario_ends_the_same_when_each_idle_instant_is_parked() {
    let mut parks = 0;
    for scenario in standard() {
        let prepared = scenario.prepare();
        let name = &prepared.scenario.name;
        let awake = run(&prepared, Options::native(7), None);
        let parked = run(&prepared, Options::native(7), Some(0));
        assert_eq!(parked.violations, [], "{name}");
        assert_eq!(
            (parked.status, parked.reason),
            (awake.status, awake.reason),
            "{name}"
        );
        parks += parked.parks;
    }
    assert!(parks > 0);
}

/// Every cut of a run with a park in it: what a parked device has not in memory it has on the medium.
#[test]
fn no_cut_of_a_run_with_parks_costs_the_update() {
    let mut scenario = Scenario::plain("parked-between", 4);
    scenario.deeds = vec![(When::AfterEnd(HOUR_MS), Deed::NextJob)];
    let prepared = scenario.prepare();
    let options = Options {
        park_after_ms: Some(QUIET_MS),
        ..Options::native(1)
    };
    let found = explore::every_cut(&prepared, &options, 7);
    assert_eq!(found.failed, []);
    assert!(found.cuts > 20, "{found:?}");
}
