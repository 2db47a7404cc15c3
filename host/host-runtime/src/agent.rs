//! An agent as the rest of the host sees it: a build, an instance of it, and the outside that the instance calls.
//!
//! Whether the instance is a component in wasmtime ([`AgentBuild::load`]) or agent code compiled into the process
//! ([`AgentBuild::native`], for simulations) is not visible behind [`AgentInstance`]; whether its calls reach real
//! targets, a recorder or a replayer is not visible behind [`Outside`]. Not here: when an instance is started, stopped
//! or replaced (`slot.rs`), and what its calls do (`device/`).

use std::fmt;
use std::sync::Arc;

use crate::choice::StandIn;
use crate::engine::{AGENT_WORLD, Budget, Engine, GuestFault, Refusal};
use crate::target::VerifiedRef;
use crate::types::{Blob, Failure, FileId, FileSpec, Level, Qos, Started, Token};

pub use self::slot::{
    AgentSlot, BACKOFF_MAX_MS, BACKOFF_MIN_MS, Handled, OutsideFactory, STRIKES_MAX,
    STRIKES_OF_A_JOB_MAX, Stamp, StartEnd,
};
pub use self::text::clean;
pub use self::trial::{FormerAgent, TRIAL_MS};
pub use self::types::{
    AgentConfig, AgentStatus, ApplicationEvent, Command, Context, CustomAnswer, Description, Event,
    FileStatus, JobResult, Message, OfferAnswer, Saved, StartInfo, Target, Turn, Wait,
};

pub mod record;
pub mod replay;
pub mod shadow;
pub mod tap;
pub mod trace;

mod convert;
mod nowhere;
mod park;
mod redact;
mod slot;

pub(crate) mod octets;
pub(crate) mod text;
pub(crate) mod trial;
mod types;
mod wasm;

/// Everything that an agent may call: one method for each import of world `agent`. Each call is one question and one
/// answer, so that a recorder, a replayer or a fault is a wrapper round another `Outside`.
pub trait Outside: Send {
    /// `transport.subscribe`.
    fn subscribe(&mut self, filter: String, qos: Qos) -> Token;
    /// `transport.unsubscribe`.
    fn unsubscribe(&mut self, filter: String) -> Token;
    /// `transport.publish`.
    fn publish(&mut self, topic: String, payload: Vec<u8>, qos: Qos) -> Token;
    /// `transport.http-get`.
    fn http_get(&mut self, url: String, offset: u64, length: u32) -> Token;
    /// `transport.cancel`.
    fn cancel(&mut self, token: Token);
    /// `pal.create`.
    fn create(&mut self, spec: FileSpec) -> Started;
    /// `pal.reopen`.
    fn reopen(&mut self, job_id: String, file: FileId) -> Started;
    /// `pal.write-block`.
    fn write_block(&mut self, file: FileId, offset: u64, data: &[u8]) -> Started;
    /// `pal.close`.
    fn close(&mut self, file: FileId) -> Started;
    /// `pal.verified`.
    ///
    /// # Errors
    /// There is no proof now.
    fn verified(&mut self, file: FileId) -> Result<VerifiedRef, Failure>;
    /// `pal.install`.
    fn install(&mut self, image: &VerifiedRef) -> Started;
    /// `pal.activate`.
    fn activate(&mut self, image: &VerifiedRef) -> Started;
    /// `pal.reset`.
    fn reset(&mut self, file: FileId) -> Started;
    /// `pal.self-test`.
    fn self_test(&mut self, file: FileId) -> Started;
    /// `pal.commit`.
    fn commit(&mut self, file: FileId) -> Started;
    /// `pal.reject`.
    fn reject(&mut self, file: FileId) -> Started;
    /// `pal.state`.
    fn state(&mut self, file: FileId) -> Started;
    /// `pal.abort`.
    fn abort(&mut self, file: FileId) -> Started;
    /// `os.journal-store`.
    fn journal_store(&mut self, journal: Blob) -> Token;
    /// `os.log`.
    fn log(&mut self, level: Level, text: String);
    /// `os.emit`.
    fn emit(&mut self, event: ApplicationEvent);
}

