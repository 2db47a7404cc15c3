//! Who looks on while agents run: a flight recorder, a shadow.
//!
//! Neither can hold an agent up or end a device that runs: what goes wrong with them then is logged. What cannot even begin, such as
//! a folder that cannot be written, ends the start: who asked for a record is not to find out after the incident. Not here: how they work
//! (`host_runtime::agent`).

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use host_crypto::hex;
use host_runtime::agent::AgentBuild;
use host_runtime::agent::record::Recorder;
use host_runtime::agent::shadow::{Shadow, ShadowEnd};
use host_runtime::agent::tap::tapped;
use host_runtime::agent::trace::Header;

use super::GatewayError;

/// Who is to look on.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    /// Record each device's agent into a directory of its name below this one.
    pub record: Option<PathBuf>,
    /// Let this agent follow those of all devices.
    pub candidate: Option<Arc<AgentBuild>>,
}

/// The agent of a device, with those who look on.
pub(super) fn witnessed(
    witnesses: &Witnesses,
    mut agent: Arc<AgentBuild>,
    device: &str,
) -> Result<Arc<AgentBuild>, GatewayError> {
    // The shadow is nearer to the agent: where the recorder starts it anew, the shadow is started anew as well.
    if let Some(candidate) = &witnesses.candidate {
        agent = shadowed(&agent, candidate, device)?;
    }
    if let Some(dir) = &witnesses.record {
        let dir = dir.join(device);
        let unusable = |source| GatewayError::Record {
            path: dir.clone(),
            source,
        };
        let header = Header {
            agent: agent.description().name.clone(),
            version: agent.description().version.clone(),
            digest: hex(agent.digest()),
            device: device.to_owned(),
        };
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|error| GatewayError::Random(std::io::Error::other(error.to_string())))?;
        let recorder = Recorder::new(&dir, header, salt).map_err(unusable)?;
        tracing::info!("{device}: its agent is recorded in {}", dir.display());
        agent = tapped(&agent, Arc::new(Mutex::new(recorder)));
    }
    Ok(agent)
}

fn shadowed(
    agent: &Arc<AgentBuild>,
    candidate: &Arc<AgentBuild>,
    device: &str,
) -> Result<Arc<AgentBuild>, GatewayError> {
    let name = device.to_owned();
    let report = Box::new(move |end| tell(&name, &end));
    let shadow = Shadow::start(Arc::clone(candidate), report).map_err(GatewayError::Shadow)?;
    let label = candidate.label();
    tracing::info!("{device}: {label} does what its agent does, without effect");
    Ok(tapped(agent, Arc::new(Mutex::new(shadow))))
}

fn tell(device: &str, end: &ShadowEnd) {
    match end {
        ShadowEnd::Over(exchanges) => {
            tracing::info!("{device}: the shadow did the same in {exchanges} exchanges");
        }
        ShadowEnd::FellBehind(exchanges) => {
            tracing::warn!(
                "{device}: the shadow fell behind after {exchanges} exchanges and is over"
            );
        }
        ShadowEnd::Differs(difference) => {
            let (exchange, asked) = (difference.exchange, &difference.asked);
            let (live, instead) = (&difference.recorded, &difference.instead);
            tracing::warn!(
                "{device}: the shadow is over: in exchange {exchange}, asked {asked}, the live agent did {live} and the shadow {instead}"
            );
        }
    }
}
