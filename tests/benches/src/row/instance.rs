//! What an instance of the agent costs in time and memory: the component, to agent-core compiled into this process.
//!
//! Swap and park are what the host does with an agent: snapshot, a new instance, start from it. Memory is that of a
//! process of its own, whose allocator has nothing left from earlier.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use host_runtime::agent::AgentBuild;
use host_runtime::engine::{Engine, EngineOptions};
use host_sandbox::native_agent;
use support::deadline::{PATIENCE, now};
use support::process::Process;
use support::usage::Usage;

use super::idle::Idle;
use crate::figure::{Figure, Of, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};

/// The row of times.
pub const ROW: Row = Row {
    name: "instance",
    about: "making, swapping, parking and waking the agent in wasm, to agent-core compiled in",
    sample,
};

/// The row of memory.
pub const MEMORY: Row = Row {
    name: "instance-memory",
    about: "idle agents in wasm that fit into a GiB, to agent-core compiled in",
    sample: memory,
};

/// Instances of one sample of times.
const INSTANCES: usize = 50;

/// Instances of one sample of memory: far below the kernel's map count, far above what a page more or less says.
const HELD: usize = 1000;

/// Floor and goal of a live idle agent, in bytes.
const LIVE_BYTES: (f64, f64) = (64.0 * 1024.0, 40.0 * 1024.0);

const GIB: f64 = (1 << 30) as f64;

/// Microseconds of each, means over [`INSTANCES`].
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    make: f64,
    park: f64,
    wake: f64,
    swap: f64,
}

fn sample(rig: &Rig, turn: Turn) -> Sample {
    let wasm = Arc::clone(&rig.shipped()?.agent);
    let (wasm, native) = turn.both(|| times(&wasm), || times(&native_agent()))?;
    let figure = |name: &str| Figure::cost(name, "µs");
    Ok(vec![
        figure("make: instance, start, connect, no job").taken(wasm.make, native.make),
        figure("park: snapshot, drop").taken(wasm.park, native.park),
        figure("wake: instance, start, event")
            .held(Of::Subject, 200.0, 50.0)
            .taken(wasm.wake, native.wake),
        figure("swap: snapshot, instance, start, event, drop").taken(wasm.swap, native.swap),
    ])
}

fn times(build: &Arc<AgentBuild>) -> Result<Times, Untaken> {
    // Each step for all instances at once: a clock read costs as much as some of the native ones.
    let (make, idle) = timed(|| each(0..INSTANCES, |_| Idle::start(build)))?;
    let (park, parked) = timed(|| each(idle, |mut idle| idle.snapshot()))?;
    let (wake, idle) = timed(|| each(parked, |parked| Idle::wake(build, parked)))?;
    let (swap, _) = timed(|| each(idle, |mut idle| Idle::wake(build, idle.snapshot()?)))?;
    Ok(Times {
        make,
        park,
        wake,
        swap,
    })
}

fn each<A, B>(
    of: impl IntoIterator<Item = A>,
    make: impl FnMut(A) -> Result<B, Untaken>,
) -> Result<Vec<B>, Untaken> {
    of.into_iter().map(make).collect()
}

/// Microseconds for each of [`INSTANCES`].
fn timed<T>(work: impl FnOnce() -> Result<T, Untaken>) -> Result<(f64, T), Untaken> {
    let begun = now();
    let made = work()?;
    let spent = now().duration_since(begun);
    Ok((spent.as_secs_f64() * 1e6 / INSTANCES as f64, made))
}

/// What carries an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// The shipped component.
    Wasm,
    /// agent-core, compiled in.
    Native,
}

/// Agents that are held in a process of their own.
#[derive(Args, Clone, Debug)]
pub struct Held {
    /// What carries them.
    #[arg(long)]
    pub carrier: Carrier,
    /// How many.
    #[arg(long)]
    pub count: usize,
    /// Where the compiled agent is taken from, and kept. A process that has compiled it itself has memory left from that,
    /// which agents then use.
    #[arg(long)]
    pub cache: Option<PathBuf>,
}

impl Held {
    /// Holds them, and prints what each has added to this process's memory, in bytes.
    ///
    /// # Errors
    /// They do not run.
    pub fn hold(&self) -> Result<(), Untaken> {
        let build = match self.carrier {
            Carrier::Wasm => shipped_agent(self.cache.clone())?,
            Carrier::Native => native_agent(),
        };
        // What the first one brings is not the second one's.
        let first = Idle::start(&build)?;
        let rss = || {
            let usage = Usage::of(std::process::id());
            usage.map_err(|error| Untaken::by("own memory", &error))
        };
        let before = rss()?.rss_kib;
        let held = each(0..self.count, |_| Idle::start(&build))?;
        let kib = rss()?.rss_kib.saturating_sub(before);
        drop((first, held));
        let bytes = kib as f64 * 1024.0 / self.count as f64;
        crate::receiver::say(&format!("{BYTES}{bytes}"))
    }

    fn elsewhere(&self, rig: &Rig) -> Result<f64, Untaken> {
        let carrier = match self.carrier {
            Carrier::Wasm => "wasm",
            Carrier::Native => "native",
        };
        let mut command = Command::new(&rig.program);
        command.args(["hold", "--carrier", carrier, "--count"]);
        command.arg(self.count.to_string());
        if let Some(cache) = &self.cache {
            command.arg("--cache").arg(cache);
        }
        let failed = |error: &support::Error| Untaken::by("holding agents", error);
        let mut process = Process::start("agents", command).map_err(|e| failed(&e))?;
        let line = process.wait_line(BYTES, PATIENCE).map_err(|e| failed(&e))?;
        let bytes = line.strip_prefix(BYTES).and_then(|text| text.parse().ok());
        bytes.ok_or_else(|| Untaken::because(format!("no figure of memory: {line}")))
    }
}

/// Before the figure.
const BYTES: &str = "bytes each: ";

fn shipped_agent(cache_dir: Option<PathBuf>) -> Result<Arc<AgentBuild>, Untaken> {
    let engine = Engine::new(&EngineOptions {
        cache_dir,
        ..EngineOptions::default()
    });
    let engine = engine.map_err(|error| Untaken::by("the engine", &error))?;
    let guest = guest_artifacts::guest("agent");
    let guest = guest.ok_or_else(|| Untaken::because("this build ships no agent"))?;
    let build = AgentBuild::load(&engine, "built-in", guest.bytes);
    build.map_err(|error| Untaken::by("the shipped agent", &error))
}

fn memory(rig: &Rig, turn: Turn) -> Sample {
    let dir = support::temp_dir("compiled");
    let dir = dir.map_err(|error| Untaken::by("a directory", &error))?;
    let held = |carrier, count| {
        let cache = Some(dir.path().join("code"));
        Held {
            carrier,
            count,
            cache,
        }
        .elsewhere(rig)
    };
    // Compiles.
    held(Carrier::Wasm, 1)?;
    let (wasm, native) = turn.both(|| held(Carrier::Wasm, HELD), || held(Carrier::Native, HELD))?;
    let (floor, goal) = LIVE_BYTES;
    Ok(vec![
        Figure::rate("live idle agents", "a GiB")
            .held(Of::Subject, GIB / floor, GIB / goal)
            .taken(GIB / wasm, GIB / native),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_an_instance_takes_its_time() {
        let times = times(&native_agent()).unwrap();
        for time in [times.make, times.park, times.wake, times.swap] {
            assert!(time > 0.0, "{times:?}");
        }
    }
}
