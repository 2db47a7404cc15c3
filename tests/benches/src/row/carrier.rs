//! Component and native carrier of the flash-file plugin: a whole update in the daemon with each, its time and its processor
//! time.
//!
//! Whole: downloaded, verified, restarted by a command, self-tested, confirmed; so every duty of a plugin is in it. The
//! native form runs in a process of its own, whose time counts once the daemon has waited for its end.

use std::fs;
use std::time::Duration;

use e2e::{Update, image};
use support::deadline::{Deadline, PATIENCE, now, pass};

use crate::figure::{Figure, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};
use crate::row::loopback::{SHAPES, Shape, Site, told, until_idle, usage};

/// The row.
pub const ROW: Row = Row {
    name: "carrier",
    about: "a whole update in the daemon with the flash-file plugin as a component, to the same in its native form",
    sample,
};

/// What carries the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    /// In the daemon, in wasm.
    Component,
    /// A library in a process of its own.
    Native,
}

fn sample(rig: &Rig, turn: Turn) -> Sample {
    let mut taken = Vec::new();
    for shape in SHAPES {
        let site = Site::new(rig, turn.seed());
        let update = |carrier| update(&site, carrier, shape, rig.image_bytes);
        let (component, native) =
            turn.both(|| update(Carrier::Component), || update(Carrier::Native))?;
        let figure = |what: &str| Figure::cost(format!("{}, {what}", shape.name()), "s");
        taken.push(figure("whole update").taken(component.seconds, native.seconds));
        taken.push(figure("processor").taken(component.cpu_seconds, native.cpu_seconds));
    }
    Ok(taken)
}

/// What an update has cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// From the job to the success.
    seconds: f64,
    /// Processor time of the daemon and its children.
    cpu_seconds: f64,
}

fn update(site: &Site, carrier: Carrier, shape: Shape, bytes: usize) -> Result<Cost, Untaken> {
    let thing = match carrier {
        Carrier::Component => "component",
        Carrier::Native => "native",
    };
    let mut gateway = site.gateway(&[thing], shape)?;
    gateway.reconfigure(|lines| {
        let carrier = format!("carrier = \"{thing}\"\n");
        lines.target().lines.push_str(&carrier);
    });
    let daemon = gateway.run_with(told);
    until_idle(&daemon, 1)?;
    let id = daemon.process.id();
    until_alone(id)?;
    let before = usage(&daemon)?;
    let begun = now();
    let update = Update::of(image::program("1.1.0", "", bytes));
    let job = site.cloud().update(thing, update);
    let ended = site.cloud().wait_end(&job);
    let seconds = now().duration_since(begun).as_secs_f64();
    if ended.status != "SUCCEEDED" {
        return Err(Untaken::because(format!("the job ended as {ended:?}")));
    }
    until_alone(id)?;
    let after = usage(&daemon)?;
    daemon.stop();
    Ok(Cost {
        seconds,
        cpu_seconds: after.cpu_since(&before).as_secs_f64(),
    })
}

/// Waits until a process has no child: each has ended and was waited for.
fn until_alone(process: u32) -> Result<(), Untaken> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let children = children(process)?;
        if children.is_empty() {
            return Ok(());
        }
        if deadline.left().is_none() {
            let text = format!("the daemon still has children: {children:?}");
            return Err(Untaken::because(text));
        }
        pass(Duration::from_millis(1));
    }
}

/// Process ids.
fn children(process: u32) -> Result<Vec<String>, Untaken> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.map_err(|error| Untaken::by("threads of the daemon", &error))?;
    let mut found = Vec::new();
    for task in tasks.flatten() {
        // A thread may end while its name is read.
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(str::to_owned));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use support::process::Process;

    use super::*;

    #[test]
    fn both_carriers_do_a_whole_update_that_costs_something() {
        let rig = Rig::new(PathBuf::new(), 100_000);
        let site = Site::new(&rig, 1);
        for carrier in [Carrier::Component, Carrier::Native] {
            let cost = update(&site, carrier, SHAPES[0], rig.image_bytes).unwrap();
            assert!(cost.seconds > 0.0 && cost.cpu_seconds > 0.0, "{cost:?}");
        }
    }

    #[test]
    fn a_child_is_seen_until_it_was_waited_for() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "sleep 1000 & echo there; wait"]);
        let mut shell = Process::start("shell", command).unwrap();
        shell.wait_line("there", PATIENCE).unwrap();
        assert_eq!(children(shell.id()).unwrap().len(), 1);
    }
}
