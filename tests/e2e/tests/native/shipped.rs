//! The shipped plugins in their native form: whole updates through the real daemon, as their components have them.

use std::process::Command;

use e2e::{Cloud, Gateway, Secondary, Update, image, mcu};
use host_crypto::{Hasher, hex};
use host_mcu_sim::Timing;
use serde_json::Value;

use super::update::{children, file};

const THING: &str = "pump-4";

/// That this library serves the target, and not the component of the same name.
fn check_serves(gateway: &Gateway, target: &str, library: &[u8]) {
    let told = gateway.expect_verb(&["plugin", "info", target, "--json"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let mut hasher = Hasher::default();
    hasher.update(library);
    assert_eq!(told[0]["sha256"], hex(hasher.finish().sha256()), "{told}");
}

#[test]
fn a_program_in_slots_is_updated_by_the_native_form() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        lines.target().lines = "carrier = \"native\"\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", 6000));
    let daemon = gateway.run();
    check_serves(&gateway, "main", guest_artifacts::FLASH_FILE_NATIVE);
    for version in ["1.1.0", "1.2.0"] {
        let new = image::program(version, "", 300_000);
        let job = cloud.update(THING, Update::of(new));
        let ended = cloud.wait_end(&job);
        assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
        let status = gateway.status();
        let target = &status["devices"][0]["targets"][0];
        assert_eq!(target["running_version"], version);
    }
    daemon.stop();
}

#[test]
fn an_mcu_on_a_line_is_updated_by_the_native_form() {
    let cloud = Cloud::start();
    let mcu = Secondary::start();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        let target = mcu.target_with("mcu", 1, "carrier = \"native\"\n", "");
        lines.device().targets = vec![target];
    });
    let daemon = gateway.run();
    check_serves(&gateway, "mcu", guest_artifacts::SERIAL_MCU_NATIVE);
    let job = cloud.update(THING, file(&mcu::image("1.1.0")));
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    assert_eq!(mcu.runs(), ("1.1.0".to_owned(), true));
    daemon.stop();
}

#[test]
fn kill_9_of_the_plugin_in_mid_push_costs_its_process_and_not_the_update() {
    let cloud = Cloud::start();
    // 40 KB take some four seconds.
    let mcu = Secondary::with(|config| config.timing = Timing::line(115_200));
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        let target = mcu.target_with("mcu", 1, "carrier = \"native\"\n", "");
        lines.device().targets = vec![target];
    });
    let daemon = gateway.run();
    let update = Update {
        file_id: 1,
        ..Update::of(mcu::image("1.1.0"))
    };
    let job = cloud.update(THING, update);
    mcu.wait("the push goes on", |view| view.stats.uploaded_bytes > 8192);
    let child = children(daemon.process.id()).remove(0);
    let killed = Command::new("kill").args(["-9", &child]).status();
    assert!(killed.expect("kill").success());
    let pushed = mcu.view().stats.uploaded_bytes;
    assert!(pushed < mcu::BODY_BYTES as u64, "in the middle: {pushed}");
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.wait_said("by signal 9");
    assert_eq!(mcu.runs(), ("1.1.0".to_owned(), true));
    daemon.stop();
}
