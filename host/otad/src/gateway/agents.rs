//! The agent builds of a gateway: those of the configuration, and those that an operator has put in their place.
//!
//! What comes from a file is looked at by the gate (`code/`) at each start, also when it was kept. Not here: what is kept of a
//! build (`kept.rs`), who looks on (`witness.rs`), and the swap itself (`host-runtime`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use host_runtime::agent::{AgentBuild, FormerAgent, clean};
use host_runtime::choice::{self, Build, StandIn};
use host_runtime::engine::{Budget, Engine};
use host_runtime::ports::state_dir::StateDir;
use tokio::runtime::Handle;

use super::kept::{AGENTS, Hold, Shelf};
use super::{GatewayError, LABEL_MAX_BYTES, Witnesses, aside, kept, verdict, witness};
use crate::code::{Code, CodeError, Entry, Gate, Kind, Place, Signed, Source};
use crate::config::{AgentChoice, BUILTIN, BUILTIN_AGENTS, Config, Device};
use crate::exit::{Exit, Failed, chain};

/// See the module. It does not hold the lock of the state directory: who swaps may outlive a reload.
pub(crate) struct Agents {
    config: Config,
    engine: Arc<Engine>,
    state: Arc<dyn StateDir>,
    gate: Arc<Gate>,
    shelf: Arc<Shelf>,
    /// Where builds are loaded.
    workers: Handle,
    witnesses: Witnesses,
    /// Of the configuration, by label: loaded once for all devices that have it.
    configured: Mutex<BTreeMap<String, LoadedAgent>>,
    /// Of the state directory, by name and label: once too, for what was put in may serve all devices.
    stored: Mutex<BTreeMap<String, LoadedAgent>>,
}

/// A build, and who vouches for it.
#[derive(Clone)]
pub(crate) struct LoadedAgent {
    pub(crate) agent: Arc<AgentBuild>,
    signed: Option<Signed>,
}

impl LoadedAgent {
    /// As the state directory knows it.
    fn names(&self) -> Build {
        let signed = self.signed.as_ref();
        Build {
            manifest: signed.map(Signed::manifest_sha256),
            ..Build::of_agent(&self.agent)
        }
    }
}

impl Agents {
    pub(super) fn new(
        config: &Config,
        engine: &Arc<Engine>,
        state: &Arc<dyn StateDir>,
        gate: &Arc<Gate>,
        shelf: Arc<Shelf>,
        workers: &Handle,
    ) -> Self {
        Self {
            shelf,
            workers: workers.clone(),
            config: config.clone(),
            engine: Arc::clone(engine),
            state: Arc::clone(state),
            gate: Arc::clone(gate),
            witnesses: Witnesses::default(),
            configured: Mutex::default(),
            stored: Mutex::default(),
        }
    }

    /// The same, and somebody looks on at all of them.
    pub(super) fn with_witnesses(&self, witnesses: Witnesses) -> Self {
        Self {
            config: self.config.clone(),
            engine: Arc::clone(&self.engine),
            state: Arc::clone(&self.state),
            gate: Arc::clone(&self.gate),
            shelf: Arc::clone(&self.shelf),
            workers: self.workers.clone(),
            witnesses,
            configured: Mutex::default(),
            stored: Mutex::default(),
        }
    }

    pub(super) fn witnesses(&self) -> &Witnesses {
        &self.witnesses
    }

    /// The build that serves a device, and the one before it.
    ///
    /// # Errors
    /// The built-in build cannot be loaded, or who is to look on cannot.
    pub(super) fn serving(
        &self,
        device: &Device,
    ) -> Result<(Arc<AgentBuild>, Option<FormerAgent>), GatewayError> {
        let name = &device.name.value;
        let serving = kept::serving(
            &*self.state,
            &choice::Place::agent(name),
            &label(&device.component),
            || self.configured_at(device),
            |build| self.kept(device, build),
            |build, former, error| self.stand_in(device, build, former, error),
        )?;
        let on_trial = serving.on_trial;
        let witnessed =
            |loaded| witness::witnessed(&self.witnesses, self.placed(loaded, name), name);
        let former = serving.former.map(|former| {
            let agent = witnessed(former)?;
            Ok::<_, GatewayError>(FormerAgent { agent, on_trial })
        });
        Ok((witnessed(serving.build)?, former.transpose()?))
    }

    /// Everything that is kept stays until this goes, when the swap has ended.
    pub(crate) async fn hold(&self) -> Hold {
        self.shelf.hold().await
    }

    /// Load a build for a swap, and keep its bytes, which stay for as long as they are held, if it `fits`. It takes as long as
    /// compiling does, off the tasks that serve others.
    ///
    /// # Errors
    /// [`Exit::Refused`] for one that may not be loaded or is none, with the reason; [`Exit::Failed`] for a medium;
    /// [`Exit::Retry`] once the gateway has ended; what `fits` says.
    pub(crate) async fn take_in(
        self: Arc<Self>,
        source: Source,
        kept: &Hold,
        fits: impl FnOnce(&Arc<AgentBuild>) -> Result<(), Failed> + Send + 'static,
    ) -> Result<LoadedAgent, Failed> {
        let workers = self.workers.clone();
        aside(&workers, Some(kept), move || self.take_in_now(source, fits)).await
    }

