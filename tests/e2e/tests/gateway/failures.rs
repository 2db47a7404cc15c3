//! What goes wrong on a gateway: kills, cuts, full disks, commands that fail or hang. Every job ends with a reason, the
//! old image runs on, and the daemon lives.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::gateway::{Lines, copy_environment, read};
use e2e::{Cloud, Ended, Gateway, Update, image};
use serde_json::Value;
use support::binary;
use support::deadline::PATIENCE;
use support::process::Process;
use support::proxy::Proxy;

const THING: &str = "hard-luck";
const SIZE: usize = 6000;

/// 256 blocks of 4 KiB.
const LONG: usize = 1 << 20;

/// Blocks of one request, as `blocks_per_request` has it by default.
const WINDOW: u64 = 31;

/// `main` of a failure of storage, as in `wit/agent/types.wit`.
const STORAGE: &str = "000000d6";

fn gateway_with(cloud: &Cloud, change: impl FnOnce(&mut Lines)) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], change);
    gateway.init(&image::program("1.0.0", "", SIZE));
    gateway
}

/// A gateway that reaches the cloud through a proxy, and reports every eighth block.
fn behind_a_proxy(cloud: &Cloud, change: impl FnOnce(&mut Lines)) -> (Gateway, Proxy) {
    let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
    let gateway = gateway_with(cloud, |lines| {
        let device = lines.device();
        device.port = proxy.addr().port();
        device.mqtt = "reconnect_min_ms = 10\nreconnect_max_ms = 100\n".to_owned();
        device.agent = "status_frequency = 8\n".to_owned();
        change(lines);
    });
    (gateway, proxy)
}

fn target(gateway: &Gateway) -> Value {
    gateway.status()["devices"][0]["targets"][0].clone()
}

fn update(cloud: &Cloud, version: &str, size: usize) -> Ended {
    let job = cloud.update(THING, Update::of(image::program(version, "", size)));
    cloud.wait_end(&job)
}

/// The old image runs, and a good update works, with the same daemon.
fn check_alive(cloud: &Cloud, gateway: &Gateway) {
    let target = target(gateway);
    assert_eq!(target["running_version"], "1.0.0", "{target}");
    let ended = update(cloud, "1.2.0", SIZE);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.2.0"));
}

#[test]
fn a_daemon_killed_in_mid_download_goes_on_and_fetches_at_most_a_window_twice() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind_a_proxy(&cloud, |_| {});
    let daemon = gateway.run();
    // Slow enough that the end is far when the first report is seen.
    proxy.set_rate(Some(256 * 1024));
    let bytes = image::program("1.1.0", "", LONG);
    let job = cloud.update(THING, Update::of(bytes.clone()));
    cloud.wait_received(&job, 64);
    proxy.stall();
    daemon.process.kill(PATIENCE).unwrap();
    proxy.cut();
    proxy.set_rate(None);
    proxy.resume();
    assert_eq!(cloud.now(&job).status, "IN_PROGRESS");
    let _daemon = gateway.run();
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    assert!(read(&gateway.target_file("main", "slot-b")) == bytes);
    let sent = cloud.stats().blocks;
    let whole = (LONG / 4096) as u64;
    assert!(
        sent <= whole + WINDOW,
        "{sent} blocks were sent, the image has {whole}"
    );
}

#[test]
fn a_cut_in_mid_download_goes_on_with_the_same_job() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind_a_proxy(&cloud, |_| {});
    let mut daemon = gateway.run();
    proxy.set_rate(Some(256 * 1024));
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", LONG)));
    cloud.wait_received(&job, 64);
    assert_eq!(proxy.cut(), 1);
    proxy.set_rate(None);
    daemon.wait_line("retrying in ");
    daemon.wait_line("connected to ");
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    let sent = cloud.stats().blocks;
    let whole = (LONG / 4096) as u64;
    assert!(sent <= whole + WINDOW, "{sent} of {whole}");
}

