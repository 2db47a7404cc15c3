//! The OTA agent as a component: the world `ota:agent/agent` round agent-core, and nothing else.
//!
//! An export hands what it is given to the agent and does what the agent then wants done, one import call an order; a
//! call that is over at once goes back in as an event before the export returns. It decides nothing. Native builds of
//! this crate are empty: component export names hold a `:`, which no native linker takes.

#![cfg(target_family = "wasm")]
#![no_std]

extern crate alloc;

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use agent_core::agent::Agent;
use agent_core::types::{
    Action, AgentStatus, Blob, Context, Description, Event, Failure, Level, StartInfo, Turn,
};

use abi::{Fields, Kept, Layout, Lift, Lower, Place, Several};
use bindings::ota::agent::os;
use contract::Started;
use memory::Memory;

#[allow(dead_code, reason = "import.rs and contract.rs do the rest")]
mod bindings {
    // Generated from wit/agent, which holds the documentation. What it generates for values with fields is so large that
    // it is not used (README.md): left are the description of the world that wit-component reads, and functions of
    // numbers and texts.
    wit_bindgen::generate!({
        path: "../../wit/agent",
        world: "agent",
        with: {
            "ota:agent/types@0.1.0/failure": agent_core::types::Failure,
            "ota:agent/types@0.1.0/blob": agent_core::types::Blob,
            "ota:agent/types@0.1.0/version": agent_core::types::Version,
            "ota:agent/transport@0.1.0/qos": agent_core::types::Qos,
            "ota:agent/os@0.1.0/level": agent_core::types::Level,
        },
        skip: [
            "create", "reopen", "write-block", "close", "verified", "install", "activate", "reset", "self-test", "commit",
            "reject", "state", "abort", "emit",
        ],
    });
}

mod abi;
mod contract;
mod import;
mod memory;
mod order;

#[global_allocator]
static ALLOCATOR: Memory = Memory::new(grow);

/// Bytes of a page of memory.
const PAGE: usize = 1 << 16;

#[expect(unsafe_code, reason = "a name that the linker gives")]
// SAFETY: every module that it links has one.
unsafe extern "C" {
    /// Where the linker has placed nothing more.
    safe static __heap_base: u8;
}

/// Where memory begins that nobody has asked for.
static UNUSED: AtomicPtr<u8> = AtomicPtr::new((&raw const __heap_base).cast_mut());

/// What is left of the memory that there is, for the allocator, and more pages where that is not enough. Few agents need any:
/// an instance is made, and goes, without a change of its memory's size.
fn grow(bytes: usize) -> Option<(*mut u8, usize)> {
    let end = || core::arch::wasm32::memory_size::<0>() * PAGE;
    let at = UNUSED.load(Relaxed);
    // A page too many where it is just so many: that is the shorter code.
    if end() - (at as usize) < bytes
        && core::arch::wasm32::memory_grow::<0>(bytes / PAGE + 1) == usize::MAX
    {
        return None;
    }
    UNUSED.store(end() as *mut u8, Relaxed);
    Some((at, end() - at as usize))
}

/// All that an instance has.
struct Instance {
    /// Never given back piece by piece: a host that starts an instance twice has the first one's memory as well.
    agent: Option<ManuallyDrop<Agent>>,
    answer: Answer,
    /// The answer, laid out.
    area: [u64; AREA_WORDS],
    /// Lists that the area points to.
    kept: Kept,
}

/// What the last call answered. The host reads it where it lies, so it stays until the next one, and there is nothing to
/// give back after a call.
enum Answer {
    Description(Description),
    Started(Result<Turn, Failure>),
    Turn(Turn),
    Status(AgentStatus),
    Blob(Blob),
}

/// Room for the largest answer.
const AREA_WORDS: usize = <Result<Turn, Failure>>::SIZE / 8;

/// Made by the first call, in a box: what a static holds besides zeros stands in the component byte for byte, and its
/// address is written out, three bytes, at each place that looks at a field.
struct Global(UnsafeCell<Option<Box<Instance>>>);

#[expect(unsafe_code, reason = "a static must be Sync")]
// SAFETY: an instance has one thread.
unsafe impl Sync for Global {}

static INSTANCE: Global = Global(UnsafeCell::new(None));

impl Instance {
    fn new() -> Box<Self> {
        Box::new(Self {
            agent: None,
            answer: Answer::Description(Agent::describe()),
            area: [0; AREA_WORDS],
            kept: Kept::new(),
        })
    }

    /// The contract starts an instance first; a host that does not gets a trap.
    fn agent(&mut self) -> &mut Agent {
        match &mut self.agent {
            Some(agent) => agent,
            None => panic!("called before start"),
        }
    }

