//! The shipped components, loaded: the same bytes that a gateway runs.

use std::sync::Arc;

use host_runtime::agent::AgentBuild;
use host_runtime::engine::{Engine, EngineError, EngineOptions, Refusal, Time};
use host_runtime::plugin::{ComponentPlugin, PluginFactory};

use crate::world::Options;

/// Why the shipped components cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no engine here.
    #[error("no component can be run here")]
    Engine(#[from] EngineError),
    /// A component is not one that this host runs.
    #[error("a shipped component is refused")]
    Refused(#[from] Refusal),
    /// This build does not ship it.
    #[error("`{0}` is not shipped with this build")]
    Missing(&'static str),
}

/// Agent and plugins as they ship.
#[derive(Clone)]
pub struct Shipped {
    /// `agent.wasm`.
    pub agent: Arc<AgentBuild>,
    /// `pal-flash-file.wasm`.
    pub pal: Arc<dyn PluginFactory>,
    /// `pal-serial-mcu.wasm`.
    pub mcu_pal: Arc<dyn PluginFactory>,
    /// What they are compiled for, and run by.
    pub engine: Arc<Engine>,
}

impl Shipped {
    /// Compile them. It takes a second: load once, run often.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        Self::load_in(Time::Virtual)
    }

    /// The same, for another time: [`Time::Hasty`] is for a [`Kitchen::hasty`](crate::recipe::Kitchen::hasty), and
    /// [`Time::Real`], a gateway's, for who asks what guests cost there.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_in(time: Time) -> Result<Self, LoadError> {
        let engine = engine(time)?;
        Ok(Self {
            agent: AgentBuild::load(&engine, "built-in", bytes("agent")?)?,
            pal: ComponentPlugin::load(&engine, "builtin:flash-file", bytes("pal-flash-file")?)?,
            mcu_pal: mcu_pal(&engine)?,
            engine,
        })
    }

    /// The plugin of secondary MCUs alone, for runs of the agent in this process: it is what takes least time to compile.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_mcu_pal() -> Result<Arc<dyn PluginFactory>, LoadError> {
        mcu_pal(&engine(Time::Virtual)?)
    }

    /// A run of the shipped agent with the shipped plugins.
    #[must_use]
    pub fn options(&self, seed: u64) -> Options {
        Options {
            agent: Arc::clone(&self.agent),
            pal: Arc::clone(&self.pal),
            mcu_pal: Some(Arc::clone(&self.mcu_pal)),
            ..Options::native(seed)
        }
    }
}

/// Worlds have a time of their own.
fn engine(time: Time) -> Result<Arc<Engine>, EngineError> {
    Engine::new(&EngineOptions {
        time,
        ..EngineOptions::default()
    })
}

fn bytes(name: &'static str) -> Result<&'static [u8], LoadError> {
    let guest = guest_artifacts::guest(name).ok_or(LoadError::Missing(name))?;
    Ok(guest.bytes)
}

fn mcu_pal(engine: &Arc<Engine>) -> Result<Arc<dyn PluginFactory>, LoadError> {
    let bytes = bytes("pal-serial-mcu")?;
    Ok(ComponentPlugin::load(engine, "builtin:serial-mcu", bytes)?)
}
