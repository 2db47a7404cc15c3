//! A gateway in virtual time: a real device over simulated ports, the service core of the cloud, targets and their
//! launcher, network, power.
//!
//! ```text
//!  cloud Service ◀──ways, outages──▶ Wire ◀── Device (agent.wasm or agent-core; host-runtime) ──▶ regions, state files
//!                                              ▲ started by                                        │ watched, ailing
//!                                           launcher ◀──────────── records on the disk ◀───────────┘
//! ```
//!
//! [`World::run`] lets a scenario happen from a seed and says how it ended and which invariants did not hold. There is no
//! thread, socket, clock or random source in here. Not here: what is a good ending (`judge.rs`), and which runs are made
//! of a scenario (`explore.rs`, `swarm.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use host_cloud::Limits;
use host_cloud::service::{ExecutionStatus, JobId, Kind, NewUpdate, Outgoing, Service, ThingName};
use host_runtime::agent::{AgentBuild, Command, Context};
use host_runtime::device::Device;
use host_runtime::mailbox::Input;
use host_runtime::plugin::PluginFactory;
use host_runtime::ports::clock::Clock;
use host_runtime::ports::commands::CommandEnd;
use host_runtime::ports::state_dir::FileStateDir;
use host_runtime::types::{Failure, Outcome, Qos, Token, code};

use crate::boot::Image;
use crate::disk::Disk;
use crate::ground::{Cut, CutKind, Ground, Verb};
use crate::judge::{End, Invariant, Violation};
use crate::net::{OutageKind, Packet, Way};
use crate::plant::{Plant, THING};
use crate::random::Random;
use crate::scenario::{Deed, PROTOCOLS, Prepared, Quality, When, digest};
use crate::store::DiskFiles;
use crate::trace::{Event, Trace};
use crate::wire::{Asked, Programs, Wire};

mod build;

pub use build::{StateMaker, WorldFiles};

/// The job of every scenario.
pub const JOB: &str = "AFR_OTA-update-1";

/// Worlds begin on 2030-03-17.
const WALL_S: u64 = 1_900_000_000;

/// Time from the start of the process to its connection.
const CONNECT_MS: u64 = 100;

/// Time that a service manager takes to start the process again, and a machine to boot.
const RESTART_MS: u64 = 500;
const BOOT_MS: u64 = 5000;

/// A connection on which nothing arrives is given up after one and a half keep-alives of 30 s.
const KEEP_ALIVE_MS: u64 = 45_000;

/// Time that an operator waits for the answer to an order.
const ANSWER_MS: u64 = 10_000;

/// Time that an operator's program takes.
const PROGRAM_MS: u64 = 50;

/// Steps of a run after which it counts as spinning: the longest honest one has some ten thousand.
const STEPS_MAX: u32 = 50_000;

/// Starts in a row of a process that is cut while it starts: there are no more cuts than that in any run.
const STARTS_MAX: u32 = 1000;

/// The state of an agent with nothing to do.
const WAITING_FOR_JOB: u8 = 3;

/// What makes a run out of a scenario.
#[derive(Clone)]
pub struct Options {
    /// Of everything that looks random.
    pub seed: u64,
    /// Cuts besides those of the scenario.
    pub cuts: Vec<Cut>,
    /// The agent under test.
    pub agent: Arc<AgentBuild>,
    /// The plugin of all targets.
    pub pal: Arc<dyn PluginFactory>,
    /// What the state directory is made with; the host's own unless checkers are checked.
    pub state: Option<StateMaker>,
    /// Keep the trace.
    pub trace: bool,
}

