//! How long the host takes to be rid of each plugin of `tests/hostile.md` that breaks: from the call to its end, in which the
//! instance, or its process, is gone: `cargo run --release -p e2e --example hostile`.
//!
//! It measures and judges nothing; what becomes of each plugin is for the tests.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "figures for people; what cannot be set up has nothing to measure; a latency is time"
)]

use std::time::Instant;

use e2e::hostile::{call, in_both_carriers, library, process, rows};
use host_runtime::engine::EngineOptions;
use host_runtime::plugin::native::{Confinement, NativePlugin};
use host_runtime::plugin::{PluginError, PluginFactory};

fn measure(carrier: &str, plugin: &dyn PluginFactory, deed: &str, verb: &str) {
    let began = Instant::now();
    let end = call(plugin, deed, verb);
    let took = began.elapsed();
    let end = match end {
        Ok(()) => "goes on".to_owned(),
        Err(PluginError::Failed(failure)) => format!("fails: {failure}"),
        Err(PluginError::Broken(reason)) => format!("breaks: {reason}"),
    };
    let end: String = end.chars().take(100).collect();
    println!("{carrier:<10} {deed:<18} {took:>10.1?}  {end}");
}

fn main() {
    let carriers = in_both_carriers(&EngineOptions::default());
    for row in rows("hostile-calls") {
        for (carrier, plugin) in &carriers {
            measure(carrier, &**plugin, &row[0], &row[2]);
        }
    }
    let library = NativePlugin::load("hostile.so", library(), process(Confinement::default()));
    let library = library.unwrap();
    for row in rows("hostile-broken") {
        measure("C", &*library, &row[0], "state");
    }
}
