//! Hooks: programs of the application that decide about jobs, activations and tests, finish jobs that are no update, and
//! are told what failed; and what happens when they say nothing.

use std::fs;

use e2e::gateway::{Daemon, Lines, target};
use e2e::{Cloud, Gateway, Update, image};
use host_runtime::engine::Budget;
use serde_json::{Value, json};
use support::deadline::{Deadline, PATIENCE};

const THING: &str = "hooked";
const SIZE: usize = 6000;

/// Writes down what it was given, then does what the test says for this hook.
const HOOK: &str = r#"#!/bin/sh
dir=$(dirname "$0")
cat > "$dir/$OTAD_HOOK.part" && mv "$dir/$OTAD_HOOK.part" "$dir/$OTAD_HOOK.json"
echo "$OTAD_HOOK $OTAD_JOB $OTAD_TARGET" >> "$dir/calls"
. "$dir/$OTAD_HOOK.sh"
"#;

struct World {
    cloud: Cloud,
    gateway: Gateway,
}

impl World {
    /// A gateway with these hooks, each with its deadline in milliseconds, and these settings of its agent.
    fn new(hooks: &[(&str, u64)], agent: &str, change: impl FnOnce(&mut Lines)) -> Self {
        let cloud = Cloud::start();
        let mut gateway = Gateway::with(&cloud, &[THING], |_| {});
        gateway.script("hook.sh", HOOK);
        let program = gateway.path("hook.sh").display().to_string();
        let mut text = format!("{agent}\n[device.hooks]\n");
        for (name, deadline) in hooks {
            let line =
                format!("{name} = {{ command = [\"{program}\"], deadline_ms = {deadline} }}\n");
            text.push_str(&line);
        }
        gateway.reconfigure(|lines| {
            lines.device().agent = text;
            change(lines);
        });
        gateway.init(&image::program("1.0.0", "", SIZE));
        Self { cloud, gateway }
    }

    /// What a hook does from now on.
    fn script(&self, hook: &str, text: &str) {
        // In one step: it may be read right now.
        fs::write(self.gateway.path("next"), text).unwrap();
        fs::rename(
            self.gateway.path("next"),
            self.gateway.path(&format!("{hook}.sh")),
        )
        .unwrap();
    }

    fn update(&self, version: &str) -> host_cloud::service::JobId {
        let bytes = image::program(version, "", SIZE);
        self.cloud.update(THING, Update::of(bytes))
    }

