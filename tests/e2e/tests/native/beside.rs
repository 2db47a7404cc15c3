//! Plugins that do harm, and an update of somebody else at the same time: it takes as long as it takes alone.
//!
//! Each hostile plugin serves a device of its own, and there are more of them than the daemon has threads. The times are printed
//! (`--nocapture`).
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::time::{Duration, Instant};

use e2e::gateway::TargetLines;
use e2e::{Cloud, Gateway, Update, image};
use support::deadline::now;

use super::library;

const HONEST: &str = "honest";

/// Each keeps the host waiting, or busy, for as long as a call may take.
const DEEDS: [&str; 3] = ["spin", "flood-log", "threads"];

/// 128 blocks of 4 KiB.
const IMAGE_BYTES: usize = 512 * 1024;

/// What a call may take: who waits for one that hangs waits longer.
const CALL_MAX: Duration = Duration::from_secs(5);

fn target(deed: &str) -> TargetLines {
    TargetLines {
        name: "board".to_owned(),
        file_id: 1,
        restart: String::new(),
        lines: format!(
            "plugin = \"./hostile.so\"\nstaging = \"staging/{deed}\"\nversion_from = \"none\"\n\
             [device.target.settings]\ndeed = \"{deed}\"\nplace = \"/nowhere\"\n"
        ),
    }
}

fn update(cloud: &Cloud, version: &str) -> Duration {
    let began: Instant = now();
    let image = Update::of(image::program(version, "", IMAGE_BYTES));
    let ended = cloud.wait_end(&cloud.update(HONEST, image));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}");
    began.elapsed()
}

#[test]
fn an_update_beside_hostile_plugins_takes_as_long_as_alone() {
    let cloud = Cloud::start();
    let things = [&[HONEST][..], &DEEDS].concat();
    let gateway = Gateway::with(&cloud, &things, |lines| {
        lines.development = "allow_file_plugins = true".to_owned();
        for (device, deed) in lines.devices.iter_mut().skip(1).zip(DEEDS) {
            device.targets = vec![target(deed)];
        }
    });
    fs::write(gateway.path("hostile.so"), library()).unwrap();
    gateway.init(&image::program("1.0.0", "", 6000));
    let mut daemon = gateway.run();
    // Each was asked how its target is, and is gone.
    for _ in DEEDS {
        daemon.wait_line("plugin broke");
    }
    let alone = update(&cloud, "1.1.0");
    let jobs: Vec<_> = DEEDS
        .iter()
        .map(|deed| {
            let file = Update {
                file_id: 1,
                ..Update::of(vec![7; 5000])
            };
            cloud.update(deed, file)
        })
        .collect();
    let beside = update(&cloud, "1.2.0");
    println!("alone {alone:?}, beside {DEEDS:?} {beside:?}");
    let log = daemon.log();
    assert!(
        beside < alone + CALL_MAX / 2,
        "{alone:?}, {beside:?}\n{log}"
    );
    for job in &jobs {
        let ended = cloud.wait_end(job);
        assert_eq!(ended.status, "FAILED", "{ended:?}\n{}", daemon.log());
    }
    daemon.stop();
}
