//! Many devices of one daemon that are updated at once: how long it takes until the last one has succeeded, to the processor
//! time that all processes have spent on it, spread over the cores.
//!
//! One is what a machine can do that is never idle while anything is left to do. Whole updates: notified, downloaded,
//! verified, restarted by a command, self-tested, confirmed. The processes are the daemon with its commands, and the cloud,
//! which is in this one.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use e2e::gateway::Lines;
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::Limits;
use support::binary::otad;
use support::deadline::now;
use support::usage::Usage;

use crate::figure::{Figure, Of, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};
use crate::row::loopback::{SHAPES, told, until_idle, usage};

/// The row.
pub const ROW: Row = Row {
    name: "crowd-updates",
    about: "from the job of many devices of one daemon to the last success, to the processor time of all processes over the cores",
    sample,
};

/// Bytes of each image: a thousand of them are a quarter of a GiB.
const IMAGE_BYTES: usize = 256 << 10;

/// The restart command: the launcher starts the slot, whose program ends at once. It reads a configuration of one device: to
/// read that of a thousand, for each of them, takes longer than the update. Arguments: thing, configuration.
const RESTART: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
"@OTAD@" launch main --device "$1" --config "$2" >>launch.log 2>&1
exit 0
"#;

/// Connections a second while the daemon starts; the time of a start is not what is measured here.
const CONNECTS_PER_S: usize = 1000;

/// Longest wait for the last device, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

fn sample(rig: &Rig, _: Turn) -> Sample {
    let count = rig.devices;
    let cost = update(count)?;
    let cores = available_parallelism().map_or(1, NonZeroUsize::get) as f64;
    let figure = |name: &str| Figure::cost(format!("{count} devices, {name}"), "s");
    let all = cost.daemon_s + cost.cloud_s;
    Ok(vec![
        figure("to the last success")
            .held(Of::Ratio, 1.5, 1.5)
            .taken(cost.seconds, all / cores),
        figure("processor of the daemon, to that of all").taken(cost.daemon_s, all),
    ])
}

/// What an update of all has cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// From the job to the last success.
    seconds: f64,
    /// Processor time of the daemon and its commands.
    daemon_s: f64,
    /// Processor time of this process, which is the cloud.
    cloud_s: f64,
}

fn update(count: usize) -> Result<Cost, Untaken> {
    let cloud = Cloud::start_with(|config| {
        config.limits = Limits::None;
        config.plain = Some(([127, 0, 0, 1], 0).into());
    });
    let address = cloud.running().plain_addr();
    let no_port = || Untaken::because("the cloud has no endpoint without TLS");
    let port = address.ok_or_else(no_port)?.port();
    let things: Vec<String> = (0..count).map(|number| format!("crowd-{number}")).collect();
    let things: Vec<&str> = things.iter().map(String::as_str).collect();
    let shape = SHAPES[0];
    let change = |lines: &mut Lines| {
        lines.daemon = format!("connects_per_s_max = {CONNECTS_PER_S}\n");
        for device in &mut lines.devices {
            device.port = port;
            let (thing, config) = (&device.thing, Gateway::alone(&device.thing));
            device.targets[0].restart =
                format!(r#"{{ command = ["./restart-alone.sh", "{thing}", "{config}"] }}"#);
            device.mqtt = "tls = false\n".to_owned();
            device.agent = format!(
                "block_size = {}\nblocks_per_request = {}\nrequests_in_flight = {}\n",
                shape.block_bytes, shape.blocks, shape.requests
            );
        }
    };
    let gateway = Gateway::with(&cloud, &things, change);
    let otad = otad().display().to_string();
    gateway.script("restart-alone.sh", &RESTART.replace("@OTAD@", &otad));
    gateway.init(&image::program("1.0.0", "", 1000));
    let daemon = gateway.run_with(told);
    until_idle(&daemon, count)?;

    let own = || {
        let usage = Usage::of(std::process::id());
        usage.map_err(|error| Untaken::by("own processor time", &error))
    };
    let update = Update::of(image::program("1.1.0", "", IMAGE_BYTES));
    let before = (usage(&daemon)?, own()?);
    let begun = now();
    let job = cloud.update_all(&things, update);
    // Of all its things; how it went is counted below.
    drop(cloud.end_within(&job, PATIENCE));
    let seconds = now().duration_since(begun).as_secs_f64();
    let after = (usage(&daemon)?, own()?);

    let counts = cloud.counts(&job);
    if counts.get("SUCCEEDED") != Some(&count) {
        let text = format!("of {count} devices not all have succeeded: {counts:?}");
        return Err(Untaken::because(text));
    }
    daemon.stop();
    let spent = |after: &Usage, before| after.cpu_since(before).as_secs_f64();
    Ok(Cost {
        seconds,
        daemon_s: spent(&after.0, &before.0),
        cloud_s: spent(&after.1, &before.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_devices_that_are_updated_at_once_all_succeed_and_cost_something() {
        let cost = update(8).unwrap();
        assert!(cost.daemon_s > 0.0 && cost.cloud_s > 0.0, "{cost:?}");
        assert!(cost.seconds > 0.0, "{cost:?}");
    }
}