#[test]
fn state_and_counters_can_be_read_in_mid_download() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind_a_proxy(&cloud, |_| {});
    let _daemon = gateway.run();
    proxy.set_rate(Some(256 * 1024));
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", LONG)));
    cloud.wait_received(&job, 32);
    proxy.stall();
    let device = &gateway.status()["devices"][0];
    assert_eq!(device["state_name"], "WaitingForFileBlock");
    assert_eq!(device["job_id"], job.as_str());
    let counter = |name: &str| device["counters"][name].as_u64().unwrap();
    assert!(counter("processed") >= 32, "{device}");
    assert_eq!(
        counter("received"),
        counter("processed") + counter("dropped"),
        "{device}"
    );
    let mut watch = Process::start(
        "otad status --watch",
        gateway.command(&["status", "--watch"]),
    )
    .unwrap();
    for _ in 0..2 {
        let line = watch.wait_line("State: ", PATIENCE).unwrap();
        for word in ["Received: ", "Queued: ", "Processed: ", "Dropped: "] {
            assert!(line.contains(word), "{line}");
        }
    }
    proxy.set_rate(None);
    proxy.resume();
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
}

#[test]
fn a_suspended_agent_stays_suspended_over_a_reconnect() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind_a_proxy(&cloud, |_| {});
    let mut daemon = gateway.run();
    proxy.set_rate(Some(256 * 1024));
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", LONG)));
    cloud.wait_received(&job, 32);
    gateway.expect_verb(&["suspend"]);
    let requests = cloud.stats().stream_requests;
    proxy.cut();
    proxy.set_rate(None);
    daemon.wait_line("retrying in ");
    daemon.wait_line("connected to ");
    daemon.wait_line(": connected");
    let device = &gateway.status()["devices"][0];
    assert_eq!(device["state_name"], "Suspended", "{device}");
    assert_eq!(device["connected"], true, "{device}");
    assert_eq!(cloud.stats().stream_requests, requests);
    gateway.expect_verb(&["resume"]);
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
}

#[test]
fn an_image_larger_than_the_slot_is_refused_before_anything_is_downloaded() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.target().lines = format!("slot_size_bytes = {}\n", LONG - 1);
    });
    let _daemon = gateway.run();
    let ended = update(&cloud, "1.1.0", LONG);
    assert_eq!(ended.status, "FAILED");
    assert!(ended.reason.starts_with("aborted: 0x"), "{ended:?}");
    assert_eq!(cloud.stats().stream_requests, 0);
    check_alive(&cloud, &gateway);
}

#[test]
fn a_disk_that_is_full_ends_the_job_with_the_code_of_storage() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |_| {});
    let daemon = gateway.run_limited(LONG as u64 / 2);
    let ended = update(&cloud, "1.1.0", LONG);
    assert_eq!(ended.status, "FAILED");
    assert!(ended.reason.contains(STORAGE), "{ended:?}");
    daemon.wait_said("File too large");
    check_alive(&cloud, &gateway);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let cloud = Cloud::start();
    let mut gateway = gateway_with(&cloud, |_| {});
    // Even root cannot make directories there, nor below a file.
    for (place, code, cure) in [
        ("/proc/otad-state", 1, "must be writable"),
        ("first.img/state", 78, "first.img is no directory"),
    ] {
        gateway.reconfigure(|lines| {
            lines.daemon = format!("control_socket = \"c.sock\"\n#{place}");
        });
        let mut command = gateway.command(&["run"]);
        command.env("OTAD_DAEMON__STATE_DIR", place);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        let words = format!("{place}: ");
        assert!(said.contains(&words), "{words} is not in:\n{said}");
        assert!(said.contains(cure), "{said}");
    }
}

#[test]
fn a_target_whose_storage_cannot_be_used_is_named_before_any_agent_starts() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |_| {});
    let slot = gateway.target_file("main", "slot-b");
    fs::create_dir(&slot).unwrap();
    let output = gateway.verb(&["run"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains(slot.to_str().unwrap()), "{said}");
    assert!(!said.contains("agent ready"), "{said}");
    assert_eq!(cloud.stats().connections, 0);
}

/// A health command decides, whatever the plugin says.
fn check_health(script: &str, deadline_ms: u64, status: &str, reason: &str, version: &str) {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.target().lines =
            format!("health = {{ command = [\"./health.sh\"], deadline_ms = {deadline_ms} }}\n");
    });
    gateway.script("health.sh", script);
    let mut daemon = gateway.run();
    let ended = update(&cloud, "1.1.0", SIZE);
    assert_eq!(ended.as_pair(), (status, reason));
    daemon.wait_line("event [StatusAcknowledged] new state [RequestingJob]");
    let target = target(&gateway);
    assert_eq!(target["running_version"], version, "{target}");
}

