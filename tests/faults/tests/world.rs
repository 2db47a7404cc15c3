//! The standard scenarios without cuts: they end as they say, the same in wasm and natively, and the same again.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be set up has nothing to test"
)]

use std::sync::{Arc, OnceLock};

use host_cloud::service::ExecutionStatus;
use host_sandbox::net::{Odds, Outage, OutageKind, Weather};
use host_sandbox::scenario::{Ending, Scenario, by_name, standard};
use host_sandbox::{Ailment, Options, Report, Shipped, Spell, explore};

fn shipped() -> &'static Shipped {
    static SHIPPED: OnceLock<Shipped> = OnceLock::new();
    SHIPPED.get_or_init(|| Shipped::load().unwrap())
}

fn traced(options: Options) -> Options {
    Options {
        trace: true,
        ..options
    }
}

fn check(scenario: Scenario) -> Report {
    let prepared = scenario.prepare();
    let report = explore::run(&prepared, traced(Options::native(1)));
    assert_eq!(
        report.violations,
        [],
        "{}: {:?} {:?}\n{}",
        prepared.scenario.name,
        report.status,
        report.reason,
        report.trace
    );
    let deeds = prepared.scenario.deeds.len();
    assert_eq!(report.deeds_done, deeds, "{}", prepared.scenario.name);
    report
}

#[test]
fn every_standard_scenario_ends_as_it_says() {
    for scenario in standard() {
        check(scenario);
    }
}

#[test]
fn the_shipped_agent_makes_the_same_trace_as_the_one_in_this_process() {
    for scenario in standard() {
        let prepared = scenario.prepare();
        for seed in [1, 2] {
            let native = Options {
                pal: Arc::clone(&shipped().pal),
                ..traced(Options::native(seed))
            };
            let native = explore::run(&prepared, native);
            let wasm = explore::run(&prepared, traced(shipped().options(seed)));
            let name = &prepared.scenario.name;
            assert_eq!(wasm.trace.first_difference(&native.trace), None, "{name}");
            assert_eq!(wasm.violations, [], "{name}");
            // A job that is refused is the shortest story.
            assert!(wasm.trace.events().len() > 10, "{name}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_trace_to_the_byte_and_another_one_another() {
    let prepared = stormy().prepare();
    let run = |seed| explore::run(&prepared, traced(Options::native(seed)));
    let (once, again, other) = (run(3), run(3), run(4));
    assert_eq!(once.trace.digest(), again.trace.digest());
    assert_eq!(once.trace.to_string(), again.trace.to_string());
    assert_ne!(once.trace.digest(), other.trace.digest());
}

fn stormy() -> Scenario {
    let odds = Odds {
        lost: 200,
        doubled: 100,
        delayed: 200,
        corrupted: 0,
    };
    Scenario {
        weather: Weather {
            until_ms: 600_000,
            requests: odds,
            replies: odds,
            blocks: odds,
            ..Weather::default()
        },
        ..Scenario::plain("stormy", 60)
    }
}

#[test]
fn lost_doubled_late_and_overtaken_messages_delay_an_update() {
    for seed in 0..10 {
        let prepared = stormy().prepare();
        let report = explore::run(&prepared, Options::native(seed));
        assert_eq!(report.violations, [], "seed {seed}");
    }
}

#[test]
fn corrupted_messages_end_a_job_at_worst() {
    for seed in 0..10 {
        let odds = Odds {
            corrupted: 100,
            ..Odds::NONE
        };
        let mut scenario = stormy();
        scenario.weather.blocks = odds;
        scenario.weather.replies = odds;
        scenario.ending = Ending::Whole;
        let report = explore::run(&scenario.prepare(), Options::native(seed));
        assert_eq!(report.violations, [], "seed {seed}");
    }
}

/// Outages of 2 minutes at every part of an update.
fn check_outage(kind: OutageKind) {
    for from_ms in (0..16_000).step_by(1900) {
        let mut scenario = Scenario::plain("outage", 60);
        scenario.outages = vec![Outage {
            kind,
            from_ms,
            until_ms: from_ms + 120_000,
        }];
        let report = explore::run(&scenario.prepare(), Options::native(1));
        assert_eq!(report.violations, [], "{kind:?} at {from_ms}");
    }
}

#[test]
fn an_outage_of_any_kind_at_any_time_delays_an_update() {
    for kind in [
        OutageKind::Disconnected,
        OutageKind::HalfOpen,
        OutageKind::SilentCloud,
        OutageKind::Unavailable,
    ] {
        check_outage(kind);
    }
}

#[test]
fn a_medium_that_is_full_read_only_or_broken_for_a_time_ends_in_a_whole_image() {
    let rows = [Ailment::Full, Ailment::ReadOnly, Ailment::SyncFails];
    for ailment in rows {
        for place in ["", "app/", "app/record", "devices/", "targets/"] {
            for from_ms in (0..13_000).step_by(3100) {
                let mut scenario = Scenario::plain("ailing", 30);
                scenario.ending = Ending::Whole;
                scenario.spells = vec![Spell {
                    ailment,
                    place: place.to_owned(),
                    from_ms,
                    until_ms: from_ms + 60_000,
                }];
                let report = explore::run(&scenario.prepare(), Options::native(1));
                assert_eq!(
                    report.violations,
                    [],
                    "{ailment:?} at `{place}` from {from_ms}: {:?}",
                    report.reason
                );
            }
        }
    }
}

#[test]
fn a_plain_update_fetches_each_block_once_and_restarts_the_process_once() {
    let report = check(by_name("plain").unwrap());
    assert_eq!((report.blocks_sent, report.starts), (25, 2));
    assert_eq!(report.status, ExecutionStatus::Succeeded);
}
