//! What an operator configures for one target, and the limits of the engine. Plain data: read by `otad`, used here.

use std::io;
use std::sync::Arc;

use host_crypto::TrustPolicy;

use super::TargetError;
use crate::plugin::lend::{HardwareReset, SerialLine};
use crate::plugin::{PluginFactory, capability};
use crate::ports::clock::Clock;
use crate::ports::commands::{Command, Commands};
use crate::ports::state_dir::StateDir;
use crate::ports::storage::Storage;
use crate::ports::workers::{Wake, Workers};
use crate::types::{BLOCK_MIN_BYTES, FileId, Setting, WINDOW_MAX_BYTES};

/// Data and block map are made durable after so many bytes by default: what a power cut may cost at most.
pub const SYNC_BYTES: u64 = 4 * 1024 * 1024;

/// Numbers of this engine's limits, as `sub` of failure 0xd1. Append-only.
pub mod limit {
    /// [`Limits::pending_writes_max`](super::Limits::pending_writes_max).
    pub const PENDING_WRITES: u32 = 0x11;
    /// [`Limits::waiting_states_max`](super::Limits::waiting_states_max).
    pub const WAITING_STATES: u32 = 0x12;
    /// [`Limits::call_bytes_max`](super::Limits::call_bytes_max).
    pub const PLUGIN_CALL_BYTES: u32 = 0x13;
    /// [`Limits::strikes_max`](super::Limits::strikes_max).
    pub const STRIKES: u32 = 0x14;
    /// [`Limits::call_syncs_max`](super::Limits::call_syncs_max).
    pub const PLUGIN_CALL_SYNCS: u32 = 0x15;
    /// [`Limits::pending_bytes_max`](super::Limits::pending_bytes_max).
    pub const PENDING_BYTES: u32 = 0x16;
}

/// One target of a device.
pub struct TargetConfig {
    /// Name from the configuration, unique within the device.
    pub name: String,
    /// The job document's `fileid` that selects it, unique within the device.
    pub file_id: FileId,
    /// The build that serves it.
    pub plugin: Arc<dyn PluginFactory>,
    /// The build that served it before, where an operator has put another one in its place ([`choice`](crate::choice)).
    pub former_plugin: Option<FormerPlugin>,
    /// Handed to the plugin at `open`.
    pub plugin_settings: Vec<Setting>,
    /// Handed to the agent with its start info; not read here.
    pub agent_settings: Vec<Setting>,
    /// Storage lent to the plugin, in the order of its region numbers.
    pub regions: Vec<RegionConfig>,
    /// Where the file of a staged target is put together; required for a staged plugin.
    pub staging: Option<Arc<dyn StorageFactory>>,
    /// The line lent to the plugin. One line serves one target.
    pub line: Option<Arc<dyn SerialLine>>,
    /// The reset input lent to the plugin.
    pub hardware_reset: Option<Arc<dyn HardwareReset>>,
    /// How version and product are read from the image.
    pub version_from: VersionReader,
    /// Prints the version that runs; overrides what the plugin says runs.
    pub version_command: Option<Command>,
    /// The product that an image must name.
    pub product: Option<String>,
    /// The hardware that an image must name.
    pub hardware: Option<String>,
    /// Who restarts the target when the plugin cannot.
    pub reset: ResetPolicy,
    /// The operator's health check, part of the self-test. Environment: `OTAD_TARGET`, `OTAD_VERSION`, `OTAD_JOB`.
    pub health: Option<Command>,
    /// The plugin's own self-test asks the target whether it is well: a health command is not missed.
    pub is_asked: bool,
    /// The operator's own look at an image that is verified already: it may refuse it, and nothing else. Environment: as
    /// `health`, and `OTAD_FILE`, `OTAD_SHA256`, `OTAD_SIZE`, `OTAD_PRODUCT`, `OTAD_SIGNER`, `OTAD_FILEPATH`,
    /// `OTAD_REGION`.
    pub inspect: Option<Command>,
    /// Whose signatures count.
    pub trust: Arc<TrustPolicy>,
    /// Updates are taken although the plugin cannot go back from an image that is not committed (no capability
    /// `revert`).
    pub allow_no_revert: bool,
    /// What `filepath` may say.
    pub paths: PathRule,
    /// Data and block map are made durable after so many bytes.
    pub sync_bytes: u64,
    /// Limits of the engine.
    pub limits: Limits,
}

/// A build that another one has taken the place of.
pub struct FormerPlugin {
    /// The build.
    pub plugin: Arc<dyn PluginFactory>,
    /// The one that serves is on trial: a break of its brings this one back.
    pub on_trial: bool,
}

