//! The process groups of the commands under way, so that none outlives what it was started for.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

/// Kill every command that this process runs, with all of its group: for a process that ends without ending its runtime.
pub fn kill_all() {
    for group in groups().iter() {
        kill(*group);
    }
}

/// The process groups of the commands under way.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn groups() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // It may have ended in between.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// The process group of a command under way; dropped before the command has ended, it is killed.
pub(super) struct Group(i32);

impl Group {
    pub(super) fn of(child: &tokio::process::Child) -> Option<Self> {
        let id = i32::try_from(child.id()?).ok()?;
        groups().insert(id);
        Some(Self(id))
    }

    /// The command has ended by itself: what it has left behind is meant to stay.
    pub(super) fn leave(self) {
        groups().remove(&self.0);
        std::mem::forget(self);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.0);
        groups().remove(&self.0);
    }
}