#[test]
fn a_health_command_that_passes_commits_the_image() {
    let script = "#!/bin/sh\ntest \"$OTAD_VERSION\" = 1.1.0\n";
    check_health(script, 60_000, "SUCCEEDED", "accepted  v1.1.0", "1.1.0");
}

#[test]
fn a_health_command_that_fails_rolls_the_image_back() {
    let script = "#!/bin/sh\nexit 3\n";
    check_health(script, 60_000, "FAILED", "rejected: 0xde000003", "1.0.0");
}

#[test]
fn a_health_command_that_hangs_rolls_the_image_back() {
    let script = "#!/bin/sh\nexec tail -f /dev/null\n";
    check_health(script, 300, "FAILED", "rejected: 0xde000000", "1.0.0");
}

/// The tests' restart command with a deadline. The good one, too, has to end by then, and it starts the launcher.
fn restart_within(deadline_ms: u64) -> String {
    format!(r#"{{ command = ["./restart.sh", "{THING}", "main"], deadline_ms = {deadline_ms} }}"#)
}

/// A restart that does not work goes back at once, with the reason of its own; with a good one the next update works.
fn check_restart(script: &str, reason: &str, said: &str) {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.target().restart = restart_within(5000);
    });
    let good = fs::read_to_string(gateway.path("restart.sh")).unwrap();
    gateway.script("restart.sh", script);
    let daemon = gateway.run();
    let ended = update(&cloud, "1.1.0", SIZE);
    assert_eq!(ended.as_pair(), ("FAILED", reason));
    daemon.wait_said(said);
    assert_eq!(target(&gateway)["running_version"], "1.0.0");
    gateway.script("restart.sh", &good);
    check_alive(&cloud, &gateway);
}

#[test]
fn a_restart_command_that_fails_ends_the_job_and_the_old_image_runs() {
    let script = "#!/bin/sh\nexit 7\n";
    check_restart(script, "0x000000ec: 0x00000007", "exited with 7");
}

#[test]
fn a_restart_command_that_hangs_is_killed_and_ends_the_job() {
    let script = "#!/bin/sh\nexec tail -f /dev/null\n";
    let said = "not done within 5000 ms, killed";
    check_restart(script, "0x000000ec: 0x00000000", said);
}

#[test]
fn a_restart_that_fails_on_the_way_back_is_tried_again_until_the_old_image_runs() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.target().lines = "health = { command = [\"./health.sh\"] }\n".to_owned();
        lines.device().agent = "request_timeout_ms = 1000\n".to_owned();
    });
    gateway.script("health.sh", "#!/bin/sh\nexit 3\n");
    // Into the new image it works, back it does at the second try.
    let restart = fs::read_to_string(gateway.path("restart.sh")).unwrap();
    let fails =
        "echo x >>\"$dir/count\"\nif [ \"$(wc -l <\"$dir/count\")\" -eq 2 ]; then exit 9; fi";
    let second = restart.replace("$0\")\n", &format!("$0\")\n{fails}\n"));
    assert_ne!(second, restart);
    gateway.script("restart.sh", &second);
    let _daemon = gateway.run();
    let ended = update(&cloud, "1.1.0", SIZE);
    assert_eq!(ended.as_pair(), ("FAILED", "rejected: 0xde000003"));
    gateway.script("health.sh", "#!/bin/sh\nexit 0\n");
    check_alive(&cloud, &gateway);
}