impl Options {
    /// A run of the agent in this process, with the PAL in this process.
    #[must_use]
    pub fn native(seed: u64) -> Self {
        Self {
            seed,
            cuts: Vec::new(),
            agent: crate::native::native_agent(),
            pal: crate::pal::native_pal(None),
            state: None,
            trace: false,
        }
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// How the job ended.
    pub status: ExecutionStatus,
    /// The reason in its details.
    pub reason: Option<String>,
    /// Virtual time of the end.
    pub ended_at_ms: u64,
    /// Calls that could have been cut, in order.
    pub verbs: Vec<Verb>,
    /// Cuts that have fallen.
    pub cuts: Vec<Cut>,
    /// Blocks that the service has sent.
    pub blocks_sent: u64,
    /// Starts of the process.
    pub starts: u32,
    /// Deeds of the scenario that were done.
    pub deeds_done: usize,
    /// What happened, if it was kept.
    pub trace: Trace,
}

/// What will happen at an instant.
enum Happening {
    ToCloud(Packet),
    ToDevice(Packet, Qos),
    Done(Token),
    LinkUp,
    LinkDown,
    Order(Command),
    ProgramEnds(host_runtime::ports::workers::Reply<CommandEnd>, i32),
    /// What a launcher has started ends, unless it was started anew since.
    Dies {
        target: usize,
        since_ms: u64,
    },
}

/// The ways of the kinds of packets.
struct Ways {
    requests: Box<dyn Way>,
    replies: Box<dyn Way>,
    blocks: Box<dyn Way>,
}

/// See the module.
pub struct World<'p> {
    prepared: &'p Prepared,
    options: Options,
    ground: Ground,
    disk: Disk,
    plant: Plant,
    seeds: Arc<crate::wire::Seeds>,
    service: Service,
    thing: ThingName,
    device: Option<Device>,
    wire: Wire,
    programs: Programs,
    ways: Ways,
    /// By instant and order; with the process that it is for.
    happenings: BTreeMap<(u64, u64), (Option<u32>, Happening)>,
    sequence: u64,
    connected: bool,
    /// Operations of the transport under way.
    pending: BTreeSet<Token>,
    starts: u32,
    blocks_sent: u64,
    cuts: Vec<Cut>,
    cut_random: Random,
    deeds_done: usize,
    last_deed_ms: u64,
    /// The last order, and when it was given.
    last_order: Option<(u64, Command)>,
}

impl<'p> World<'p> {
    /// A gateway that runs its first images, and a job in its queue. `invariants` are what it is judged by.
    #[must_use]
    pub fn new(
        prepared: &'p Prepared,
        options: Options,
        invariants: Vec<Box<dyn Invariant>>,
    ) -> Self {
        let scenario = &prepared.scenario;
        let seed = options.seed;
        let ground = Ground::new(seed, 1000, Some(WALL_S), options.cuts.clone());
        if options.trace {
            ground.keep_trace();
        }
        ground.learn();
        let disk = Disk::default();
        let plant = Plant::new(&ground, &disk, prepared, invariants);
        build::lay_down_state(&disk, &plant, prepared);
        let weather = &scenario.weather;
        let ways = Ways {
            requests: weather.way(weather.requests, seed, "requests"),
            replies: weather.way(weather.replies, seed, "replies"),
            blocks: weather.way(weather.blocks, seed, "blocks"),
        };
        let (service, thing) = service(prepared);
        let mut world = Self {
            wire: Wire::new(&ground),
            programs: Programs::new(&ground),
            seeds: Arc::new(crate::wire::Seeds::new(seed)),
            cut_random: Random::stream(seed, "cuts"),
            prepared,
            options,
            ground,
            disk,
            plant,
            service,
            thing,
            device: None,
            ways,
            happenings: BTreeMap::new(),
            sequence: 0,
            connected: false,
            pending: BTreeSet::new(),
            starts: 0,
            blocks_sent: 0,
            cuts: Vec::new(),
            deeds_done: 0,
            last_deed_ms: 0,
            last_order: None,
        };
        for outage in &scenario.outages {
            match outage.kind {
                OutageKind::Disconnected => {
                    world.schedule(outage.from_ms, None, Happening::LinkDown);
                    world.schedule(outage.until_ms, None, Happening::LinkUp);
                }
                OutageKind::HalfOpen => {
                    let noticed = outage.from_ms + KEEP_ALIVE_MS;
                    if noticed < outage.until_ms {
                        world.schedule(noticed, None, Happening::LinkDown);
                    }
                    world.schedule(outage.until_ms, None, Happening::LinkUp);
                }
                OutageKind::SilentCloud | OutageKind::Unavailable => {}
            }
        }
        world
    }

    /// Let it happen.
    #[must_use]
    pub fn run(mut self) -> Report {
        for target in 1..self.plant.count() {
            self.launch(target);
        }
        self.start();
        let mut at_rest = false;
        let ends_by = self.prepared.scenario.ends_by_ms();
        for _ in 0..STEPS_MAX {
            if self.ground.now_ms() > ends_by || self.device.is_none() {
                break;
            }
            if !self.step() {
                at_rest = true;
                break;
            }
        }
        self.end(at_rest)
    }