    /// Lays out an answer in place of the last one.
    fn answer(&mut self, answer: Answer) -> *const u8 {
        self.answer = answer;
        self.kept.clear();
        #[expect(unsafe_code, reason = "the place of the answer")]
        // SAFETY: there is room for each of them.
        let place = unsafe { Place::new(self.area.as_mut_ptr().cast()) };
        match &self.answer {
            Answer::Description(description) => description.lower(place, &mut self.kept),
            Answer::Started(result) => result.lower(place, &mut self.kept),
            Answer::Turn(turn) => turn.lower(place, &mut self.kept),
            Answer::Status(status) => status.lower(place, &mut self.kept),
            Answer::Blob(blob) => blob.lower(place, &mut self.kept),
        }
        place.address()
    }
}

/// Do all that the agent wants done.
fn finish(agent: &mut Agent, context: Context) {
    while let Some(Action { op, order }) = agent.poll_action() {
        match order::carry_out(&order) {
            None => {}
            Some(Started::Pending(token)) => agent.bind(op, token),
            Some(Started::Done(outcome)) => agent.handle(context, Event::Ended { op, outcome }),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the exports of a component are unmangled symbols that take raw memory"
)]
mod export {
    use super::*;

    /// Does something with all that the instance has.
    fn with<R>(f: impl FnOnce(&mut Instance) -> R) -> R {
        // SAFETY: the component model lets no export be called while another one runs, and each asks once.
        let instance = unsafe { &mut *INSTANCE.0.get() };
        f(instance.get_or_insert_with(Instance::new))
    }

    /// Takes over the parameters of a call.
    fn parameters<T: Lift>(at: *mut u8) -> (Context, T) {
        // SAFETY: the host has laid them out there.
        let place = unsafe { Place::new(at) };
        let parameters = <(Context, T)>::lift(place);
        place.free(<(Context, T)>::SIZE, <(Context, T)>::ALIGN);
        parameters
    }

    #[unsafe(export_name = "ota:agent/job-agent@0.1.0#describe")]
    extern "C" fn describe() -> *const u8 {
        with(|instance| instance.answer(Answer::Description(Agent::describe())))
    }

    #[unsafe(export_name = "ota:agent/job-agent@0.1.0#start")]
    extern "C" fn start(at: *mut u8) -> *const u8 {
        let (context, info) = parameters::<StartInfo>(at);
        with(|instance| {
            let result = Agent::start(context, info).map(|started| {
                // A second start of a living instance is a mistake of the host's; the newest state counts.
                let agent = instance.agent.insert(ManuallyDrop::new(started));
                finish(agent, context);
                agent.turn()
            });
            instance.answer(Answer::Started(result))
        })
    }

    #[unsafe(export_name = "ota:agent/job-agent@0.1.0#handle")]
    extern "C" fn handle(at: *mut u8) -> *const u8 {
        // SAFETY: the host has laid them out there.
        let place = unsafe { Place::new(at) };
        let mut fields = Fields::new(place);
        let context = fields.lift();
        let events = fields.next::<Event>();
        with(|instance| {
            let agent = instance.agent();
            let mut index = 0;
            while let Some(event) = Event::nth(events, index) {
                agent.handle(context, event);
                finish(agent, context);
                index += 1;
            }
            place.free(<(Context, Event)>::SIZE, <(Context, Event)>::ALIGN);
            let turn = agent.turn();
            instance.answer(Answer::Turn(turn))
        })
    }

    #[unsafe(export_name = "ota:agent/job-agent@0.1.0#status")]
    extern "C" fn status() -> *const u8 {
        with(|instance| {
            let status = instance.agent().status();
            instance.answer(Answer::Status(status))
        })
    }

    #[unsafe(export_name = "ota:agent/job-agent@0.1.0#snapshot")]
    extern "C" fn snapshot(now_ms: u64, has_wall: u32, wall_s: u64) -> *const u8 {
        let wall_s = (has_wall != 0).then_some(wall_s);
        with(|instance| {
            let blob = instance.agent().snapshot(Context { now_ms, wall_s });
            instance.answer(Answer::Blob(blob))
        })
    }
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
                *place = byte & 0x7f;
                self.length += 1;
            }
        }
    }

    fn push_decimal(&mut self, number: u32) {
        if number >= 10 {
            self.push_decimal(number / 10);
        }
        let digit = (number % 10) as usize;
        self.push("0123456789".get(digit..=digit).unwrap_or_default());
    }

    #[expect(
        unsafe_code,
        reason = "the standard library's check is larger than the rest of the panic handler"
    )]
    fn text(&self) -> &str {
        // SAFETY: `push` puts in nothing but ASCII.
        unsafe { str::from_utf8_unchecked(self.bytes.get(..self.length).unwrap_or_default()) }
    }
}
