//! Agents and plugins that come by a job: the build takes the place of the one that serves, carries the job on and ends it; one
//! that is no good, or breaks on its trial, fails the job with its reason, and the build before goes on.

use std::fs;

use e2e::gateway::{Daemon, TargetLines};
use e2e::signer::as_version;
use e2e::{Cloud, Ended, Gateway, Signer, Update, image};
use serde_json::Value;

const THING: &str = "renewed";
const SIZE: usize = 6000;

/// The shipped agent as this version.
fn agent_of(version: &str) -> Vec<u8> {
    as_version(guest_artifacts::AGENT, version)
}

/// A gateway with a program, a target for builds of its agent, and one for builds of the program's plugin.
struct Scene {
    cloud: Cloud,
    gateway: Gateway,
    vendor: Signer,
}

impl Scene {
    fn new(change: impl FnOnce(&mut TargetLines)) -> Self {
        let cloud = Cloud::start();
        let gateway = Gateway::with(&cloud, &[THING], |lines| {
            let build = |name: &str, file_id, lines: &str| TargetLines {
                name: name.to_owned(),
                file_id,
                restart: String::new(),
                lines: format!("plugin = \"build\"\n{lines}"),
            };
            let mut agent = build("agent", 1, "");
            change(&mut agent);
            let plugin = build("plugin", 2, "of_target = \"main\"\n");
            lines.device().targets.extend([agent, plugin]);
            lines.trust = "code_signers = [\"vendor\"]\n".to_owned();
        });
        let vendor = Signer::trusted(&gateway, "vendor");
        gateway.init(&image::program("1.0.0", "", SIZE));
        Self {
            cloud,
            gateway,
            vendor,
        }
    }

    /// A build as the vendor sends it.
    fn bundle(&self, component: &[u8], more: &[&str]) -> Vec<u8> {
        self.signed(&self.vendor, component, more)
    }

    fn signed(&self, by: &Signer, component: &[u8], more: &[&str]) -> Vec<u8> {
        let path = self.gateway.path("build.wasm");
        fs::write(&path, component).unwrap();
        by.sign(&path, &[more, &["--bundle"]].concat());
        fs::read(path.with_extension("wasm.bundle")).unwrap()
    }

    fn update(&self, file_id: u8, image: Vec<u8>) -> Ended {
        let update = Update {
            file_id,
            ..Update::of(image)
        };
        self.cloud.wait_end(&self.cloud.update(THING, update))
    }

    fn updates_program(&self, version: &str, daemon: &Daemon) {
        let ended = self.update(0, image::program(version, "", SIZE));
        let log = daemon.log();
        assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{log}");
    }

    fn agent(&self) -> Value {
        let told = self.gateway.expect_verb(&["agent", "list", "--json"]);
        serde_json::from_str::<Vec<Value>>(&told).unwrap().remove(0)
    }

    fn plugin(&self) -> Value {
        let verb = ["plugin", "info", "main", "--json"];
        let told = self.gateway.expect_verb(&verb);
        serde_json::from_str::<Vec<Value>>(&told).unwrap().remove(0)
    }
}

#[test]
fn an_agent_comes_by_a_job_carries_it_on_and_ends_it() {
    let scene = Scene::new(|_| {});
    let mut daemon = scene.gateway.run();
    assert_eq!(scene.agent()["version"], "0.0.0");
    let next = scene.bundle(&agent_of("1.0.0"), &[]);
    let ended = scene.update(1, next.clone());
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    daemon.wait_line("1.0.0, signed by vendor, is accepted for");
    let agent = scene.agent();
    assert_eq!(
        (&agent["version"], &agent["on_trial"]),
        (&"1.0.0".into(), &false.into())
    );
    let label = agent["label"].as_str().unwrap();
    assert!(label.starts_with("job AFR_OTA-"), "{label}");
    assert_eq!(agent["former"], "built-in");
    // It is one connection all the time, and the new agent does what the old one did.
    scene.updates_program("1.1.0", &daemon);
    assert_eq!(
        daemon.log().matches("connected to ").count(),
        1,
        "{}",
        daemon.log()
    );
    // The same and an older one are refused by the rules for any image.
    for (version, code) in [("1.0.0", "0x00000010"), ("0.9.0", "0x0000000f")] {
        let ended = scene.update(1, scene.bundle(&agent_of(version), &[]));
        assert_eq!(ended.status, "FAILED", "{ended:?}");
        assert!(ended.reason.contains(code), "{ended:?}");
    }
    daemon.stop();
    let daemon = scene.gateway.run();
    assert_eq!(scene.agent()["digest"], agent["digest"]);
    scene.updates_program("1.2.0", &daemon);
    // By hand it goes back, and the target says so.
    scene.gateway.expect_verb(&["agent", "rollback"]);
    let ended = scene.update(1, next);
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    assert_eq!(scene.agent()["version"], "1.0.0");
    daemon.stop();
}