    fn end(mut self, at_rest: bool) -> Report {
        let (status, reason) = self.execution();
        let at_ms = self.ground.now_ms();
        let files = &self.prepared.files;
        let confirmed_new = files.iter().enumerate().map(|(target, file)| {
            let confirmed = self.plant.record(target)?.confirmed.sha256;
            let is_new = confirmed == digest(&file.new);
            (is_new || confirmed == digest(&file.old)).then_some(is_new)
        });
        let targets = 0..self.plant.count();
        let end = End {
            scenario: &self.prepared.scenario,
            at_ms,
            at_rest,
            doing: self.doing(),
            status,
            reason: reason.clone(),
            confirmed_new: confirmed_new.collect(),
            runs_confirmed: targets.map(|t| self.plant.runs_confirmed(t)).collect(),
            blocks_sent: self.blocks_sent,
            cuts: &self.cuts,
        };
        self.plant.judge(|invariants, found| {
            for invariant in invariants {
                invariant.on_end(&end, found);
            }
        });
        drop(end);
        self.device = None;
        Report {
            violations: self.plant.take_findings().0,
            status,
            reason,
            ended_at_ms: at_ms,
            verbs: self.ground.take_verbs(),
            cuts: self.cuts,
            blocks_sent: self.blocks_sent,
            starts: self.starts,
            deeds_done: self.deeds_done,
            trace: self.ground.take_trace(),
        }
    }

    fn doing(&self) -> String {
        match &self.device {
            None => "not running: it does not start".to_owned(),
            Some(device) => format!("in state {}", device.agent_state()),
        }
    }

    fn execution(&self) -> (ExecutionStatus, Option<String>) {
        let thing = self.service.state().things.get(&self.thing);
        let Some(execution) = thing.and_then(|thing| thing.execution(JOB)) else {
            return (ExecutionStatus::Removed, None);
        };
        let reason = execution.details.get("reason");
        let reason = reason.and_then(|reason| reason.as_str());
        (execution.status, reason.map(str::to_owned))
    }

    fn context(&self) -> Context {
        Context {
            now_ms: self.ground.now_ms(),
            wall_s: self.ground.wall_s(),
        }
    }

    fn schedule(&mut self, at_ms: u64, process: Option<u32>, happening: Happening) {
        self.sequence += 1;
        self.happenings
            .insert((at_ms, self.sequence), (process, happening));
    }

    /// One step: what is due, or else time passes. False when the run is at rest, or nothing will ever happen again.
    fn step(&mut self) -> bool {
        if self.ground.is_off().is_some() {
            self.start();
            return true;
        }
        self.happen();
        let now = self.context();
        let Some(device) = &mut self.device else {
            return false;
        };
        let next = device.poll(now);
        let restart = device.restart_requested().is_some();
        if self.ground.is_off().is_some() {
            return true;
        }
        if restart {
            self.ground.note(|| Event::Note("restart asked for".into()));
            self.end_process();
            self.start();
            return true;
        }
        if self.serve() || self.do_deed() {
            return true;
        }
        if next.is_none_or(|at| at > now.now_ms) && self.is_at_rest() {
            return false;
        }
        self.pass_time(next)
    }

    /// Carry out what the device has asked for; false if that is nothing.
    fn serve(&mut self) -> bool {
        let mut served = false;
        while let Some(asked) = self.wire.take() {
            self.network(asked);
            served = true;
        }
        while let Some(program) = self.programs.take() {
            self.program(&program.argv, program.reply);
            served = true;
        }
        served
    }

