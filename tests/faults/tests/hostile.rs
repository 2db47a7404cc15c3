//! Evil plugins in whole updates, in both carriers: what the host must refuse it refuses, what it cannot live with ends the job,
//! and no invariant breaks. `tests/hostile.md` has a row for each; the rows are what is judged here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use host_runtime::engine::{EngineOptions, Time};
use host_runtime::plugin::PluginFactory;
use host_runtime::types::Setting;
use host_sandbox::judge::Violation;
use host_sandbox::scenario::{Ending, by_name};
use host_sandbox::{Options, explore};
use pal_flash_file::hostile::Deed;
use support::markdown::table;

#[path = "../../e2e/src/carriers.rs"]
#[allow(unreachable_pub, reason = "there it is a library's")]
mod carriers;

use carriers::in_both_carriers;

const HOSTILE: &str = include_str!("../../hostile.md");

/// A row: the plugin, whether the update succeeds, and what its reason has in it otherwise.
struct Row {
    deed: String,
    succeeds: bool,
    reason: String,
}

fn rows() -> Vec<Row> {
    let rows = table(HOSTILE, "hostile-updates").expect("the table is there");
    let row = |cells: Vec<String>| {
        let [deed, _, end, reason] = &cells[..] else {
            panic!("{cells:?}");
        };
        assert!(["succeeds", "fails"].contains(&&**end), "{cells:?}");
        Row {
            deed: deed.trim_matches('`').to_owned(),
            succeeds: end == "succeeds",
            reason: reason.trim_matches('`').to_owned(),
        }
    };
    rows.into_iter().map(row).collect()
}

#[test]
fn every_hostile_plugin_is_contained_in_a_whole_update() {
    let carriers = in_both_carriers(&EngineOptions {
        time: Time::Virtual,
        ..EngineOptions::default()
    });
    let rows = rows();
    let runs: Vec<_> = rows
        .iter()
        .flat_map(|row| carriers.iter().map(move |carrier| (row, carrier)))
        .collect();
    let play = |(row, (carrier, pal)): &(&Row, &(&str, Arc<dyn PluginFactory>))| {
        let mut scenario = by_name("short").expect("it is a standard scenario");
        if !row.succeeds {
            scenario.ending = Ending::Kept("");
        }
        let report = explore::run(
            &scenario.prepare(),
            Options {
                pal: Arc::clone(pal),
                pal_settings: vec![Setting {
                    key: "deed".to_owned(),
                    value: row.deed.clone(),
                }],
                ..Options::native(1)
            },
        );
        let reason = report.reason.unwrap_or_default();
        // A boot record is its plugin's, and may name what it likes; that no such thing is started is the launcher's.
        let is_its_mark = |what: &&Violation| {
            row.deed == "forges-mark" && what.detail.contains("is to start an unknown image")
        };
        let violations = report.violations.iter();
        let violations = violations.filter(|what| !is_its_mark(what));
        let mut wrong: Vec<String> = violations.map(ToString::to_string).collect();
        if !row.succeeds && (row.reason.is_empty() || !reason.contains(&row.reason)) {
            wrong.push(format!("its reason is `{reason}`"));
        }
        (!wrong.is_empty()).then(|| format!("{} ({carrier}): {wrong:?}", row.deed))
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(play(run));
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        let found = workers.map(|worker| worker.join().expect("a run ends"));
        found.concat()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_has_every_deed_and_says_what_it_is() {
    let tables = ["hostile-updates", "hostile-calls"];
    let rows = tables.map(|name| table(HOSTILE, name).expect("the table is there"));
    let told: BTreeMap<String, String> = rows
        .concat()
        .into_iter()
        .map(|cells| (cells[0].trim_matches('`').to_owned(), cells[1].clone()))
        .collect();
    let known: BTreeMap<String, String> = Deed::ALL
        .iter()
        .map(|(name, about, _)| ((*name).to_owned(), (*about).to_owned()))
        .collect();
    assert_eq!(told, known);
    assert_eq!(known.len(), Deed::ALL.len());
}