/// One running agent. After an error it must not be called again.
pub trait AgentInstance: Send {
    /// `job-agent.start`; the inner error is the agent's refusal.
    ///
    /// # Errors
    /// The instance is broken.
    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault>;
    /// `job-agent.handle`.
    ///
    /// # Errors
    /// The instance is broken.
    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault>;
    /// `job-agent.status`.
    ///
    /// # Errors
    /// The instance is broken.
    fn status(&mut self) -> Result<AgentStatus, GuestFault>;
    /// `job-agent.snapshot`.
    ///
    /// # Errors
    /// The instance is broken.
    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault>;
    /// Linear memory it has, in bytes; 0 where that is not known.
    fn memory_bytes(&mut self) -> usize;
    /// More calls follow at once, or no more do: for who keeps books beside the agent.
    fn gather(&mut self, _more_comes: bool) {}
}

/// An instance round another one, for whoever looks on or changes a little: what it does not say itself, the other does.
pub trait Around: Send {
    /// The other one.
    fn inner(&mut self) -> &mut dyn AgentInstance;

    /// As [`AgentInstance::start`].
    ///
    /// # Errors
    /// As there.
    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        self.inner().start(context, info)
    }

    /// As [`AgentInstance::handle`].
    ///
    /// # Errors
    /// As there.
    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        self.inner().handle(context, event)
    }

    /// As [`AgentInstance::snapshot`].
    ///
    /// # Errors
    /// As there.
    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        self.inner().snapshot(context)
    }
}

impl<T: Around> AgentInstance for T {
    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        Around::start(self, context, info)
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        Around::handle(self, context, event)
    }

    fn status(&mut self) -> Result<AgentStatus, GuestFault> {
        self.inner().status()
    }

    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        Around::snapshot(self, context)
    }

    fn memory_bytes(&mut self) -> usize {
        self.inner().memory_bytes()
    }

    fn gather(&mut self, more_comes: bool) {
        self.inner().gather(more_comes);
    }
}

/// Makes an instance whose calls go to the given outside.
type Factory = dyn Fn(Box<dyn Outside>) -> Result<Box<dyn AgentInstance>, GuestFault> + Send + Sync;

/// One build of an agent, ready to be instantiated any number of times.
pub struct AgentBuild {
    label: String,
    digest: [u8; 32],
    description: Description,
    factory: Box<Factory>,
    /// The build itself, where this one is [`behind`](Self::behind) something.
    inner: Option<Arc<Self>>,
    passed: Option<Arc<dyn Fn() + Send + Sync>>,
    manifest: Option<Arc<str>>,
    stands_in: Option<Arc<StandIn>>,
}

impl AgentBuild {
    /// Check, compile and link a component, and ask it who it is. `label` is for people: a path, or `built-in`.
    ///
    /// # Errors
    /// What is wrong with the component.
    pub fn load(engine: &Arc<Engine>, label: &str, bytes: &[u8]) -> Result<Arc<Self>, Refusal> {
        Self::load_within(engine, label, bytes, &Budget::AGENT)
    }

    /// As [`load`](Self::load), with a budget of its own for each instance.
    ///
    /// # Errors
    /// As there.
    pub fn load_within(
        engine: &Arc<Engine>,
        label: &str,
        bytes: &[u8],
        budget: &Budget,
    ) -> Result<Arc<Self>, Refusal> {
        let loaded = engine.load(bytes, &AGENT_WORLD, AGENT_WORLD.imports)?;
        let program = wasm::Program::link(engine, &loaded, budget)?;
        let description = program.describe()?;
        Ok(Arc::new(Self {
            label: label.to_owned(),
            digest: loaded.digest,
            description,
            factory: Box::new(move |outside| program.instantiate(outside)),
            inner: None,
            passed: None,
            manifest: None,
            stands_in: None,
        }))
    }

