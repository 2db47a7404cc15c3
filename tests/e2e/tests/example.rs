//! The example application: it owns the one MQTT connection, shares it with the agent, and decides in its own callback.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::process::Command;
use std::time::Duration;

use e2e::cloud::Signed;
use e2e::gateway::Lines;
use e2e::{Cloud, Gateway, Update, image};
use support::binary::{self, code_cache, warm_code_cache};
use support::deadline::{PATIENCE, now};
use support::process::{Process, Signal};

const THING: &str = "app-1";

/// A first start may have to compile agent and plugin.
const COLD_START: Duration = Duration::from_secs(300);

/// The settings that the example asks for.
fn settings(lines: &mut Lines) {
    lines.target().lines = "activation = \"deferred\"\nself_test = \"external\"\n".to_owned();
}

fn start(gateway: &Gateway) -> Process {
    let warming = warm_code_cache().unwrap();
    let mut command = Command::new(binary::example("shared_connection"));
    command
        .arg(gateway.config())
        .env("OTAD_DAEMON__CACHE_DIR", code_cache());
    let mut app = Process::start("application", command).unwrap();
    app.wait_line("creating MQTT client", COLD_START).unwrap();
    app.wait_line("connected to broker", COLD_START).unwrap();
    warming.done().unwrap();
    app
}

fn wait(app: &mut Process, lines: &[&str]) {
    for line in lines {
        app.wait_line(line, PATIENCE).unwrap();
    }
}

fn new_image(version: &str) -> Vec<u8> {
    image::program(version, "exit 0", 100_000)
}

#[test]
fn an_application_shares_its_connection_and_answers_every_event_itself() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &[THING], settings);
    gateway.init(&new_image("1.0.0"));
    let mut app = start(&gateway);
    wait(&mut app, &["State: WaitingForJob"]);

    let job = cloud.update(THING, Update::of(new_image("1.1.0")));
    wait(
        &mut app,
        &[
            "received received-job callback",
            "received activate callback",
            "Activate(0): done",
            "received start-test callback",
            "TestResult { file: 0, failure: None }: done",
            "received job-ended callback",
        ],
    );
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );

    let tampered = Update {
        signed: Signed::Before(new_image("1.1.9")),
        ..Update::of(new_image("1.2.0"))
    };
    let job = cloud.update(THING, tampered);
    wait(&mut app, &["received fail callback", "update failed: "]);
    assert_eq!(cloud.wait_end(&job).status, "FAILED");
    let stats = cloud.stats();
    assert_eq!((stats.connections, stats.connected), (1, 1));
}

/// The four counters of a line, and whether it has all of them.
fn counters(line: &str) -> Option<[u64; 4]> {
    let number = |name: &str| {
        let rest = line.split_once(name)?.1;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some([
        number("Received: ")?,
        number("Queued: ")?,
        number("Processed: ")?,
        number("Dropped: ")?,
    ])
}

#[test]
fn an_application_prints_its_statistics_once_a_second_until_the_agent_has_stopped() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &[THING], settings);
    gateway.init(&new_image("1.0.0"));
    let begin = now();
    let mut app = start(&gateway);
    wait(&mut app, &["State: WaitingForJob"]);
    let job = cloud.update(THING, Update::of(new_image("1.1.0")));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    wait(&mut app, &["job-ended", "State: "]);
    app.signal(Signal::INT).unwrap();
    wait(&mut app, &["Shutdown", "the agent has stopped"]);
    let status = app.wait_exit(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0));

    let seconds = begin.elapsed().as_secs();
    let lines = app.lines();
    let printed: Vec<_> = lines
        .iter()
        .filter(|line| line.text.starts_with("State: "))
        .map(|line| counters(&line.text).expect("four counters"))
        .collect();
    assert!(printed.len() as u64 <= seconds + 1, "{lines:?}");
    let [received, _, processed, dropped] = printed.last().unwrap();
    assert!(
        *received > 0 && *received == processed + dropped,
        "{printed:?}"
    );
}

#[test]
fn an_application_that_cannot_begin_says_why() {
    let run = |argument: &str| {
        let mut command = Command::new(binary::example("shared_connection"));
        command.arg(argument);
        let app = Process::start("application", command).unwrap();
        let status = app.wait_exit(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(1), "{:?}", app.lines());
        app.text(support::process::Stream::Err)
    };
    let text = run("nowhere/otad.toml");
    assert!(text.contains("nowhere/otad.toml: cannot be read"), "{text}");
}

/// Lines that say something: neither comment nor import nor a bracket alone.
#[test]
fn the_example_is_short() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../host/otad/examples/shared_connection.rs"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split_once("#[tokio::main]").unwrap().1;
    let says = |line: &&str| {
        let line = line.trim();
        !line.starts_with("//") && line.chars().any(char::is_alphanumeric)
    };
    let count = code.lines().filter(says).count();
    assert!(count <= 75, "{count} lines of application code");
}

#[test]
fn an_application_suspends_the_agent_without_a_connection_and_resumes_it() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &[THING], settings);
    gateway.init(&new_image("1.0.0"));
    let mut app = start(&gateway);
    wait(&mut app, &["State: WaitingForJob"]);
    cloud.running().cut();
    wait(
        &mut app,
        &[
            "disconnected: ",
            "Suspend: done",
            "retrying network connection in 1 s",
            "connected to broker",
            "Resume: done",
            "State: WaitingForJob",
        ],
    );
    let job = cloud.update(THING, Update::of(new_image("1.1.0")));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    assert_eq!(cloud.stats().connections, 2);
}
