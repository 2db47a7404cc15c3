//! The world of one case: an agent, its host's queue of answers, a job service that says what the script tells it, and
//! targets in memory.
//!
//! ```text
//!  input ─▶ event ─▶ agent ─▶ orders ─▶ desk ─▶ transcript
//!              ▲                          │
//!              └───── due answers ◀───────┴─ script's rule, or model
//! ```
//!
//! The agent is any [`AgentBuild`]: a component behind the host's own limits, or agent-core in this process.

mod desk;
mod script;
mod service;

use std::sync::{Arc, MutexGuard};

use host_runtime::agent::{
    AgentBuild, AgentConfig, AgentInstance, Context, Event, Message, Saved, StartInfo,
    Target as TargetConfig, Turn, Wait,
};
use host_runtime::status::{STATE_NAMES, WAIT_JOB, WAIT_RESUME, name_or_number};
use host_runtime::types::{Blob, Setting};
use serde_json::Value;

use super::Error;
use super::input;
use super::order;
use crate::check::script::Case;
use desk::{Desk, Due, Line};

/// Events that one input may lead to; more is a circle.
const EVENTS_MAX: usize = 10_000;

/// Most bytes of a snapshot (`wit/agent/types.wit`, record `blob`).
const SNAPSHOT_MAX_BYTES: usize = 256 * 1024;

/// States in which an agent may wait without a deadline: for a job, for `resume`, for nothing any more.
const MAY_WAIT: [u8; 3] = [3, 8, 10];

/// What is written down beside the agent's orders.
#[derive(Debug, Default)]
pub(super) struct Show {
    log: bool,
    journal: bool,
    probes: bool,
}

/// How the world differs from the plain one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Another instance takes over through a snapshot after every input.
    pub swapped: bool,
    /// The wall clock jumps by decades, both ways, from call to call, and is missing now and then.
    pub clock_jumps: bool,
}

/// The world.
pub struct World {
    build: Arc<AgentBuild>,
    instance: Option<Box<dyn AgentInstance>>,
    line: Line,
    settings: Vec<Setting>,
    configured: Vec<TargetConfig>,
    starts: u64,
    deadline: Option<u64>,
    state: Option<u8>,
    wait: Option<Wait>,
    clock_jumps: bool,
    /// Messages that are to come together, while they are collected.
    together: Option<Vec<Message>>,
}

/// Begins a line about what no transcript may hold: the agent did what is never right, or the script asks for what is
/// not there.
pub const MISTAKE: &str = "!!";

/// What a case leads to: the agent's lines after each input.
pub type Transcript = Vec<Vec<String>>;

/// What the agent of a case leaves behind, for another one to start from.
#[derive(Debug, Clone)]
pub struct Legacy {
    /// How the other one starts, but for the saved state.
    pub start: StartInfo,
    /// Its snapshot at the end of the case.
    pub snapshot: Blob,
    /// The journal that was stored last.
    pub journal: Option<Blob>,
}

/// Plays a case with an agent, its inputs as written, to the end.
///
/// # Errors
/// The script is none, or the agent broke.
pub fn play(build: &Arc<AgentBuild>, case: &Case, manner: Manner) -> Result<Transcript, Error> {
    Ok(run(build, case, manner)?.1)
}

/// Plays a case to its end and takes the agent's saved states; none if no agent came to be.
///
/// # Errors
/// The script is none, or the agent broke.
pub fn legacy(build: &Arc<AgentBuild>, case: &Case) -> Result<Option<Legacy>, Error> {
    let (mut world, _) = run(build, case, Manner::default())?;
    let context = world.context();
    let start = world.start_info(Saved::None);
    let journal = world.desk().journal.take();
    let Some(instance) = &mut world.instance else {
        return Ok(None);
    };
    let snapshot = instance
        .snapshot(context)
        .map_err(Error::broken("snapshot"))?;
    Ok(Some(Legacy {
        start,
        snapshot,
        journal,
    }))
}

