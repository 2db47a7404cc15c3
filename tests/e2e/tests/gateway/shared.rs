//! Devices that use the connection of another one: each hears what is its own, and all of them hear that it is gone.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use e2e::{Cloud, Gateway, Update, image};
use support::deadline::{Deadline, PATIENCE, pass};
use support::proxy::Proxy;

const SIZE: usize = 6000;

const THINGS: [&str; 3] = ["owner", "first-guest", "second-guest"];

#[test]
fn three_devices_on_one_connection_are_updated_cut_off_and_updated_again() {
    let cloud = Cloud::start_with(|config| config.plain = Some(([127, 0, 0, 1], 0).into()));
    let plain = cloud.running().plain_addr().unwrap();
    let proxy = Proxy::start(plain).unwrap();
    let gateway = Gateway::with(&cloud, &THINGS, |lines| {
        let (owner, guests) = lines.devices.split_first_mut().unwrap();
        owner.port = proxy.addr().port();
        owner.mqtt = "tls = false\nreconnect_min_ms = 10\nreconnect_max_ms = 100\n".to_owned();
        for guest in guests {
            guest.connection_of = Some(owner.thing.clone());
        }
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    let daemon = gateway.run();
    daemon.wait_said("first-guest: by the connection of owner");

    let update = |version: &str| {
        let job = cloud.update_all(&THINGS, Update::of(image::program(version, "", SIZE)));
        let deadline = Deadline::after(PATIENCE);
        while cloud.counts(&job).get("SUCCEEDED") != Some(&THINGS.len()) {
            assert!(deadline.left().is_some(), "{:?}", cloud.counts(&job));
            pass(std::time::Duration::from_millis(20));
        }
        let status = gateway.status();
        for device in status["devices"].as_array().unwrap() {
            assert_eq!(device["targets"][0]["running_version"], version);
            assert_eq!(device["connection"]["client_id"], "owner");
        }
    };
    update("1.1.0");
    assert_eq!(proxy.accepted(), 1);
    assert_eq!(proxy.cut(), 1);
    update("1.2.0");
    assert_eq!(proxy.accepted(), 2);
    daemon.stop();
}

#[test]
fn a_guest_goes_on_when_the_device_that_has_the_connection_cannot_be_set_up() {
    let cloud = Cloud::start_with(|config| config.plain = Some(([127, 0, 0, 1], 0).into()));
    let plain = cloud.running().plain_addr().unwrap();
    let gateway = Gateway::with(&cloud, &THINGS[..2], |lines| {
        lines.devices[0].port = plain.port();
        lines.devices[0].mqtt = "tls = false\n".to_owned();
        lines.devices[1].connection_of = Some("owner".to_owned());
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    // A folder where its journal is: a file whose bytes are no journal would be moved away.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(gateway.path("state/devices/owner/journal"))
        .unwrap();
    let daemon = gateway.run();
    daemon.wait_said("owner: does not run until");
    let update = Update::of(image::program("1.1.0", "", SIZE));
    let ended = cloud.wait_end(&cloud.update("first-guest", update));
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    daemon.stop();
}
