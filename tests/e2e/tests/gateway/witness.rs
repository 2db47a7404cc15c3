//! Those who look on while the daemon updates: the flight recorder, whose trace is replayed, and a shadow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::gateway::Daemon;
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::service::JobId;
use serde_json::json;
use support::binary::otad_command;

const THING: &str = "witnessed";

/// 64 blocks of 4 KiB.
const SIZE: usize = 256 * 1024;

const SECRET: &str = "hunter22-of-the-wifi";

struct Scene {
    cloud: Cloud,
    gateway: Gateway,
    daemon: Daemon,
}

impl Scene {
    fn with(arguments: &[&str], prepare: impl FnOnce(&Gateway)) -> Self {
        let cloud = Cloud::start();
        let gateway = Gateway::new(&cloud, THING);
        gateway.init(&image::program("1.0.0", "", SIZE));
        prepare(&gateway);
        let daemon = gateway.run_with(|command| {
            command.args(arguments);
        });
        Self {
            cloud,
            gateway,
            daemon,
        }
    }

    fn update(&self, version: &str) -> JobId {
        let image = image::program(version, "", SIZE);
        self.cloud.update(THING, Update::of(image))
    }

    fn succeeds(&self, job: &JobId, version: &str) {
        let ended = self.cloud.wait_end(job);
        let reason = format!("accepted  v{version}");
        assert_eq!(
            ended.as_pair(),
            ("SUCCEEDED", reason.as_str()),
            "{}",
            self.daemon.log()
        );
    }
}

/// The shipped agent with one word of its status changed: a build that does something else, late in an update.
fn another_build(folder: &Path) -> PathBuf {
    let mut bytes = guest_artifacts::AGENT.to_vec();
    let (word, other) = (b"\"self_test\":\"", b"\"self_tesT\":\"");
    let places: Vec<_> = (0..bytes.len() - word.len())
        .filter(|at| bytes[*at..].starts_with(word))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + word.len()].copy_from_slice(other);
    }
    let path = folder.join("another.wasm");
    fs::write(&path, bytes).unwrap();
    path
}

/// The traces of the thing, in order.
fn traces(gateway: &Gateway) -> Vec<PathBuf> {
    let entries = fs::read_dir(gateway.path("flight").join(THING)).unwrap();
    let mut traces: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    traces.sort();
    traces
}

fn replay(arguments: &[&Path]) -> (Option<i32>, String) {
    let mut command = otad_command();
    let Output {
        status,
        stdout,
        stderr,
    } = command.arg("replay").args(arguments).output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn what_was_recorded_of_an_update_is_replayed_and_another_build_is_told_where_it_differs() {
    let scene = Scene::with(&["--record", "flight"], |_| {});
    let strange = json!({ "wifi": { "password": SECRET } });
    let strange = scene.cloud.job(THING, "strange", strange);
    assert_ne!(scene.cloud.wait_end(&strange).status, "SUCCEEDED");
    let job = scene.update("1.1.0");
    scene.succeeds(&job, "1.1.0");
    let Scene {
        gateway, daemon, ..
    } = scene;
    daemon.stop();

    let traces = traces(&gateway);
    let [trace] = &traces[..] else {
        panic!("one file holds it all: {traces:?}");
    };
    let recorded = fs::read(trace).unwrap();
    let has = |word: &str| {
        recorded
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    };
    assert!(has("strange") && has(job.as_str()));
    assert!(!has(SECRET), "a secret in clear");
    assert!(recorded.len() < SIZE / 2, "{} bytes", recorded.len());

    // The incident becomes a test by copying one file.
    let elsewhere = support::temp_dir("incident").unwrap();
    let copy = elsewhere.path().join("field.trace");
    fs::copy(trace, &copy).unwrap();
    drop(gateway);
    let builtin = Path::new("--builtin=agent");
    let (code, said) = replay(&[&copy, builtin]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the same in "), "{said}");

    let other = another_build(elsewhere.path());
    let (code, said) = replay(&[&copy, &other]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("first difference in exchange "), "{said}");
    assert!(
        said.contains("self_test") && said.contains("self_tesT"),
        "{said}"
    );
    let (diff, shipped) = (Path::new("--diff"), Path::new("builtin:agent"));
    let (code, said) = replay(&[&copy, diff, shipped, &other]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("self_tesT"), "{said}");

    let header = recorded.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for (kept, code, words) in [(header, 2, "no exchange"), (header - 1, 6, "was cut off")] {
        fs::write(&copy, &recorded[..kept]).unwrap();
        let (ended, said) = replay(&[&copy, builtin]);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_shadow_of_the_same_build_stays_for_a_whole_update() {
    let scene = Scene::with(&["--shadow", "builtin:agent"], |_| {});
    let job = scene.update("1.1.0");
    scene.succeeds(&job, "1.1.0");
    let Scene { mut daemon, .. } = scene;
    daemon
        .process
        .terminate(support::deadline::PATIENCE)
        .unwrap();
    daemon.wait_line("the shadow did the same in ");
    assert!(!daemon.log().contains("the shadow is over"));
}

#[test]
fn a_shadow_that_does_something_else_is_reported_and_ends_and_the_update_does_not_notice() {
    let scene = Scene::with(&["--shadow", "another.wasm"], |gateway| {
        another_build(&gateway.path(""));
    });
    let job = scene.update("1.1.0");
    scene.succeeds(&job, "1.1.0");
    let Scene {
        mut daemon,
        cloud,
        gateway,
    } = scene;
    let said = daemon.wait_line("the shadow is over: in exchange ");
    assert!(said.contains("self_tesT"), "{said}");
    // What is live goes on without it.
    let next = image::program("1.2.0", "", SIZE);
    let next = cloud.update(THING, Update::of(next));
    let ended = cloud.wait_end(&next);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.2.0"));
    assert_eq!(gateway.status()["devices"][0]["device"], THING);
    daemon.stop();
}
