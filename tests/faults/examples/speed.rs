//! How fast the sandbox is, and what the flight recorder costs: `cargo run --release -p faults --example speed -- 400`. With
//! `counted` behind the number guests count their instructions, as those of a daemon do.
//!
//! All figures are processor time of one thread, so that a busy machine shows the same ones as an idle one. The number is
//! that of the seeds. The digest is of all that can be seen of the runs with faults: the same for the shipped agent and for
//! the one in this process, and after a change that was for speed alone. It measures and judges nothing; that a run is right
//! is for the tests.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "figures for people; what cannot be set up has nothing to measure"
)]

use std::fs;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host_runtime::agent::AgentBuild;
use host_runtime::agent::record::Recorder;
use host_runtime::agent::replay::{Likeness, replay};
use host_runtime::agent::tap::tapped;
use host_runtime::agent::trace::{Header, Trace};
use host_runtime::engine::Time;
use host_sandbox::larder::Larder;
use host_sandbox::recipe::{Kitchen, Recipe, UPDATE, UPDATE_BLOCKS};
use host_sandbox::scenario::Scenario;
use host_sandbox::swarm::{self, Batch};
use host_sandbox::{Options, Shipped, explore};

/// That of `otad`.
#[global_allocator]
static LARDER: Larder = Larder;

/// Image of the recorded updates, and its blocks.
const RECORDED_BYTES: usize = 1024 * 1024;
const RECORDED_BLOCK_BYTES: usize = 4096;

/// Updates of it that are measured, each way in turn.
const RECORDED_TIMES: u32 = 8;

/// Processor time of this thread so far.
fn spent() -> Duration {
    // On the processor, waiting for it, slices; the first two in nanoseconds.
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = text.split(' ').next().unwrap().parse();
    Duration::from_nanos(nanoseconds.unwrap())
}

fn timed<R>(run: impl FnOnce() -> R) -> (R, Duration) {
    let began = spent();
    let done = run();
    (done, spent() - began)
}

fn main() {
    let given = std::env::args().nth(1);
    let seeds = given.map_or(400, |seeds| seeds.parse().unwrap());
    let time = match std::env::args().nth(2).as_deref() {
        Some("counted") => Time::Virtual,
        _ => Time::Hasty,
    };
    let (shipped, took) = timed(|| Shipped::load_in(time).unwrap());
    println!("compiling three components, {time:?}: {took:.2?}");
    let agent = |shipped: &Shipped| Options {
        agent: Arc::clone(&shipped.agent),
        ..Options::native(0)
    };
    let both = |shipped: &Shipped| shipped.options(0);
    let hasty = |of: fn(&Shipped) -> Options| {
        Kitchen::hasty(of(&shipped), move || match Shipped::load() {
            Ok(shipped) => Ok(of(&shipped)),
            Err(error) => Err(error.to_string()),
        })
    };
    println!("updates of {UPDATE_BLOCKS} blocks, {seeds} seeds, per second and core:");
    for (who, kitchen) in [
        ("agent.wasm", hasty(agent)),
        ("agent.wasm and pal-flash-file.wasm", hasty(both)),
        ("native", Kitchen::new(Options::native(0))),
    ] {
        let (faults, digest) = updates(&kitchen, seeds, true);
        let (none, _) = updates(&kitchen, seeds, false);
        println!("  {who:<35} {faults:>6.0} with faults, {none:>6.0} without; digest {digest}");
    }
    recorder(&shipped.agent);
}

/// Updates a second, and the beginning of their digest.
fn updates(kitchen: &Kitchen, seeds: u64, with_faults: bool) -> (f64, String) {
    let recipe = |seed: u64| match with_faults {
        true => swarm::draw(kitchen, seed + 1, Some(UPDATE), None),
        false => Ok(Recipe {
            story: UPDATE.to_owned(),
            blocks: None,
            faults: Vec::new(),
            seed: seed + 1,
        }),
    };
    let batch = |runs| Batch {
        runs,
        jobs: NonZeroUsize::MIN,
        first: false,
    };
    // The first run makes the images and counts the calls.
    let make = |runs| swarm::make(kitchen, batch(runs), &recipe, &mut |_| {}).unwrap();
    make(1);
    let (tally, took) = timed(|| make(seeds));
    assert_eq!((tally.runs, tally.failures), (seeds, 0));
    let digest = host_crypto::hex(&tally.digest()[..8]);
    (seeds as f64 / took.as_secs_f64(), digest)
}

/// What it costs to record an update of 1 MiB, and to replay it.
fn recorder(build: &Arc<AgentBuild>) {
    let dir = tempfile::tempdir().unwrap();
    let mut scenario = Scenario::plain("recorded", RECORDED_BYTES / RECORDED_BLOCK_BYTES);
    scenario.files[0].size_bytes = RECORDED_BYTES;
    for (key, value) in &mut scenario.settings {
        if key == "block_size" {
            *value = RECORDED_BLOCK_BYTES.to_string();
        }
    }
    let prepared = scenario.prepare();
    let run = |agent: Arc<AgentBuild>| {
        let options = Options {
            agent,
            ..Options::native(1)
        };
        let report = explore::run(&prepared, options);
        assert_eq!(report.violations, []);
    };
    let (mut plain, mut recorded) = (Duration::ZERO, Duration::ZERO);
    let mut last = None;
    run(Arc::clone(build));
    for time in 0..RECORDED_TIMES {
        plain += timed(|| run(Arc::clone(build))).1;
        let dir = dir.path().join(time.to_string());
        let header = Header {
            agent: build.description().name.clone(),
            version: build.description().version.clone(),
            digest: host_crypto::hex(build.digest()),
            device: "pump-1".into(),
        };
        recorded += timed(|| {
            let recorder = Recorder::new(&dir, header, [1; 16]).unwrap();
            let recorder = recorder.with_files_of(u64::MAX);
            run(tapped(build, Arc::new(Mutex::new(recorder))));
        })
        .1;
        last = fs::read_dir(&dir).unwrap().next();
    }
    let bytes = fs::read(last.unwrap().unwrap().path()).unwrap();
    let (replayed, took) = timed(|| {
        let trace = Trace::open(&bytes).unwrap();
        replay(build, trace, Likeness::Exact).unwrap()
    });
    assert_eq!(replayed.difference, None);
    let (plain, recorded) = (plain / RECORDED_TIMES, recorded / RECORDED_TIMES);
    println!(
        "flight recorder, 1 MiB in blocks of 4 KiB: {:.2?} without, {:.2?} with it ({:+.1} %), {} bytes per MiB",
        plain,
        recorded,
        100.0 * (recorded.as_secs_f64() / plain.as_secs_f64() - 1.0),
        bytes.len(),
    );
    println!(
        "replay: {} exchanges in {took:.2?}, {:.0} a second",
        replayed.exchanges,
        replayed.exchanges as f64 / took.as_secs_f64(),
    );
}