    /// What the hook was given last.
    fn given(&self, hook: &str) -> Value {
        let text = fs::read(self.gateway.path(&format!("{hook}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn calls(&self, of: &str) -> usize {
        let text = fs::read_to_string(self.gateway.path("calls")).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(of)).count()
    }

    fn jobs(&self) -> Value {
        let output = self.gateway.verb(&["job", "list", "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["jobs"].clone()
    }

    /// The jobs that wait, once there are so many of them: what the hook said is logged before the agent has heard it.
    fn jobs_when(&self, count: usize) -> Value {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let list = self.jobs();
            if list.as_array().is_some_and(|jobs| jobs.len() == count) {
                return list;
            }
            assert!(deadline.left().is_some(), "not {count} jobs: {list}");
        }
    }

    fn running_version(&self) -> Value {
        self.gateway.status()["devices"][0]["targets"][0]["running_version"].clone()
    }
}

fn says(daemon: &mut Daemon, hook: &str, words: &str) {
    daemon.wait_line(&format!("hook {hook} {words}"));
}

#[test]
fn a_job_hook_declines_with_its_reason_and_takes_the_next_job() {
    let world = World::new(&[("job", 10_000)], "", |_| {});
    world.script("job", "echo 'not on a Friday'; exit 5");
    let mut daemon = world.gateway.run();
    let job = world.update("1.1.0");
    let ended = world.cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("REJECTED", "not on a Friday"));
    assert_eq!(world.cloud.stats().stream_requests, 0);
    let given = world.given("job");
    assert_eq!(given["job_id"], job.as_str());
    assert_eq!(
        given["document"]["afr_ota"]["files"][0]["fileid"], 0,
        "{given}"
    );
    world.script("job", "exit 0");
    let ended = world.cloud.wait_end(&world.update("1.2.0"));
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.2.0"));
    // The declined one was offered once.
    assert_eq!(world.calls(&format!("job {job}")), 1);
    says(&mut daemon, "job", "says yes");
}

#[test]
fn a_job_hook_that_hangs_or_fails_takes_nothing_and_is_asked_again() {
    let world = World::new(
        &[("job", 300)],
        "activation_reminder_ms = 3600000\n",
        |_| {},
    );
    world.script("job", "exec sleep 1000");
    let mut daemon = world.gateway.run();
    // The offer comes by a notification to an agent that has nothing to do.
    world.gateway.wait_idle();
    let job = world.update("1.1.0");
    says(&mut daemon, "job", "failed: not done at its deadline");
    assert_eq!(world.cloud.now(&job).status, "QUEUED");
    let list = world.jobs_when(1);
    assert_eq!(list[0]["job_id"], job.as_str(), "{list}");
    assert_eq!(list[0]["waits_for"], "offer", "{list}");
    let why = world.gateway.expect_verb(&["why"]);
    let words = format!("or `otad job approve {job}` or decline, for ");
    assert!(why.contains(&words), "{why}");
    // The operator answers in its place.
    world.gateway.expect_verb(&["job", "approve", job.as_str()]);
    assert_eq!(world.cloud.wait_end(&job).status, "SUCCEEDED");
    world.gateway.wait_idle();
    daemon.stop();
    let why = world.gateway.expect_verb(&["why"]);
    assert!(
        why.contains(
            "nothing to do: the job service has no job for it; a new one is told at once, for"
        ),
        "{why}"
    );

    // One that fails at first is asked again after the reminder.
    let soon = "OTAD_DEVICE__0__AGENT__ACTIVATION_REMINDER_MS";
    let mut daemon = world.gateway.run_with(|command| {
        command.env(soon, "50");
    });
    world.script("job", "exit 1");
    let job = world.update("1.2.0");
    says(&mut daemon, "job", "failed: exit code 1");
    says(&mut daemon, "job", "failed: exit code 1");
    world.script("job", "exit 0");
    assert_eq!(world.cloud.wait_end(&job).status, "SUCCEEDED");
}

#[test]
fn a_start_test_hook_gives_the_verdict_of_the_target_in_test() {
    let world = World::new(&[("start_test", 5000)], "", |lines| {
        lines.device().targets.push(target(THING, "aux", 1));
    });
    let _daemon = world.gateway.run();
    let rows = [
        ("echo 'no water'; exit 5", "FAILED", "rejected: 0xde000005"),
        ("exit 42", "FAILED", "rejected: 0xde00002a"),
        ("exec sleep 1000", "FAILED", "rejected: 0xd9000000"),
        ("exit 0", "SUCCEEDED", "accepted  v1.1.0"),
    ];
    for (script, status, reason) in rows {
        world.script("start_test", script);
        let ended = world.cloud.wait_end(&world.update("1.1.0"));
        assert_eq!(ended.as_pair(), (status, reason), "{script}");
    }
    assert_eq!(world.running_version(), "1.1.0");
    let update = Update {
        file_id: 1,
        ..Update::of(image::program("1.3.0", "", SIZE))
    };
    let job = world.cloud.update(THING, update);
    assert_eq!(world.cloud.wait_end(&job).status, "SUCCEEDED");
    assert_eq!(world.calls(&format!("start_test {job} aux")), 1);
    assert_eq!(world.given("start_test")["version"], "1.3.0");
}

#[test]
fn an_activate_hook_puts_the_restart_off_also_over_a_restart_of_the_daemon() {
    let world = World::new(
        &[("activate", 10_000)],
        "activation_reminder_ms = 50\n",
        |_| {},
    );
    world.script("activate", "exit 3");
    let mut daemon = world.gateway.run();
    let job = world.update("1.1.0");
    says(&mut daemon, "activate", "says later");
    says(&mut daemon, "activate", "says later");
    assert_eq!(
        world.gateway.status()["devices"][0]["state_name"],
        "WaitingForActivation"
    );
    assert_eq!(world.running_version(), "1.0.0");
    daemon.process.kill(PATIENCE).unwrap();
    let mut daemon = world.gateway.run();
    says(&mut daemon, "activate", "says later");
    world.script("activate", "exit 0");
    let ended = world.cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));