#[test]
fn a_plugin_comes_by_a_job_and_serves_the_next_update() {
    let scene = Scene::new(|_| {});
    let daemon = scene.gateway.run();
    let next = scene.bundle(&as_version(guest_artifacts::FLASH_FILE, "1.0.0"), &[]);
    let ended = scene.update(2, next);
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    let plugin = scene.plugin();
    assert_eq!(
        (&plugin["version"], &plugin["on_trial"]),
        (&"1.0.0".into(), &false.into())
    );
    // It has asked its target already.
    assert!(
        plugin["account"]["calls"]["all"].as_u64().unwrap() > 0,
        "{plugin}"
    );
    scene.updates_program("1.1.0", &daemon);
    daemon.stop();
}

#[test]
fn a_build_that_is_no_good_fails_its_job_with_the_reason_and_changes_nothing() {
    let scene = Scene::new(|_| {});
    let daemon = scene.gateway.run();
    let before = scene.agent();
    let stranger = Signer::new(&scene.gateway.path(""), "stranger");
    let good = agent_of("1.0.0");
    let mut changed = scene.bundle(&good, &[]);
    changed[100] ^= 1;
    let bad = [
        // What the device's image signer has signed is not what may run as code.
        (
            scene.signed(&stranger, &good, &[]),
            "nobody whom this gateway trusts",
        ),
        (changed, "changed after it was signed"),
        (good.clone(), "no bundle of code"),
        (
            scene.bundle(&as_version(guest_artifacts::FLASH_FILE, "1.0.0"), &[]),
            "is to be agent",
        ),
        // Another agent altogether, with states of its own.
        (scene.bundle(guest_artifacts::AGENT_SIMPLE, &[]), "schema"),
    ];
    for (file, words) in bad {
        let ended = scene.update(1, file);
        let log = daemon.log();
        assert_eq!(ended.status, "FAILED", "{words}: {ended:?}\n{log}");
        // All of it before anything is swapped.
        assert!(ended.reason.contains("0x000000de"), "{words}: {ended:?}");
        daemon.wait_said(words);
        assert_eq!(scene.agent()["digest"], before["digest"], "{words}");
    }
    scene.updates_program("1.1.0", &daemon);
    daemon.stop();
}

#[test]
fn a_build_that_breaks_on_its_trial_is_sent_back_and_its_job_fails() {
    let scene = Scene::new(|_| {});
    let daemon = scene.gateway.run();
    let before = scene.agent();
    // Enough to be tried and to begin, and too little to go on with a job.
    let weak = ["--host-calls", "2"];
    let ended = scene.update(1, scene.bundle(&agent_of("1.0.0"), &weak));
    let log = daemon.log();
    assert_eq!(ended.status, "FAILED", "{ended:?}\n{log}");
    daemon.wait_said("serves in place of the one before");
    daemon.wait_said("is sent back");
    let after = scene.agent();
    assert_eq!(after["digest"], before["digest"]);
    assert!(
        after["refused"].as_str().unwrap().contains("host"),
        "{after}"
    );
    scene.updates_program("1.1.0", &daemon);
    daemon.stop();
}

#[test]
fn a_plugin_that_breaks_on_its_trial_is_sent_back_and_its_job_fails() {
    let scene = Scene::new(|_| {});
    let daemon = scene.gateway.run();
    let before = scene.plugin();
    // Enough to be opened, and too little to look at its target.
    let weak = ["--host-calls", "1"];
    let next = as_version(guest_artifacts::FLASH_FILE, "1.0.0");
    let ended = scene.update(2, scene.bundle(&next, &weak));
    let log = daemon.log();
    assert_eq!(ended.status, "FAILED", "{ended:?}\n{log}");
    let after = scene.plugin();
    assert_eq!(after["sha256"], before["sha256"]);
    let refused = after["refused"].as_str().unwrap();
    assert!(
        refused.starts_with("job AFR_OTA-") && refused.contains("host"),
        "{after}"
    );
    scene.updates_program("1.1.0", &daemon);
    daemon.stop();
}

