//! The world of one case: an agent, its host's queue of answers, a job service that says what the script tells it, and
//! targets in memory.
//!
//! ```text
//!  input ─▶ event ─▶ agent ─▶ orders ─▶ transcript
//!              ▲                 │
//!              └── due answers ◀─┴─ script's rule, or model
//! ```

mod host;
mod service;

use std::collections::{BTreeMap, VecDeque};

use agent_core::agent::Agent;
use agent_core::code::State;
use agent_core::types::{
    Blob, Command, Config, Context, Event, FileId, Op, Order, Outcome, Saved, Setting, StartInfo,
    Target as TargetConfig, Token, Wait,
};
use serde_json::{Value, json};

use crate::Error;
use crate::input::{self, Answer, Input};
use crate::model::Target;
use crate::render::{self, BlockRequest};
use crate::script::Case;

/// Events that one input may lead to; more is a circle.
const EVENTS_MAX: usize = 10_000;

/// What is written down beside the agent's orders.
#[derive(Debug, Default)]
struct Show {
    log: bool,
    journal: bool,
    probes: bool,
}

/// An order that goes on.
struct Held {
    token: Token,
    kind: String,
    order: Order,
    lost: bool,
}

/// What the host will tell the agent next.
enum Due {
    Done(Token, Order, Outcome),
    Message(String, Vec<u8>),
}

/// The world.
pub struct World {
    agent: Option<Agent>,
    now: u64,
    device: String,
    settings: Vec<Setting>,
    configured: Vec<TargetConfig>,
    targets: BTreeMap<FileId, Target>,
    show: Show,
    starts: u64,
    last_token: Token,
    last_op: Op,
    last_event: u64,
    journal: Option<Blob>,
    rules: BTreeMap<String, (Answer, bool)>,
    held: Vec<Held>,
    due: VecDeque<Due>,
    asked: Option<String>,
    asked_job: Option<(String, String)>,
    updates: VecDeque<(String, String)>,
    request: BlockRequest,
    stream: String,
    sizes: BTreeMap<u64, u64>,
    state: Option<u8>,
    wait: Option<Wait>,
    lines: Vec<String>,
    clock_jumps: bool,
}

/// Begins a line about what no transcript may hold: the agent did what is never right, or the script asks for what is
/// not there.
pub const MISTAKE: &str = "!!";

/// What a case leads to: the agent's lines after each input.
pub type Transcript = Vec<Vec<String>>;

/// Plays a case; with `swapped`, another instance takes over through a snapshot after every input.
///
/// # Errors
/// The script is none.
pub fn play(file: &str, case: &Case, swapped: bool) -> Result<Transcript, Error> {
    Ok(run(file, case, World::new(), swapped)?.1)
}

/// Plays a case while the wall clock jumps by decades, both ways, from call to call, and is missing now and then.
///
/// # Errors
/// The script is none.
pub fn play_with_jumping_clock(file: &str, case: &Case) -> Result<Transcript, Error> {
    let mut world = World::new();
    world.clock_jumps = true;
    Ok(run(file, case, world, false)?.1)
}

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

/// Plays a case to its end and takes the agent's saved states; none if no agent came to be.
///
/// # Errors
/// The script is none.
pub fn legacy(file: &str, case: &Case) -> Result<Option<Legacy>, Error> {
    let (mut world, _) = run(file, case, World::new(), false)?;
    let context = world.context();
    let start = world.start_info(Saved::None);
    let journal = world.journal.take();
    Ok(world.agent.as_mut().map(|agent| Legacy {
        start,
        snapshot: agent.snapshot(context),
        journal,
    }))
}

fn run(
    file: &str,
    case: &Case,
    mut world: World,
    swapped: bool,
) -> Result<(World, Transcript), Error> {
    let at = |line: usize| {
        let file = file.to_owned();
        move |what: String| Error::Script { file, line, what }
    };
    for (line, text) in &case.setup {
        world.set_up(text).map_err(at(*line))?;
    }
    let mut transcript = Transcript::new();
    for step in &case.steps {
        let input = input::parse(&step.input).map_err(at(step.line))?;
        let mut result = world.enter(&input);
        let mut lines = std::mem::take(&mut world.lines);
        if swapped && result.is_ok() && world.agent.is_some() && input.reaches_agent() {
            result = world.swap();
            world.lines.clear();
        }
        if let Err(error) = result {
            lines.push(format!("{MISTAKE} {error}"));
        }
        transcript.push(lines);
    }
    Ok((world, transcript))
}

