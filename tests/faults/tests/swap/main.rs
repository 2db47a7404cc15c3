//! Another build at every instant of an update: at each call that the host makes, at random instants, and with the power or the
//! process failing meanwhile. Counts grow with `OTAD_SWAPS`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host_sandbox::explore;
use host_sandbox::random::Random;
use host_sandbox::scenario::{Ending, Prepared, Quality, by_name};
use host_sandbox::{Options, Report, Swap};

mod agent;
mod plugin;

/// Swaps of a run with random instants.
const IN_A_RUN: u64 = 20;

/// Swaps of the tests with random instants: few unless somebody asks for more.
fn swaps() -> u64 {
    let asked = std::env::var("OTAD_SWAPS").ok();
    asked
        .and_then(|text| text.parse().ok())
        .unwrap_or(200)
        .max(1)
}

fn scenario(name: &str) -> Prepared {
    by_name(name).expect("it is a standard scenario").prepare()
}

/// An update whose image does not get through its test.
fn going_back() -> Prepared {
    let mut back = by_name("short").expect("it is a standard scenario");
    back.name = "short-unhealthy".to_owned();
    back.files[0].quality = Quality::Unhealthy;
    back.ending = Ending::Kept("");
    back.prepare()
}

fn run(prepared: &Prepared, options: &Options, swaps: Vec<Swap>) -> Report {
    let options = Options {
        swaps,
        ..options.clone()
    };
    explore::run(prepared, options)
}

/// Calls of the run without a swap.
fn calls(prepared: &Prepared, options: &Options) -> u64 {
    let report = run(prepared, options, Vec::new());
    assert_eq!(report.violations, []);
    report.verbs.len() as u64
}

/// Of so many calls those at which a component is swapped, which takes its time.
fn some_of(calls: u64) -> impl Iterator<Item = u64> {
    let stride = if swaps() >= calls {
        1
    } else {
        calls.div_ceil(20)
    };
    (0..calls).step_by(usize::try_from(stride).expect("calls are few"))
}

/// Random instants of a run, in order.
fn instants(prepared: &Prepared, options: &Options) -> Vec<u64> {
    let calls = calls(prepared, options);
    let mut random = Random::stream(options.seed, "swaps");
    let mut instants: Vec<u64> = (0..IN_A_RUN).map(|_| random.below(calls)).collect();
    instants.sort_unstable();
    instants
}

/// How many of a run's builds served. Of two at the same instant the second one is told that a swap is under way.
fn served(report: &Report, seed: u64) -> u64 {
    for reason in report.swaps.iter().flatten() {
        assert!(reason.contains("is under way"), "seed {seed}: {reason}");
    }
    let served = report.swaps.iter().filter(|end| end.is_none()).count() as u64;
    assert!(served > 0, "seed {seed}: {:?}", report.swaps);
    served
}

/// Swaps at random instants of updates until there were enough: nothing is lost, and no old instance lives on. `swap` makes the
/// n-th build of an update for a call, and shares the count of its instances.
fn many_swaps(
    swap: impl Fn(u8, u64) -> (Swap, Arc<AtomicU64>),
    check: impl Fn(&Prepared, &Report, u64),
) {
    let prepared = scenario("plain");
    let mut done = 0;
    let mut seed = 0;
    while done < swaps() {
        seed += 1;
        let options = Options::native(seed);
        let instants = instants(&prepared, &options);
        let asked = (1..).zip(instants).map(|(number, call)| swap(number, call));
        let (asked, alive): (Vec<_>, Vec<_>) = asked.unzip();
        let report = run(&prepared, &options, asked);
        assert_eq!(report.violations, [], "seed {seed}");
        check(&prepared, &report, seed);
        done += served(&report, seed);
        let alive: u64 = alive.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        assert_eq!(alive, 0, "seed {seed}: an old instance lives on");
    }
}

/// Cut power and process at each call of an update with a swap early, in the middle and late.
fn every_cut_during_a_swap(at: impl Fn(u64) -> Swap) {
    let prepared = scenario("short");
    let plain = Options::native(1);
    let calls = calls(&prepared, &plain);
    for after in [calls / 4, calls / 2, calls * 3 / 4] {
        let options = Options {
            swaps: vec![at(after)],
            ..plain.clone()
        };
        let stride = if swaps() >= 10_000 { 1 } else { 23 };
        let found = explore::every_cut(&prepared, &options, stride);
        assert_eq!(found.failed, [], "swap after call {after}");
        assert!(found.cuts > 20, "{found:?}");
    }
}