    // A no gives the job up; the old image never stopped.
    world.script("activate", "exit 5");
    let ended = world.cloud.wait_end(&world.update("1.2.0"));
    assert_eq!(ended.status, "FAILED");
    assert!(ended.reason.starts_with("aborted: 0x"), "{ended:?}");
    assert_eq!(world.running_version(), "1.1.0");
}

#[test]
fn the_memory_of_an_agent_is_told_while_its_job_runs() {
    let world = World::new(&[("activate", 10_000)], "", |_| {});
    world.script("activate", "exit 3");
    let mut daemon = world.gateway.run();
    world.update("1.1.0");
    says(&mut daemon, "activate", "says later");
    let status = world.gateway.status();
    let device = &status["devices"][0];
    assert_eq!(device["state_name"], "WaitingForActivation");
    let memory = device["agent"]["memory_bytes"].as_u64().unwrap();
    let most = Budget::AGENT.memory_bytes as u64;
    assert!((65_536..=most).contains(&memory), "{memory} of {most}");
}

#[test]
fn a_custom_job_is_taken_by_its_hook_and_finished_later_after_a_restart() {
    let world = World::new(&[("custom_job", 5000)], "", |_| {});
    world.script("custom_job", "exit 0");
    let mut daemon = world.gateway.run();
    let job = world
        .cloud
        .job(THING, "reboot-7", json!({ "reboot": [1.50, "now"] }));
    says(&mut daemon, "custom_job", "says yes");
    assert_eq!(world.given("custom_job")["document"]["reboot"][1], "now");
    // Killed only when the job service knows: what is not acknowledged would be asked again.
    daemon.wait_line("acknowledged");
    assert_eq!(world.cloud.now(&job).status, "IN_PROGRESS");
    daemon.process.kill(PATIENCE).unwrap();
    let _daemon = world.gateway.run();
    // It is ready before it has asked the service about the job, where its journal was not written yet.
    world.jobs_when(1);
    let why = world.gateway.expect_verb(&["why"]);
    assert!(why.contains("ends by `otad job finish reboot-7`"), "{why}");
    let finish = [
        "job",
        "finish",
        "reboot-7",
        "--status",
        "succeeded",
        "--reason",
        "up again",
    ];
    world.gateway.expect_verb(&finish);
    let ended = world.cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "up again"));
    assert_eq!(world.calls("custom_job"), 1);
    world.jobs_when(0);
    let again = world.gateway.verb(&finish);
    assert_eq!(again.status.code(), Some(2), "{again:?}");

    let rows = [
        (
            "echo '{\"status\":\"failed\",\"reason\":\"no such service\"}'",
            "FAILED",
            "no such service",
        ),
        ("echo 'not this one'; exit 5", "REJECTED", "not this one"),
        ("exit 2", "FAILED", "0x0000000c: 0x"),
        ("exec sleep 1000", "FAILED", "0x0000000c: 0x"),
    ];
    for (at, (script, status, reason)) in rows.into_iter().enumerate() {
        world.script("custom_job", script);
        let job = world
            .cloud
            .job(THING, &format!("other-{at}"), json!({ "other": at }));
        let ended = world.cloud.wait_end(&job);
        assert_eq!(ended.status, status, "{script}: {ended:?}");
        assert!(ended.reason.starts_with(reason), "{script}: {ended:?}");
    }
    // The cloud knows of an end before the daemon has its answer.
    world.jobs_when(0);
    assert_eq!(world.gateway.verb(&["job", "list"]).status.code(), Some(2));
}