    fn take_in_now(
        &self,
        source: Source,
        fits: impl FnOnce(&Arc<AgentBuild>) -> Result<(), Failed>,
    ) -> Result<LoadedAgent, Failed> {
        if let Source::Builtin(name) = &source
            && let Some(choice) = builtin(name)
        {
            let loaded = self.configured(&choice)?;
            fits(&loaded.agent)?;
            return Ok(loaded);
        }
        let words = source.to_string();
        let code = self.gate.take(Kind::Agent, source);
        let code = code.map_err(|error| verdict(&words, &error))?;
        let label = clean(&words, LABEL_MAX_BYTES);
        let agent = self.load_code(&label, &code).map_err(|error| {
            let text = format!("{words} is refused: {}", chain(&error));
            Failed::new(Exit::Refused, text)
        })?;
        fits(&agent)?;
        self.shelf.keep(|state, folder| code.keep(state, folder))?;
        let signed = code.signed;
        Ok(LoadedAgent { agent, signed })
    }

    /// A build that was taken in, for one device, with those who look on there.
    ///
    /// # Errors
    /// It is older than what this device has accepted, or who is to look on cannot.
    pub(crate) fn put_in(
        &self,
        loaded: &LoadedAgent,
        device: &str,
        entry: Entry,
    ) -> Result<Arc<AgentBuild>, Failed> {
        let place = Place::agent(device);
        let checked = self.gate.check(loaded.signed.as_ref(), &place, entry);
        checked.map_err(|error| verdict(loaded.agent.label(), &error))?;
        let agent = self.placed(loaded.clone(), device);
        Ok(witness::witnessed(&self.witnesses, agent, device)?)
    }

    /// The build for a device: what it has proved there is remembered.
    fn placed(&self, loaded: LoadedAgent, device: &str) -> Arc<AgentBuild> {
        let Some(signed) = loaded.signed else {
            return loaded.agent;
        };
        let (gate, place) = (Arc::clone(&self.gate), Place::agent(device));
        let manifest = signed.manifest_sha256();
        loaded.agent.vouched(&manifest, move || {
            if let Err(error) = gate.accept(Some(&signed), &place) {
                let why = chain(&error);
                tracing::warn!("{place}: an older agent may come in again: {why}");
            }
        })
    }

    /// The configured build for a device: it serves without a trial. Where it is refused the built-in one stands in, so that a
    /// device comes up whatever has become of a file or its signer.
    fn configured_at(&self, device: &Device) -> Result<LoadedAgent, GatewayError> {
        let refused = match self.let_in(device) {
            Err(error @ (GatewayError::Code { .. } | GatewayError::Agent { .. })) => error,
            end => return end,
        };
        let builtin = self.configured(&AgentChoice::Builtin(BUILTIN_AGENTS[0]))?;
        let label = label(&device.component);
        let build = Build {
            label: label.clone(),
            ..Build::of_agent(&builtin.agent)
        };
        let why = match &refused {
            GatewayError::Code { source, .. } => chain(source),
            other => chain(other),
        };
        let why = format!("{label}: {why}; the built-in agent serves");
        tracing::error!("{}: agent {why}", device.name.value);
        Ok(LoadedAgent {
            agent: builtin.agent.in_place_of(StandIn { build, why }),
            signed: None,
        })
    }

    /// What serves while the build that was chosen is not let in: the one before it, which knows what that has left; or the
    /// configured one.
    fn stand_in(
        &self,
        device: &Device,
        build: &Build,
        former: Option<&LoadedAgent>,
        error: &Failed,
    ) -> Result<LoadedAgent, GatewayError> {
        let instead = match former {
            Some(former) => former.clone(),
            None => self.configured_at(device)?,
        };
        let serves = instead.agent.label();
        let why = format!("{}: {error}; {serves} serves in its place", build.label);
        tracing::error!("{}: agent {why}", device.name.value);
        let build = build.clone();
        Ok(LoadedAgent {
            agent: instead.agent.in_place_of(StandIn { build, why }),
            signed: None,
        })
    }

    fn let_in(&self, device: &Device) -> Result<LoadedAgent, GatewayError> {
        let loaded = self.configured(&device.component)?;
        let (signed, place) = (loaded.signed.as_ref(), Place::agent(&device.name.value));
        self.gate
            .check(signed, &place, Entry::New)
            .and_then(|()| self.gate.accept(signed, &place))
            .map_err(|source| not_let_in(loaded.agent.label(), source))?;
        Ok(loaded)
    }

