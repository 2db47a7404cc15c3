//! From `[[device.target]]` and `[trust]` to what `host-runtime` takes.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use host_crypto::{TrustPolicy, TrustStore};
use host_runtime::plugin::PluginFactory;
use host_runtime::ports::commands::Command;
use host_runtime::ports::storage::{FileStorage, Storage};
use host_runtime::target::{
    Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, TargetConfig, VersionReader,
};

use super::GatewayError;
use crate::config::{self, Config, Program, Region, Reset, Target, VersionFrom};
use crate::launch::record::REGION_BYTES;
use crate::launch::{RECORD_MODE, make_directory};

/// The operator's trust store; an empty one if none is configured.
pub(super) fn trust_store(config: &Config) -> Result<TrustStore, GatewayError> {
    match &config.trust.directory {
        None => Ok(TrustStore::default()),
        Some(directory) => TrustStore::load(&directory.value).map_err(GatewayError::Trust),
    }
}

/// Whose signatures count for one target: labels for all, the default entry its own or the store's.
fn policy(
    config: &Config,
    store: &TrustStore,
    target: &Target,
) -> Result<TrustPolicy, GatewayError> {
    let allow = config.development.allow_unsigned_images;
    let mut policy = TrustPolicy::new(store.clone()).allow_unsigned(allow);
    for (label, entry) in &config.trust.labels {
        policy = policy
            .label(label, &entry.value)
            .map_err(GatewayError::Trust)?;
    }
    match target
        .certificate
        .as_ref()
        .or(config.trust.default.as_ref())
    {
        Some(entry) => policy
            .default_entry(&entry.value)
            .map_err(GatewayError::Trust),
        None => Ok(policy),
    }
}

/// One target, with its storage opened.
pub(super) fn target(
    config: &Config,
    store: &TrustStore,
    target: &Target,
    plugin: Arc<dyn PluginFactory>,
) -> Result<TargetConfig, GatewayError> {
    let regions: Result<Vec<_>, _> = target.regions.iter().map(region).collect();
    Ok(TargetConfig {
        name: target.name.value.clone(),
        file_id: target.file_id,
        plugin,
        plugin_settings: target.plugin_settings.clone(),
        agent_settings: target.agent_settings.clone(),
        regions: regions?,
        staging: None,
        version_from: match target.version_from {
            VersionFrom::Trailer => VersionReader::Trailer,
            VersionFrom::Mcuboot => VersionReader::Mcuboot,
            VersionFrom::Plugin => VersionReader::Plugin,
            VersionFrom::Offset(offset) => VersionReader::Offset(offset),
            VersionFrom::None => VersionReader::None,
        },
        version_command: target.version_command.as_ref().map(command),
        product: target.product.clone(),
        hardware: target.hardware.clone(),
        reset: match &target.reset {
            Reset::Plugin => ResetPolicy::Plugin,
            Reset::Command(program) => ResetPolicy::Command(command(program)),
            Reset::Process => ResetPolicy::Process,
        },
        health: target.health.as_ref().map(command),
        trust: Arc::new(policy(config, store, target)?),
        allow_no_revert: target
            .agent_settings
            .iter()
            .any(|s| s.key == "no_revert_allowed" && s.value == "true"),
        paths: PathRule {
            allowed: target.filepaths.clone(),
        },
        sync_bytes: target.sync_bytes,
        limits: Limits::default(),
    })
}

fn command(program: &Program) -> Command {
    Command {
        argv: program.argv.clone(),
        deadline_ms: program.deadline_ms,
    }
}

fn region(region: &Region) -> Result<RegionConfig, GatewayError> {
    let path = &region.path.value;
    let failed = |source| GatewayError::Storage {
        path: path.clone(),
        source,
    };
    if let Some(parent) = path.parent() {
        make_directory(parent).map_err(failed)?;
    }
    if region.read_only {
        // Lent to be read; whoever writes it (the launcher) may not have done so yet.
        create_empty(path).map_err(failed)?;
    }
    let storage = FileStorage::open(path, region.size_bytes, region.read_only).map_err(failed)?;
    Ok(RegionConfig {
        name: region.name.clone(),
        kind: match region.kind {
            config::RegionKind::Slot => RegionKind::Slot,
            config::RegionKind::Record => RegionKind::Record,
        },
        erase_size: 1,
        write_size: 1,
        read_only: region.read_only,
        storage: Arc::new(storage) as Arc<dyn Storage>,
    })
}

fn create_empty(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(RECORD_MODE)
        .open(path)
        .map(drop)
}

const _: () = assert!(REGION_BYTES == 8192, "sections.rs says so too");