fn run(build: &Arc<AgentBuild>, case: &Case, manner: Manner) -> Result<(World, Transcript), Error> {
    let mut world = World::set(build, case)?;
    world.clock_jumps = manner.clock_jumps;
    let mut transcript = Transcript::new();
    for step in &case.steps {
        let input = input::parse(&step.input).map_err(case.at(step.line))?;
        let mut result = world.enter(&input);
        let mut lines = world.take_lines();
        if manner.swapped && result.is_ok() && world.is_running() && input.reaches_agent() {
            result = world.swap();
            world.take_lines();
        }
        match result {
            Ok(()) => {}
            Err(Error::Misbehaved(what)) => lines.push(format!("{MISTAKE} {what}")),
            Err(other) => return Err(other),
        }
        transcript.push(lines);
    }
    Ok((world, transcript))
}

impl World {
    /// A world as a case's set-up has it, before the first input.
    ///
    /// # Errors
    /// The set-up is none.
    pub fn set(build: &Arc<AgentBuild>, case: &Case) -> Result<Self, Error> {
        let mut world = Self {
            build: Arc::clone(build),
            instance: None,
            line: Line::default(),
            // One window a round trip, as the C agent; a case that is about more says so.
            settings: vec![Setting {
                key: "requests_in_flight".to_owned(),
                value: "1".to_owned(),
            }],
            configured: Vec::new(),
            starts: 0,
            deadline: None,
            state: None,
            wait: None,
            clock_jumps: false,
            together: None,
        };
        {
            let mut desk = world.desk();
            desk.now = 1000;
            "mything".clone_into(&mut desk.device);
        }
        for (line, text) in &case.setup {
            world.set_up(text).map_err(case.at(*line))?;
        }
        Ok(world)
    }

