//! What a PAL plugin is to the rest of the host, whatever carries it.
//!
//! [`Plugin`] has the duties of `wit/pal/image.wit`, which is the authority on their meaning and order; a component
//! (`component.rs`), a native library in a child process (`native/`) and the doubles of the tests implement it. What a
//! plugin says is checked by the target engine (`target/`), not here; carriers only bring it into these types, cut and
//! without control characters. Not here: order of calls, locks, retries, strikes.

use std::fmt;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::choice::StandIn;
use crate::engine::Usage;
use crate::types::{Blob, Failure, Setting, TargetState, Version};

pub use self::component::ComponentPlugin;

mod component;
mod convert;
pub mod lend;
pub mod native;

/// Bits of [`Description::capabilities`]; other bits are ignored.
pub mod capability {
    /// Writes blocks into lent storage.
    pub const DIRECT: u32 = 0x01;
    /// Reads the finished file.
    pub const STAGED: u32 = 0x02;
    /// `install` may begin before the file is complete.
    pub const AHEAD: u32 = 0x04;
    /// An image that is not committed goes away by itself at the next restart.
    pub const REVERT: u32 = 0x08;
    /// Has a self-test of its own.
    pub const SELF_TEST: u32 = 0x10;
    /// `state` can tell what runs.
    pub const RUNNING_VERSION: u32 = 0x20;
}

/// Who a plugin build is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Description {
    /// Kebab-case name.
    pub name: String,
    /// Version of the build.
    pub version: String,
    /// Kinds of target that a configuration may name.
    pub kinds: Vec<String>,
    /// Bits of [`capability`].
    pub capabilities: u32,
    /// Most bytes that one `write_block` takes; 0 for staged.
    pub largest_write: u32,
    /// Schemas that `open` reads; the first is the one that `suspend` writes.
    pub schemas: Vec<u32>,
}

impl Description {
    /// Whether it has a capability.
    #[must_use]
    pub fn can(&self, bit: u32) -> bool {
        self.capabilities & bit != 0
    }

    /// Its capabilities, in words.
    #[must_use]
    pub fn abilities(&self) -> Vec<String> {
        let words = [
            (capability::DIRECT, "direct"),
            (capability::STAGED, "staged"),
            (capability::AHEAD, "ahead"),
            (capability::REVERT, "revert"),
            (capability::SELF_TEST, "self-test"),
            (capability::RUNNING_VERSION, "running-version"),
        ];
        let has = words.into_iter().filter(|(bit, _)| self.can(*bit));
        has.map(|(_, word)| word.to_owned()).collect()
    }

    /// Whether it is one that a host can work with (`wit/pal/describe.wit`).
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_MAX_BYTES || !self.name.chars().all(kebab)
        {
            return Err(format!(
                "its name must be 1 to {NAME_MAX_BYTES} of [a-z0-9-]"
            ));
        }
        if self.version.is_empty() || self.version.len() > NAME_MAX_BYTES {
            return Err(format!("its version must have 1 to {NAME_MAX_BYTES} bytes"));
        }
        if self.kinds.len() > LIST_MAX || self.schemas.len() > LIST_MAX {
            return Err(format!("it lists more than {LIST_MAX} kinds or schemas"));
        }
        if self.can(capability::DIRECT) == self.can(capability::STAGED) {
            return Err("it must be either direct or staged".into());
        }
        if self.can(capability::DIRECT)
            && !(LARGEST_WRITE_MIN..=lend::TRANSFER_MAX_BYTES).contains(&self.largest_write)
        {
            return Err(format!(
                "its largest write is {} bytes, expected {LARGEST_WRITE_MIN} to {}",
                self.largest_write,
                lend::TRANSFER_MAX_BYTES
            ));
        }
        Ok(())
    }
}

/// Most bytes of a plugin's name or version.
const NAME_MAX_BYTES: usize = 64;

/// Most kinds and most schemas: a build that reads sixteen old encodings has had a long life.
const LIST_MAX: usize = 16;

/// Smallest `largest_write`: the smallest block.
const LARGEST_WRITE_MIN: u32 = 256;

/// The transfer as a plugin is told of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Transfer {
    /// Thing name, for logs.
    pub device: String,
    /// For logs.
    pub job_id: String,
    /// The target's number.
    pub file_id: u32,
    /// Bytes in all.
    pub size: u64,
    /// Grid on which blocks arrive.
    pub block_size: u32,
    /// `fileType`.
    pub file_type: u32,
    /// `attr`.
    pub attributes: u32,
    /// `filepath`, allowed by the target's path rule.
    pub path: String,
    /// `certfile`.
    pub certificate: String,
    /// Key of the signature in the job document.
    pub signature_kind: String,
    /// The signature.
    pub signature: Vec<u8>,
}

/// A run of bytes in lent storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extent {
    /// Index of the region.
    pub region: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// What an image's own header says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExaminedImage {
    /// `None` = the format has none.
    pub version: Option<Version>,
    /// Product or hardware that it is for.
    pub product: Option<String>,
}

