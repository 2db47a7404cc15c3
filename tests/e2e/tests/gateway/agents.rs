//! Another agent build in the middle of a download: the connection, the job and every block stay; builds that are no good are
//! refused with their reason; what was chosen holds over a restart; one device before the rest.

use std::fs;
use std::path::Path;

use e2e::gateway::read;
use e2e::{Cloud, Gateway, Update, image};
use serde_json::Value;
use support::binary::otad_command;
use support::proxy::Proxy;

use crate::swap::{REFUSED, again_and_again, file, held, marked};

const THING: &str = "swapped";
const SIZE: usize = 6000;

/// 256 blocks of 4 KiB.
const LONG: usize = 1 << 20;

/// What serves each device.
fn agents(gateway: &Gateway) -> Vec<Value> {
    let told = gateway.expect_verb(&["agent", "list", "--json"]);
    serde_json::from_str(&told).unwrap()
}

/// A gateway with one device behind a proxy.
fn behind(cloud: &Cloud) -> (Gateway, Proxy) {
    let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        lines.development = "allow_file_agents = true\n".to_owned();
        let device = lines.device();
        device.port = proxy.addr().port();
        device.agent = "status_frequency = 8\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    (gateway, proxy)
}

#[test]
fn an_agent_is_swapped_in_mid_download_and_the_choice_holds_over_a_restart() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind(&cloud);
    let daemon = gateway.run();
    let before = agents(&gateway).remove(0);
    assert_eq!(before["label"], "built-in");
    proxy.set_rate(Some(256 * 1024));
    let bytes = image::program("1.1.0", "", LONG);
    let job = cloud.update(THING, Update::of(bytes.clone()));
    cloud.wait_received(&job, 64);
    // What is on its way arrives; then nothing more comes while builds are tried.
    proxy.stall();
    let agent = guest_artifacts::AGENT;
    let bad = [
        (
            "plugin.wasm",
            guest_artifacts::FLASH_FILE.to_vec(),
            "world `agent`",
        ),
        ("cut.wasm", agent[..agent.len() / 2].to_vec(), "cut off"),
        ("large.wasm", vec![0; 5 << 20], "at most 4194304"),
        // Another agent altogether, with states of its own.
        (
            "simple.wasm",
            guest_artifacts::AGENT_SIMPLE.to_vec(),
            "schema",
        ),
    ];
    for (name, bytes, words) in bad {
        let output = gateway.verb(&["agent", "swap", &file(&gateway, name, &bytes)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), REFUSED, "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
        assert_eq!(agents(&gateway)[0]["digest"], before["digest"]);
    }
    let next = file(&gateway, "next.wasm", &marked(agent, 1));
    let before_it = held(&gateway);
    assert!(before_it >= 64 * 4096, "{before_it}");
    let said = gateway.expect_verb(&["agent", "swap", &next]);
    assert!(said.contains("serves"), "{said}");
    let after = agents(&gateway).remove(0);
    assert_eq!(after["label"], next.as_str());
    assert_ne!(after["digest"], before["digest"]);
    assert_eq!(
        (&after["on_trial"], &after["swaps"], &after["former"]),
        (&true.into(), &1.into(), &"built-in".into())
    );
    assert_eq!(held(&gateway), before_it);
    proxy.set_rate(None);
    proxy.resume();
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    assert!(read(&gateway.target_file("main", "slot-b")) == bytes);
    let log = daemon.log();
    assert_eq!(log.matches("connected to ").count(), 1, "{log}");
    // The cloud knows of the job's end a moment before the agent hears of it.
    gateway.wait_status("proved", |status| {
        status["devices"][0]["agent"]["on_trial"] == false
    });
    daemon.stop();
    // Its file is not needed any more: the daemon has kept a copy.
    fs::remove_file(&next).unwrap();
    let daemon = gateway.run();
    let kept = agents(&gateway).remove(0);
    // The job's end was the end of its trial.
    assert_eq!(
        (&kept["digest"], &kept["on_trial"]),
        (&after["digest"], &false.into())
    );
    gateway.expect_verb(&["agent", "rollback"]);
    assert_eq!(agents(&gateway)[0]["digest"], before["digest"]);
    let list = gateway.expect_verb(&["agent", "list"]);
    assert!(list.contains("(built-in), on trial in place of"), "{list}");
    // The part of otad serves by its name also where it is not the one before.
    for file in [2, 3].map(|mark| file(&gateway, &format!("{mark}.wasm"), &marked(agent, mark))) {
        gateway.expect_verb(&["agent", "swap", &file, "--trial", "0"]);
        gateway.wait_status("proved", |status| {
            status["devices"][0]["agent"]["on_trial"] == false
        });
    }
    let none = gateway.verb(&["agent", "swap", "builtin:other"]);
    let said = String::from_utf8_lossy(&none.stderr);
    assert_eq!(none.status.code(), REFUSED, "{said}");
    assert!(said.contains("built in: agent, simple"), "{said}");
    gateway.expect_verb(&["agent", "swap", "builtin:agent"]);
    daemon.stop();
    let daemon = gateway.run();
    let kept = agents(&gateway).remove(0);
    assert_eq!(
        (&kept["digest"], &kept["label"]),
        (&before["digest"], &"built-in".into())
    );
    assert!(
        kept["former"].as_str().unwrap().ends_with("3.wasm"),
        "{kept}"
    );
    daemon.stop();
}