    /// An agent that is part of this process. It is not limited in any way: for simulations and tests.
    pub fn native(
        label: &str,
        description: Description,
        factory: impl Fn(Box<dyn Outside>) -> Result<Box<dyn AgentInstance>, GuestFault>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            label: label.to_owned(),
            digest: [0; 32],
            description,
            factory: Box::new(factory),
            inner: None,
            passed: None,
            manifest: None,
            stands_in: None,
        })
    }

    /// The same build behind another way of making instances, such as one that listens.
    pub(crate) fn behind(
        self: &Arc<Self>,
        factory: impl Fn(Box<dyn Outside>) -> Result<Box<dyn AgentInstance>, GuestFault>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            label: self.label.clone(),
            digest: self.digest,
            description: self.description.clone(),
            factory: Box::new(factory),
            inner: Some(self.bare()),
            passed: self.passed.clone(),
            manifest: self.manifest.clone(),
            stands_in: self.stands_in.clone(),
        })
    }

    /// The same build, in the place of another one, which is not let in. It may begin with nothing where it does not know what
    /// that one has left.
    #[must_use]
    pub fn in_place_of(self: &Arc<Self>, chosen: StandIn) -> Arc<Self> {
        let inner = Arc::clone(self);
        Arc::new(Self {
            label: self.label.clone(),
            digest: self.digest,
            description: self.description.clone(),
            factory: Box::new(move |outside| inner.instantiate(outside)),
            inner: Some(self.bare()),
            passed: None,
            manifest: None,
            stands_in: Some(Arc::new(chosen)),
        })
    }

    /// The build in whose place it serves; none = in its own.
    #[must_use]
    pub fn stands_in(&self) -> Option<&StandIn> {
        self.stands_in.as_deref()
    }

    /// The same build, the manifest that vouches for it (its SHA-256 in hex), and what is done, off the device's task, once it
    /// has proved itself on trial.
    #[must_use]
    pub fn vouched(
        self: &Arc<Self>,
        manifest: &str,
        passed: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let inner = Arc::clone(self);
        Arc::new(Self {
            label: self.label.clone(),
            digest: self.digest,
            description: self.description.clone(),
            factory: Box::new(move |outside| inner.instantiate(outside)),
            inner: Some(self.bare()),
            passed: Some(Arc::new(passed)),
            manifest: Some(manifest.into()),
            stands_in: self.stands_in.clone(),
        })
    }

    /// It has proved itself on trial.
    pub(crate) fn trial_passed(&self) {
        if let Some(passed) = &self.passed {
            passed();
        }
    }

    /// The same build as of a component with this digest.
    #[cfg(test)]
    pub(crate) fn of_digest(self: &Arc<Self>, digest: [u8; 32]) -> Arc<Self> {
        let inner = Arc::clone(self);
        let description = self.description.clone();
        let build = Self::native(&self.label, description, move |outside| {
            inner.instantiate(outside)
        });
        Arc::new(Self {
            digest,
            ..Arc::into_inner(build).expect("nobody else has it")
        })
    }

    /// The build without whoever listens to its instances.
    pub(crate) fn bare(self: &Arc<Self>) -> Arc<Self> {
        Arc::clone(self.inner.as_ref().unwrap_or(self))
    }

    /// Where it came from.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// SHA-256 of the component; zeros for a native one.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// SHA-256 of the manifest that vouches for it, in hex; none where nobody does.
    #[must_use]
    pub fn manifest(&self) -> Option<&str> {
        self.manifest.as_deref()
    }

    /// Who it says it is.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The schema that it is told to write: the best one.
    #[must_use]
    pub fn schema(&self) -> u32 {
        self.description.schemas.first().copied().unwrap_or(0)
    }

    /// The same while there is a build to go back to: the best one that it reads too, if there is one. Each agent numbers
    /// its own schemas: those of another name mean something else.
    pub(crate) fn schema_for(&self, former: &Self) -> Option<u32> {
        if self.description.name != former.description.name {
            return None;
        }
        let schemas = self.description.schemas.iter();
        schemas.copied().find(|schema| former.reads(*schema))
    }

    /// Whether it can start from a state of this schema.
    pub(crate) fn reads(&self, schema: u32) -> bool {
        self.description.schemas.contains(&schema)
    }

    /// A fresh instance, not yet started.
    ///
    /// # Errors
    /// It cannot be instantiated within its budget.
    pub fn instantiate(
        &self,
        outside: Box<dyn Outside>,
    ) -> Result<Box<dyn AgentInstance>, GuestFault> {
        (self.factory)(outside)
    }
}

impl fmt::Debug for AgentBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuild")
            .field("label", &self.label)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
