//! The OTA agent as a component: the world `ota:agent/agent` round agent-core, and nothing else.
//!
//! An export hands what it is given to the agent and does what the agent then wants done, one import call an order; a
//! call that is over at once goes back in as an event before the export returns. It decides nothing. Native builds of
//! this crate are empty: component export names hold a `:`, which no native linker takes.

#![cfg(target_family = "wasm")]
#![no_std]

extern crate alloc;

use alloc::borrow::ToOwned;
use core::cell::RefCell;
use core::panic::PanicInfo;

use agent_core::agent::Agent;
use agent_core::types::{
    Action, AgentStatus, Blob, Context, Description, Event, Failure, Level, StartInfo, Turn,
};

use bindings::exports::ota::agent::job_agent;
use bindings::ota::agent::os;

/// Generated from wit/agent, which holds the documentation.
mod bindings {
    // agent-core's types have the shape of the contract's, so they are lifted and lowered without a conversion. Only
    // where they are enumerations of another shape is one generated and converted.
    wit_bindgen::generate!({
        path: "../../wit/agent",
        world: "agent",
        with: {
            "ota:agent/types@0.1.0/failure": agent_core::types::Failure,
            "ota:agent/types@0.1.0/blob": agent_core::types::Blob,
            "ota:agent/types@0.1.0/version": agent_core::types::Version,
            "ota:agent/types@0.1.0/setting": agent_core::types::Setting,
            "ota:agent/types@0.1.0/image-info": agent_core::types::ImageInfo,
            "ota:agent/types@0.1.0/target-state": agent_core::types::TargetState,
            "ota:agent/types@0.1.0/outcome": agent_core::types::Outcome,
            "ota:agent/transport@0.1.0/qos": agent_core::types::Qos,
            "ota:agent/os@0.1.0/level": agent_core::types::Level,
            "ota:agent/os@0.1.0/application-event": agent_core::types::ApplicationEvent,
            "ota:agent/job-agent@0.1.0/context": agent_core::types::Context,
            "ota:agent/job-agent@0.1.0/target": agent_core::types::Target,
            "ota:agent/job-agent@0.1.0/config": agent_core::types::Config,
            "ota:agent/job-agent@0.1.0/saved": agent_core::types::Saved,
            "ota:agent/job-agent@0.1.0/start-info": agent_core::types::StartInfo,
            "ota:agent/job-agent@0.1.0/offer-answer": agent_core::types::OfferAnswer,
            "ota:agent/job-agent@0.1.0/job-result": agent_core::types::JobResult,
            "ota:agent/job-agent@0.1.0/custom-answer": agent_core::types::CustomAnswer,
            "ota:agent/job-agent@0.1.0/wait": agent_core::types::Wait,
            "ota:agent/job-agent@0.1.0/file-status": agent_core::types::FileStatus,
            "ota:agent/job-agent@0.1.0/agent-status": agent_core::types::AgentStatus,
            "ota:agent/job-agent@0.1.0/turn": agent_core::types::Turn,
        },
        // pal.rs calls them.
        skip: [
            "create", "reopen", "write-block", "close", "verified", "install", "activate", "reset", "self-test", "commit",
            "reject", "state", "abort",
        ],
    });
}

mod convert;
mod order;
mod pal;

/// 1.4 KB of code where the standard library's allocator has 6.5 (README.md).
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

struct Place(RefCell<Option<Agent>>);

#[expect(unsafe_code, reason = "a static must be Sync")]
// SAFETY: an instance has one thread.
unsafe impl Sync for Place {}

static AGENT: Place = Place(RefCell::new(None));

struct Component;

#[expect(
    unsafe_code,
    reason = "the exports of a component are unmangled symbols"
)]
mod export {
    use super::{Component, bindings};
    bindings::export!(Component with_types_in bindings);
}

impl job_agent::Guest for Component {
    fn describe() -> job_agent::Description {
        let Description {
            name,
            version,
            schemas,
        } = Agent::describe();
        job_agent::Description {
            name: name.to_owned(),
            version: version.to_owned(),
            schemas: schemas.to_vec(),
        }
    }

    fn start(context: Context, info: StartInfo) -> Result<Turn, Failure> {
        // A second start of a living instance is a mistake of the host's; the newest state counts.
        *AGENT.0.borrow_mut() = Some(Agent::start(context, info)?);
        Ok(with(|agent| finish(agent, context)))
    }

    fn handle(context: Context, event: job_agent::Event) -> Turn {
        with(|agent| {
            agent.handle(context, convert::event(event));
            finish(agent, context)
        })
    }

    fn status() -> AgentStatus {
        with(|agent| agent.status())
    }

    fn snapshot(context: Context) -> Blob {
        with(|agent| agent.snapshot(context))
    }
}

/// The contract starts an instance first; a host that does not gets a trap.
fn with<R>(f: impl FnOnce(&mut Agent) -> R) -> R {
    match &mut *AGENT.0.borrow_mut() {
        Some(agent) => f(agent),
        None => panic!("called before start"),
    }
}

/// Do all that the agent wants done, and tell the host what is left behind.
#[inline(never)]
fn finish(agent: &mut Agent, context: Context) -> Turn {
    while let Some(Action { op, order }) = agent.poll_action() {
        match order::carry_out(&order) {
            order::Begun::Nothing => {}
            order::Begun::Pending(token) => agent.bind(op, token),
            order::Begun::Over(outcome) => agent.handle(context, Event::Ended { op, outcome }),
        }
    }
    agent.turn()
}

/// The place of a panic goes to the host's log before the trap. Its text stands in the source at that place; here it
/// would bring the machinery of `format!`, 4 KB. Nothing is allocated, for that may be what failed.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut line = Line {
        bytes: [0; LINE_MAX_BYTES],
        length: 0,
    };
    line.push("panicked");
    if let Some(place) = info.location() {
        line.push(" at ");
        line.push(place.file());
        line.push(":");
        line.push_decimal(place.line());
    }
    os::log(Level::Error, line.text());
    core::arch::wasm32::unreachable()
}

/// Most bytes of a panic's line: a path of this workspace has 50, one of the standard library 100.
const LINE_MAX_BYTES: usize = 160;

/// A text that is cut where its place ends.
struct Line {
    bytes: [u8; LINE_MAX_BYTES],
    length: usize,
}

impl Line {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
    }

    fn push_decimal(&mut self, number: u32) {
        if number >= 10 {
            self.push_decimal(number / 10);
        }
        let digit = [b'0' + (number % 10) as u8];
        self.push(str::from_utf8(&digit).unwrap_or_default());
    }

    fn text(&self) -> &str {
        str::from_utf8(self.bytes.get(..self.length).unwrap_or_default()).unwrap_or_default()
    }
}