    /// A build by its names. It was let in when it came, so neither its age counts nor that a certificate has ended since.
    fn kept(&self, device: &Device, build: &Build) -> Result<LoadedAgent, Failed> {
        let is_configured = build.label == label(&device.component);
        let named = match is_configured {
            true => Some(device.component.clone()),
            false => labelled(&build.label),
        };
        let same = |loaded: &LoadedAgent| loaded.names() == *build;
        let loaded = named.as_ref().and_then(|named| self.configured(named).ok());
        let loaded = match loaded.filter(same) {
            Some(loaded) => loaded,
            None => match (self.load_kept(build)?, named) {
                (Some(loaded), _) => loaded,
                // Of the same name in another otad, or a file that was changed since.
                (None, Some(AgentChoice::File(_))) => return Ok(self.configured_at(device)?),
                (None, Some(builtin)) => self.configured(&builtin)?,
                (None, None) => {
                    let text = kept::gone(&kept::name_of(AGENTS, build));
                    return Err(Failed::new(Exit::Failed, text));
                }
            },
        };
        let place = Place::agent(&device.name.value);
        self.gate
            .check(loaded.signed.as_ref(), &place, Entry::Before)
            .map_err(|error| kept::refused(&error))?;
        Ok(loaded)
    }

    fn load_kept(&self, build: &Build) -> Result<Option<LoadedAgent>, Failed> {
        let name = kept::name_of(AGENTS, build);
        let key = format!("{name} {}", build.label);
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = stored.get(&key) {
            return Ok(Some(loaded.clone()));
        }
        let dir = &self.config.daemon.state_dir.value;
        let Some(code) = kept::read(&self.gate, dir, choice::Kind::Agent, build)? else {
            return Ok(None);
        };
        let agent = self.load_code(&build.label, &code)?;
        let signed = code.signed;
        let loaded = LoadedAgent { agent, signed };
        stored.insert(key, loaded.clone());
        Ok(Some(loaded))
    }

    /// Load what the gate has read.
    fn load_code(&self, label: &str, code: &Code) -> Result<Arc<AgentBuild>, GatewayError> {
        let agent = self.load(label, &code.bytes, &code.budget(), &code.whose())?;
        let who = agent.description();
        code.admit(&who.name, &who.version, &[])
            .map_err(|source| not_let_in(label, source))?;
        Ok(agent)
    }

    fn load(
        &self,
        label: &str,
        bytes: &[u8],
        budget: &Budget,
        whose: &str,
    ) -> Result<Arc<AgentBuild>, GatewayError> {
        let agent = AgentBuild::load_within(&self.engine, label, bytes, budget);
        let agent = agent.map_err(|source| GatewayError::Agent {
            label: label.to_owned(),
            source,
        })?;
        let who = agent.description();
        tracing::info!("agent {} {} ({label}, {whose})", who.name, who.version);
        Ok(agent)
    }

    /// The agent of the configuration.
    fn configured(&self, choice: &AgentChoice) -> Result<LoadedAgent, GatewayError> {
        let label = label(choice);
        let configured = self.configured.lock();
        let mut configured = configured.unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = configured.get(&label) {
            return Ok(loaded.clone());
        }
        let loaded = match choice {
            // `config/agent.rs` has checked the name against the same list.
            AgentChoice::Builtin(name) => {
                let bytes = match *name {
                    "simple" => guest_artifacts::AGENT_SIMPLE,
                    _ => guest_artifacts::AGENT,
                };
                LoadedAgent {
                    agent: self.load(&label, bytes, &Budget::AGENT, "part of otad")?,
                    signed: None,
                }
            }
            AgentChoice::File(path) => {
                let code = self.gate.read(Kind::Agent, &path.value);
                let code = code.map_err(|source| not_let_in(&label, source))?;
                LoadedAgent {
                    agent: self.load_code(&label, &code)?,
                    signed: code.signed,
                }
            }
        };
        configured.insert(label, loaded.clone());
        Ok(loaded)
    }
}

/// The part of otad that has this name.
fn builtin(name: &str) -> Option<AgentChoice> {
    let known = BUILTIN_AGENTS.iter().find(|known| **known == name);
    known.map(|name| AgentChoice::Builtin(name))
}

/// The part of otad that the configuration calls this.
fn labelled(text: &str) -> Option<AgentChoice> {
    let mut all = BUILTIN_AGENTS.iter().map(|name| AgentChoice::Builtin(name));
    all.find(|choice| label(choice) == text)
}

/// What the configuration calls the agent that is part of otad unless another one is named.
pub(super) const BUILTIN_AGENT: &str = "built-in";

/// What the configuration calls a device's agent.
pub(crate) fn label(choice: &AgentChoice) -> String {
    match choice {
        AgentChoice::Builtin("agent") => BUILTIN_AGENT.to_owned(),
        AgentChoice::Builtin(name) => format!("{BUILTIN}{name}"),
        AgentChoice::File(path) => path.value.display().to_string(),
    }
}

fn not_let_in(label: &str, source: CodeError) -> GatewayError {
    GatewayError::Code {
        kind: Kind::Agent,
        label: label.to_owned(),
        source,
    }
}
