//! The shipped components, loaded: the same bytes that a gateway runs.

use std::sync::Arc;

use host_runtime::agent::AgentBuild;
use host_runtime::engine::{Engine, EngineError, EngineOptions, Refusal};
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

/// Agent and flash-file plugin as they ship.
#[derive(Clone)]
pub struct Shipped {
    /// `agent.wasm`.
    pub agent: Arc<AgentBuild>,
    /// `pal-flash-file.wasm`.
    pub pal: Arc<dyn PluginFactory>,
}

impl Shipped {
    /// Compile both. It takes a second: load once, run often.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        let bytes = |name| {
            guest_artifacts::guest(name)
                .map(|guest| guest.bytes)
                .ok_or(LoadError::Missing(name))
        };
        let engine = Engine::new(&EngineOptions::default())?;
        Ok(Self {
            agent: AgentBuild::load(&engine, "built-in", bytes("agent")?)?,
            pal: ComponentPlugin::load(&engine, "builtin:flash-file", bytes("pal-flash-file")?)?,
        })
    }

    /// A run of the shipped agent with the shipped plugin.
    #[must_use]
    pub fn options(&self, seed: u64) -> Options {
        Options {
            agent: Arc::clone(&self.agent),
            pal: Arc::clone(&self.pal),
            ..Options::native(seed)
        }
    }
}
