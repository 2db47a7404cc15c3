//! What an update costs besides its blocks: bytes written, time, repeated work.

use std::collections::BTreeMap;

use host_cloud::service::ExecutionStatus;
use host_runtime::target::SYNC_BYTES;
use host_sandbox::net::{Outage, OutageKind};
use host_sandbox::scenario::{Deed, Scenario, When};
use host_sandbox::trace::Event;
use host_sandbox::{Options, Report, Verb, explore};

/// Blocks of 4 KiB, synced as by default.
fn update_of(size_bytes: usize) -> Scenario {
    let mut scenario = Scenario::plain("costs", 1);
    scenario.files[0].size_bytes = size_bytes;
    scenario.settings = [("block_size", "4096"), ("blocks_per_request", "8")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    scenario.sync_bytes = SYNC_BYTES;
    scenario
}

fn run(scenario: Scenario) -> Report {
    let options = Options {
        trace: true,
        ..Options::native(1)
    };
    let report = explore::run(&scenario.prepare(), options);
    assert_eq!(report.violations, []);
    assert_eq!(report.status, ExecutionStatus::Succeeded);
    report
}

/// Bytes written by place, appended to files and to storage alike.
fn written(report: &Report) -> BTreeMap<&str, u64> {
    let mut parts = BTreeMap::new();
    for (_, event) in report.trace.events() {
        if let Event::Call {
            verb: Verb::Write,
            place,
            length,
            ..
        } = event
        {
            *parts.entry(place.as_str()).or_default() += length;
        }
    }
    parts
}

#[test]
fn what_is_written_besides_an_image_is_less_than_one_percent_of_it() {
    for size_bytes in [1 << 20, 4 << 20] {
        let report = run(update_of(size_bytes));
        let parts = written(&report);
        let all: u64 = parts.values().sum();
        let image = parts["app/slot-b"];
        assert_eq!(image, size_bytes as u64);
        let besides = all - image;
        println!("{size_bytes} bytes: {besides} besides, {parts:#?}");
        assert!(besides * 100 < image, "{besides}: {parts:#?}");
    }
}

#[test]
fn a_connection_that_is_cut_again_and_again_delays_an_update() {
    let mut scenario = update_of(400_000);
    let outage = |at: u64| Outage {
        kind: OutageKind::Disconnected,
        from_ms: 300 + at * 1000,
        until_ms: 700 + at * 1000,
    };
    scenario.outages = (0..20).map(outage).collect();
    let report = run(scenario);
    assert_eq!(report.starts, 2);
}

#[test]
fn a_wall_clock_that_jumps_all_the_time_changes_nothing() {
    let story = |report: &Report| {
        (
            report.blocks_sent,
            report.starts,
            report.ended_at_ms,
            report.verbs.clone(),
        )
    };
    let straight = run(update_of(100_000));
    let mut jumping = update_of(100_000);
    let year_s = 365 * 24 * 3600;
    // The certificate of the signer is valid at both ends.
    jumping.deeds = (0..40)
        .map(|n| {
            if n % 2 == 0 {
                12 * year_s
            } else {
                -12 * year_s
            }
        })
        .map(|seconds| (When::Then(97), Deed::JumpWall(seconds)))
        .collect();
    assert_eq!(story(&run(jumping)), story(&straight));
}
