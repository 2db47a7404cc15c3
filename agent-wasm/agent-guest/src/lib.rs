//! The OTA agent as a component: the world `ota:agent/agent` round agent-core, and nothing else.
//!
//! An export converts what it is given, hands it to the agent and does what the agent then wants done, one import call
//! an order; a call that is over at once goes back in as an event before the export returns. It decides nothing. Native
//! builds of this crate are empty: component export names hold a `:`, which no native linker takes.

#![cfg(target_family = "wasm")]

use std::cell::RefCell;

use agent_core::agent::Agent;
use agent_core::types as core;

use bindings::exports::ota::agent::job_agent;
use bindings::ota::agent::{os, types};

#[expect(
    clippy::all,
    clippy::unwrap_used,
    reason = "generated from wit/agent, which holds the documentation"
)]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/agent", world: "agent" });
}

mod convert;
mod order;

thread_local! {
    /// An instance is single-threaded and its functions are called one at a time.
    static AGENT: RefCell<Option<Agent>> = const { RefCell::new(None) };
}

struct Component;

#[expect(unsafe_code, reason = "the exports of a component are unmangled symbols")]
mod export {
    use super::{Component, bindings};
    bindings::export!(Component with_types_in bindings);
}

impl job_agent::Guest for Component {
    fn describe() -> job_agent::Description {
        let core::Description { name, version, schemas } = Agent::describe();
        job_agent::Description {
            name: name.to_owned(),
            version: version.to_owned(),
            schemas: schemas.to_vec(),
        }
    }

    fn start(
        context: job_agent::Context,
        info: job_agent::StartInfo,
    ) -> Result<job_agent::Turn, types::Failure> {
        std::panic::set_hook(Box::new(|panic| os::log(os::Level::Error, &panic.to_string())));
        let context = convert::context(context);
        AGENT.with_borrow_mut(|place| {
            // A second start of a living instance is a mistake of the host's; the newest state counts.
            let agent = place.insert(Agent::start(context, convert::start_info(info))?);
            Ok(finish(agent, context))
        })
    }

    fn handle(context: job_agent::Context, event: job_agent::Event) -> job_agent::Turn {
        let context = convert::context(context);
        with(|agent| {
            agent.handle(context, convert::event(event));
            finish(agent, context)
        })
    }

    fn status() -> job_agent::AgentStatus {
        with(|agent| convert::status(agent.status()))
    }

    fn snapshot(context: job_agent::Context) -> types::Blob {
        with(|agent| convert::blob_out(agent.snapshot(convert::context(context))))
    }
}

/// The contract starts an instance first; a host that does not gets a trap, with this text in its log.
fn with<R>(f: impl FnOnce(&mut Agent) -> R) -> R {
    AGENT.with_borrow_mut(|place| match place {
        Some(agent) => f(agent),
        None => panic!("called before start"),
    })
}

/// Do all that the agent wants done, and tell the host what is left behind.
fn finish(agent: &mut Agent, context: core::Context) -> job_agent::Turn {
    while let Some(core::Action { op, order }) = agent.poll_action() {
        match order::carry_out(order) {
            order::Begun::Nothing => {}
            order::Begun::Pending(token) => agent.bind(op, token),
            order::Begun::Over(outcome) => agent.handle(context, core::Event::Ended { op, outcome }),
        }
    }
    convert::turn(agent.turn())
}
