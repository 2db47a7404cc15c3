//! The host's side of `ota:agent/pal`: the targets of one device.
//!
//! [`Targets`] stands between agent and plugins: it routes by file id, keeps the durable record of each transfer and the
//! map of held blocks, owns the locks on lent storage, reads back, hashes and verifies, and drives the plugins' duties
//! step by step. Nothing here reads a clock, spawns or waits: time comes as a value, long work goes through
//! [`Workers`](crate::ports::workers::Workers) and [`Commands`](crate::ports::commands::Commands), and ends come out of
//! [`Targets::poll`]. What the agent asks for is checked in its call and begun in the next poll; only a block is
//! tried at once. Not here: jobs, phases, order over several targets; that is the agent's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use host_crypto::Verified;

use crate::desk::Desk;
use crate::plugin::PluginFactory;
use crate::types::{
    Failure, FileId, FileSpec, ImageInfo, Outcome, Setting, Started, Token, Version, code,
};

use self::machine::Target;
use self::rest::Resident;
use self::write::Brought;

pub use self::config::{
    FormerPlugin, Limits, PathRule, RegionConfig, RegionKind, ResetPolicy, SYNC_BYTES,
    StorageFactory, TargetConfig, TargetPorts, VersionReader, check_plugin, limit,
};
pub use self::names::state_name;
pub use self::report::{BuildReport, TargetReport};
pub use self::sealed::takes_settings;
pub(crate) use self::serial::{hex, hex32};
pub use self::staging::FileStaging;
pub use self::swap::SwapReply;

mod ahead;
mod command;
mod config;
mod damage;
mod durable;
mod duty;
mod early;
mod fence;
mod image;
mod judge;
mod layout;
mod machine;
mod map;
mod names;
mod order;
mod path;
mod record;
mod regions;
mod report;
mod rest;
mod running;
mod script;
mod sealed;
mod serial;
mod setup;
mod slot;
mod stage;
mod staged;
mod staging;
mod swap;
mod sync;
pub mod trailer;
mod transfer;
mod trial;
pub mod verified_record;
mod work;
mod write;

#[cfg(test)]
mod tests;

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

/// Proof that an image was read back, hashed and verified. Only a target can make one, and it is good only as long as
/// the bytes stay locked: `install` and `activate` compare it with the target's own. The agent's resource table holds it.
#[derive(Clone, Debug)]
pub struct VerifiedRef {
    file: FileId,
    generation: u64,
    info: ImageInfo,
}

impl VerifiedRef {
    fn new(file: FileId, info: ImageInfo, _verified: &Verified) -> Self {
        Self::stand_in(file, info)
    }

    /// What looks like a proof and is none: no target takes it. For simulations that have no target behind the agent.
    #[must_use]
    pub fn stand_in(file: FileId, info: ImageInfo) -> Self {
        Self {
            file,
            generation: Self::next_generation(),
            info,
        }
    }