impl World {
    fn new() -> Self {
        Self {
            agent: None,
            now: 1000,
            device: "mything".to_owned(),
            settings: Vec::new(),
            configured: Vec::new(),
            targets: BTreeMap::new(),
            show: Show::default(),
            starts: 0,
            last_token: 0,
            last_op: 0,
            last_event: 0,
            journal: None,
            rules: BTreeMap::new(),
            held: Vec::new(),
            due: VecDeque::new(),
            asked: None,
            asked_job: None,
            updates: VecDeque::new(),
            request: BlockRequest::default(),
            stream: String::new(),
            sizes: BTreeMap::new(),
            state: None,
            wait: None,
            lines: Vec::new(),
            clock_jumps: false,
        }
    }

    fn set_up(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let setting = |key: &str, value: &str| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        match words.as_slice() {
            ["device", name] => self.device = (*name).to_owned(),
            ["set", key, value] => self.settings.push(setting(key, value)),
            ["show", "log"] => self.show.log = true,
            ["show", "journal"] => self.show.journal = true,
            ["show", "probes"] => self.show.probes = true,
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
                self.targets.insert(file, Target::new(running));
            }
            ["image", file, version] => {
                let file: FileId = input::number(file)?;
                let target = self.targets.get_mut(&file).ok_or("no such target")?;
                target.next = if *version == "none" {
                    None
                } else {
                    Some(input::parse_version(version)?)
                };
            }
            _ => return Err(format!("{text:?} is no line of a set-up")),
        }
        Ok(())
    }

    fn enter(&mut self, input: &Input) -> Result<(), Error> {
        match input {
            Input::Start => self.start(Saved::None),
            Input::Restart => {
                self.held.clear();
                self.due.clear();
                self.updates.clear();
                let saved = self.journal.clone().filter(|blob| !blob.bytes.is_empty());
                self.start(saved.map_or(Saved::None, Saved::Journal))
            }
            Input::Swap => self.swap(),
            Input::Connected(session_present) => self.handle(Event::Connected {
                session_present: *session_present,
            }),
            Input::Disconnected(reason) => self.handle(Event::Disconnected {
                reason: *reason,
                detail: "as the script has it".to_owned(),
            }),
            Input::Next(execution) => {
                let token = self
                    .asked
                    .take()
                    .ok_or_else(|| misused("nothing was asked for"))?;
                self.reply(
                    "jobs/$next/get/accepted",
                    Some(&token),
                    execution.as_deref(),
                    &[],
                )
            }
            Input::Notify(execution) => {
                self.reply("jobs/notify-next", None, execution.as_deref(), &[])
            }
            Input::NextRejected(code) => {
                let token = self
                    .asked
                    .take()
                    .ok_or_else(|| misused("nothing was asked for"))?;
                self.reply(
                    "jobs/$next/get/rejected",
                    Some(&token),
                    None,
                    &[("code", json!(code))],
                )
            }
            Input::JobReply(execution) => {
                let asked = self.asked_job.take();
                let (job, token) = asked.ok_or_else(|| misused("no job was asked for"))?;
                let topic = format!("jobs/{job}/get/accepted");
                self.reply(&topic, Some(&token), Some(execution), &[])
            }
            Input::JobRejected(code) => {
                let asked = self.asked_job.take();
                let (job, token) = asked.ok_or_else(|| misused("no job was asked for"))?;
                let topic = format!("jobs/{job}/get/rejected");
                self.reply(&topic, Some(&token), None, &[("code", json!(code))])
            }
            Input::Accepted => self.answer_update("accepted", &[]),
            Input::Rejected(code, state) => {
                let mut members = vec![
                    ("code", json!(code)),
                    ("message", json!("as the script has it")),
                ];
                if let Some(state) = state {
                    members.push(("executionState", parse_json(state)?));
                }
                self.answer_update("rejected", &members)
            }
            Input::Blocks(count) => self.send_blocks(*count),
            Input::Block(block) => self.send_block(block),
            Input::Message(topic, payload) => {
                let topic = topic.replacen('~', &format!("$aws/things/{}", self.device), 1);
                self.handle(Event::Message {
                    topic,
                    payload: payload.clone(),
                })
            }
            Input::On { kind, answer, once } => {
                if *answer == Answer::Model {
                    self.rules.remove(kind);
                } else {
                    self.rules.insert(kind.clone(), (answer.clone(), *once));
                }
                Ok(())
            }
            Input::End(kind, answer) => self.end_held(kind, answer),
            Input::Progress(kind, done, total) => {
                let held = self.held.iter().find(|held| held.kind == *kind);
                let token = held
                    .ok_or_else(|| misused(&format!("no {kind} is held")))?
                    .token;
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
                    .agent()?
                    .deadline()
                    .ok_or_else(|| misused("the agent names no deadline"))?;
                self.now = self.now.max(deadline);
                self.handle(Event::Timeout)
            }
            Input::Custom(name, bytes) => self.handle(Event::Custom {
                name: name.clone(),
                bytes: bytes.clone(),
            }),
            Input::Statistics => {
                let status = self.agent()?.status();
                let (received, processed, dropped) =
                    (status.received, status.processed, status.dropped);
                self.lines.push(format!(
                    "received={received} processed={processed} dropped={dropped}"
                ));
                Ok(())
            }
            Input::Why => {
                self.lines.push(self.why());
                Ok(())
            }
        }
    }

    fn agent(&mut self) -> Result<&mut Agent, Error> {
        self.agent
            .as_mut()
            .ok_or_else(|| misused("no agent was started"))
    }

    fn start_info(&self, saved: Saved) -> StartInfo {
        StartInfo {
            config: Config {
                device: self.device.clone(),
                settings: self.settings.clone(),
                targets: self.configured.clone(),
            },
            saved,
            schema: Agent::describe().schemas[0],
            seed: self.starts,
            outstanding: self
                .held
                .iter()
                .filter(|held| !held.lost)
                .map(|held| held.token)
                .collect(),
            last_event: self.last_event,
        }
    }

    fn start(&mut self, saved: Saved) -> Result<(), Error> {
        self.starts += 1;
        let info = self.start_info(saved);
        self.last_op = 0;
        self.state = None;
        match Agent::start(self.context(), info) {
            Ok(agent) => {
                self.agent = Some(agent);
                self.settle()
            }
            Err(failure) => {
                self.lines.push(format!(
                    "start refused {} {}",
                    render::numbers(&failure),
                    failure.detail
                ));
                Ok(())
            }
        }
    }

    /// Another instance takes over. The state is not new, so it is not told again.
    fn swap(&mut self) -> Result<(), Error> {
        let context = self.context();
        let snapshot = self.agent()?.snapshot(context);
        let state = self.state;
        self.start(Saved::Snapshot(snapshot))?;
        if self.state == state {
            let name = state.map(state_name);
            self.lines.retain(|line| Some(line) != name.as_ref());
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
        let place = (self.last_token + u64::from(self.last_op) + self.now) % 5;
        Context {
            now_ms: self.now,
            wall_s: WALLS[place as usize].filter(|_| self.clock_jumps),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Error> {
        let context = self.context();
        self.agent()?.handle(context, event);
        self.settle()
    }

    fn command(&mut self, command: &Command) -> Result<(), Error> {
        self.handle(Event::Command(command.clone()))
    }

    fn change_target(&mut self, input: &Input) -> Result<(), Error> {
        let (Input::Target(file, _) | Input::Image(file, _) | Input::WentBack(file)) = input else {
            return Ok(());
        };
        let target = self
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

    fn pass(&mut self, time: u64) -> Result<(), Error> {
        let end = self.now + time;
        for _ in 0..EVENTS_MAX {
            match self.agent()?.deadline().filter(|deadline| *deadline <= end) {
                Some(deadline) => {
                    self.now = self.now.max(deadline);
                    self.handle(Event::Timeout)?;
                }
                None => {
                    self.now = end;
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
        let gives_up = wait.gives_up.map_or_else(
            || "never".to_owned(),
            |at| format!("in {} ms", at.saturating_sub(self.now)),
        );
        let error = wait
            .last_error
            .as_ref()
            .map_or_else(|| "none".to_owned(), render::numbers);
        format!(
            "waits {} tries={} gives up {gives_up} last error {error}: {}",
            wait.reason, wait.tries, wait.detail
        )
    }
}

fn state_name(code: u8) -> String {
    let name = State::from_code(code).map_or("unknown", State::name);
    format!("now {name}")
}

fn parse_json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(text).map_err(|error| misused(&format!("{text}: {error}")))
}

/// The script asks for what is not there.
fn misused(what: &str) -> Error {
    Error::Misbehaved(what.to_owned())
}
