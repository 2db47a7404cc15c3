//! The agent as the configuration names it: a part of otad, or a file that the gate lets in, loaded once.

use std::sync::{Arc, PoisonError};

use host_runtime::agent::AgentBuild;
use host_runtime::engine::Budget;

use super::{Gateway, GatewayError};
use crate::code::{CodeError, Entry, Kind, Place, Signed};
use crate::config::AgentChoice;

/// An agent, and who vouches for it.
pub(super) type LoadedAgent = (Arc<AgentBuild>, Option<Signed>);

impl Gateway {
    /// A device's agent, loaded once for all devices that have it.
    pub(super) fn agent(
        &self,
        device: &str,
        choice: &AgentChoice,
    ) -> Result<Arc<AgentBuild>, GatewayError> {
        let label = match choice {
            AgentChoice::Builtin("agent") => "built-in".to_owned(),
            AgentChoice::Builtin(name) => format!("builtin:{name}"),
            AgentChoice::File(path) => path.value.display().to_string(),
        };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let (agent, signed) = match agents.get(&label) {
            Some(loaded) => loaded.clone(),
            None => {
                let loaded = self.load_agent(&label, choice)?;
                agents.insert(label.clone(), loaded.clone());
                loaded
            }
        };
        let place = Place::agent(device);
        self.gate
            .check(signed.as_ref(), &place, Entry::New)
            .and_then(|()| self.gate.accept(signed.as_ref(), &place))
            .map_err(|source| refused(&label, source))?;
        Ok(agent)
    }

    fn load_agent(&self, label: &str, choice: &AgentChoice) -> Result<LoadedAgent, GatewayError> {
        let load = |bytes: &[u8], budget: &Budget| {
            AgentBuild::load_within(&self.engine, label, bytes, budget).map_err(|source| {
                GatewayError::Agent {
                    label: label.to_owned(),
                    source,
                }
            })
        };
        let (agent, signed, whose) = match choice {
            // `config/agent.rs` has checked the name against the same list.
            AgentChoice::Builtin(name) => {
                let bytes = match *name {
                    "simple" => guest_artifacts::AGENT_SIMPLE,
                    _ => guest_artifacts::AGENT,
                };
                (load(bytes, &Budget::AGENT)?, None, String::new())
            }
            AgentChoice::File(path) => {
                let code = self.gate.read(Kind::Agent, &path.value);
                let code = code.map_err(|source| refused(label, source))?;
                let agent = load(&code.bytes, &code.budget())?;
                let who = agent.description();
                code.admit(&who.name, &who.version, &[])
                    .map_err(|source| refused(label, source))?;
                let whose = format!(", {}", code.whose());
                (agent, code.signed, whose)
            }
        };
        let who = agent.description();
        tracing::info!("agent {} {} ({label}{whose})", who.name, who.version);
        Ok((agent, signed))
    }
}

fn refused(label: &str, source: CodeError) -> GatewayError {
    GatewayError::Code {
        kind: Kind::Agent,
        label: label.to_owned(),
        source,
    }
}