    /// Counted for the whole process, so that a proof of one device is none of another. Nothing shows the number.
    fn next_generation() -> u64 {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        GENERATIONS.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether both are of one verification.
    fn is(&self, other: &Self) -> bool {
        (self.file, self.generation) == (other.file, other.generation)
    }

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

/// All targets of one device.
pub struct Targets {
    targets: Box<[Resident]>,
}

impl Targets {
    /// Set up from the configuration; reads the state directory and locks what was locked before.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn new(
        device: impl Into<Arc<str>>,
        configs: Vec<TargetConfig>,
        ports: TargetPorts,
    ) -> Result<Self, TargetError> {
        let desk = Desk {
            device: device.into(),
            state: ports.state,
            workers: ports.workers,
            commands: ports.commands,
            clock: ports.clock,
            wake: ports.wake,
        };
        Self::at(&Arc::new(desk), configs)
    }

    /// The same at a desk that is there.
    pub(crate) fn at(desk: &Arc<Desk>, configs: Vec<TargetConfig>) -> Result<Self, TargetError> {
        let mut targets: Vec<Target> = Vec::with_capacity(configs.len());
        for config in configs {
            let twin = targets
                .iter()
                .find(|t| t.config.name == config.name || t.config.file_id == config.file_id);
            if let Some(twin) = twin {
                return Err(TargetError::Config {
                    target: config.name.clone(),
                    reason: format!(
                        "target `{}` has the same name or file id ({})",
                        twin.config.name, twin.config.file_id
                    ),
                });
            }
            targets.push(Target::new(config, desk)?);
        }
        let awake = |target| Resident::Awake(Box::new(target));
        Ok(Self {
            targets: targets.into_iter().map(awake).collect(),
        })
    }

    /// What the agent's start info says of each target: name, file id, settings.
    pub fn agent_settings(&self) -> impl Iterator<Item = (&str, FileId, &[Setting])> {
        self.targets.iter().map(|target| {
            let config = target.config();
            (
                config.name.as_str(),
                config.file_id,
                config.agent_settings.as_slice(),
            )
        })
    }

    /// `pal.create`.
    pub fn create(&mut self, token: Token, spec: FileSpec) -> Started {
        self.with(spec.file_id, |target| target.create(token, spec))
    }

    /// `pal.reopen`.
    pub fn reopen(&mut self, token: Token, job_id: &str, file: FileId) -> Started {
        self.with(file, |target| target.reopen(token, job_id))
    }

    /// `pal.write-block`.
    pub fn write_block(
        &mut self,
        now_ms: u64,
        token: Token,
        file: FileId,
        offset: u64,
        data: &[u8],
    ) -> Started {
        self.with_taken(file, |target| {
            target.write_block(Brought {
                token,
                at_ms: now_ms,
                offset,
                data,
            })
        })
    }

    /// `pal.close`.
    pub fn close(&mut self, token: Token, file: FileId) -> Started {
        self.with(file, |target| target.close(token))
    }

    /// `pal.verified`.
    ///
    /// # Errors
    /// 0xd2 if there is no proof now.
    pub fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure> {
        match self.find(file) {
            Some(target) => target.verified(),
            None => Err(unknown_file(file)),
        }
    }

    /// `pal.install`.
    pub fn install(&mut self, token: Token, image: &VerifiedRef) -> Started {
        self.with(image.file, |target| target.install(token, image))
    }

    /// `pal.activate`.
    pub fn activate(&mut self, token: Token, image: &VerifiedRef) -> Started {
        self.with(image.file, |target| target.activate(token, image))
    }

    /// `pal.reset`.
    pub fn reset(&mut self, token: Token, file: FileId) -> Started {
        self.with(file, |target| target.reset(token))
    }

    /// `pal.self-test`.
    pub fn self_test(&mut self, token: Token, file: FileId) -> Started {
        self.with(file, |target| target.self_test(token))
    }

    /// `pal.commit`.
    pub fn commit(&mut self, token: Token, file: FileId) -> Started {
        self.with(file, |target| target.commit(token))
    }

    /// `pal.reject`. It also ends a self-test that is under way.
    pub fn reject(&mut self, token: Token, file: FileId) -> Started {
        self.with(file, |target| target.reject(token))
    }

    /// `pal.state`.
    pub fn state(&mut self, token: Token, file: FileId) -> Started {
        self.with(file, |target| target.state(token))
    }

    /// `pal.abort`.
    pub fn abort(&mut self, token: Token, file: FileId) -> Started {
        // What was gathered goes with the transfer.
        self.with_taken(file, |target| target.abort(token))
    }

    /// The file id of a target.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<FileId> {
        let target = self.targets.iter().find(|t| t.config().name == name);
        target.map(|target| target.config().file_id)
    }

