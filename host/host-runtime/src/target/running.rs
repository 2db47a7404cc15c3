//! What runs, where the target cannot say it: the last committed image, as long as the target says that this is what runs.
//!
//! The agent refuses a version that is no newer than the running one, if it hears of one. A slot that was damaged has lost
//! its version, and some plugins read none: neither may let a downgrade through. But a damaged image may be brought once
//! more: of that one the agent is told no version, and the host itself refuses what is older.

use super::image::Glance;
use super::judge::{INVALID, VALID};
use super::machine::Target;
use super::record::{Committed, Phase, StoredExtent};
use crate::plugin::capability;
use crate::types::{Failure, TargetState, Version, code};

/// Setting of the agent's: neither a lower nor the same version is refused.
const ALLOW_DOWNGRADE: &str = "allow_downgrade";

impl Target {
    /// The plugin has said this of the target: is the image still what was committed?
    pub(super) fn look_at_running(&mut self, state: &TargetState) {
        let damaged = self.is_damaged(state);
        if damaged && !self.image_damaged {
            tracing::warn!(device = %self.device, target = %self.config.name, "{}", self.damaged_image());
        }
        self.image_damaged = damaged;
    }

    /// The version that runs, from the target or from the record.
    pub(super) fn known_running(&self, state: &TargetState) -> Option<Version> {
        let committed = || self.running_committed(state)?.image.version;
        state.running.or_else(committed)
    }

    /// Refuse an image that is older than a damaged one: the agent was told of nothing to compare with.
    pub(super) fn check_downgrade(&self, new: Option<Version>) -> Result<(), Failure> {
        let committed = self.record.committed.as_ref();
        let old =
            committed.filter(|_| self.image_damaged && !self.config.says(ALLOW_DOWNGRADE, "true"));
        match new.zip(old.and_then(|committed| committed.image.version)) {
            Some((new, old)) if new < old => Err(Failure::new(
                code::DOWNGRADE,
                0,
                format!(
                    "version {new} is older than {old}, which was committed and is damaged; bring {old} once more or a \
                     newer one, or set `{ALLOW_DOWNGRADE} = true` for the target"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What an operator should know of a damaged image.
    pub(super) fn damaged_image(&self) -> String {
        let committed = self.record.committed.as_ref();
        let version = committed.and_then(|committed| committed.image.version);
        let version = version.map_or_else(String::new, |version| format!(" {version}"));
        let regions = committed.map_or_else(String::new, |committed| committed.regions.join(", "));
        format!(
            "the running image is damaged: `{regions}` does not hold the committed version{version} any more, which will not \
             start again; bring it once more or a newer one by a job, or lay it down with `otad target init --force`"
        )
    }

    /// The committed image, if the target says that it runs.
    fn running_committed(&self, state: &TargetState) -> Option<&Committed> {
        let in_test = self.phase().is_some_and(Phase::in_test);
        let runs = match state.code {
            VALID => !in_test,
            INVALID => !in_test && state.runs_new == Some(false),
            _ => false,
        };
        self.record.committed.as_deref().filter(|_| runs)
    }

    /// Whether it is the committed image that runs, and its version is gone. A plugin that can tell a version may not be
    /// able to tell this image's; so the host looks for itself.
    fn is_damaged(&self, state: &TargetState) -> bool {
        let can_tell = self.plugin.description().can(capability::RUNNING_VERSION);
        let silent = self.is_direct() && can_tell && state.running.is_none();
        self.running_committed(state)
            .filter(|committed| silent && committed.image.version.is_some())
            .is_some_and(|committed| self.has_lost(committed) == Some(true))
    }

    /// Whether the slot of the committed image has another version by now, or none; `None` = this host cannot tell.
    fn has_lost(&self, committed: &Committed) -> Option<bool> {
        let region = match committed.regions.as_slice() {
            // It was brought to no slot, by a staged plugin.
            [] => return None,
            // The plugin has read it from these bytes when they came, and nobody else can look.
            _ if self.reads_by_plugin() => return Some(true),
            [region] => region,
            // In several regions it may lie in any way.
            _ => return None,
        };
        let size = committed.image.size;
        let all = StoredExtent {
            region: region.clone(),
            offset: 0,
            length: size,
        };
        let layout = self.regions.layout(&self.regions.to_extents(&[all])?);
        let mut glance = Glance::new(&self.config.version_from, size);
        let (offset, length) = glance.wants();
        if length == 0 {
            return None;
        }
        let mut bytes = vec![0; length];
        let read = layout.read_at(offset, &mut bytes);
        glance.update(offset, &bytes);
        let facts = read.ok().and_then(|()| glance.finish(size).ok());
        Some(facts.and_then(|facts| facts.version) != committed.image.version)
    }
}
