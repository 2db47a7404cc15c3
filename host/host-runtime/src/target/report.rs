//! What a target shows of itself to an operator.

use std::collections::BTreeMap;

use super::machine::Target;
use super::record::{Committed, Phase};
use crate::engine::Use;
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
    /// The plugin build that serves.
    #[serde(default)]
    pub build: BuildReport,
    /// Where the transfer stands: `none`, `creating`, `receiving`, `closed`, `verified`, `installed`, `activating`,
    /// `activated`, `committing`, `committed`, `rejecting`, `rejected`; `damaged` if its record cannot be read, or the target contradicts it.
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
    /// The committed image was running then, and its slot does not hold it any more.
    #[serde(default)]
    pub image_damaged: bool,
    /// The target runs another version than the one that is committed by its record.
    #[serde(default)]
    pub record_outdated: bool,
    /// Broken calls of the plugin in this transfer.
    pub strikes: u32,
    /// The last committed image, as far as the host knows.
    pub committed: Option<ImageInfo>,
    /// What an operator should know: a damaged record or image, a plugin that does not begin, unsigned images allowed, no
    /// revert.
    pub warnings: Vec<String>,
}

/// The plugin build that serves a target, in `otad plugin info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BuildReport {
    /// Where it came from.
    pub label: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its bytes, hexadecimal; zeros for one that is part of this process.
    pub sha256: String,
    /// SHA-256 of the manifest that vouches for it, hexadecimal: the same bytes may be signed for more than one use.
    #[serde(default)]
    pub manifest: Option<String>,
    /// Kinds of target that it serves.
    pub kinds: Vec<String>,
    /// Its capabilities, in words.
    pub capabilities: Vec<String>,
    /// Interfaces that it is lent.
    pub imports: Vec<String>,
    /// By what its carrier does not confine it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Label of the build before it, which a roll-back brings back.
    pub former: Option<String>,
    /// It has not committed or rejected an image yet: if it breaks, the build before it serves again.
    pub on_trial: bool,
    /// The build that was refused or sent back last, and why.
    pub refused: Option<String>,
    /// Builds that have taken over since the process started.
    pub swaps: u64,
    /// Another build is being tried, and takes over if it is no worse.
    #[serde(default)]
    pub swapping: bool,
    /// Broken calls in this transfer.
    pub strikes: u32,
    /// What it has used since it serves, as far as its carrier counts it: `calls` of it (`most` in one second), `fuel`,
    /// `host_calls`, `host_call_bytes` (`most` in one such call), `memory_bytes`, `table_elements`, `handles`, and through
    /// lent storage `bytes_moved`, `bytes_written` (of these) and `syncs`.
    pub account: BTreeMap<String, Use>,
}

impl Target {
    fn build_report(&self) -> BuildReport {
        let (usage, books) = (self.plugin.usage(), self.plugin.books());
        let account = [
            ("calls", self.plugin.calls()),
            ("fuel", usage.fuel),
            ("host_calls", usage.host_calls),
            ("host_call_bytes", usage.host_call_bytes),
            ("memory_bytes", usage.memory_bytes),
            ("table_elements", usage.table_elements),
            ("handles", usage.handles),
            ("bytes_moved", books.moved),
            ("bytes_written", books.written),
            ("syncs", books.syncs),
        ];
        // Neither used nor limited: not counted by this carrier.
        let counted = |(_, used): &(&str, Use)| *used != Use::default();
        let account = account.into_iter().filter(counted);
        let account = account.map(|(key, used)| (key.to_owned(), used));
        let (factory, former) = (&self.plugin.factory, self.plugin.former.as_ref());
        let description = factory.description();
        BuildReport {
            label: factory.label().to_owned(),
            name: description.name.clone(),
            version: description.version.clone(),
            sha256: host_crypto::hex(factory.digest()),
            manifest: factory.manifest().map(str::to_owned),
            kinds: description.kinds.clone(),
            capabilities: description.abilities(),
            imports: factory.imports().to_vec(),
            warnings: factory.caveats().to_vec(),
            former: former.map(|former| former.factory.label().to_owned()),
            on_trial: self.plugin.is_on_trial(),
            refused: self.refusal.clone(),
            swaps: self.swaps,
            swapping: self.swap.is_some(),
            strikes: self.plugin.strikes(),
            account: account.collect(),
        }
    }

    /// For `otad status`.
    pub(super) fn report(&self) -> TargetReport {
        let build = self.build_report();
        let transfer = self.record.transfer.as_ref();
        let description = self.plugin.description();
        let mut warnings = Vec::new();
        warnings.extend(self.damage.as_ref().map(|damage| damage.detail.clone()));
        warnings.extend(self.image_damaged.then(|| self.damaged_image()));
        let outdated = self.outdated_record();
        let record_outdated = outdated.is_some();
        warnings.extend(outdated);
        let closed = self.plugin.closed.as_ref();
        warnings.extend(closed.map(|why| {
            format!(
                "its plugin does not begin, so every job fails: {why}; mend the target's settings"
            )
        }));
        if self.own.trust.allows_unsigned() {
            warnings.push(
                "unsigned images are taken (development setting); take allow_unsigned_images out where it is no test"
                    .to_owned(),
            );
        }
        if !description.can(capability::REVERT) {
            warnings.push(
                "an uncommitted image does not go away by itself (plugin without revert); see that somebody can reach the target when an update goes wrong"
                    .to_owned(),
            );
        }
        let is_external = self.config.says("self_test", "external");
        if self.config.health.is_none() && !is_external && !self.config.is_asked {
            warnings.push(
                "neither a health command nor an external test: a new image that stays up counts as good; set `health` to a command that exits 0 if the program is well, or `self_test = \"external\"`"
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
            build,
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
            image_damaged: self.image_damaged,
            record_outdated,
            strikes: self.plugin.strikes(),
            committed: self.record.committed.as_deref().map(Committed::info),
            warnings,
        }
    }
}
