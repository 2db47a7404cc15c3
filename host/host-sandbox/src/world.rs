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
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use host_cloud::Limits;
use host_cloud::service::{
    Execution, ExecutionStatus, NewJob, NewUpdate, Protocol, Service, ThingName,
};
use host_runtime::agent::{AgentBuild, Command, Context, TRIAL_MS};
use host_runtime::device::Device;
use host_runtime::plugin::PluginFactory;
use host_runtime::ports::clock::Clock;
use host_runtime::ports::commands::CommandEnd;
use host_runtime::ports::state_dir::DirFiles;
use host_runtime::status::{STATE_NAMES, name_or_number};
use host_runtime::types::{Failure, Qos, Setting, Token};
use serde_json::json;

use crate::ailment::Spell;
use crate::disk::Disk;
use crate::ground::{Cut, Ground, Verb};
use crate::judge::{End, Invariant, Violation};
use crate::mcu::{McuCut, McuTally, Mcus};
use crate::net::{OutageKind, Packet, Way};
use crate::pal::SETTLE_MS;
use crate::plant::{Plant, THING};
use crate::random::Random;
use crate::scenario::{File, Prepared, Quality, When};
use crate::store::DiskFiles;
use crate::trace::{Event, Trace};
use crate::wire::{Programs, Wire};

mod build;
mod network;
mod process;
mod range;

pub use build::{StateMaker, WorldFiles};

/// The first job of every scenario.
pub const JOB: &str = "AFR_OTA-update-1";

/// The job of a generation of images, from 1.
fn job_id(generation: usize) -> String {
    format!("AFR_OTA-update-{generation}")
}

/// Virtual time at which a world begins, in milliseconds.
pub(crate) const BEGINS_MS: u64 = 1000;

/// Worlds begin on 2030-03-17.
const WALL_S: u64 = 1_900_000_000;

/// A connection on which nothing arrives is given up after one and a half keep-alives of 30 s.
const KEEP_ALIVE_MS: u64 = 45_000;

/// Steps at one instant after which a run counts as spinning: an honest one has some hundred.
const STEPS_OF_INSTANT_MAX: u32 = 5_000;

/// Steps of a run after which it counts as spinning: the longest honest one has some ten thousand.
const STEPS_MAX: u32 = 50_000;

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
    /// The plugin of all targets but secondary MCUs.
    pub pal: Arc<dyn PluginFactory>,
    /// Its settings.
    pub pal_settings: Vec<Setting>,
    /// The plugin of secondary MCUs.
    pub mcu_pal: Option<Arc<dyn PluginFactory>>,
    /// Cuts of the MCUs' own power.
    pub mcu_cuts: Vec<McuCut>,
    /// What takes the gateway's power takes that of its MCUs, too.
    pub shared_power: bool,
    /// What the state directory is made with; the host's own unless checkers are checked.
    pub state: Option<StateMaker>,
    /// Builds that are put in while the run goes on, in order.
    pub swaps: Vec<Swap>,
    /// The agent is parked whenever it has no job and was given no event for so many milliseconds; none = never.
    pub park_after_ms: Option<u64>,
    /// Where the state directory is, which exists and is empty; none = on the simulated disk. There it has real files, of
    /// which a power cut takes nothing away.
    pub state_root: Option<PathBuf>,
    /// What is over is forgotten: calls, and jobs at the service once another one comes. So a world that goes on for days
    /// grows by nothing but what its gateway keeps.
    pub forgets: bool,
    /// Keep the trace.
    pub trace: bool,
}

/// Another build in the middle of a run.
#[derive(Clone)]
pub struct Swap {
    /// Asked for once so many calls of the run were made.
    pub after_call: u64,
    /// Whose.
    pub build: NewBuild,
}

/// A build that is put in.
#[derive(Clone)]
pub enum NewBuild {
    /// For the device.
    Agent(Arc<AgentBuild>),
    /// For a target, by its number.
    Plugin(usize, Arc<dyn PluginFactory>),
}

/// How swaps ended, in order of their ends: `None` it serves, otherwise why the build before does.
type SwapEnds = Arc<Mutex<Vec<Option<String>>>>;