#[test]
fn one_device_gets_a_build_before_the_rest() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &["first", "second"], |lines| {
        lines.development = "allow_file_agents = true\n".to_owned();
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    let daemon = gateway.run();
    let next = file(&gateway, "next.wasm", &marked(guest_artifacts::AGENT, 1));
    let which = gateway.verb(&["agent", "swap", &next]);
    assert!(String::from_utf8_lossy(&which.stderr).contains("which device?"));
    let verb = ["agent", "swap", &next, "--all", "--canary", "second"];
    let said = gateway.expect_verb(&[&verb[..], &["--trial", "1"]].concat());
    let told: Vec<_> = said
        .lines()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(told[..2], ["second", "second"], "{said}");
    assert_eq!(said.matches("has proved itself").count(), 2, "{said}");
    for agent in agents(&gateway) {
        assert_eq!(
            (&agent["label"], &agent["on_trial"]),
            (&next.as_str().into(), &false.into())
        );
    }
    let back = gateway.expect_verb(&["agent", "rollback", "--all"]);
    assert_eq!(back.lines().count(), 2, "{back}");
    assert!(
        agents(&gateway)
            .iter()
            .all(|agent| agent["label"] == "built-in")
    );
    daemon.stop();
}

#[test]
fn an_agent_that_is_swapped_again_and_again_loses_nothing_and_no_memory() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind(&cloud);
    let daemon = gateway.run();
    let next = file(&gateway, "next.wasm", &marked(guest_artifacts::AGENT, 1));
    gateway.expect_verb(&["agent", "swap", &next]);
    let rolled_back = |_| drop(gateway.expect_verb(&["agent", "rollback"]));
    let done = again_and_again(&cloud, &proxy, &daemon, rolled_back);
    let agent = agents(&gateway).remove(0);
    assert_eq!(
        (&agent["swaps"], &agent["refused"]),
        (&done.into(), &Value::Null)
    );
    daemon.stop();
}

#[test]
fn a_swapped_agent_is_recorded_as_the_one_before_and_its_record_is_its_own() {
    let cloud = Cloud::start();
    let (gateway, _proxy) = behind(&cloud);
    let daemon = gateway.run_with(|command| {
        command.args(["--record", "flight"]);
    });
    let next = file(&gateway, "next.wasm", &marked(guest_artifacts::AGENT, 1));
    gateway.expect_verb(&["agent", "swap", &next]);
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", SIZE)));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    daemon.stop();
    let folder = gateway.path("flight").join(THING);
    let mut traces: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    traces.sort();
    let [old, new] = &traces[..] else {
        panic!("one of each build: {traces:?}");
    };
    let of_job = |trace: &Path| {
        let text = fs::read(trace).unwrap();
        String::from_utf8_lossy(&text).contains(job.as_str())
    };
    assert!(!of_job(old) && of_job(new));
    for (trace, agent) in [(old, Path::new("--builtin=agent")), (new, Path::new(&next))] {
        let mut command = otad_command();
        let output = command
            .arg("replay")
            .arg(trace)
            .arg(agent)
            .output()
            .unwrap();
        assert!(output.status.success(), "{trace:?}: {output:?}");
    }
}
