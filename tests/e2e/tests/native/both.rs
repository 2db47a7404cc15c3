//! One source of evil in both carriers: each ends the instance, or its call, and the host says why. Rows of `tests/hostile.md`.

use std::thread;

use e2e::hostile::{call, in_both_carriers, rows};
use host_runtime::engine::EngineOptions;
use host_runtime::plugin::PluginError;

/// What a cell says of an end: `breaks: WORDS` or `fails: WORDS`.
fn judge(cell: &str, end: Result<(), PluginError>) -> Result<(), String> {
    let wrong = |end: &dyn std::fmt::Debug| Err(format!("told `{cell}`, found {end:?}"));
    let told = cell.split_once(": ");
    match (told, end) {
        (Some(("breaks", words)), Err(PluginError::Broken(reason))) if reason.contains(words) => {
            Ok(())
        }
        (Some(("fails", words)), Err(PluginError::Failed(failure)))
            if failure.to_string().contains(words) && failure.detail.len() <= 1024 =>
        {
            Ok(())
        }
        (_, end) => wrong(&end),
    }
}

#[test]
fn a_plugin_that_uses_more_than_it_may_is_ended_in_either_carrier() {
    let carriers = in_both_carriers(&EngineOptions::default());
    let rows = rows("hostile-calls");
    let check = |row: &[String]| -> Vec<String> {
        let (deed, verb) = (&row[0], &row[2]);
        let cells = [&row[3], &row[4]];
        let judged = carriers.iter().zip(cells).map(|((carrier, plugin), cell)| {
            let end = judge(cell, call(&**plugin, deed, verb));
            // Others of the same build are none the worse.
            call(&**plugin, "shouts", "suspend").expect("another instance works");
            end.err().map(|what| format!("{deed} ({carrier}): {what}"))
        });
        judged.flatten().collect()
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let checks = rows.iter().map(|row| scope.spawn(|| check(row)));
        let checks: Vec<_> = checks.collect();
        checks
            .into_iter()
            .flat_map(|check| check.join().expect("a call ends"))
            .collect()
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}
