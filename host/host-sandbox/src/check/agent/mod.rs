//! Agents judged at their boundary: scripts of what happens to an agent, and of what it must do then.
//!
//! [`world`] plays the inputs to any [`AgentBuild`](host_runtime::agent::AgentBuild) and writes down what it orders;
//! [`judge`] holds that against the script, as far as the contract binds. The world knows MQTT payloads, blocks and
//! targets only as far as a script needs. Not here: the real targets and services (`crate::world`).

pub mod input;
pub mod judge;
pub mod model;
pub mod order;
pub mod wire;
pub mod world;

mod fact;

use host_runtime::engine::GuestFault;

use super::script::{self, File, ScriptError};

/// The case files, by their names in `cases/agent/`.
const FILES: [(&str, &str); 13] = [
    (
        "answer.txt",
        include_str!("../../../cases/agent/answer.txt"),
    ),
    (
        "by-url.txt",
        include_str!("../../../cases/agent/by-url.txt"),
    ),
    (
        "command.txt",
        include_str!("../../../cases/agent/command.txt"),
    ),
    (
        "document.txt",
        include_str!("../../../cases/agent/document.txt"),
    ),
    ("fault.txt", include_str!("../../../cases/agent/fault.txt")),
    (
        "hostile.txt",
        include_str!("../../../cases/agent/hostile.txt"),
    ),
    ("job.txt", include_str!("../../../cases/agent/job.txt")),
    (
        "network.txt",
        include_str!("../../../cases/agent/network.txt"),
    ),
    ("parse.txt", include_str!("../../../cases/agent/parse.txt")),
    (
        "self-test.txt",
        include_str!("../../../cases/agent/self-test.txt"),
    ),
    (
        "transfer.txt",
        include_str!("../../../cases/agent/transfer.txt"),
    ),
    (
        "update.txt",
        include_str!("../../../cases/agent/update.txt"),
    ),
    (
        "way-out.txt",
        include_str!("../../../cases/agent/way-out.txt"),
    ),
];

/// Why a case cannot be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The script is no script.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The agent did what no script may allow, or the script asks for what is not there.
    #[error("{0}")]
    Misbehaved(String),
    /// The instance is gone.
    #[error("the agent broke in `{call}`: {fault}")]
    Broken {
        /// The export.
        call: &'static str,
        /// How.
        fault: GuestFault,
    },
}

impl Error {
    fn broken(call: &'static str) -> impl FnOnce(GuestFault) -> Self {
        move |fault| Self::Broken { call, fault }
    }
}

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
