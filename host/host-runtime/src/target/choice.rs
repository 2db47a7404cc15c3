//! Which plugin build serves a target, once an operator has put another one in the place of the configured one.
//!
//! `plugin.json` beside the target's record: written before a build takes over, when it is sent back and when its trial
//! is over, so that a start after a kill at any instant finds either build, and knows whether the one that serves is still
//! on trial. The bytes of a build are whoever's who makes the factories; here they have a label and a digest. Not here:
//! when a build takes over (`swap.rs`).

use std::io;

use serde::{Deserialize, Serialize};

use super::names::{PLUGIN, state_name};
use super::serial;
use crate::plugin::PluginFactory;
use crate::ports::state_dir::StateDir;

/// Encoding of the file; another one is refused. Within one, members are only added, with a default.
const FORMAT: u32 = 1;

/// A build, by its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginBuild {
    /// Where it came from: `builtin:flash-file`, a path.
    pub label: String,
    /// SHA-256 of its bytes; zeros for one that is part of this process.
    #[serde(with = "serial::hex32")]
    pub sha256: [u8; 32],
}

impl PluginBuild {
    /// The names of a build that is loaded.
    #[must_use]
    pub fn of(plugin: &dyn PluginFactory) -> Self {
        Self {
            label: plugin.label().to_owned(),
            sha256: *plugin.digest(),
        }
    }
}

/// What was chosen for a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginChoice {
    /// Label of the build that the configuration named at that time: another one there ends the choice.
    pub configured: String,
    /// The build that serves.
    pub serves: PluginBuild,
    /// The build before it: what a roll-back goes to.
    #[serde(default)]
    pub former: Option<PluginBuild>,
    /// The build that serves has not brought a transfer to its end yet: a break of its sends it back.
    #[serde(default)]
    pub on_trial: bool,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    #[serde(flatten)]
    choice: PluginChoice,
}

/// What was chosen for a target; none = the configured build.
///
/// # Errors
/// What the medium says, and `InvalidData` for a file that is damaged or of another format.
pub fn load(state: &dyn StateDir, device: &str, target: &str) -> io::Result<Option<PluginChoice>> {
    let Some(bytes) = state.load(&state_name(device, target, PLUGIN))? else {
        return Ok(None);
    };
    let file: File = serde_json::from_slice(&bytes)?;
    if file.format != FORMAT {
        let text = format!("format {}, this build reads {FORMAT}", file.format);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Some(file.choice))
}

/// The configured build serves again.
///
/// # Errors
/// What the medium says.
pub fn forget(state: &dyn StateDir, device: &str, target: &str) -> io::Result<()> {
    store(state, device, target, None)
}

/// Write it down; durable when it returns.
pub(super) fn store(
    state: &dyn StateDir,
    device: &str,
    target: &str,
    choice: Option<&PluginChoice>,
) -> io::Result<()> {
    let name = state_name(device, target, PLUGIN);
    let Some(choice) = choice else {
        return state.remove(&name);
    };
    let file = File {
        format: FORMAT,
        choice: choice.clone(),
    };
    state.store(&name, &serde_json::to_vec(&file)?)
}
