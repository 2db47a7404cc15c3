//! A gateway whose devices have nothing to do most of the time: their agents are parked, and whatever happens to one of
//! them wakes it, and no other.

use std::time::Duration;

use e2e::{Cloud, Gateway, Update, image};
use serde_json::Value;
use support::deadline::{PATIENCE, pass};
use support::proxy::Proxy;

use crate::swap::{file, marked};

const SIZE: usize = 6000;

const THINGS: [&str; 2] = ["sleeper", "neighbour"];

/// The devices, once all are as wanted.
fn wait_for(gateway: &Gateway, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let devices = |status: &Value| status["devices"].as_array().unwrap().clone();
    devices(&gateway.wait_status("as wanted", |status| wanted(&devices(status))))
}

/// Some times `park_after_ms` of these tests.
const PARKED_LONG_AGO: Duration = Duration::from_millis(500);

fn is_parked(device: &Value) -> bool {
    device["agent"]["life"] == "parked" && device["connected"] == true
}

fn all_parked(devices: &[Value]) -> bool {
    devices.iter().all(is_parked)
}

#[test]
fn devices_that_are_parked_are_updated_ordered_about_and_parked_again() {
    let cloud = Cloud::start();
    let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
    let gateway = Gateway::with(&cloud, &THINGS, |lines| {
        lines.daemon = "park_after_ms = 100\n".to_owned();
        let device = lines.device();
        device.port = proxy.addr().port();
        device.mqtt = "reconnect_min_ms = 10\nreconnect_max_ms = 100\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    let daemon = gateway.run_with(|command| {
        command.args(["--log", "info,host_runtime=debug"]);
    });
    let devices = wait_for(&gateway, all_parked);
    assert_eq!(devices[0]["agent"]["memory_bytes"], 0);
    assert_eq!(devices[0]["state_name"], "WaitingForJob");

    // A job.
    let first = cloud.update(THINGS[0], Update::of(image::program("1.1.0", "", SIZE)));
    assert_eq!(
        cloud.wait_end(&first).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
    let devices = wait_for(&gateway, all_parked);
    assert_eq!(devices[0]["targets"][0]["running_version"], "1.1.0");
    assert_eq!(devices[1]["targets"][0]["running_version"], "1.0.0");

    // An order; who has suspended an agent finds it suspended, asleep or not.
    gateway.expect_verb(&["suspend", "--device", THINGS[0]]);
    let suspended =
        |devices: &[Value]| all_parked(devices) && devices[0]["state_name"] == "Suspended";
    wait_for(&gateway, suspended);
    let job = cloud.update(THINGS[0], Update::of(image::program("1.2.0", "", SIZE)));
    gateway.expect_verb(&["resume", "--device", THINGS[0]]);
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.2.0")
    );

    // The connection, which is this device's own.
    wait_for(&gateway, all_parked);
    assert_eq!(proxy.cut(), 1);
    assert!(proxy.wait_accepted(2, PATIENCE));
    wait_for(&gateway, all_parked);
    let job = cloud.update(THINGS[0], Update::of(image::program("1.3.0", "", SIZE)));
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.3.0")
    );

    // An agent that was woken is parked again, and says so. All of that was this device's.
    let log = daemon.log();
    let (_, since) = log.split_once(&first.to_string()).unwrap();
    let parked = |thing: &str| {
        let line = |line: &str| line.contains("is parked") && line.contains(thing);
        since.lines().any(line)
    };
    assert_eq!(THINGS.map(parked), [true, false], "{log}");
    daemon.stop();
}

#[test]
fn another_build_takes_over_from_a_parked_one_and_is_parked_once_it_has_proved_itself() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &THINGS, |lines| {
        lines.daemon = "park_after_ms = 100\n".to_owned();
        lines.development = "allow_file_agents = true\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    let daemon = gateway.run();
    wait_for(&gateway, all_parked);
    let next = file(&gateway, "next.wasm", &marked(guest_artifacts::AGENT, 1));
    gateway.expect_verb(&["agent", "swap", &next, "--device", THINGS[0]]);
    let devices = gateway.status()["devices"].clone();
    assert_eq!(devices[0]["agent"]["label"], next.as_str(), "{devices:#}");
    // One on trial stays awake; its neighbour sleeps on.
    assert_eq!(devices[0]["agent"]["life"], "running", "{devices:#}");
    assert!(is_parked(&devices[1]), "{devices:#}");
    let job = cloud.update(THINGS[0], Update::of(image::program("1.1.0", "", SIZE)));
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
    let devices = wait_for(&gateway, all_parked);
    let agent = &devices[0]["agent"];
    assert_eq!(
        (&agent["on_trial"], &agent["swaps"]),
        (&false.into(), &1.into())
    );
    // It goes back from its sleep, too, and the daemon that is started then finds the one before.
    gateway.expect_verb(&["agent", "rollback", "--device", THINGS[0]]);
    assert_eq!(gateway.status()["devices"][0]["agent"]["label"], "built-in");
    assert_eq!(daemon.log().matches("connected to ").count(), THINGS.len());
    daemon.stop();
}

#[test]
fn an_agent_that_a_candidate_follows_is_not_parked() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &THINGS[..1], |lines| {
        lines.daemon = "park_after_ms = 100\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    let daemon = gateway.run_with(|command| {
        command.args(["--shadow", "builtin:agent"]);
    });
    wait_for(&gateway, |devices| {
        devices[0]["state_name"] == "WaitingForJob" && devices[0]["connected"] == true
    });
    // As long as it takes to be parked, and some more.
    pass(PARKED_LONG_AGO);
    let status = gateway.status();
    assert_eq!(status["devices"][0]["agent"]["life"], "running");
    daemon.stop();
}
