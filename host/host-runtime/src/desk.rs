//! What a device and its targets work with: who they are, where their books lie, who does what takes long. One for all.

use std::sync::Arc;

use crate::names::state_name;
use crate::ports::clock::Clock;
use crate::ports::commands::Commands;
use crate::ports::state_dir::StateDir;
use crate::ports::workers::{Wake, Workers};

/// The desk of a device.
pub(crate) struct Desk {
    pub(crate) device: Arc<str>,
    pub(crate) state: Arc<dyn StateDir>,
    pub(crate) workers: Arc<dyn Workers>,
    pub(crate) commands: Arc<dyn Commands>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) wake: Wake,
}

impl Desk {
    /// The name of one of the device's files in the state directory.
    pub(crate) fn file(&self, leaf: &str) -> String {
        state_name(&self.device, leaf)
    }
}
