//! A target's configuration as it is kept: what it has in common with others, once for all of them, and what is its own.

use std::sync::Arc;

use host_crypto::TrustPolicy;

use super::config::{
    FormerPlugin, Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, StorageFactory,
    TargetConfig, VersionReader,
};
use crate::common::Common;
use crate::plugin::PluginFactory;
use crate::plugin::lend::{HardwareReset, SerialLine};
use crate::ports::commands::Command;
use crate::ports::storage::Storage;
use crate::types::{FileId, Setting};

/// The setups of the targets of this process.
static SETUPS: Common<Setup> = Common::new();

/// What the operator says of targets of one kind; the members are those of [`TargetConfig`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) file_id: FileId,
    pub(super) plugin_settings: Vec<Setting>,
    pub(super) agent_settings: Vec<Setting>,
    regions: Vec<RegionSetup>,
    pub(super) version_from: VersionReader,
    pub(super) version_command: Option<Command>,
    pub(super) product: Option<String>,
    pub(super) hardware: Option<String>,
    pub(super) reset: ResetPolicy,
    pub(super) health: Option<Command>,
    pub(super) is_asked: bool,
    pub(super) inspect: Option<Command>,
    pub(super) allow_no_revert: bool,
    pub(super) paths: PathRule,
    pub(super) sync_bytes: u64,
    pub(super) limits: Limits,
}

/// A region without its bytes.
#[derive(Debug, PartialEq, Eq)]
struct RegionSetup {
    name: String,
    kind: RegionKind,
    erase_size: u32,
    write_size: u32,
    read_only: bool,
}

/// What is one target's alone.
#[derive(Clone)]
pub(super) struct Own {
    /// Of each region.
    storages: Arc<[Arc<dyn Storage>]>,
    pub(super) trust: Arc<TrustPolicy>,
    /// None where it has none of that.
    more: Option<Arc<More>>,
}

/// What only some targets have.
struct More {
    staging: Option<Arc<dyn StorageFactory>>,
    line: Option<Arc<dyn SerialLine>>,
    hardware_reset: Option<Arc<dyn HardwareReset>>,
}

impl Own {
    pub(super) fn staging(&self) -> Option<&Arc<dyn StorageFactory>> {
        self.more.as_ref()?.staging.as_ref()
    }

    pub(super) fn line(&self) -> Option<&Arc<dyn SerialLine>> {
        self.more.as_ref()?.line.as_ref()
    }

    pub(super) fn hardware_reset(&self) -> Option<&Arc<dyn HardwareReset>> {
        self.more.as_ref()?.hardware_reset.as_ref()
    }
}

/// The builds that serve a target.
pub(super) type Builds = (Arc<dyn PluginFactory>, Option<FormerPlugin>);

/// Take a configuration apart.
pub(super) fn apart(config: TargetConfig) -> (Arc<Setup>, Own, Builds) {
    let (regions, storages): (Vec<_>, Vec<_>) = config
        .regions
        .into_iter()
        .map(|region| {
            let setup = RegionSetup {
                name: region.name,
                kind: region.kind,
                erase_size: region.erase_size,
                write_size: region.write_size,
                read_only: region.read_only,
            };
            (setup, region.storage)
        })
        .unzip();
    let setup = Setup {
        name: config.name,
        file_id: config.file_id,
        plugin_settings: config.plugin_settings,
        agent_settings: config.agent_settings,
        regions,
        version_from: config.version_from,
        version_command: config.version_command,
        product: config.product,
        hardware: config.hardware,
        reset: config.reset,
        health: config.health,
        is_asked: config.is_asked,
        inspect: config.inspect,
        allow_no_revert: config.allow_no_revert,
        paths: config.paths,
        sync_bytes: config.sync_bytes,
        limits: config.limits,
    };
    let more = More {
        staging: config.staging,
        line: config.line,
        hardware_reset: config.hardware_reset,
    };
    let is_plain = more.staging.is_none() && more.line.is_none() && more.hardware_reset.is_none();
    let own = Own {
        storages: storages.into(),
        trust: config.trust,
        more: (!is_plain).then(|| Arc::new(more)),
    };
    let builds = (config.plugin, config.former_plugin);
    (SETUPS.hold(setup), own, builds)
}

impl Setup {
    /// Whether the operator has set this for the agent.
    pub(super) fn says(&self, key: &str, value: &str) -> bool {
        let mut settings = self.agent_settings.iter();
        settings.any(|s| s.key == key && s.value == value)
    }

    /// The regions with their bytes.
    pub(super) fn regions(&self, own: &Own) -> Vec<RegionConfig> {
        let regions = self.regions.iter().zip(own.storages.iter());
        let whole = |(region, storage): (&RegionSetup, &Arc<dyn Storage>)| RegionConfig {
            name: region.name.clone(),
            kind: region.kind,
            erase_size: region.erase_size,
            write_size: region.write_size,
            read_only: region.read_only,
            storage: Arc::clone(storage),
        };
        regions.map(whole).collect()
    }
}
