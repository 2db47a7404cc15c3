//! Several devices, and several targets of one device, in one daemon.

use e2e::gateway::{read, target};
use e2e::{Cloud, Gateway, Update, image};
use serde_json::Value;
use support::process::Signal;

const SIZE: usize = 10_446;

fn version(status: &Value, device: &str, target: &str) -> Option<String> {
    let by = |list: &Value, key: &str, name: &str| -> Option<Value> {
        let found = list.as_array()?.iter().find(|item| item[key] == name)?;
        Some(found.clone())
    };
    let device = by(&status["devices"], "device", device)?;
    let target = by(&device["targets"], "name", target)?;
    target["running_version"].as_str().map(str::to_owned)
}

#[test]
fn two_devices_of_one_daemon_are_updated_each_by_its_own_job() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &["north", "south"], |_| {});
    gateway.init(&image::program("1.0.0", "", SIZE));
    let mut daemon = gateway.run();
    let north = cloud.update("north", Update::of(image::program("1.1.0", "", SIZE)));
    let south = cloud.update("south", Update::of(image::program("1.2.0", "", SIZE)));
    let accepted = |version: &str| format!("accepted  v{version}");
    for (job, version) in [(&north, "1.1.0"), (&south, "1.2.0")] {
        let ended = cloud.wait_end(job);
        assert_eq!(ended.as_pair(), ("SUCCEEDED", &*accepted(version)));
    }
    let status = gateway.status();
    assert_eq!(version(&status, "north", "main").as_deref(), Some("1.1.0"));
    assert_eq!(version(&status, "south", "main").as_deref(), Some("1.2.0"));
    assert_eq!(cloud.stats().connections, 2);
    // Without a name a verb would have to guess.
    let output = gateway.verb(&["suspend"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    gateway.expect_verb(&["suspend", "--device", "south"]);
    daemon.wait_line("south: ");
    let next = cloud.update("north", Update::of(image::program("1.3.0", "", SIZE)));
    assert_eq!(cloud.wait_end(&next).status, "SUCCEEDED");
    let output = gateway.expect_verb(&["status", "--json", "--device", "south"]);
    assert!(output.contains("\"state_name\":\"Suspended\""), "{output}");
}

#[test]
fn a_job_for_one_target_leaves_the_other_alone() {
    let cloud = Cloud::start();
    let thing = "gateway";
    let gateway = Gateway::with(&cloud, &[thing], |lines| {
        lines.device().targets.push(target(thing, "mcu", 1));
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    let files = ["slot-a", "record"].map(|name| gateway.target_file("main", name));
    let before = files.each_ref().map(|path| read(path));
    // Each call is told at this level.
    let daemon = gateway.run_with(|command| {
        command.args(["--log", "debug"]);
    });
    let calls = |name: &str| {
        let place = format!("{thing}: {name}: ");
        let log = daemon.log();
        let calls = log
            .lines()
            .filter(|line| line.contains(&place) && line.ends_with(" begins"));
        calls.count()
    };
    gateway.wait_idle();
    let asked = [calls("main"), calls("mcu")];
    assert!(
        asked.iter().all(|count| *count > 0),
        "{asked:?} at the start\n{}",
        daemon.log()
    );
    let update = |file_id, version| Update {
        file_id,
        ..Update::of(image::program(version, "", SIZE))
    };
    let job = cloud.update(thing, update(1, "1.1.0"));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    assert_eq!(files.each_ref().map(|path| read(path)), before);
    assert_eq!(calls("main"), asked[0], "{}", daemon.log());
    let status = gateway.status();
    assert_eq!(version(&status, thing, "main").as_deref(), Some("1.0.0"));
    assert_eq!(version(&status, thing, "mcu").as_deref(), Some("1.1.0"));
    // The other way round, and a file id that nobody has.
    gateway.wait_idle();
    let asked = calls("mcu");
    let job = cloud.update(thing, update(0, "1.2.0"));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    assert_eq!(calls("mcu"), asked, "{}", daemon.log());
    gateway.wait_idle();
    let asked = [calls("main"), calls("mcu")];
    let job = cloud.update(thing, update(9, "1.3.0"));
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.status, "FAILED");
    assert_eq!([calls("main"), calls("mcu")], asked, "{}", daemon.log());
    let status = gateway.status();
    assert_eq!(version(&status, thing, "main").as_deref(), Some("1.2.0"));
    assert_eq!(version(&status, thing, "mcu").as_deref(), Some("1.1.0"));
}

/// Where a device lives depends on its place among the others.
#[test]
fn devices_that_a_reload_gives_other_places_go_on_there() {
    let things = ["north", "south", "west"];
    let cloud = Cloud::start();
    let mut gateway = Gateway::with(&cloud, &things, |_| {});
    gateway.init(&image::program("1.0.0", "", SIZE));
    let mut daemon = gateway.run();
    let update = |things: &[&str], version: &str| {
        let update = |thing| cloud.update(thing, Update::of(image::program(version, "", SIZE)));
        let jobs: Vec<_> = things.iter().copied().map(update).collect();
        let accepted = format!("accepted  v{version}");
        for job in &jobs {
            assert_eq!(cloud.wait_end(job).as_pair(), ("SUCCEEDED", &*accepted));
        }
    };
    update(&things, "1.1.0");
    let mut gone = Vec::new();
    gateway.reconfigure(|lines| gone.push(lines.devices.remove(0)));
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again, with 2 devices");
    update(&things[1..], "1.2.0");
    gateway.reconfigure(|lines| lines.devices.append(&mut gone));
    daemon.process.signal(Signal::HUP).unwrap();
    daemon.wait_line("ready again, with 3 devices");
    update(&things, "1.3.0");
    daemon.stop();
}
