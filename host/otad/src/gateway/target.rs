//! From `[[device.target]]` and `[trust]` to what `host-runtime` takes.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use host_crypto::{TrustPolicy, TrustStore};
use host_runtime::plugin::PluginFactory;
use host_runtime::plugin::lend::{HardwareReset, SerialLine};
use host_runtime::ports::commands::{Command, Commands};
use host_runtime::ports::line::Line;
use host_runtime::ports::reset::{ResetWire, WiredReset};
use host_runtime::ports::storage::{FileStorage, Storage};
use host_runtime::target::{
    FileStaging, Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, StorageFactory,
    TargetConfig, VersionReader,
};
use host_runtime::types::Setting;

use super::GatewayError;
use crate::config::{
    self, BUILD, Config, PluginChoice, Program, Region, Reset, ResetBy, Target, VersionFrom,
};
use crate::launch::record::REGION_BYTES;
use crate::launch::{RECORD_MODE, make_directory};

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
    device: &str,
    target: &Target,
    plugin: Arc<dyn PluginFactory>,
    commands: &Arc<dyn Commands>,
) -> Result<TargetConfig, GatewayError> {
    let line = target.line.as_ref().map(|line| {
        let line: Arc<dyn SerialLine> = Arc::new(Line::new(line.config.clone()));
        line
    });
    let regions: Result<Vec<_>, _> = target.regions.iter().map(region).collect();
    Ok(TargetConfig {
        name: target.name.value.clone(),
        file_id: target.file_id,
        plugin,
        former_plugin: None,
        plugin_settings: plugin_settings(target),
        agent_settings: target.agent_settings.clone(),
        regions: regions?,
        staging: staging(config, device, target)?,
        hardware_reset: hardware_reset(device, target, line.as_ref(), commands),
        line,
        version_from: version_reader(target.version_from),
        version_command: target.version_command.as_ref().map(command),
        product: target.product.clone(),
        hardware: target.hardware.clone(),
        reset: match &target.reset {
            Reset::Plugin => ResetPolicy::Plugin,
            Reset::Command(program) => ResetPolicy::Command(command(program)),
            Reset::Process => ResetPolicy::Process,
        },
        inspect: target.inspect.as_ref().map(command),
        health: target.health.as_ref().map(command),
        is_asked: target.is_asked(),
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

/// Who reads version and product from an image.
pub(crate) fn version_reader(from: VersionFrom) -> VersionReader {
    match from {
        VersionFrom::Trailer => VersionReader::Trailer,
        VersionFrom::Mcuboot => VersionReader::Mcuboot,
        VersionFrom::Plugin => VersionReader::Plugin,
        VersionFrom::Offset(offset) => VersionReader::Offset(offset),
        VersionFrom::None => VersionReader::None,
    }
}

/// What the plugin is told: the operator's settings, and the speed of the line, which its first time-outs follow.
pub(super) fn plugin_settings(target: &Target) -> Vec<Setting> {
    let mut settings = target.plugin_settings.clone();
    let is_serial = target.plugin == PluginChoice::Builtin("serial-mcu");
    let baud = target.line.as_ref().and_then(|line| line.config.baud);
    if let Some(baud) = baud.filter(|_| is_serial)
        && !settings.iter().any(|s| s.key == "baud")
    {
        settings.push(Setting {
            key: "baud".to_owned(),
            value: baud.to_string(),
        });
    }
    settings
}

/// Folder of the state directory in which staged targets' images are put together.
pub(crate) const STAGING: &str = "staging";

/// Whether its file is put together somewhere: that of a built-in one, and of others if the operator says where.
fn is_staged(target: &Target) -> bool {
    target.staging.is_some() || matches!(target.plugin, PluginChoice::Builtin("serial-mcu" | BUILD))
}

/// Whether a target has an interface to lend, as `host-runtime` will see it.
pub(super) fn has(target: &Target, interface: &str) -> bool {
    match interface {
        "block-device" => !target.regions.is_empty(),
        "staged-image" => is_staged(target),
        "serial-line" => target.line.is_some(),
        _ => true,
    }
}

/// Where the file of a staged target is put together.
fn staging(
    config: &Config,
    device: &str,
    target: &Target,
) -> Result<Option<Arc<dyn StorageFactory>>, GatewayError> {
    if !is_staged(target) {
        return Ok(None);
    }
    let path = match &target.staging {
        Some(path) => path.value.clone(),
        None => {
            let directory = config.daemon.state_dir.value.join(STAGING).join(device);
            directory.join(&target.name.value)
        }
    };
    if let Some(parent) = path.parent() {
        make_directory(parent).map_err(|source| GatewayError::Storage {
            path: path.clone(),
            source,
        })?;
    }
    Ok(Some(Arc::new(FileStaging::new(&path))))
}

/// The reset input of a target, if one is configured.
pub(crate) fn hardware_reset(
    device: &str,
    target: &Target,
    line: Option<&Arc<dyn SerialLine>>,
    commands: &Arc<dyn Commands>,
) -> Option<Arc<dyn HardwareReset>> {
    let reset = target.hardware_reset.as_ref()?;
    let wire = match &reset.by {
        ResetBy::Gpio {
            chip,
            offset,
            active_low,
        } => ResetWire::Gpio {
            chip: chip.clone(),
            offset: *offset,
            active_low: *active_low,
        },
        ResetBy::Control {
            control,
            active_low,
        } => ResetWire::Control {
            line: Arc::clone(line?),
            control: *control,
            active_low: *active_low,
        },
        ResetBy::Command(program) => ResetWire::Command {
            command: command(program),
            commands: Arc::clone(commands),
        },
    };
    let name = format!("{device}/{}", target.name.value);
    Some(Arc::new(WiredReset::new(name, wire, reset.hold_ms)))
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
