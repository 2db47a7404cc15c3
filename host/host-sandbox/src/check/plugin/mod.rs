//! Plugins judged at their boundary: scripts of what a host does with a plugin and its storage, and of the answers.
//!
//! Not here: the targets of the real host (`host_runtime::target`), which keep a bad plugin from doing harm; here it is
//! found.

mod bench;
mod board;
mod device;
mod input;
pub(crate) mod judge;
mod launcher;

use std::sync::Arc;

use host_runtime::plugin::PluginFactory;
use host_runtime::types::Setting;

use super::script::{self, File, ScriptError};
use super::verdict::Report;
use bench::{Bench, Broken, End};

/// The case files, by their names in `cases/plugin/`.
const FILES: [(&str, &str); 8] = [
    (
        "blocks.txt",
        include_str!("../../../cases/plugin/blocks.txt"),
    ),
    (
        "duties.txt",
        include_str!("../../../cases/plugin/duties.txt"),
    ),
    ("life.txt", include_str!("../../../cases/plugin/life.txt")),
    (
        "own-reset.txt",
        include_str!("../../../cases/plugin/own-reset.txt"),
    ),
    ("power.txt", include_str!("../../../cases/plugin/power.txt")),
    (
        "serial-mcu.txt",
        include_str!("../../../cases/plugin/serial-mcu.txt"),
    ),
    (
        "staged.txt",
        include_str!("../../../cases/plugin/staged.txt"),
    ),
    (
        "trouble.txt",
        include_str!("../../../cases/plugin/trouble.txt"),
    ),
];

/// All case files.
///
/// # Errors
/// One of them is no script.
pub fn files() -> Result<Vec<File>, ScriptError> {
    FILES
        .iter()
        .map(|(name, text)| script::parse(name, text))
        .collect()
}

/// Whether nobody tried to restart, commit or reject what a direct plugin had marked: the cases end before, as the plugin
/// cannot restart its target, and who starts it is not known here.
#[must_use]
pub fn ends_before_a_start(report: &Report) -> bool {
    judge::ends_before_a_start(report)
}

/// Whether a plugin begins life with these settings.
///
/// # Errors
/// What it says itself, or how it broke.
pub fn begins(factory: &Arc<dyn PluginFactory>, settings: &[Setting]) -> Result<(), String> {
    match Bench::new(factory, settings).open(&[], None) {
        Ok(End::Done(_)) => Ok(()),
        Ok(End::Failed(failure)) => Err(failure.to_string()),
        Err(Broken(reason)) => Err(reason),
    }
}