    /// The transcript's lines since they were taken last.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.desk().lines)
    }

    /// Whether there is an agent.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.instance.is_some()
    }

    /// Milliseconds since the world began.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.desk().now
    }

    /// When the agent wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.instance.as_ref().and(self.deadline)
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.line.desk()
    }

    fn start_info(&self, saved: Saved) -> StartInfo {
        let desk = self.desk();
        let going = desk.held.iter().filter(|held| !held.lost);
        StartInfo {
            config: AgentConfig {
                device: desk.device.clone(),
                settings: self.settings.clone(),
                targets: self.configured.clone(),
            },
            saved,
            schema: self.build.schema(),
            seed: self.starts,
            outstanding: going.map(|held| held.token).collect(),
            last_event: desk.last_event,
        }
    }

    fn start(&mut self, saved: Saved) -> Result<(), Error> {
        self.starts += 1;
        let info = self.start_info(saved);
        let context = self.context();
        self.state = None;
        let outside = Box::new(self.line.clone());
        let started = self
            .build
            .instantiate(outside)
            .and_then(|mut instance| Ok((instance.start(context, info)?, instance)))
            .map_err(Error::broken("start"))?;
        match started {
            (Ok(turn), instance) => {
                self.instance = Some(instance);
                self.settle(turn)
            }
            (Err(failure), _) => {
                let numbers = order::numbers(&failure);
                let line = format!("start refused {numbers} {}", failure.detail);
                self.desk().lines.push(line);
                Ok(())
            }
        }
    }

    /// Another instance takes over. The state is not new, so it is not told again.
    ///
    /// # Errors
    /// As [`World::enter`].
    pub fn swap(&mut self) -> Result<(), Error> {
        let context = self.context();
        let instance = self.instance.as_mut();
        let snapshot = instance
            .ok_or_else(|| misused("no agent was started"))?
            .snapshot(context)
            .map_err(Error::broken("snapshot"))?;
        if snapshot.bytes.len() > SNAPSHOT_MAX_BYTES {
            return Err(Error::Misbehaved(format!(
                "a snapshot of {} bytes, at most {SNAPSHOT_MAX_BYTES} are kept",
                snapshot.bytes.len()
            )));
        }
        let state = self.state;
        self.start(Saved::Snapshot(snapshot))?;
        if self.state == state {
            let name = state.map(state_line);
            self.desk().lines.retain(|line| Some(line) != name.as_ref());
        }
        Ok(())
    }

    fn context(&self) -> Context {
        // 1970, 2023, 2100, the end of an unsigned 32-bit clock, none.
        const WALLS: [Option<u64>; 5] = [
            Some(0),
            Some(1_700_000_000),
            Some(4_102_444_800),
            Some(4_294_967_295),
            None,
        ];
        let desk = self.desk();
        let place = (desk.last_token + desk.now) % 5;
        Context {
            now_ms: desk.now,
            wall_s: WALLS[place as usize].filter(|_| self.clock_jumps),
        }
    }

    pub(super) fn handle(&mut self, event: Event) -> Result<(), Error> {
        let event = match (&mut self.together, event) {
            (Some(together), Event::Messages(messages)) => {
                together.extend(messages);
                return Ok(());
            }
            (Some(_), _) => {
                return Err(misused(
                    "something else passes messages that are to come together",
                ));
            }
            (None, event) => event,
        };
        let turn = self.call(event)?;
        self.settle(turn)
    }

    fn call(&mut self, event: Event) -> Result<Turn, Error> {
        let context = self.context();
        let instance = self.instance.as_mut();
        instance
            .ok_or_else(|| misused("no agent was started"))?
            .handle(context, event)
            .map_err(Error::broken("handle"))
    }

    /// Gives due answers until there are none.
    fn settle(&mut self, turn: Turn) -> Result<(), Error> {
        let mut turn = turn;
        for _ in 0..EVENTS_MAX {
            self.note(turn)?;
            let due = self.desk().due.pop_front();
            let event = match due {
                None => return Ok(()),
                Some(Due::Message(topic, payload)) => Event::message(topic, payload),
                Some(Due::Done(token, order, outcome)) => {
                    self.desk().on_done(&order, &outcome);
                    Event::Done { token, outcome }
                }
            };
            turn = self.call(event)?;
        }
        Err(Error::Misbehaved(
            "the agent goes round in circles".to_owned(),
        ))
    }

    /// Writes a turn down and checks the deadline.
    fn note(&mut self, turn: Turn) -> Result<(), Error> {
        self.deadline = turn.deadline_ms;
        if let Some(failure) = turn.refused {
            let numbers = order::numbers(&failure);
            let line = format!("refused {numbers} {}", failure.detail);
            self.desk().lines.push(line);
        }
        if let Some(status) = turn.status
            && self.state != Some(status.state)
        {
            self.state = Some(status.state);
            self.desk().lines.push(state_line(status.state));
        }
        if turn.wait.is_some() {
            self.wait = turn.wait;
        }
        let reason = self.wait.as_ref().map(|wait| wait.reason);
        let may_wait = self.state.is_some_and(|state| MAY_WAIT.contains(&state))
            || matches!(reason, Some(WAIT_JOB | WAIT_RESUME));
        if turn.deadline_ms.is_none() && !may_wait {
            let state = self.state.map_or_else(String::new, state_line);
            return Err(Error::Misbehaved(format!("no deadline in {state}")));
        }
        Ok(())
    }

    fn why(&self) -> String {
        let Some(wait) = &self.wait else {
            return "waits for nothing".to_owned();
        };
        let now = self.now();
        let gives_up = wait.gives_up_ms.map_or_else(
            || "never".to_owned(),
            |at| format!("in {} ms", at.saturating_sub(now)),
        );
        let error = wait
            .last_error
            .as_ref()
            .map_or_else(|| "none".to_owned(), order::numbers);
        format!(
            "waits {} tries={} gives up {gives_up} last error {error}: {}",
            wait.reason, wait.tries, wait.detail
        )
    }
}

fn state_line(code: u8) -> String {
    format!("now {}", name_or_number(&STATE_NAMES, code.into()))
}

fn parse_json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| misused(&format!("{text}: {error}")))
}

/// The script asks for what is not there.
fn misused(what: &str) -> Error {
    Error::Misbehaved(what.to_owned())
}