/// What a finished duty answers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Answer {
    /// Done.
    Nothing,
    /// `examine`.
    Info(ExaminedImage),
    /// `state`.
    State(TargetState),
    /// `reset`, and a `reject` that needs a restart: the host must, as the operator configured.
    HostResets,
    /// For duties of later interfaces.
    Other(Vec<u8>),
}

/// When a duty wants its next step; nothing set = as soon as possible, the earliest of those set counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WakeOn {
    /// When the serial line has input.
    pub on_input: bool,
    /// When the staged file has grown or was verified.
    pub on_data: bool,
    /// After so many milliseconds.
    pub after_ms: Option<u32>,
}

/// Where a duty stands.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Duty {
    /// Over.
    Finished(Answer),
    /// It goes on with [`Plugin::step`].
    Working {
        /// So far.
        done: u64,
        /// In all, 0 = not known.
        total: u64,
        /// When to step again.
        wake: WakeOn,
    },
}

/// Why a call did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginError {
    /// The plugin says so, and lives.
    Failed(Failure),
    /// It trapped, was killed or broke the contract; the instance is gone.
    Broken(String),
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => write!(f, "{failure}"),
            Self::Broken(reason) => write!(f, "plugin broke: {reason}"),
        }
    }
}

impl std::error::Error for PluginError {}

impl From<Failure> for PluginError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One instance of a plugin, which serves one target. Calls do bounded work and never wait. After
/// [`PluginError::Broken`] the instance must be dropped.
///
/// # Errors
/// Each call: [`PluginError`].
#[expect(clippy::missing_errors_doc, reason = "said once for the trait")]
pub trait Plugin: Send {
    /// Begin life with settings, and the state that `suspend` of another instance gave.
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError>;
    /// Get ready to receive.
    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError>;
    /// Go on with a transfer created before.
    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError>;
    /// Direct: put bytes at their place.
    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError>;
    /// Direct: where the bytes of the file lie.
    fn extents(&mut self) -> Result<Vec<Extent>, PluginError>;
    /// Read version and product from the image.
    fn examine(&mut self) -> Result<Duty, PluginError>;
    /// Staged: bring the file into the target.
    fn install(&mut self) -> Result<Duty, PluginError>;
    /// Mark the new image as next and in test.
    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError>;
    /// Restart the target, or say that the host must.
    fn reset(&mut self) -> Result<Duty, PluginError>;
    /// The target's own test.
    fn self_test(&mut self) -> Result<Duty, PluginError>;
    /// Make the running new image permanent.
    fn commit(&mut self) -> Result<Duty, PluginError>;
    /// Go back to the old image.
    fn reject(&mut self) -> Result<Duty, PluginError>;
    /// Ask the target.
    fn state(&mut self) -> Result<Duty, PluginError>;
    /// Stop what is under way and throw the transfer away.
    fn abort(&mut self) -> Result<Duty, PluginError>;
    /// Go on with the duty.
    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError>;
    /// Everything that a successor needs.
    fn suspend(&mut self) -> Result<Blob, PluginError>;
    /// What the instance has used; zeros where nobody counts. No call of the plugin's.
    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// A plugin build, loaded and asked who it is: makes an instance for each target that wants one. Shared by all targets
/// that name the same build.
pub trait PluginFactory: Send + Sync {
    /// Where it comes from, for people: `builtin:flash-file`, a path.
    fn label(&self) -> &str;
    /// SHA-256 of its bytes; zeros for one that is part of this process.
    fn digest(&self) -> &[u8; 32] {
        &[0; 32]
    }
    /// SHA-256 of the manifest that vouches for it, in hex; none where nobody does.
    fn manifest(&self) -> Option<&str> {
        None
    }
    /// Who it is; asked once, at load, on an instance that was thrown away.
    fn description(&self) -> &Description;
    /// Interfaces that it must be lent, by their WIT names.
    fn imports(&self) -> &[String];
    /// The build in whose place it is, which is not let in; none = in its own.
    fn stands_in(&self) -> Option<&StandIn> {
        None
    }
    /// What an operator should know of how it is carried: by what it is not confined.
    fn caveats(&self) -> &[String] {
        &[]
    }
    /// A fresh instance, not yet opened, with what the host lends it.
    ///
    /// # Errors
    /// [`PluginError::Broken`] with the reason.
    fn make(&self, lent: lend::Lent) -> Result<Box<dyn Plugin>, PluginError>;
    /// Its trial is over: it has taken the place of another build, and an image was committed or rejected by it. Called on a worker,
    /// which may wait, before that is written down; so it is called again where the process ends in between.
    fn trial_passed(&self) {}
}

/// Whether a build is lent everything that it must be, in any carrier.
fn check_lent(imports: &[String], lent: &lend::Lent) -> Result<(), PluginError> {
    match imports.iter().find(|interface| !lent.lends(interface)) {
        Some(missing) => Err(PluginError::Broken(format!(
            "it needs {missing}, which is not granted"
        ))),
        None => Ok(()),
    }
}

/// Wait for a plugin that may take seconds to answer: on a thread of a runtime others take over its tasks meanwhile, or a few
/// plugins that hang would hold up every device.
fn apart<R>(wait: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(wait),
        Ok(_) | Err(_) => wait(),
    }
}
