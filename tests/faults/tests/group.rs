//! One job for the gateway's own software and two secondary MCUs behind the shipped plugin: whatever is cut, at rest all
//! three are new or all three old, and the job says which. Counts grow with `OTAD_WORLD_RUNS`; from 10,000 on every cut is
//! made.

use std::sync::{Arc, OnceLock};

use host_runtime::plugin::PluginFactory;
use host_sandbox::explore::{self, Found};
use host_sandbox::scenario::{Prepared, Scenario, secondary};
use host_sandbox::{Options, Shipped};

/// Runs of each test: few unless somebody asks for more.
fn runs() -> usize {
    let asked = std::env::var("OTAD_WORLD_RUNS").ok();
    let asked = asked.and_then(|text| text.parse().ok());
    asked.unwrap_or(20).max(1)
}

/// Of so many runs that there are, one of how many is made.
fn stride(there_are: usize) -> usize {
    if runs() >= 10_000 {
        1
    } else {
        there_are.div_ceil(runs())
    }
}

fn options(seed: u64) -> Options {
    static PLUGIN: OnceLock<Arc<dyn PluginFactory>> = OnceLock::new();
    let plugin = PLUGIN.get_or_init(|| Shipped::load_mcu_pal().expect("it is shipped"));
    Options {
        mcu_pal: Some(Arc::clone(plugin)),
        ..Options::native(seed)
    }
}

fn stories() -> [Prepared; 2] {
    secondary().map(Scenario::prepare)
}

#[expect(clippy::print_stdout, reason = "figures, with --nocapture")]
fn check(what: &str, prepared: &Prepared, found: &Found) {
    let name = &prepared.scenario.name;
    if let Some(failed) = found.failed.first() {
        let cuts: Vec<_> = failed.cuts.iter().map(ToString::to_string).collect();
        let of_mcus: Vec<_> = failed.mcu_cuts.iter().map(ToString::to_string).collect();
        panic!(
            "{name}, {what}: {} of {} runs failed, {cuts:?} {of_mcus:?}: {:#?}",
            found.failures, found.runs, failed.violations
        );
    }
    println!(
        "{name}, {what}: {} calls, {} runs, {} cuts, {} cuts and resets of MCUs",
        found.calls, found.runs, found.cuts, found.mcu_cuts
    );
}

#[test]
fn a_job_for_three_targets_ends_as_it_should() {
    for prepared in stories() {
        let options = Options {
            trace: true,
            ..options(1)
        };
        let report = explore::run(&prepared, options);
        assert_eq!(report.violations, [], "{report:#?}");
        assert!(
            report.mcus.iter().all(|mcu| mcu.flash_operations > 20),
            "{:?}",
            report.mcus
        );
    }
}

#[test]
fn every_kill_and_power_cut_of_the_gateway_leaves_the_group_whole() {
    for prepared in stories() {
        let found = explore::every_cut(&prepared, &options(1), stride(3000));
        check("gateway", &prepared, &found);
    }
}

#[test]
fn every_power_cut_of_one_mcu_leaves_the_group_whole() {
    for prepared in stories() {
        let found = explore::every_mcu_cut(&prepared, &options(1), stride(800));
        assert!(found.mcu_cuts >= found.runs - 1, "{found:?}");
        check("one MCU", &prepared, &found);
    }
}

#[test]
fn every_power_cut_of_gateway_and_mcus_leaves_the_group_whole() {
    let options = Options {
        shared_power: true,
        ..options(1)
    };
    for prepared in stories() {
        let found = explore::every_cut(&prepared, &options, stride(3000));
        check("gateway and MCUs", &prepared, &found);
    }
}