    /// The name of a file's target, and the version that it said last that it runs.
    #[must_use]
    pub fn running(&self, file: FileId) -> Option<(&str, Option<Version>)> {
        let target = self.targets.iter().find(|t| t.config().file_id == file)?;
        let running = target.last_state().and_then(|state| state.running);
        Some((&target.config().name, running))
    }

    /// Let another plugin build serve a target, in the middle of whatever it does. `reply` hears once that it serves, or
    /// why the old one still does.
    pub fn swap(&mut self, file: FileId, build: Arc<dyn PluginFactory>, reply: SwapReply) {
        match self.find(file) {
            Some(target) => target.swap(build, reply),
            None => reply(Err(unknown_file(file))),
        }
    }

    /// Let the build before serve a target again.
    pub fn swap_back(&mut self, file: FileId, reply: SwapReply) {
        match self.find(file) {
            Some(target) => target.swap_back(reply),
            None => reply(Err(unknown_file(file))),
        }
    }

    /// Have the build that serves a target ask it how it is. `reply` hears whether it did; one on trial that fails here is
    /// sent back, and the build before it is asked.
    pub fn ask(&mut self, file: FileId, reply: SwapReply) {
        match self.find(file) {
            Some(target) => target.question(reply),
            None => reply(Err(unknown_file(file))),
        }
    }

    /// The build that serves a target has proved itself, says whoever put it in. `reply` hears when that stands on the
    /// medium.
    pub fn end_trial(&mut self, file: FileId, reply: SwapReply) {
        match self.find(file) {
            Some(target) => target.end_trial(reply),
            None => reply(Err(unknown_file(file))),
        }
    }

    /// Drive what is under way and collect what ended; returns when to call again at the latest (and whenever
    /// [`TargetPorts::wake`] was called).
    pub fn poll(&mut self, now_ms: u64, out: &mut Vec<TargetEvent>) -> Option<u64> {
        let mut next: Option<u64> = None;
        for resident in &mut self.targets {
            // One that rests has nothing to do.
            if let Resident::Awake(target) = resident {
                target.poll(now_ms);
                out.extend(target.events.drain(..));
                next = [next, target.wake_at()].into_iter().flatten().min();
            }
        }
        next
    }

    /// Let storage and maps have the blocks that were taken, as far as their plugins are done with them in two calls: before
    /// anything leaves the device. A process that is killed then fetches again what it had asked for, and nothing that it had.
    pub fn write_out(&mut self) {
        for resident in &mut self.targets {
            if let Resident::Awake(target) = resident {
                target.write_out();
            }
        }
    }

    /// Fold up those that have nothing to do, until they are asked for something.
    pub(crate) fn rest(&mut self) {
        for resident in &mut self.targets {
            resident.rest();
            if let Resident::Awake(target) = resident {
                target.shrink();
            }
        }
    }

    /// For `otad status`.
    #[must_use]
    pub fn report(&self) -> Vec<TargetReport> {
        self.targets.iter().map(Resident::report).collect()
    }

    fn find(&mut self, file: FileId) -> Option<&mut Target> {
        let mut targets = self.targets.iter_mut();
        let target = targets.find(|t| t.config().file_id == file)?;
        Some(target.awake())
    }

    /// All but a write begins with the storage and the map having all blocks that were taken.
    fn with(&mut self, file: FileId, call: impl FnOnce(&mut Target) -> Started) -> Started {
        self.with_taken(file, |target| {
            target.write_out();
            call(target)
        })
    }

    fn with_taken(&mut self, file: FileId, call: impl FnOnce(&mut Target) -> Started) -> Started {
        match self.find(file) {
            Some(target) => match &target.damage {
                Some(damage) => Started::Done(Outcome::Failed(damage.clone())),
                None => call(target),
            },
            None => Started::Done(Outcome::Failed(unknown_file(file))),
        }
    }
}

fn unknown_file(file: FileId) -> Failure {
    Failure::new(
        code::BAD_ARGUMENT,
        0,
        format!("no target has file id {file}"),
    )
}