/// A region of storage that the operator grants to the plugin.
pub struct RegionConfig {
    /// Such as `slot-a`, `record`.
    pub name: String,
    /// What it is for, which decides when it may be written.
    pub kind: RegionKind,
    /// Smallest erase in bytes, a power of two; 1 = need not be erased.
    pub erase_size: u32,
    /// Smallest write in bytes, a power of two.
    pub write_size: u32,
    /// No writes at all, such as the launcher's record of tries.
    pub read_only: bool,
    /// The bytes; its capacity is the region's size.
    pub storage: Arc<dyn Storage>,
}

/// What a region is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegionKind {
    /// One slot: holds one image.
    Slot,
    /// What the boot reader reads.
    Record,
}

/// Opens the staging file of a target.
pub trait StorageFactory: Send + Sync {
    /// Open or create it, to hold at most `capacity` bytes; what it holds stays.
    ///
    /// # Errors
    /// What the medium says.
    fn open(&self, capacity: u64) -> io::Result<Arc<dyn Storage>>;
    /// Delete it; what does not exist is not an error.
    ///
    /// # Errors
    /// What the medium says.
    fn remove(&self) -> io::Result<()>;
}

/// Where version and product of an image come from: always bytes under the signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VersionReader {
    /// The otad trailer at the end of the image ([`trailer`](super::trailer)); an image without one is refused.
    #[default]
    Trailer,
    /// The MCUboot header at its start.
    Mcuboot,
    /// Eight bytes at a fixed offset: major, minor, revision (u16), build (u32), little-endian.
    Offset(u64),
    /// The plugin's `examine`.
    Plugin,
    /// Nothing is read: the version is known only after the restart.
    None,
}

/// Who restarts a target when its plugin answers that the host must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetPolicy {
    /// Nobody: the plugin does it, or reset fails with 0xda.
    Plugin,
    /// The operator's command.
    Command(Command),
    /// The target is this process itself.
    Process,
}

/// What the `filepath` of a job may say. It never opens anything by itself: regions and staging are the operator's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRule {
    /// Paths that are allowed to the letter, also absolute ones. Empty = any relative path without `..`.
    pub allowed: Vec<String>,
}

/// Limits of the target engine, each with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that a plugin is told it may move in one step. 64 KiB is 6 ms of a 10 MB/s flash: the device's other work
    /// does not notice.
    pub step_budget_bytes: u32,
    /// Bytes that a plugin may really read, write or erase through lent storage in one call, after which it gets 0xd1:
    /// the budget twice over for each of reading and writing, and never less than a largest write with its read-back.
    pub call_bytes_max: u64,
    /// Times that a plugin may make lent storage durable in one call: an fsync takes seconds on a bad card, and its time
    /// is the host's. A record in two copies needs one a copy; twice that.
    pub call_syncs_max: u32,
    /// Steps in one poll of a target, so that the others of the device get their turn.
    pub steps_per_poll: u32,
    /// Steps without any progress in `done` after which a duty counts as hung, whatever the clock says.
    pub idle_steps_max: u32,
    /// Time without any progress in `done` after which a duty counts as hung. The longest silent thing a target does
    /// is the swap of a secondary MCU, minutes at most.
    pub duty_stall_ms: u64,
    /// Time after which a duty counts as hung however much progress it tells: the longest one brings a file to an MCU as it
    /// comes over a slow link, days at most.
    pub duty_max_ms: u64,
    /// Broken calls in one transfer after which the plugin is not tried again for it.
    pub strikes_max: u32,
    /// `write_block` calls that may wait for plugin or sync at a time: a window of the smallest blocks.
    pub pending_writes_max: usize,
    /// Bytes of `write_block` calls that may wait for plugin or sync at a time, though one always may: a window, and two
    /// requests, as blocks that were asked for twice may come twice.
    pub pending_bytes_max: usize,
    /// Operations of kind `state` that may wait their turn.
    pub waiting_states_max: usize,
    /// How often an operator's question is put to a target, as it gives way to what the agent wants: more than a job, from
    /// its file's creation to its commit, asks of one.
    pub question_tries_max: u32,
    /// Time between two looks whether a target that was reset has restarted: a launcher hashes the image before it
    /// starts it, so the end of the operator's command says little.
    pub restart_poll_ms: u64,
    /// Longest time that an armed target counts as not restarted yet, and that a refused image may still run after the
    /// reset. Less than half of the agent's default deadline for a restart, so that another attempt fits in.
    pub restart_wait_ms: u64,
    /// Longest time that written blocks stay unsynced while others arrive slowly.
    pub sync_after_ms: u64,
    /// Digests of verified images kept for the launcher, beside the committed one.
    pub verified_images_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            step_budget_bytes: 64 * 1024,
            call_bytes_max: 512 * 1024,
            call_syncs_max: 4,
            steps_per_poll: 16,
            idle_steps_max: 100_000,
            duty_stall_ms: 10 * 60 * 1000,
            duty_max_ms: 7 * 24 * 3600 * 1000,
            strikes_max: 3,
            pending_writes_max: (WINDOW_MAX_BYTES / BLOCK_MIN_BYTES) as usize,
            pending_bytes_max: WINDOW_MAX_BYTES as usize + 256 * 1024,
            waiting_states_max: 4,
            question_tries_max: 16,
            restart_poll_ms: 200,
            restart_wait_ms: 2 * 60 * 1000,
            sync_after_ms: 1000,
            verified_images_max: 8,
        }
    }
}

