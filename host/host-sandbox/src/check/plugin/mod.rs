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

use super::script::{self, File, ScriptError};

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