impl Options {
    /// A run of the agent in this process, with the PAL in this process.
    #[must_use]
    pub fn native(seed: u64) -> Self {
        Self {
            seed,
            cuts: Vec::new(),
            agent: crate::native::native_agent(),
            pal: crate::pal::native_pal(None),
            pal_settings: Vec::new(),
            mcu_pal: None,
            mcu_cuts: Vec::new(),
            shared_power: false,
            state: None,
            swaps: Vec::new(),
            park_after_ms: None,
            state_root: None,
            forgets: false,
            trace: false,
        }
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// How the job ended; of several the last one.
    pub status: ExecutionStatus,
    /// The reason in its details.
    pub reason: Option<String>,
    /// Virtual time of the end.
    pub ended_at_ms: u64,
    /// Calls that could have been cut, in order.
    pub verbs: Vec<Verb>,
    /// Cuts that have fallen.
    pub cuts: Vec<Cut>,
    /// Spells that a call met.
    pub spells: Vec<Spell>,
    /// Blocks that the service has sent.
    pub blocks_sent: u64,
    /// Starts of the process.
    pub starts: u32,
    /// What each MCU went through.
    pub mcus: Vec<McuTally>,
    /// Deeds of the scenario that were done.
    pub deeds_done: usize,
    /// How swaps ended: `None` it serves, otherwise why the build before does.
    pub swaps: Vec<Option<String>>,
    /// Agent builds that broke on trial and were sent back.
    pub returns: u64,
    /// How often the agent was parked.
    pub parks: u64,
    /// What happened, if it was kept.
    pub trace: Trace,
}

/// What will happen at an instant.
enum Happening {
    ToCloud(Packet),
    ToDevice(Packet, Qos),
    /// A subscription, or its end, has reached the broker.
    Subscribed {
        session: u32,
        filter: String,
        on: bool,
    },
    Done(Token),
    /// The answer to a range.
    Range(Token, range::Answer),
    LinkUp,
    LinkDown,
    /// An order that had no answer, given again unless there was another one since: the number of orders then.
    Order(Command, u32),
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
    real: Option<Arc<DirFiles>>,
    plant: Plant,
    mcus: Mcus,
    seeds: Arc<crate::wire::Seeds>,
    service: Service,
    thing: ThingName,
    device: Option<Device>,
    /// Something that the device has begun is over: it is to be polled before time passes.
    woken: Arc<AtomicBool>,
    wire: Wire,
    programs: Programs,
    ways: Ways,
    /// By instant and order; with the process that it is for.
    happenings: BTreeMap<(u64, u64), (Option<u32>, Happening)>,
    sequence: u64,
    connected: bool,
    /// Connections so far; each is a session of its own.
    session: u32,
    /// What the broker knows that the device wants to hear.
    subscriptions: BTreeSet<String>,
    /// Ranges under way.
    ranges: BTreeSet<Token>,
    /// A second of virtual time, and what the device asked of the broker in it.
    asked: (u64, u32),
    /// It asks without end, and nothing more is to be seen.
    is_spinning: bool,
    /// Nothing more will happen.
    at_rest: bool,
    /// How the jobs ended that the service was made to forget, the first one first.
    forgotten: Vec<ExecutionStatus>,
    /// Jobs made so far.
    jobs: usize,
    /// When the last of them was seen to have ended.
    over_since_ms: Option<u64>,
    /// Operations of the transport under way.
    pending: BTreeSet<Token>,
    starts: u32,
    blocks_sent: u64,
    cuts: Vec<Cut>,
    cut_random: Random,
    deeds_done: usize,
    swaps_asked: usize,
    parks: u64,
    swap_ends: SwapEnds,
    /// Agent builds that were sent back.
    returns: u64,
    last_deed_ms: u64,
    /// The last order, and when it was given.
    last_order: Option<(u64, Command)>,
    /// Orders so far.
    orders: u32,
}

/// How long a self-test takes: what the plugin is told by its setting, or what a plugin without it takes.
fn settle_ms(options: &Options) -> u64 {
    let told = |setting: &&Setting| setting.key == "settle_ms";
    let told = options.pal_settings.iter().rev().find(told);
    told.and_then(|setting| setting.value.parse().ok())
        .unwrap_or(SETTLE_MS)
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
        let ground = Ground::new(seed, BEGINS_MS, Some(WALL_S), options.cuts.clone());
        if options.trace {
            ground.keep_trace();
        }
        if !options.forgets {
            ground.learn();
        }
        let disk = Disk::default();
        let plant = Plant::new(&ground, &disk, prepared, invariants, settle_ms(&options));
        let mcus = Mcus::new(&ground, &disk, prepared, &options.mcu_cuts);
        let root = options.state_root.clone();
        let real = root.map(|root| Arc::new(DirFiles::new(root)));
        let files = DiskFiles {
            ground: ground.clone(),
            disk: disk.clone(),
            real: real.clone(),
        };
        build::lay_down_state(files, &plant, prepared);
        let weather = &scenario.weather;
        let ways = Ways {
            requests: weather.way(weather.requests, seed, "requests"),
            replies: weather.way(weather.replies, seed, "replies"),
            blocks: weather.way(weather.blocks, seed, "blocks"),
        };
        let (service, thing) = service(prepared);
        let mut world = Self {
            woken: Arc::default(),
            wire: Wire::new(&ground),
            programs: Programs::new(&ground),
            seeds: Arc::new(crate::wire::Seeds::new(seed)),
            cut_random: Random::stream(seed, "cuts"),
            prepared,
            options,
            ground,
            disk,
            real,
            plant,
            mcus,
            service,
            thing,
            device: None,
            ways,
            happenings: BTreeMap::new(),
            sequence: 0,
            connected: false,
            session: 0,
            subscriptions: BTreeSet::new(),
            ranges: BTreeSet::new(),
            asked: (0, 0),
            is_spinning: false,
            at_rest: false,
            forgotten: Vec::new(),
            jobs: 1,
            over_since_ms: None,
            pending: BTreeSet::new(),
            starts: 0,
            blocks_sent: 0,
            cuts: Vec::new(),
            deeds_done: 0,
            swaps_asked: 0,
            parks: 0,
            swap_ends: SwapEnds::default(),
            returns: 0,
            last_deed_ms: 0,
            last_order: None,
            orders: 0,
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
                OutageKind::SilentCloud | OutageKind::Unavailable | OutageKind::Url(_) => {}
            }
        }
        world
    }

    /// Let it happen.
    #[must_use]
    pub fn run(mut self) -> Report {
        self.go_on(u64::MAX);
        self.end()
    }

    /// Let it happen until an instant, and on until the gateway is quiet: no job, nothing under way, an agent that is parked
    /// when it has nothing to do is parked. False once it is over.
    pub fn go_on(&mut self, until_ms: u64) -> bool {
        if self.starts == 0 {
            for target in self.first_commanded()..self.plant.count() {
                self.launch(target);
            }
            self.start();
        }
        let ends_by = self.prepared.scenario.ends_by_ms();
        let mut instant = (0, 0);
        for _ in 0..STEPS_MAX {
            let now_ms = self.ground.now_ms();
            if now_ms >= until_ms && self.is_quiet() {
                return true;
            }
            instant = if instant.0 == now_ms {
                (now_ms, instant.1 + 1)
            } else {
                (now_ms, 0)
            };
            let spins = self.is_spinning || instant.1 > STEPS_OF_INSTANT_MAX;
            if now_ms > ends_by || self.device.is_none() || spins {
                return false;
            }
            if !self.step() {
                self.at_rest = true;
                return false;
            }
        }
        false
    }

    /// Jobs that the service was given so far.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// How it went, as it stands.
    #[must_use]
    pub fn end(mut self) -> Report {
        let at_rest = self.at_rest;
        let (status, reason) = self.execution(self.jobs);
        let at_ms = self.ground.now_ms();
        let confirmed_new = self.confirmed_new();
        let targets = (0..self.plant.count()).map(|t| self.plant.runs_confirmed(t));
        let mcus = self.mcus.at_rest();
        let tallies = self.mcus.tallies();
        let end = End {
            scenario: &self.prepared.scenario,
            at_ms,
            at_rest,
            doing: self.doing(),
            status,
            reason: reason.clone(),
            jobs: self.jobs,
            confirmed_new: confirmed_new
                .into_iter()
                .chain(mcus.iter().map(|mcu| mcu.0))
                .collect(),
            runs_confirmed: targets.chain(mcus.iter().map(|mcu| mcu.1)).collect(),
            blocks: self.prepared.blocks(),
            blocks_sent: self.blocks_sent,
            cuts: &self.cuts,
            mcu_cut: tallies.iter().any(|mcu| mcu.cuts > 0),
            returns: self.returns,
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
            spells: self.ground.take_spells(),
            blocks_sent: self.blocks_sent,
            starts: self.starts,
            mcus: tallies,
            deeds_done: self.deeds_done,
            parks: self.parks,
            returns: self.returns,
            swaps: std::mem::take(
                &mut *self
                    .swap_ends
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            ),
            trace: self.ground.take_trace(),
        }
    }

    fn doing(&self) -> String {
        match &self.device {
            None => "not running: it does not start".to_owned(),
            Some(device) => format!(
                "in state {}",
                name_or_number(&STATE_NAMES, device.agent_state().into())
            ),
        }
    }

    /// For each target, whether it confirms the image of the last job, or the one that the jobs before it have left.
    fn confirmed_new(&self) -> Vec<Option<bool>> {
        let files = self.prepared.files.iter().enumerate();
        let generations = files.map(|(target, file)| {
            let confirmed = self.plant.record(target)?.confirmed.sha256;
            let mut images = file.images[..=self.jobs].iter();
            images.position(|image| image.sha256 == confirmed)
        });
        let generations: Vec<_> = generations.collect();
        // A job that was withdrawn may have left either.
        let withdrawn = |job: usize| {
            let (status, _) = self.execution(job);
            status != ExecutionStatus::Failed && status != ExecutionStatus::Rejected
        };
        let succeeded = |job: &usize| self.execution(*job).0 == ExecutionStatus::Succeeded;
        let certain = (1..self.jobs).rev().find(succeeded).unwrap_or(0);
        let left = generations.first().copied().flatten();
        let before = left.filter(|job| (certain + 1..self.jobs).contains(job) && withdrawn(*job));
        let before = before.unwrap_or(certain);
        let is_new = |generation: &Option<usize>| match *generation {
            Some(job) if job == self.jobs => Some(true),
            Some(job) if job == before => Some(false),
            _ => None,
        };
        generations.iter().map(is_new).collect()
    }

    /// How a job stands, and the reason in its details.
    fn execution(&self, job: usize) -> (ExecutionStatus, Option<String>) {
        let reason = self.known_execution(job).and_then(|execution| {
            let reason = execution.details.get("reason")?;
            reason.as_str().map(str::to_owned)
        });
        (self.status(job), reason)
    }

    fn status(&self, job: usize) -> ExecutionStatus {
        if let Some(status) = self.forgotten.get(job - 1) {
            return *status;
        }
        let execution = self.known_execution(job);
        execution.map_or(ExecutionStatus::Removed, |execution| execution.status)
    }

    /// A job at the service, unless that was made to forget it.
    fn known_execution(&self, job: usize) -> Option<&Execution> {
        if job <= self.forgotten.len() {
            return None;
        }
        let thing = self.service.state().things.get(&self.thing)?;
        thing.execution(&job_id(job))
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
        self.put_in();
        let now = self.context();
        let Some(device) = &mut self.device else {
            return false;
        };
        self.woken.store(false, Ordering::Relaxed);
        let before = device.agent_trial().returns;
        let was_parked = device.is_parked();
        let next = device.poll(now);
        self.parks += u64::from(device.is_parked() && !was_parked);
        self.returns += device.agent_trial().returns - before;
        let restart = device.restart_requested().is_some();
        if self.ground.is_off().is_some() {
            return true;
        }
        if restart {
            self.ground.note(|| Event::Note("restart asked for".into()));
            self.order_again(true);
            self.end_process();
            self.start();
            return true;
        }
        if self.serve() || self.do_deed() || self.woken.load(Ordering::Relaxed) {
            return true;
        }
        if next.is_none_or(|at| at > now.now_ms) && self.is_at_rest() {
            return false;
        }
        self.pass_time(next)
    }

    /// Put in the builds whose time has come.
    fn put_in(&mut self) {
        let now = self.context();
        while let Some(swap) = self.options.swaps.get(self.swaps_asked)
            && swap.after_call <= self.ground.calls()
            && let Some(device) = &mut self.device
        {
            self.swaps_asked += 1;
            let ends = Arc::clone(&self.swap_ends);
            let reply = Box::new(move |end: Result<(), Failure>| {
                let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
                ends.push(end.err().map(|failure| failure.to_string()));
            });
            let note = |label: &str| {
                let note = || Event::Note(format!("{label} is put in"));
                self.ground.note(note);
            };
            match swap.build.clone() {
                NewBuild::Agent(build) => {
                    note(build.label());
                    device.swap_agent(now, Some(build), TRIAL_MS, reply);
                }
                NewBuild::Plugin(target, build) => {
                    note(build.label());
                    device.swap_plugin(now, &self.plant.name(target), Some(build), reply);
                }
            }
        }
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
            self.mcus.deadline_ms(),
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

    /// The job is over, the agent waits for the next one, nothing is under way, and no other job is to come.
    fn is_at_rest(&self) -> bool {
        self.is_idle() && !self.is_job_to_come()
    }

    /// The job is over, nothing is under way, and the agent has been parked if it is ever.
    fn is_quiet(&self) -> bool {
        let parked = self.device.as_ref().is_some_and(Device::is_parked);
        self.is_idle() && (parked || self.options.park_after_ms.is_none())
    }

    /// The job is over, the agent waits for the next one, nothing is under way.
    fn is_idle(&self) -> bool {
        let idle = self
            .device
            .as_ref()
            .is_some_and(|device| device.agent_state() == WAITING_FOR_JOB && device.is_quiet());
        let is_under_way = |happening: &Happening| {
            matches!(happening, Happening::ToCloud(_) | Happening::ToDevice(..))
        };
        idle && self.connected
            && self.wire.is_empty()
            && !self.happenings.values().any(|(_, it)| is_under_way(it))
            && self.jobs_are_over()
    }

    fn jobs_are_over(&self) -> bool {
        let mut remembered = self.forgotten.len() + 1..=self.jobs;
        remembered.all(|job| self.status(job).is_terminal())
    }

    /// The scenario has another job once this one is over.
    fn is_job_to_come(&self) -> bool {
        let next = self.prepared.scenario.deeds.get(self.deeds_done);
        matches!(next, Some((When::AfterEnd(_), _)))
    }

    /// The service is another one, which knows of no job so far.
    fn forget(&mut self) {
        let ends = self.forgotten.len() + 1..=self.jobs;
        let ends: Vec<_> = ends.map(|job| self.execution(job).0).collect();
        self.forgotten.extend(ends);
        (self.service, self.thing) = service_of_nothing(self.prepared);
    }

    /// Files of the state directory.
    fn files(&self) -> DiskFiles {
        DiskFiles {
            ground: self.ground.clone(),
            disk: self.disk.clone(),
            real: self.real.clone(),
        }
    }

    /// The first target that is restarted by a command. The one before it, if there is one, is the gateway itself.
    fn first_commanded(&self) -> usize {
        usize::from(!self.prepared.scenario.by_command)
    }

    /// Give the next job of the scenario to the service.
    fn give_job(&mut self) {
        if self.options.forgets && self.jobs_are_over() {
            self.forget();
        }
        self.jobs += 1;
        self.over_since_ms = None;
        let update = update(self.prepared, &self.thing, self.jobs);
        // What a device is told of an outage is not for whoever makes jobs.
        self.service.set_unavailable(None);
        let made = self.service.create_update(self.ground.now_ms(), update);
        // As at the first one.
        self.answer(made.unwrap_or_default());
    }
}