#[test]
fn a_fail_hook_is_told_at_least_once_whatever_happens_to_the_daemon() {
    let world = World::new(&[("fail", 60_000)], "custom_answer_ms = 0\n", |_| {});
    world.script("fail", "kill -9 $PPID; exec sleep 1000");
    let daemon = world.gateway.run();
    let job = world.cloud.job(THING, "nobody-1", json!({ "nobody": 1 }));
    // The hook kills the daemon, and dies with it.
    daemon.process.wait_exit(PATIENCE).unwrap();
    assert_eq!(world.calls("fail nobody-1"), 1);
    world.script("fail", "exit 0");
    let mut daemon = world.gateway.run();
    assert_eq!(world.cloud.wait_end(&job).status, "FAILED");
    says(&mut daemon, "fail", "says yes");
    assert_eq!(world.calls("fail nobody-1"), 2);
    let failure = world.given("fail")["failure"].clone();
    assert_eq!(failure["main"], 0x0c, "{failure}");
    // Told is told: the next start is silent about it.
    let job = world.cloud.job(THING, "nobody-2", json!({ "nobody": 2 }));
    assert_eq!(world.cloud.wait_end(&job).status, "FAILED");
    says(&mut daemon, "fail", "says yes");
    daemon.stop();
    let mut daemon = world.gateway.run();
    let job = world.cloud.job(THING, "nobody-3", json!({ "nobody": 3 }));
    assert_eq!(world.cloud.wait_end(&job).status, "FAILED");
    says(&mut daemon, "fail", "says yes");
    assert_eq!(world.calls("fail nobody-1"), 2);
}

#[test]
fn a_hook_is_checked_before_anything_starts() {
    let rows = [
        ("bin/hook", "expected an absolute path"),
        ("/nowhere/hook", "/nowhere/hook: No such file"),
        ("/etc/passwd", "is not executable"),
    ];
    let cloud = Cloud::start();
    let mut gateway = Gateway::new(&cloud, THING);
    for (program, words) in rows {
        gateway.reconfigure(|lines| {
            lines.device().agent =
                format!("[device.hooks]\njob = {{ command = [\"{program}\"] }}\n");
        });
        for verb in [&["config", "check"][..], &["run"]] {
            let output = gateway.verb(verb);
            let said = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.code(), Some(78), "{program}: {said}");
            assert!(said.contains(words), "{program}: {said}");
        }
    }
    gateway.reconfigure(|lines| {
        lines.device().agent =
            "on_job = \"accept\"\n[device.hooks]\njob = { command = [\"/bin/true\"] }\n".to_owned();
    });
    let said = gateway.verb(&["config", "check"]);
    let text =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(
        text.contains("is never called: `on_job` is not \"ask\""),
        "{text}"
    );
}

#[test]
fn the_outcomes_accepted_rejected_and_self_test_are_one_event_each() {
    let world = World::new(&[("start_test", 10_000)], "", |_| {});
    let daemon = world.gateway.run();
    world.script("start_test", "exit 5");
    let bad = world.update("1.1.0");
    assert_eq!(world.cloud.wait_end(&bad).status, "FAILED");
    world.script("start_test", "exit 0");
    let good = world.update("1.2.0");
    assert_eq!(world.cloud.wait_end(&good).status, "SUCCEEDED");
    world.gateway.expect_verb(&["poll"]);
    let lines = world.gateway.expect_verb(&["events", "--json"]);
    let events: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |job: &str, name: &str| {
        let is = |event: &&Value| event["job_id"] == job && event["name"] == name;
        events.iter().filter(is).count()
    };
    for (job, accepted) in [(&bad, 0), (&good, 1)] {
        assert_eq!(count(job.as_str(), "start-test"), 1, "{lines}");
        assert_eq!(count(job.as_str(), "fail"), 1 - accepted, "{lines}");
        assert_eq!(count(job.as_str(), "activate"), 1, "{lines}");
    }
    // The log has each by its name, and by the number that it has here.
    for event in events {
        let (name, number) = (event["name"].as_str().unwrap(), &event["sequence"]);
        daemon.wait_said(&format!(
            "info {THING}: application event {name}, number {number}"
        ));
    }
}
