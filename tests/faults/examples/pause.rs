//! How long a swap holds a device up, whether swaps leave anything behind, and a thousand devices that are swapped in mid-download:
//! `cargo run --release -p faults --example pause -- 1000`.
//!
//! The shipped components as a gateway compiles them, in a simulated world; the number is that of the swaps, and of the
//! devices. A pause is wall time: an agent's from the snapshot of the old instance to that of the new one, after which it is
//! given events again; a plugin's from `suspend` to the end of `reopen`. It measures and judges nothing; that a run is right is
//! for the tests.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "figures for people; what cannot be set up has nothing to measure; a pause is time"
)]

use std::fs;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use host_runtime::agent::{AgentBuild, AgentInstance, Around, Context, StartInfo, Turn};
use host_runtime::engine::{GuestFault, Time};
use host_runtime::plugin::lend::Lent;
use host_runtime::plugin::{
    Description, Duty, Extent, Plugin, PluginError, PluginFactory, Transfer,
};
use host_runtime::types::{Blob, Failure, Setting};
use host_sandbox::random::Random;
use host_sandbox::scenario::{Prepared, by_name};
use host_sandbox::{NewBuild, Options, Shipped, Swap, explore};

/// Swaps of a run.
const IN_A_RUN: usize = 10;

/// What instances did, and when.
type Log = Arc<Mutex<Vec<(What, Instant)>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The old one is asked for what it knows.
    Left,
    /// A new one is started, or opened.
    Began,
    /// The new one goes on.
    GoesOn,
}

fn note(log: &Log, what: What) {
    log.lock().unwrap().push((what, Instant::now()));
}

/// From the last time that an old one was asked before a new one began, to the first that the new one went on.
fn pauses(log: &Log) -> Vec<Duration> {
    let mut log = log.lock().unwrap();
    let mut pauses = Vec::new();
    let (mut left, mut began) = (None, None);
    for (what, at) in log.drain(..) {
        match what {
            What::Left => left = Some(at),
            What::Began => began = left.take(),
            What::GoesOn => pauses.extend(began.take().map(|left| at.duration_since(left))),
        }
    }
    pauses
}

struct Agent {
    inner: Box<dyn AgentInstance>,
    log: Log,
}

fn agent(inner: &Arc<AgentBuild>, number: usize, log: &Log) -> Arc<AgentBuild> {
    let (made, log) = (Arc::clone(inner), Arc::clone(log));
    let label = format!("measured:{number}");
    AgentBuild::native(&label, inner.description().clone(), move |outside| {
        let inner = made.instantiate(outside)?;
        let log = Arc::clone(&log);
        Ok(Box::new(Agent { inner, log }))
    })
}

impl Around for Agent {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.inner
    }

    fn start(
        &mut self,
        context: Context,
        info: StartInfo,
    ) -> Result<Result<Turn, Failure>, GuestFault> {
        note(&self.log, What::Began);
        self.inner.start(context, info)
    }
    fn snapshot(&mut self, context: Context) -> Result<Blob, GuestFault> {
        let began = Instant::now();
        let blob = self.inner.snapshot(context);
        let mut log = self.log.lock().unwrap();
        log.push((What::GoesOn, Instant::now()));
        log.push((What::Left, began));
        blob
    }
}

struct Pal {
    label: String,
    digest: [u8; 32],
    inner: Arc<dyn PluginFactory>,
    log: Log,
}

impl PluginFactory for Pal {
    fn label(&self) -> &str {
        &self.label
    }
    fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
    fn description(&self) -> &Description {
        self.inner.description()
    }
    fn imports(&self) -> &[String] {
        self.inner.imports()
    }
    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        Ok(Box::new(Measured {
            inner: self.inner.make(lent)?,
            log: Arc::clone(&self.log),
            reopens: false,
        }))
    }
}

struct Measured {
    inner: Box<dyn Plugin>,
    log: Log,
    reopens: bool,
}

impl Measured {
    fn seen(&mut self, duty: Result<Duty, PluginError>) -> Result<Duty, PluginError> {
        if self.reopens && matches!(duty, Ok(Duty::Finished(_))) {
            self.reopens = false;
            note(&self.log, What::GoesOn);
        }
        duty
    }
}

impl Plugin for Measured {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        note(&self.log, What::Began);
        self.inner.open(settings, saved)
    }
    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.inner.create(transfer)
    }
    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.reopens = true;
        let duty = self.inner.reopen(transfer);
        self.seen(duty)
    }
    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        self.inner.write_block(offset, data)
    }
    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        self.inner.extents()
    }
    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.inner.examine()
    }
    fn install(&mut self) -> Result<Duty, PluginError> {
        self.inner.install()
    }
    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        self.inner.activate(sha256)
    }
    fn reset(&mut self) -> Result<Duty, PluginError> {
        self.inner.reset()
    }
    fn self_test(&mut self) -> Result<Duty, PluginError> {
        self.inner.self_test()
    }
    fn commit(&mut self) -> Result<Duty, PluginError> {
        self.inner.commit()
    }
    fn reject(&mut self) -> Result<Duty, PluginError> {
        self.inner.reject()
    }
    fn state(&mut self) -> Result<Duty, PluginError> {
        self.inner.state()
    }
    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.inner.abort()
    }
    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        let duty = self.inner.step(budget_bytes);
        self.seen(duty)
    }
    fn suspend(&mut self) -> Result<Blob, PluginError> {
        note(&self.log, What::Left);
        self.inner.suspend()
    }
}