    fn pass_time(&mut self, next: Option<u64>) -> bool {
        let now_ms = self.ground.now_ms();
        let happening = self.happenings.keys().next().map(|(at, _)| *at);
        let candidates = [
            next,
            happening,
            self.service.deadline(),
            self.next_deed_ms(),
        ];
        match candidates.into_iter().flatten().min() {
            Some(at) if at > now_ms => {
                self.ground.set_now(at);
                let outgoing = self.service.poll(at);
                self.answer(outgoing);
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// The job is over, the agent waits for the next one, nothing is under way.
    fn is_at_rest(&self) -> bool {
        let idle = self
            .device
            .as_ref()
            .is_some_and(|device| device.agent_state() == WAITING_FOR_JOB && device.is_quiet());
        let under_way = self.happenings.values().any(|(_, happening)| {
            matches!(happening, Happening::ToCloud(_) | Happening::ToDevice(..))
        });
        idle && !under_way
            && self.connected
            && self.wire.is_empty()
            && self.execution().0.is_terminal()
    }

    // Network

    fn outage(&self, kind: OutageKind) -> Option<u64> {
        let now = self.ground.now_ms();
        let active =
            |o: &&crate::net::Outage| o.kind == kind && (o.from_ms..o.until_ms).contains(&now);
        let mut outages = self.prepared.scenario.outages.iter();
        outages.find(active).map(|outage| outage.until_ms)
    }

    fn tell(&self, input: Input) {
        if let Some(device) = &self.device {
            device.mailbox().send(input);
        }
    }

    fn done(&mut self, token: Token, result: Result<(), Failure>) {
        self.pending.remove(&token);
        let outcome = result.map_or_else(Outcome::Failed, |()| Outcome::Nothing);
        self.tell(Input::Done { token, outcome });
    }

    fn network(&mut self, asked: Asked) {
        let token = match &asked {
            Asked::Cancel(token) => {
                if self.pending.contains(token) {
                    let failure = Failure::new(code::CANCELLED, 0, "given up");
                    self.done(*token, Err(failure));
                }
                return;
            }
            Asked::Publish { token, .. } | Asked::Other(token) | Asked::Http(token) => *token,
        };
        if !self.connected {
            let failure = Failure::new(code::NOT_CONNECTED, 0, "there is no connection");
            return self.done(token, Err(failure));
        }
        if let Asked::Http(_) = asked {
            let failure = Failure::new(code::UNSUPPORTED, 0, "there is no HTTP here");
            return self.done(token, Err(failure));
        }
        // What is sent into a half-open connection goes on when that does, if it ever does.
        let now_ms = self.ground.now_ms();
        let at_ms = self.outage(OutageKind::HalfOpen).unwrap_or(now_ms);
        let process = Some(self.starts);
        self.pending.insert(token);
        if let Asked::Publish {
            topic,
            payload,
            qos,
            ..
        } = asked
        {
            let packet = Packet {
                topic,
                payload: payload.into(),
            };
            let mut out = Vec::new();
            self.ways.requests.carry(at_ms, packet, &mut out);
            for (at, packet) in out {
                self.schedule(at, None, Happening::ToCloud(packet));
            }
            if qos == Qos::AtMostOnce {
                return self.done(token, Ok(()));
            }
        }
        let answered = at_ms + 2 * self.prepared.scenario.weather.latency_ms;
        self.schedule(answered, process, Happening::Done(token));
    }

    fn reach_cloud(&mut self, packet: &Packet) {
        if self.outage(OutageKind::SilentCloud).is_some() {
            return;
        }
        let reason = self.outage(OutageKind::Unavailable);
        self.service
            .set_unavailable(reason.map(|_| "told to be".to_owned()));
        let now_ms = self.ground.now_ms();
        let outgoing = self
            .service
            .handle(now_ms, &self.thing, &packet.topic, &packet.payload);
        self.answer(outgoing);
    }

    /// Send what the services want sent.
    fn answer(&mut self, outgoing: Vec<Outgoing>) {
        let now_ms = self.ground.now_ms();
        for message in outgoing {
            let is_block = message.kind == Kind::Block;
            self.blocks_sent += u64::from(is_block);
            if !self.connected {
                continue;
            }
            let (way, qos) = if is_block {
                (&mut self.ways.blocks, Qos::AtMostOnce)
            } else {
                (&mut self.ways.replies, Qos::AtLeastOnce)
            };
            let packet = Packet {
                topic: message.topic.to_string(),
                payload: message.payload,
            };
            let mut out = Vec::new();
            way.carry(now_ms, packet, &mut out);
            for (at, packet) in out {
                self.schedule(at, Some(self.starts), Happening::ToDevice(packet, qos));
            }
        }
    }

    fn reach_device(&mut self, packet: Packet, qos: Qos) {
        if !self.connected {
            return;
        }
        if let Some(until_ms) = self.outage(OutageKind::HalfOpen) {
            let process = Some(self.starts);
            return self.schedule(until_ms, process, Happening::ToDevice(packet, qos));
        }
        self.ground.note(|| Event::Heard {
            topic: packet.topic.clone(),
            length: packet.payload.len() as u64,
            crc: crc32c::crc32c(&packet.payload),
        });
        self.tell(Input::Message {
            topic: packet.topic,
            payload: packet.payload,
            qos,
        });
    }

    fn link_up(&mut self) {
        let down = self.outage(OutageKind::Disconnected).is_some()
            || self.outage(OutageKind::HalfOpen).is_some();
        if down || self.connected {
            return;
        }
        self.connected = true;
        self.ground.note(|| Event::Note("connected".into()));
        let session_present = false;
        self.tell(Input::Connected { session_present });
    }

    fn link_down(&mut self) {
        if !std::mem::take(&mut self.connected) {
            return;
        }
        self.ground.note(|| Event::Note("disconnected".into()));
        for token in std::mem::take(&mut self.pending) {
            let failure = Failure::new(code::NOT_CONNECTED, 0, "the connection is gone");
            self.done(token, Err(failure));
        }
        let detail = "the connection is gone".to_owned();
        self.tell(Input::Disconnected { reason: 4, detail });
    }

    // Time

    fn happen(&mut self) {
        let now_ms = self.ground.now_ms();
        while let Some(entry) = self.happenings.first_entry() {
            if entry.key().0 > now_ms {
                return;
            }
            let (process, happening) = entry.remove();
            if process.is_some_and(|process| process != self.starts) {
                continue;
            }
            match happening {
                Happening::ToCloud(packet) => self.reach_cloud(&packet),
                Happening::ToDevice(packet, qos) => self.reach_device(packet, qos),
                Happening::Done(token) => {
                    if self.pending.contains(&token) {
                        self.done(token, Ok(()));
                    }
                }
                Happening::LinkUp => self.link_up(),
                Happening::LinkDown => self.link_down(),
                Happening::Order(command) => self.order(command),
                Happening::ProgramEnds(reply, code) => reply(CommandEnd {
                    code: Some(code),
                    stdout: Vec::new(),
                    detail: String::new(),
                }),
                Happening::Dies { target, since_ms } => self.dies(target, since_ms),
            }
        }
    }

    fn next_deed_ms(&self) -> Option<u64> {
        let (when, _) = self.prepared.scenario.deeds.get(self.deeds_done)?;
        match when {
            When::At(ms) => Some(*ms),
            When::Then(ms) => Some(self.last_deed_ms + ms),
            When::InState(_) => None,
        }
    }

    /// Do the next deed if its time has come.
    fn do_deed(&mut self) -> bool {
        let Some((when, deed)) = self.prepared.scenario.deeds.get(self.deeds_done) else {
            return false;
        };
        let now_ms = self.ground.now_ms();
        let due = match when {
            When::At(_) | When::Then(_) => self.next_deed_ms().is_some_and(|at| at <= now_ms),
            When::InState(state) => self
                .device
                .as_ref()
                .is_some_and(|device| device.agent_state() == *state),
        };
        if !due {
            return false;
        }
        self.deeds_done += 1;
        self.last_deed_ms = now_ms;
        self.ground.note(|| Event::Note(format!("{deed:?}")));
        match deed {
            Deed::Cancel(force) => {
                let id = JOB.parse::<JobId>();
                let cancelled = id
                    .ok()
                    .and_then(|id| self.service.cancel(now_ms, &id, *force, None).ok());
                // A job that has ended cannot be cancelled, and need not be.
                self.answer(cancelled.unwrap_or_default());
            }
            Deed::Order(command) => self.order(command.clone()),
            Deed::JumpWall(seconds) => self.ground.jump_wall(*seconds),
            Deed::Cut(kind) => self.ground.cut_now(*kind),
        }
        true
    }

    fn order(&mut self, command: Command) {
        self.last_order = Some((self.ground.now_ms(), command.clone()));
        let reply = None;
        self.tell(Input::Command { command, reply });
    }

    // Process and targets

    /// The process ends; what it had under way is nobody's any more.
    fn end_process(&mut self) {
        self.device = None;
        self.connected = false;
        self.pending.clear();
        self.wire = Wire::new(&self.ground);
        self.programs = Programs::new(&self.ground);
    }

    /// Start the process, after a cut or because it asked for that: the launcher first.
    fn start(&mut self) {
        for _ in 0..STARTS_MAX {
            self.take_cut();
            self.end_process();
            self.starts += 1;
            self.ground.note(|| Event::Started(self.starts));
            if !self.launch(0) && self.ground.is_off().is_none() {
                // The launcher has nothing to start; the invariants have seen it.
                return;
            }
            if self.ground.is_off().is_some() {
                continue;
            }
            let now = self.context();
            let made = build::device(self).and_then(|mut device| {
                device.start(now).map_err(|error| error.to_string())?;
                Ok(device)
            });
            if self.ground.is_off().is_some() {
                continue;
            }
            match made {
                Ok(device) => self.device = Some(device),
                Err(error) => {
                    let at_ms = now.now_ms;
                    self.plant
                        .judge(|_, found| found.add("starts again", at_ms, error));
                    return;
                }
            }
            let at = now.now_ms + CONNECT_MS;
            self.schedule(at, Some(self.starts), Happening::LinkUp);
            return;
        }
    }

    /// What a cut leaves behind.
    fn take_cut(&mut self) {
        let Some(cut) = self.ground.is_off() else {
            return;
        };
        self.cuts.push(cut);
        self.ground.note(|| Event::Cut(cut));
        self.device = None;
        self.ground.switch_on();
        // Whoever gave an order and had no answer gives it again.
        if let Some((at_ms, command)) = self.last_order.take()
            && self.ground.now_ms() < at_ms + ANSWER_MS
        {
            let again = at_ms + ANSWER_MS;
            self.schedule(again, None, Happening::Order(command));
        }
        let pause = match cut.kind {
            CutKind::Kill => RESTART_MS,
            CutKind::Power => BOOT_MS,
        };
        self.ground.set_now(self.ground.now_ms() + pause);
        if cut.kind == CutKind::Power {
            let lost = self.disk.cut(&mut self.cut_random);
            self.ground.note(|| Event::Lost(lost));
            self.plant.look_after_cut();
        }
        // A launcher that was cut is started again by its service manager.
        for target in 1..self.plant.count() {
            if cut.kind == CutKind::Power || self.plant.running(target).is_none() {
                self.launch(target);
            }
        }
    }

    /// Let the launcher of a target start something that stays up; false if there is nothing, or the power goes.
    fn launch(&mut self, target: usize) -> bool {
        let state = FileStateDir::over(DiskFiles {
            ground: self.ground.clone(),
            disk: self.disk.clone(),
        });
        loop {
            let Ok(Some(quality)) = self.plant.launch(target, &state) else {
                return false;
            };
            match quality {
                // The service manager starts it again, until the launcher goes back.
                Quality::NeverStarts => self.ground.set_now(self.ground.now_ms() + RESTART_MS),
                Quality::Dies(after_ms) => {
                    let since_ms = self.ground.now_ms();
                    let dies = Happening::Dies { target, since_ms };
                    self.schedule(since_ms + after_ms, None, dies);
                    return true;
                }
                _ => return true,
            }
        }
    }

    fn dies(&mut self, target: usize, since_ms: u64) {
        let running = self.plant.running(target);
        let dying = |image: &Image| {
            let quality = self.prepared.known.get(&image.sha256);
            matches!(quality, Some(Quality::Dies(_)))
        };
        if !running.is_some_and(|r| r.since_ms == since_ms && dying(&r.image)) {
            return;
        }
        self.ground
            .note(|| Event::Note(format!("target {target} dies")));
        if target == 0 {
            self.end_process();
            self.ground.set_now(self.ground.now_ms() + RESTART_MS);
            self.start();
        } else {
            self.launch(target);
        }
    }

    /// An operator's program: `restart TARGET` or `health TARGET`.
    fn program(&mut self, argv: &[String], reply: host_runtime::ports::workers::Reply<CommandEnd>) {
        let target = argv.get(1).and_then(|name| self.plant.find(name));
        let code = match (argv.first().map(String::as_str), target) {
            (Some("restart"), Some(target)) => i32::from(!self.launch(target)),
            (Some("health"), Some(target)) => i32::from(!self.plant.check_health(target)),
            _ => 127,
        };
        let at = self.ground.now_ms() + PROGRAM_MS;
        let process = Some(self.starts);
        self.schedule(at, process, Happening::ProgramEnds(reply, code));
    }
}

/// The service, with the job in the thing's queue.
fn service(prepared: &Prepared) -> (Service, ThingName) {
    let mut service = Service::new(Limits::None, prepared.images.clone());
    let (Ok(thing), Ok(job_id), Ok(stream_id)) = (
        THING.parse::<ThingName>(),
        JOB.parse(),
        "AFR_OTA-stream-1".parse(),
    ) else {
        unreachable!("names of this crate are names");
    };
    let update = NewUpdate {
        job_id,
        stream_id,
        description: prepared.scenario.name.clone(),
        things: vec![thing.clone()],
        files: prepared
            .files
            .iter()
            .map(|file| file.update.clone())
            .collect(),
        protocols: PROTOCOLS.to_vec(),
        timeout_minutes: prepared.scenario.timeout_minutes,
        plan: Default::default(),
    };
    // A scenario whose job the service does not take is found by its ending: there is no job.
    let made = service
        .create_thing(0, thing.clone())
        .and_then(|()| service.create_update(0, update));
    drop(made);
    (service, thing)
}