#[test]
fn an_agent_comes_in_one_job_with_the_gateways_own_program() {
    let scene = Scene::new(|_| {});
    let daemon = scene.gateway.run();
    let agent = Update {
        file_id: 1,
        ..Update::of(scene.bundle(&agent_of("1.0.0"), &[]))
    };
    let program = Update::of(image::program("1.1.0", "", SIZE));
    let job = scene.cloud.update_group(THING, vec![program, agent]);
    let ended = scene.cloud.wait_end(&job);
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    assert_eq!(scene.agent()["version"], "1.0.0");
    let targets = &scene.gateway.status()["devices"][0]["targets"];
    assert_eq!(targets[0]["running_version"], "1.1.0", "{targets}");
    daemon.stop();
}

#[test]
fn a_build_that_the_operators_check_refuses_goes_back_and_its_job_fails() {
    let scene = Scene::new(|agent| {
        agent
            .lines
            .push_str("health = { command = [\"./no.sh\"] }\n");
    });
    scene.gateway.script("no.sh", "#!/bin/sh\nexit 1\n");
    let mut daemon = scene.gateway.run();
    let before = scene.agent();
    let ended = scene.update(1, scene.bundle(&agent_of("1.0.0"), &[]));
    assert_eq!(ended.status, "FAILED", "{ended:?}\n{}", daemon.log());
    // There and back, and no more.
    daemon.wait_line("serves in place of the one before");
    daemon.wait_line("serves in place of the one before");
    let log = daemon.log();
    let served = log.matches("serves in place of the one before").count();
    assert_eq!(served, 2, "there and back: {log}");
    assert!(!log.contains("is accepted for"), "{log}");
    assert_eq!(scene.agent()["digest"], before["digest"]);
    scene.updates_program("1.1.0", &daemon);
    daemon.stop();
}

#[test]
fn an_older_build_comes_by_a_job_where_the_operator_allows_that() {
    let scene = Scene::new(|agent| agent.lines.push_str("allow_downgrade = true\n"));
    let daemon = scene.gateway.run();
    for version in ["1.0.0", "0.9.0"] {
        let ended = scene.update(1, scene.bundle(&agent_of(version), &[]));
        assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
        assert_eq!(scene.agent()["version"], version);
    }
    daemon.stop();
}

#[test]
fn the_same_bytes_signed_anew_come_by_a_job_as_another_build() {
    let scene = Scene::new(|agent| agent.lines.push_str("allow_downgrade = true\n"));
    let daemon = scene.gateway.run();
    let bytes = agent_of("1.0.0");
    let mut manifests = Vec::new();
    for more in [&["--host-calls", "1000"][..], &["--host-calls", "999"]] {
        let bundle = scene.bundle(&bytes, more);
        let ended = scene.update(1, bundle.clone());
        assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
        manifests.push(scene.agent()["manifest"].as_str().unwrap().to_owned());
        // What serves is refused.
        let again = scene.update(1, bundle);
        assert_eq!(again.status, "FAILED", "{again:?}");
    }
    assert_ne!(manifests[0], manifests[1]);
    daemon.stop();
}

#[test]
fn a_daemon_that_is_killed_while_the_new_agent_is_in_test_goes_on_with_it() {
    let scene = Scene::new(|agent| {
        agent
            .lines
            .push_str("health = { command = [\"./once.sh\"] }\n");
    });
    // The check is a child of the daemon.
    scene.gateway.script(
        "once.sh",
        "#!/bin/sh\nd=$(dirname \"$0\")\n[ -e \"$d/killed\" ] && exit 0\n: > \"$d/killed\"\nkill -9 $PPID\nsleep 5\n",
    );
    let daemon = scene.gateway.run();
    let update = Update {
        file_id: 1,
        ..Update::of(scene.bundle(&agent_of("1.0.0"), &[]))
    };
    let job = scene.cloud.update(THING, update);
    let deadline = support::deadline::Deadline::after(support::deadline::PATIENCE);
    while !scene.gateway.path("killed").exists() {
        assert!(deadline.left().is_some(), "{}", daemon.log());
        std::thread::yield_now();
    }
    drop(daemon);
    let daemon = scene.gateway.run();
    let ended = scene.cloud.wait_end(&job);
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    let agent = scene.agent();
    assert_eq!(
        (&agent["version"], &agent["on_trial"]),
        (&"1.0.0".into(), &false.into())
    );
    daemon.stop();
}

#[test]
fn who_may_sign_images_may_not_sign_builds_that_come_by_jobs_unless_the_operator_says_so() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        lines.device().targets.push(TargetLines {
            name: "agent".to_owned(),
            file_id: 1,
            restart: String::new(),
            lines: "plugin = \"build\"\n".to_owned(),
        });
    });
    let output = gateway.verb(&["config", "check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for words in ["takes builds that come by jobs", "code_signers = "] {
        assert!(said.contains(words), "{said}");
    }
}
