//! Start-up with a warm cache, memory of a daemon with one device, and what idling costs.
//!
//! The baseline of the first ones is the raw receiver, as a process that does nothing but connect; that of idling is the
//! wall clock. TLS is left out on both sides.

use std::time::Duration;

use e2e::Cloud;
use host_cloud::service::ThingName;
use host_cloud::{CloudStats, ThingTraffic};
use support::deadline::{Deadline, PATIENCE, now, pass};
use support::process::Process;
use support::usage::Usage;

use crate::figure::{Figure, Of, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};
use crate::receiver::{Order, SUBSCRIBED};
use crate::row::loopback::{SHAPES, Site, told, until_idle, usage};

/// The row.
pub const ROW: Row = Row {
    name: "start",
    about: "start-up and memory of the daemon with one device, to the raw receiver's",
    sample,
};

/// The row of many devices.
pub const FLEET: Row = Row {
    name: "idle",
    about: "processor time of a daemon with connected devices, parked and probed, and nothing to do, to the wall clock",
    sample: idle,
};

/// Devices that idle together.
const DEVICES: usize = 100;

/// How long they are watched: longer than the keep-alive is by default, so that each connection is probed once.
const IDLE: Duration = Duration::from_secs(66);

/// Their agents sleep before they are watched, as they do for nearly all of a quiet day.
const PARK: &str = "park_after_ms = 100\n";

/// How often the cloud is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(200);

fn sample(rig: &Rig, turn: Turn) -> Sample {
    let site = Site::new(rig, turn.seed());
    let ((start_s, cost), (raw_s, raw_kib)) = turn.both(
        || Ok((start_daemon(&site)?, site.daemon(SHAPES[0])?)),
        || start_receiver(rig, &site),
    )?;
    let mb = |kib: u64| kib as f64 * 1024.0 / 1e6;
    let start = Figure::cost("from exec to the first request, warm cache", "ms");
    let idle = Figure::cost("memory, one device without a job", "MB");
    let peak = Figure::cost("most memory, one device updating", "MB");
    Ok(vec![
        start
            .held(Of::Subject, 50.0, 20.0)
            .taken(start_s * 1e3, raw_s * 1e3),
        idle.taken(mb(cost.idle_kib), mb(raw_kib)),
        peak.held(Of::Subject, 20.0, 12.0)
            .taken(mb(cost.peak_kib), mb(raw_kib)),
    ])
}

/// Seconds until the first message of a thing, which a daemon sends once it is subscribed.
fn start_daemon(site: &Site) -> Result<f64, Untaken> {
    const THING: &str = "start";
    let gateway = site.gateway(&[THING], SHAPES[0])?;
    // The first one fills the cache.
    let daemon = gateway.run_with(told);
    until_idle(&daemon, 1)?;
    daemon.stop();
    let heard = messages(site.cloud(), THING)?;
    let begun = now();
    let (daemon, asked) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let deadline = Deadline::after(PATIENCE);
            while messages(site.cloud(), THING)? == heard {
                if deadline.left().is_none() {
                    return Err(Untaken::because("the daemon did not ask for a job"));
                }
                pass(LOOK_EVERY);
            }
            Ok(now())
        });
        let daemon = gateway.run_with(told);
        (daemon, asked.join().expect("the watch"))
    });
    let seconds = asked?.duration_since(begun).as_secs_f64();
    daemon.stop();
    Ok(seconds)
}

fn messages(cloud: &Cloud, thing: &str) -> Result<u64, Untaken> {
    Ok(traffic(&cloud.stats(), thing)?.messages_in)
}

fn traffic(stats: &CloudStats, thing: &str) -> Result<ThingTraffic, Untaken> {
    let name = ThingName::new(thing).map_err(|error| Untaken::by("a name", &error))?;
    let of_thing = stats.things.get(&name).copied();
    Ok(of_thing.unwrap_or_default().traffic)
}

/// Seconds until it is subscribed, and its memory then, in KiB.
fn start_receiver(rig: &Rig, site: &Site) -> Result<(f64, u64), Untaken> {
    let order = Order {
        bytes: 0,
        ..site.order(SHAPES[0])?
    };
    let failed = |error: &support::Error| Untaken::by("the raw receiver", error);
    let begun = now();
    let command = order.command(&rig.program);
    let mut process = Process::start("receiver", command).map_err(|e| failed(&e))?;
    process
        .wait_line(SUBSCRIBED, PATIENCE)
        .map_err(|e| failed(&e))?;
    let seconds = now().duration_since(begun).as_secs_f64();
    let usage = Usage::of(process.id()).map_err(|e| failed(&e))?;
    Ok((seconds, usage.rss_kib))
}

fn idle(rig: &Rig, turn: Turn) -> Sample {
    let site = Site::new(rig, turn.seed());
    let seconds = idle_cpu(&site, DEVICES)?;
    let figure = Figure::cost(format!("{DEVICES} connected devices"), "s");
    let figure = figure.held(Of::Ratio, 0.001, 0.001);
    Ok(vec![figure.taken(seconds, IDLE.as_secs_f64())])
}

/// Processor seconds of a daemon whose devices have nothing to do, within [`IDLE`].
fn idle_cpu(site: &Site, devices: usize) -> Result<f64, Untaken> {
    let things: Vec<String> = (0..devices)
        .map(|number| format!("idle-{devices}-{number}"))
        .collect();
    let things: Vec<&str> = things.iter().map(String::as_str).collect();
    let mut gateway = site.gateway(&things, SHAPES[0])?;
    gateway.reconfigure(|lines| lines.daemon += PARK);
    let daemon = gateway.run_with(told);
    until_idle(&daemon, devices)?;
    gateway.wait_status("parked", |status| {
        let devices = status["devices"].as_array();
        devices.is_some_and(|all| all.iter().all(|one| one["agent"]["life"] == "parked"))
    });
    let pings = site.cloud().stats();
    let before = usage(&daemon)?;
    pass(IDLE);
    let after = usage(&daemon)?;
    probed(&things, &pings, &site.cloud().stats())?;
    daemon.stop();
    Ok(after.cpu_since(&before).as_secs_f64())
}

/// Whether each of these has asked the cloud in between whether it is still there: else nothing was done that idling costs.
fn probed(things: &[&str], before: &CloudStats, after: &CloudStats) -> Result<(), Untaken> {
    for thing in things {
        if traffic(after, thing)?.pings <= traffic(before, thing)?.pings {
            let text = format!("{thing} did not ping within {} s", IDLE.as_secs());
            return Err(Untaken::because(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idling_without_a_ping_of_each_device_is_no_figure() {
        let stats = |pings: [u64; 2]| {
            let mut stats = CloudStats::default();
            for (thing, pings) in ["a", "b"].into_iter().zip(pings) {
                let thing = ThingName::new(thing).unwrap();
                stats.things.entry(thing).or_default().traffic.pings = pings;
            }
            stats
        };
        let check = |after: [u64; 2]| probed(&["a", "b"], &stats([1, 2]), &stats(after));
        assert_eq!(check([2, 3]), Ok(()));
        assert_eq!(
            check([3, 2]).map_err(|error| error.to_string()),
            Err("b did not ping within 66 s".to_owned())
        );
    }
}
