//! One plugin with one bug, many times: `otad check` finds each of them, and finds nothing in the one without.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::first_finding;
use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::plugin::lend::{Lent, PluginLog};
use host_runtime::plugin::{ComponentPlugin, PluginError, PluginFactory};
use host_runtime::ports::clock::{Clock, SystemClock};
use host_runtime::types::Setting;
use host_sandbox::check::script::Case;
use host_sandbox::check::{Options, Subject, plugin_cases, run};

/// The bugs: `pal-flash-file` with feature `mutants` has what each does.
const MUTANTS: [&str; 38] = [
    "forgets-sync",
    "ignores-sync-error",
    "ignores-write-error",
    "shifts-blocks",
    "cuts-blocks",
    "loses-last-block",
    "takes-first-block",
    "wants-order",
    "takes-any-block",
    "forgets-transfer",
    "short-extents",
    "double-extents",
    "running-extents",
    "moving-extents",
    "endless-extents",
    "takes-too-large",
    "marks-early",
    "activates-once",
    "activates-other",
    "commits-unseen",
    "commits-nothing",
    "rejects-nothing",
    "rejects-once",
    "always-valid",
    "always-new",
    "wrong-answer",
    "unknown-code",
    "endless-step",
    "endless-loop",
    "sleeps-for-ever",
    "hoards-memory",
    "calls-without-end",
    "traps-in-abort",
    "touches-in-open",
    "other-schema",
    "one-copy",
    "passes-at-once",
    "keeps-going",
];

fn plugin() -> Arc<dyn PluginFactory> {
    let engine = Engine::new(&EngineOptions::default()).expect("the engine runs here");
    let bytes = guest_artifacts::FLASH_FILE_MUTANTS;
    assert!(!bytes.is_empty(), "this test needs guests built from here");
    ComponentPlugin::load(&engine, "mutants", bytes).expect("it loads like any other")
}

fn settings(mutant: &str) -> Vec<Setting> {
    vec![Setting {
        key: "mutant".to_owned(),
        value: mutant.to_owned(),
    }]
}

/// What is found in the plugin with this bug.
fn found(factory: &Arc<dyn PluginFactory>, mutant: &str, cases: &[Case]) -> Option<String> {
    let subject = Subject::Plugin {
        factory: Arc::clone(factory),
        settings: settings(mutant),
    };
    first_finding(&subject, cases)
}

#[test]
fn every_bug_is_found() {
    let factory = plugin();
    let mut cases = plugin_cases().unwrap();
    // The one that takes a second comes last: few bugs get so far.
    cases.sort_by_key(|case| case.name.contains("hour"));
    let next = AtomicUsize::new(0);
    let hunt = || {
        let mut missed = Vec::new();
        while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            match found(&factory, mutant, &cases) {
                Some(what) => println!("{mutant}: {what}"),
                None => missed.push(*mutant),
            }
        }
        missed
    };
    let missed: Vec<&str> = std::thread::scope(|scope| {
        let hunters = [scope.spawn(hunt), scope.spawn(hunt)];
        let missed = hunters.map(|hunter| hunter.join().unwrap());
        missed.concat()
    });
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_plugin_that_takes_one_block_a_call_is_found_by_the_cases_of_several_and_by_no_other() {
    let factory = plugin();
    let cases = plugin_cases().unwrap();
    let finds = |case: &&Case| {
        let case = std::slice::from_ref(*case);
        found(&factory, "takes-first-block", case).is_some()
    };
    let finders: Vec<&str> = cases.iter().filter(finds).map(|c| &*c.name).collect();
    assert_eq!(
        finders,
        [
            "blocks-that-lie-side-by-side-come-in-one-call",
            "the-last-block-of-several-in-one-call-may-be-shorter",
            "several-blocks-in-one-call-begin-anywhere",
            "several-blocks-that-a-busy-storage-refuses-are-brought-again",
            "several-blocks-again-after-a-restart-are-taken",
            "several-blocks-across-the-end-of-the-file-are-refused",
        ]
    );
}

#[test]
fn the_plugin_without_a_bug_passes_and_the_list_is_whole() {
    let factory = plugin();
    let subject = Subject::Plugin {
        factory: Arc::clone(&factory),
        settings: Vec::new(),
    };
    let options = Options {
        jobs: NonZeroUsize::new(2).unwrap(),
        exact: true,
    };
    let cases = plugin_cases().unwrap();
    let report = run(&subject, &cases, options, &SystemClock::new(), |_| {});
    assert!(report.is_fit(), "{report:#?}");
    // It says how many bugs it has when it is asked for one that it has not.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let lent = Lent {
        block_device: None,
        staged_image: None,
        serial_line: None,
        hardware_reset: None,
        wake: Arc::new(|| {}),
        log: Arc::new(PluginLog::new("d/t".to_owned(), Arc::clone(&clock))),
        clock,
    };
    // What it imports must be lent even to be refused.
    let made = factory.make(lent);
    assert!(matches!(made, Err(PluginError::Broken(_))));
    let names: std::collections::BTreeSet<&str> = MUTANTS.into_iter().collect();
    assert_eq!(names.len(), MUTANTS.len());
    assert!(names.len() >= 20);
}

#[test]
fn what_a_plugin_said_before_it_trapped_goes_with_the_finding() {
    let cases = plugin_cases().unwrap();
    let what = found(&plugin(), "traps-in-abort", &cases).unwrap();
    let (words, trap) = ("last words `panicked at ", "the guest trapped");
    assert!(what.contains(words) && what.contains(trap), "{what}");
}
