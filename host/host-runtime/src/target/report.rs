//! What a target shows of itself to an operator.

use super::machine::Target;
use super::record::{Committed, Phase};
use crate::plugin::capability;
use crate::types::{FileId, ImageInfo, TargetState};

/// One target in `otad status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TargetReport {
    /// Name from the configuration.
    pub name: String,
    /// Its file id.
    pub file_id: FileId,
    /// Plugin label, name and version.
    pub plugin: String,
    /// Where the transfer stands: `none`, `creating`, `receiving`, `closed`, `verified`, `installed`, `activating`,
    /// `activated`, `committing`, `committed`, `rejecting`, `rejected`; `damaged` if its record cannot be read.
    pub phase: String,
    /// Job of the transfer.
    pub job_id: Option<String>,
    /// Size of the transfer's file.
    pub size: u64,
    /// Bytes held.
    pub held: u64,
    /// Operation under way.
    pub operation: Option<String>,
    /// What the target said last about itself.
    pub state: Option<TargetState>,
    /// Broken calls of the plugin in this transfer.
    pub strikes: u32,
    /// The last committed image, as far as the host knows.
    pub committed: Option<ImageInfo>,
    /// What an operator should know: a damaged record, unsigned images allowed, no revert.
    pub warnings: Vec<String>,
}

impl Target {
    /// For `otad status`.
    pub(super) fn report(&self) -> TargetReport {
        let transfer = self.record.transfer.as_ref();
        let description = self.plugin.description();
        let mut warnings = Vec::new();
        warnings.extend(self.damage.as_ref().map(|damage| damage.detail.clone()));
        if self.config.trust.allows_unsigned() {
            warnings.push("unsigned images are taken (development setting)".to_owned());
        }
        if !description.can(capability::REVERT) {
            warnings.push(
                "an uncommitted image does not go away by itself (plugin without revert)"
                    .to_owned(),
            );
        }
        let is_external = self
            .config
            .agent_settings
            .iter()
            .any(|s| s.key == "self_test" && s.value == "external");
        if self.config.health.is_none() && !is_external {
            warnings.push(
                "neither a health command nor an external test: a new image that stays up counts as good"
                    .to_owned(),
            );
        }
        let size = transfer.map_or(0, |t| t.spec.size);
        TargetReport {
            name: self.config.name.clone(),
            file_id: self.config.file_id,
            plugin: format!(
                "{} ({} {})",
                self.plugin.label(),
                description.name,
                description.version
            ),
            phase: match &self.damage {
                Some(_) => "damaged",
                None => self.phase().map_or("none", Phase::name),
            }
            .to_owned(),
            job_id: transfer.map(|t| t.spec.job_id.clone()),
            size,
            held: match (&self.map, self.phase()) {
                (Some(map), _) => map.held_bytes(),
                (None, Some(Phase::Creating | Phase::Receiving) | None) => 0,
                (None, Some(_)) => size,
            },
            operation: self.op.as_ref().map(|op| op.kind.name().to_owned()),
            state: self.last_state,
            strikes: self.plugin.strikes(),
            committed: self.record.committed.as_ref().map(Committed::info),
            warnings,
        }
    }
}