/// Run updates with swaps at random instants until there were so many; their pauses.
fn measure(
    prepared: &Prepared,
    options: &Options,
    count: usize,
    log: &Log,
    build: impl Fn(usize) -> NewBuild,
) -> Vec<Duration> {
    let calls = explore::run(prepared, options.clone()).verbs.len() as u64;
    log.lock().unwrap().clear();
    let mut found = Vec::new();
    let mut resident = None;
    let mut random = Random::stream(options.seed, "pauses");
    for run in 1.. {
        let mut instants: Vec<u64> = (0..IN_A_RUN).map(|_| random.below(calls)).collect();
        instants.sort_unstable();
        let swap = |(number, after_call): (usize, &u64)| Swap {
            after_call: *after_call,
            build: build(number + 1),
        };
        let report = explore::run(
            prepared,
            Options {
                seed: run,
                swaps: instants.iter().enumerate().map(swap).collect(),
                ..options.clone()
            },
        );
        assert_eq!(report.violations, []);
        found.extend(pauses(log));
        if found.len() >= count {
            break;
        }
        if found.len() >= count / 10 {
            resident.get_or_insert_with(|| (found.len(), resident_kib()));
        }
    }
    let (early, before) = resident.unwrap_or((0, 0));
    let (late, after) = (found.len(), resident_kib());
    println!("  resident after {early} swaps {before} KiB, after {late} {after} KiB");
    found
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse().unwrap()
}

fn show(mut pauses: Vec<Duration>) {
    pauses.sort_unstable();
    let at = |percent: usize| pauses[(pauses.len() - 1) * percent / 100];
    let (p50, p99, most) = (at(50), at(99), at(100));
    println!(
        "  {} pauses: p50 {p50:.1?}, p99 {p99:.1?}, most {most:.1?}",
        pauses.len()
    );
}

fn main() {
    let given = std::env::args().nth(1);
    let count: usize = given.map_or(200, |count| count.parse().unwrap());
    let shipped = Shipped::load_in(Time::Real).unwrap();
    let prepared = by_name("plain").unwrap().prepare();
    let log = Log::default();

    println!("swaps of agent.wasm at random instants of an update:");
    let options = Options {
        agent: agent(&shipped.agent, 0, &log),
        ..shipped.options(1)
    };
    let new = |number| NewBuild::Agent(agent(&shipped.agent, number, &log));
    show(measure(&prepared, &options, count, &log, new));

    println!("swaps of pal-flash-file.wasm at random instants of an update:");
    let pal = |number: usize| -> Arc<dyn PluginFactory> {
        Arc::new(Pal {
            label: format!("measured:{number}"),
            digest: [u8::try_from(number).unwrap(); 32],
            inner: Arc::clone(&shipped.pal),
            log: Arc::clone(&log),
        })
    };
    let options = Options {
        pal: pal(0),
        ..shipped.options(1)
    };
    let new = |number| NewBuild::Plugin(0, pal(number));
    show(measure(&prepared, &options, count, &log, new));

    many(&prepared, &shipped, count);
}

/// So many devices at once, each swapped in the middle of its download.
fn many(prepared: &Prepared, shipped: &Shipped, count: usize) {
    let options = shipped.options(1);
    let calls = explore::run(prepared, options.clone()).verbs.len() as u64;
    let gate = Barrier::new(count + 1);
    let silent = Log::default();
    let new = agent(&shipped.agent, 1, &silent);
    thread::scope(|scope| {
        let device = |number: usize| {
            let swap = Swap {
                after_call: calls / 4,
                build: NewBuild::Agent(Arc::clone(&new)),
            };
            let options = Options {
                seed: number as u64 + 1,
                swaps: vec![swap],
                ..options.clone()
            };
            let gate = &gate;
            scope.spawn(move || {
                gate.wait();
                let report = explore::run(prepared, options);
                assert_eq!((report.violations, report.swaps), (Vec::new(), vec![None]));
            })
        };
        let devices: Vec<_> = (0..count).map(device).collect();
        gate.wait();
        let began = Instant::now();
        for device in devices {
            device.join().unwrap();
        }
        let took = began.elapsed();
        let each = took / u32::try_from(count).unwrap();
        println!("{count} devices, each swapped in mid-download: {took:.1?}, {each:.1?} a device");
    });
}
