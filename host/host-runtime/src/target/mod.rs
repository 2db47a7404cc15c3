//! The host's side of `ota:agent/pal`: the targets of one device.
//!
//! [`Targets`] stands between agent and plugins: it routes by file id, keeps the durable record of each transfer and the
//! map of held blocks, owns the locks on lent storage, reads back, hashes and verifies, and drives the plugins' duties
//! step by step. Nothing here reads a clock, spawns or waits: time comes as a value, long work goes through
//! [`Workers`](crate::ports::workers::Workers) and [`Commands`](crate::ports::commands::Commands), and ends come out of
//! [`Targets::poll`]. Not here: jobs, phases, order over several targets; that is the agent's.

use crate::types::{Failure, FileId, FileSpec, ImageInfo, Outcome, Setting, Started, Token, code};

pub use self::config::{
    Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, SYNC_BYTES, StorageFactory,
    TargetConfig, TargetPorts, VersionReader,
};

mod config;

/// Why a device's targets cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The configuration contradicts itself.
    #[error("target `{target}`: {reason}")]
    Config {
        /// The target's name.
        target: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The state directory cannot be read.
    #[error("target `{target}`: state file `{file}` cannot be read")]
    State {
        /// The target's name.
        target: String,
        /// The state file.
        file: String,
        /// What the medium says.
        #[source]
        source: std::io::Error,
    },
    /// The state directory holds something that this build does not read.
    #[error("target `{target}`: state file `{file}` is damaged: {reason}")]
    Damaged {
        /// The target's name.
        target: String,
        /// The state file.
        file: String,
        /// What is wrong.
        reason: String,
    },
}

/// What the targets have to say, from [`Targets::poll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetEvent {
    /// An operation that was [`Started::Pending`] is over.
    Done {
        /// Its token.
        token: Token,
        /// How it ended.
        outcome: Outcome,
    },
    /// How far an operation is; at most one a second for a token.
    Progress {
        /// Its token.
        token: Token,
        /// So far.
        done: u64,
        /// In all, 0 = not known.
        total: u64,
    },
    /// A target was restarted, by its plugin or by the operator's command.
    Restarted(FileId),
    /// This process must restart now; everything of the target is on disk.
    ProcessRestart(FileId),
}

/// Proof that an image was read back, hashed and verified. Only a target can make one; it dies when the bytes are
/// released. The agent's resource table holds it.
#[derive(Clone, Debug)]
pub struct VerifiedRef {
    file: FileId,
    #[expect(dead_code, reason = "compared by the engine")]
    generation: u64,
    info: ImageInfo,
}

impl VerifiedRef {
    /// The target it belongs to.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }

    /// What was verified.
    #[must_use]
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }
}

/// One target in `otad status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct TargetReport {
    /// Name from the configuration.
    pub name: String,
    /// Its file id.
    pub file_id: FileId,
    /// Plugin label, name and version.
    pub plugin: String,
    /// Where the transfer stands: `none`, `creating`, `receiving`, `closed`, `verified`, `installed`, `activating`,
    /// `activated`, `committing`, `committed`, `rejecting`, `rejected`.
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
    pub state: Option<crate::types::TargetState>,
    /// Broken calls of the plugin in this transfer.
    pub strikes: u32,
    /// The last committed image, as far as the host knows.
    pub committed: Option<ImageInfo>,
    /// What an operator should know: unsigned images allowed, no revert.
    pub warnings: Vec<String>,
}

/// All targets of one device.
pub struct Targets;

impl Targets {
    /// Set up from the configuration; reads the state directory and locks what was locked before.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(
        _device: &str,
        _configs: Vec<TargetConfig>,
        _ports: TargetPorts,
    ) -> Result<Self, TargetError> {
        Ok(Self)
    }

    /// What the agent's start info says of each target: name, file id, settings.
    pub fn agent_settings(&self) -> impl Iterator<Item = (&str, FileId, &[Setting])> {
        std::iter::empty()
    }

    /// `pal.create`.
    pub fn create(&mut self, _now_ms: u64, _token: Token, spec: FileSpec) -> Started {
        unknown(spec.file_id)
    }

    /// `pal.reopen`.
    pub fn reopen(&mut self, _now_ms: u64, _token: Token, _job_id: &str, file: FileId) -> Started {
        unknown(file)
    }

    /// `pal.write-block`.
    pub fn write_block(
        &mut self,
        _now_ms: u64,
        _token: Token,
        file: FileId,
        _offset: u64,
        _data: Vec<u8>,
    ) -> Started {
        unknown(file)
    }

    /// `pal.close`.
    pub fn close(&mut self, _now_ms: u64, _token: Token, file: FileId) -> Started {
        unknown(file)
    }

    /// `pal.verified`.
    ///
    /// # Errors
    /// 0xd2 if there is no proof now.
    pub fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        Err(unknown_file(file))
    }

    /// `pal.install`.
    pub fn install(&mut self, _now_ms: u64, _token: Token, image: &VerifiedRef) -> Started {
        unknown(image.file)
    }

    /// `pal.activate`.
    pub fn activate(&mut self, _now_ms: u64, _token: Token, image: &VerifiedRef) -> Started {
        unknown(image.file)
    }

    /// `pal.reset`.
    pub fn reset(&mut self, _now_ms: u64, _token: Token, file: FileId) -> Started {
        unknown(file)
    }

    /// `pal.self-test`.
    pub fn self_test(&mut self, _now_ms: u64, _token: Token, file: FileId) -> Started {
        unknown(file)
    }

    /// `pal.commit`.
    pub fn commit(&mut self, _now_ms: u64, _token: Token, file: FileId) -> Started {
        unknown(file)
    }

    /// `pal.reject`.
    pub fn reject(&mut self, _now_ms: u64, _token: Token, file: FileId) -> Started {
        unknown(file)
    }

    /// `pal.state`.
    pub fn state(&mut self, _now_ms: u64, _token: Token, file: FileId) -> Started {
        unknown(file)
    }

    /// `pal.abort`.
    pub fn abort(&mut self, _now_ms: u64, _token: Token, file: FileId) -> Started {
        unknown(file)
    }

    /// Drive what is under way and collect what ended; returns when to call again at the latest (and whenever
    /// [`TargetPorts::wake`] was called).
    pub fn poll(&mut self, _now_ms: u64, _out: &mut Vec<TargetEvent>) -> Option<u64> {
        None
    }

    /// For `otad status`.
    #[must_use]
    pub fn report(&self) -> Vec<TargetReport> {
        Vec::new()
    }
}

fn unknown(file: FileId) -> Started {
    Started::Done(Outcome::Failed(unknown_file(file)))
}

fn unknown_file(file: FileId) -> Failure {
    Failure::new(
        code::BAD_ARGUMENT,
        file,
        format!("no target has file id {file}"),
    )
}