/// The service and the thing, without any job.
fn service_of_nothing(prepared: &Prepared) -> (Service, ThingName) {
    let mut service = Service::new(Limits::None, prepared.images.clone());
    let Ok(thing) = THING.parse::<ThingName>() else {
        unreachable!("names of this crate are names");
    };
    if prepared.scenario.by_url {
        service.serve_urls(Arc::new(range::Urls));
    }
    // Names of this crate are names, and none is there twice.
    drop(service.create_thing(0, thing.clone()));
    (service, thing)
}

/// The service, with the job in the thing's queue.
fn service(prepared: &Prepared) -> (Service, ThingName) {
    let (mut service, thing) = service_of_nothing(prepared);
    let update = update(prepared, &thing, 1);
    let is_unreadable = |file: &File| file.quality == Quality::Unreadable;
    let unreadable = prepared.scenario.files.iter().any(is_unreadable);
    // A scenario whose job the service does not take is found by its ending: there is no job.
    let made = match unreadable {
        true => service.create_job(0, without_files(update)),
        false => service.create_update(0, update),
    };
    drop(made);
    (service, thing)
}

/// A job like this update whose document names no file.
fn without_files(update: NewUpdate) -> NewJob {
    let stream = update.stream_id.as_str();
    let afr_ota = json!({ "protocols": ["MQTT"], "streamname": stream, "files": [] });
    NewJob {
        document: json!({ "afr_ota": afr_ota }),
        job_id: update.job_id,
        description: update.description,
        things: update.things,
        timeout_minutes: update.timeout_minutes,
        plan: update.plan,
    }
}

/// The job that brings a generation of images, from 1.
fn update(prepared: &Prepared, thing: &ThingName, generation: usize) -> NewUpdate {
    let stream = format!("AFR_OTA-stream-{generation}");
    let (Ok(job_id), Ok(stream_id)) = (job_id(generation).parse(), stream.parse()) else {
        unreachable!("names of this crate are names");
    };
    let files = prepared.files.iter().chain(prepared.mcus.iter());
    NewUpdate {
        job_id,
        stream_id,
        description: prepared.scenario.name.clone(),
        things: vec![thing.clone()],
        files: files
            .filter_map(|file| file.updates.get(generation - 1).cloned())
            .collect(),
        protocols: match prepared.scenario.by_url {
            true => vec![Protocol::Mqtt, Protocol::Http],
            false => vec![Protocol::Mqtt],
        },
        timeout_minutes: prepared.scenario.timeout_minutes,
        plan: Default::default(),
    }
}
