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
mod service;

use std::sync::{Arc, MutexGuard};

use host_runtime::agent::{
    AgentBuild, AgentConfig, AgentInstance, Command, Context, Event, Saved, StartInfo,
    Target as TargetConfig, Turn, Wait,
};
use host_runtime::status::{STATE_NAMES, WAIT_JOB, WAIT_RESUME, name};
use host_runtime::types::{Blob, FileId, Setting};
use serde_json::Value;

use super::Error;
use super::input::{self, Answer, Input};
use super::model::Target;
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

    fn set_up(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let setting = |key: &str, value: &str| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        match words.as_slice() {
            ["device", name] => (*name).clone_into(&mut self.desk().device),
            ["set", key, value] => self.settings.push(setting(key, value)),
            ["show", "log"] => self.desk().show.log = true,
            ["show", "journal"] => self.desk().show.journal = true,
            ["show", "probes"] => self.desk().show.probes = true,
            ["target", file, running, pairs @ ..] => {
                let file: FileId = input::number(file)?;
                let running = if *running == "none" {
                    None
                } else {
                    Some(input::parse_version(running)?)
                };
                let pairs: Option<Vec<Setting>> = pairs
                    .iter()
                    .map(|pair| pair.split_once('=').map(|(key, value)| setting(key, value)))
                    .collect();
                let settings = pairs.ok_or("settings are key=value")?;
                self.configured.push(TargetConfig {
                    file,
                    name: format!("target-{file}"),
                    settings,
                });
                self.desk().targets.insert(file, Target::new(running));
            }
            ["image", file, version] => {
                let file: FileId = input::number(file)?;
                let next = if *version == "none" {
                    None
                } else {
                    Some(input::parse_version(version)?)
                };
                let mut desk = self.desk();
                desk.targets.get_mut(&file).ok_or("no such target")?.next = next;
            }
            _ => return Err(format!("{text:?} is no line of a set-up")),
        }
        Ok(())
    }

    /// Lets an input happen and plays on until the agent has nothing more to do at this instant.
    ///
    /// # Errors
    /// The script asks for what is not there, the agent goes round in circles or names no deadline, or it broke.
    pub fn enter(&mut self, input: &Input) -> Result<(), Error> {
        match input {
            Input::Start => self.start(Saved::None),
            Input::Restart => {
                let saved = {
                    let mut desk = self.desk();
                    desk.held.clear();
                    desk.due.clear();
                    desk.updates.clear();
                    desk.targets.values_mut().for_each(Target::forget_proof);
                    desk.journal.clone().filter(|blob| !blob.bytes.is_empty())
                };
                self.start(saved.map_or(Saved::None, Saved::Journal))
            }
            Input::Swap => self.swap(),
            Input::Connected(session_present) => {
                self.desk().forget_requests();
                self.handle(Event::Connected(*session_present))
            }
            Input::Disconnected(reason) => self.handle(Event::Disconnected {
                reason: *reason,
                detail: "as the script has it".to_owned(),
            }),
            Input::Next(_)
            | Input::Notify(_)
            | Input::NextRejected(_)
            | Input::JobReply(_)
            | Input::JobRejected(_)
            | Input::Accepted
            | Input::Rejected(..)
            | Input::Blocks(_)
            | Input::Block(_)
            | Input::Range(_) => self.serve(input),
            Input::Message(topic, payload) => {
                let topic = topic.replacen('~', &format!("$aws/things/{}", self.desk().device), 1);
                self.handle(Event::Message {
                    topic,
                    payload: payload.clone(),
                })
            }
            Input::On { kind, answer, once } => {
                let mut desk = self.desk();
                if *answer == Answer::Model {
                    desk.rules.remove(kind);
                } else {
                    desk.rules.insert(kind.clone(), (answer.clone(), *once));
                }
                Ok(())
            }
            Input::End(kind, answer) => self.end_held(kind, answer, 1),
            Input::EndAgain(kind, answer) => self.end_held(kind, answer, 2),
            Input::Done(token, outcome) => self.handle(Event::Done {
                token: *token,
                outcome: outcome.clone(),
            }),
            Input::ProgressOf(token, done, total) => self.handle(Event::Progress {
                token: *token,
                done: *done,
                total: *total,
            }),
            Input::Http(token, status, body) => self.handle(Event::HttpResponse {
                token: *token,
                status: *status,
                total: None,
                body: body.clone(),
            }),
            Input::Allowance(rate) => self.handle(Event::Allowance(*rate)),
            Input::Tick => self.handle(Event::Timeout),
            Input::Progress(kind, done, total) => {
                let token = {
                    let desk = self.desk();
                    let held = desk.held.iter().find(|held| held.kind == *kind);
                    held.ok_or_else(|| misused(&format!("no {kind} is held")))?
                        .token
                };
                self.handle(Event::Progress {
                    token,
                    done: *done,
                    total: *total,
                })
            }
            Input::Target(..) | Input::Image(..) | Input::WentBack(_) => self.change_target(input),
            Input::Restarted(file) => self.handle(Event::TargetRestarted(*file)),
            Input::Command(command) => self.command(command),
            Input::Wait(time) => self.pass(*time),
            Input::Timeout => {
                let deadline = self
                    .deadline()
                    .ok_or_else(|| misused("the agent names no deadline"))?;
                self.advance(deadline);
                self.handle(Event::Timeout)
            }
            Input::Custom(name, bytes) => self.handle(Event::Custom {
                name: name.clone(),
                bytes: bytes.clone(),
            }),
            Input::Statistics => self.statistics(),
            Input::Why => {
                let why = self.why();
                self.desk().lines.push(why);
                Ok(())
            }
        }
    }

    fn statistics(&mut self) -> Result<(), Error> {
        let instance = self.instance.as_mut();
        let status = instance
            .ok_or_else(|| misused("no agent was started"))?
            .status()
            .map_err(Error::broken("status"))?;
        let (received, processed, dropped) = (status.received, status.processed, status.dropped);
        self.desk().lines.push(format!(
            "received={received} processed={processed} dropped={dropped}"
        ));
        Ok(())
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
                Some(Due::Message(topic, payload)) => Event::Message { topic, payload },
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

    fn end_held(&mut self, kind: &str, answer: &Answer, times: usize) -> Result<(), Error> {
        let (token, outcome) = {
            let mut desk = self.desk();
            let index = desk
                .held
                .iter()
                .position(|held| held.kind == kind && !held.lost);
            let index = index.ok_or_else(|| misused(&format!("no {kind} is held")))?;
            let held = desk.held.remove(index);
            let outcome = match answer {
                Answer::Model => desk.by_model(&held.order),
                Answer::End(outcome) => outcome.clone(),
                Answer::Hold | Answer::Lost => {
                    return Err(misused("an end is nothing, fail, state or model"));
                }
            };
            desk.on_done(&held.order, &outcome);
            (held.token, outcome)
        };
        for _ in 0..times {
            let outcome = outcome.clone();
            self.handle(Event::Done { token, outcome })?;
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Error> {
        self.handle(Event::Command(command.clone()))
    }

    fn change_target(&mut self, input: &Input) -> Result<(), Error> {
        let (Input::Target(file, _) | Input::Image(file, _) | Input::WentBack(file)) = input else {
            return Ok(());
        };
        let mut desk = self.desk();
        let target = desk
            .targets
            .get_mut(file)
            .ok_or_else(|| misused("no such target"))?;
        match input {
            Input::Target(_, state) => target.state = *state,
            Input::Image(_, version) => target.next = *version,
            _ => target.go_back(),
        }
        Ok(())
    }

    fn advance(&mut self, to: u64) {
        let mut desk = self.desk();
        desk.now = desk.now.max(to);
    }

    fn pass(&mut self, time: u64) -> Result<(), Error> {
        let end = self.now() + time;
        for _ in 0..EVENTS_MAX {
            match self.deadline().filter(|deadline| *deadline <= end) {
                Some(deadline) => {
                    self.advance(deadline);
                    self.handle(Event::Timeout)?;
                }
                None => {
                    self.advance(end);
                    return Ok(());
                }
            }
        }
        Err(Error::Misbehaved(
            "the agent's deadlines do not move on".to_owned(),
        ))
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
    format!("now {}", name(&STATE_NAMES, code.into()))
}

fn parse_json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| misused(&format!("{text}: {error}")))
}

/// The script asks for what is not there.
fn misused(what: &str) -> Error {
    Error::Misbehaved(what.to_owned())
}