#[test]
fn an_image_that_does_not_stay_up_goes_back_by_the_launcher() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.target().lines = "tries_max = 2\n".to_owned();
    });
    // As a service manager does: again, until it stays up.
    let restart = fs::read_to_string(gateway.path("restart.sh")).unwrap();
    let launch = restart
        .lines()
        .find(|line| line.contains(" launch "))
        .unwrap();
    let again = format!("#!/bin/sh\ndir=$(dirname \"$0\")\nuntil {launch}; do :; done\n");
    gateway.script("restart.sh", &again);
    let _daemon = gateway.run();
    let broken = image::program("1.1.0", "exit 1", SIZE);
    let job = cloud.update(THING, Update::of(broken));
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.status, "FAILED");
    assert!(ended.reason.starts_with("rejected: "), "{ended:?}");
    check_alive(&cloud, &gateway);
    let log = fs::read_to_string(gateway.path("launch.log")).unwrap();
    assert!(log.contains("try 2 of 2"), "{log}");
    assert!(
        log.contains("did not stay up; going back to slot-a"),
        "{log}"
    );
}

#[test]
fn a_new_image_without_a_connection_is_not_kept() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind_a_proxy(&cloud, |lines| {
        lines.device().agent = "self_test_deadline_ms = 6000\n".to_owned();
    });
    // The restart takes until the test lets it go on.
    let restart = fs::read_to_string(gateway.path("restart.sh")).unwrap();
    let (head, tail) = restart.split_once("dir=$(dirname \"$0\")\n").unwrap();
    let wait = "if [ -p \"$dir/gate\" ]; then read -r line <\"$dir/gate\"; rm \"$dir/gate\"; fi";
    let gated = format!("{head}dir=$(dirname \"$0\")\n{wait}\n{tail}");
    gateway.script("restart.sh", &gated);
    shell("mkfifo \"$1\"", &gateway.path("gate"));
    let mut daemon = gateway.run();
    let job = cloud.update(THING, Update::of(image::program("1.1.0", "", SIZE)));
    daemon.wait_line("restarting the target of file 0");
    proxy.refuse(true);
    proxy.cut();
    daemon.wait_line("retrying in ");
    shell("echo go >\"$1\"", &gateway.path("gate"));
    daemon.wait_line("image state OtaPalImageStatePendingCommit");
    daemon.wait_line("new state [GoingBack]");
    daemon.wait_line("new state [Reporting]");
    proxy.refuse(false);
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.status, "FAILED");
    assert!(ended.reason.starts_with("rejected: "), "{ended:?}");
    check_alive(&cloud, &gateway);
}

/// Runs a line of a shell with a path as `$1`.
fn shell(script: &str, path: &Path) {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(path);
    let shell = Process::start("shell", command).unwrap();
    assert!(shell.wait_exit(PATIENCE).unwrap().success(), "{script}");
}

#[test]
fn the_gateways_own_software_is_restarted_through_the_launcher() {
    let cloud = Cloud::start();
    let gateway = Gateway::with(&cloud, &[THING], |lines| {
        lines.target().restart.clear();
        lines.target().lines = "reset = \"process\"\n".to_owned();
    });
    // The slots hold the program that runs the daemon.
    let otad = binary::otad().display().to_string();
    let program = |version: &str| {
        let body = format!("echo \"daemon {version}\"\nexec \"{otad}\" run \"$@\"");
        image::program(version, &body, SIZE)
    };
    gateway.init(&program("1.0.0"));
    // What the service manager does: Restart=always through `otad launch`, for exit code 4 alone.
    let mut command = Command::new("sh");
    copy_environment(&mut gateway.command(&[]), &mut command);
    let script = "while :; do \"$0\" launch main --config \"$1\" -- --config \"$1\"; \
                  [ $? = 4 ] || exit 1; echo again; done";
    command.args(["-c", script, &otad]).arg(gateway.config());
    let warming = binary::warm_code_cache().unwrap();
    let mut service = Process::start("service", command).unwrap();
    for line in ["daemon 1.0.0", "runs version 1.0.0, image valid"] {
        service.wait_line(line, PATIENCE * 5).unwrap();
    }
    warming.done().unwrap();
    let job = cloud.update(THING, Update::of(program("1.1.0")));
    for line in [
        "is this program: stopping, to be started again",
        "disconnected from localhost:",
        "again",
        "daemon 1.1.0",
        "runs version 1.1.0, image pending-commit",
        "event [TestsPassed] new state [Committing]",
    ] {
        service.wait_line(line, PATIENCE).unwrap();
    }
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    let target = target(&gateway);
    assert_eq!(target["running_version"], "1.1.0");
    assert_eq!(target["image_state"], "valid");
}
