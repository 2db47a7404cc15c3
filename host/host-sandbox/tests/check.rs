//! What ships passes every case, and what differs only in what the contract leaves open passes too.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use host_runtime::agent::AgentBuild;
use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::plugin::ComponentPlugin;
use host_runtime::ports::clock::SystemClock;
use host_sandbox::check::verdict::{Report, Verdict};
use host_sandbox::check::{Options, Subject, run};
use host_sandbox::native_agent;

fn check(subject: &Subject, exact: bool) -> Report {
    let cases = subject.cases().expect("the case files are scripts");
    let jobs = NonZeroUsize::new(2).expect("two are not none");
    run(
        subject,
        &cases,
        Options { jobs, exact },
        &SystemClock::new(),
        |_| {},
    )
}

/// What did not pass, in words.
fn trouble(report: &Report) -> String {
    let bad = report
        .cases
        .iter()
        .filter(|case| !matches!(case.verdict, Verdict::Passed | Verdict::Skipped(_)));
    bad.map(|case| format!("{}: {:#?}\n", case.name, case.verdict))
        .collect()
}

#[test]
fn the_shipped_agent_passes_every_case() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let agent = AgentBuild::load(&engine, "builtin:agent", guest_artifacts::AGENT).unwrap();
    let report = check(&Subject::Agent(agent), true);
    assert!(report.is_fit(), "{}", trouble(&report));
    assert!(report.count("passed") >= 120);
    assert_eq!(report.count("skipped"), 0);
}

#[test]
fn the_shipped_plugin_passes_every_case() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let bytes = guest_artifacts::FLASH_FILE;
    let factory = ComponentPlugin::load(&engine, "builtin:flash-file", bytes).unwrap();
    let subject = Subject::Plugin {
        factory,
        settings: Vec::new(),
    };
    let report = check(&subject, true);
    assert!(report.is_fit(), "{}", trouble(&report));
    assert!(report.count("passed") >= 40);
}

#[test]
fn the_shipped_plugin_for_mcus_passes_every_case_with_an_mcu_on_the_line() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let bytes = guest_artifacts::SERIAL_MCU;
    let factory = ComponentPlugin::load(&engine, "builtin:serial-mcu", bytes).unwrap();
    let subject = Subject::Plugin {
        factory,
        settings: Vec::new(),
    };
    let report = check(&subject, true);
    assert!(report.is_fit(), "{}", trouble(&report));
    let cases = subject.cases().expect("the case files are scripts");
    let of_mcus = cases
        .iter()
        .filter(|case| case.file.ends_with("serial-mcu.txt"));
    let names: BTreeSet<&str> = of_mcus.map(|case| case.name.as_str()).collect();
    assert!(!names.is_empty());
    let passed = report
        .cases
        .iter()
        .filter(|case| matches!(case.verdict, Verdict::Passed));
    let passed: BTreeSet<&str> = passed.map(|case| case.name.as_str()).collect();
    let skipped: Vec<_> = names.difference(&passed).collect();
    assert!(skipped.is_empty(), "{skipped:?}");
}

#[test]
fn agent_core_in_this_process_passes_every_case() {
    let agent: Arc<AgentBuild> = native_agent();
    let report = check(&Subject::Agent(agent), true);
    assert!(report.is_fit(), "{}", trouble(&report));
}