/// What the targets of a device need from the world.
#[derive(Clone)]
pub struct TargetPorts {
    /// Transfer records and block maps.
    pub state: Arc<dyn StateDir>,
    /// Reading back, hashing, syncing.
    pub workers: Arc<dyn Workers>,
    /// The operator's programs.
    pub commands: Arc<dyn Commands>,
    /// Lent to plugins, and the wall clock for certificate validity; nothing else hangs on it.
    pub clock: Arc<dyn Clock>,
    /// Called from any thread when [`Targets::poll`](super::Targets::poll) has something to do.
    pub wake: Wake,
}

/// Most bytes of a target's name.
const NAME_MAX_BYTES: usize = 64;

/// Most regions of a target: two slots, record, tries, and room for flash banks.
const REGIONS_MAX: usize = 32;

/// Whether a target's configuration is one that can work.
pub(super) fn check(config: &TargetConfig) -> Result<(), TargetError> {
    let refuse = |reason: String| {
        Err(TargetError::Config {
            target: config.name.clone(),
            reason,
        })
    };
    if config.name.is_empty() || config.name.len() > NAME_MAX_BYTES {
        return refuse(format!("its name must have 1 to {NAME_MAX_BYTES} bytes"));
    }
    let has = |interface: &str| match interface {
        "block-device" => !config.regions.is_empty(),
        "staged-image" => config.staging.is_some(),
        "serial-line" => config.line.is_some(),
        _ => true,
    };
    if let Err(reason) = check_plugin(&*config.plugin, has) {
        return refuse(reason);
    }
    if config.regions.len() > REGIONS_MAX {
        return refuse(format!(
            "it has {} regions, at most {REGIONS_MAX}",
            config.regions.len()
        ));
    }
    for (n, region) in config.regions.iter().enumerate() {
        if config.regions[..n].iter().any(|r| r.name == region.name) {
            return refuse(format!("it has two regions named `{}`", region.name));
        }
        if !region.erase_size.is_power_of_two() || !region.write_size.is_power_of_two() {
            return refuse(format!(
                "erase and write size of region `{}` must be powers of two",
                region.name
            ));
        }
    }
    let (product, hardware) = (config.product.as_deref(), config.hardware.as_deref());
    config.version_from.check(product, hardware).or_else(refuse)
}

/// Whether a build is one that a host can work with, on a target that has these interfaces.
///
/// # Errors
/// What the build needs and the target has not, in words.
pub fn check_plugin(plugin: &dyn PluginFactory, has: impl Fn(&str) -> bool) -> Result<(), String> {
    let (label, description) = (plugin.label(), plugin.description());
    if let Err(reason) = description.check() {
        return Err(format!("plugin {label}: {reason}"));
    }
    for interface in plugin.imports() {
        let grant = match interface.as_str() {
            "block-device" => "a region",
            "staged-image" => "staging",
            "serial-line" => "a line",
            _ => continue,
        };
        if !has(interface) {
            return Err(format!(
                "plugin {label} needs {interface}, and {grant} is not configured"
            ));
        }
    }
    if description.can(capability::STAGED) && !has("staged-image") {
        return Err(format!(
            "plugin {label} takes staged files; configure staging"
        ));
    }
    Ok(())
}

impl VersionReader {
    /// Whether it can tell what the operator wants compared.
    ///
    /// # Errors
    /// What it cannot tell, in words.
    pub fn check(&self, product: Option<&str>, hardware: Option<&str>) -> Result<(), String> {
        let (reads_product, reads_hardware) = match self {
            Self::Trailer => (true, true),
            Self::Plugin => (true, false),
            Self::Mcuboot | Self::Offset(_) | Self::None => (false, false),
        };
        for (what, wanted, readable) in [
            ("product", product, reads_product),
            ("hardware", hardware, reads_hardware),
        ] {
            if wanted.is_some() && !readable {
                return Err(format!(
                    "{what} is to be compared, and version_from cannot read it; use \"trailer\" or leave it out"
                ));
            }
        }
        Ok(())
    }
}
