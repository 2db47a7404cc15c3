//! Every scenario of `otad demo`, run as a user would: exit code 0 and the job's end as the last line.
//!
//! The demo itself judges the order of the timeline, the versions that the programs print, and what must not be touched;
//! here it is judged that it says so.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::process::ExitStatus;
use std::time::Duration;

use support::binary::{otad_command, warm_code_cache};
use support::process::{Process, Stream};

/// A cold cache compiles the agent in every scenario; two cores share them.
const DEADLINE: Duration = Duration::from_secs(300);

/// Status and what the reason begins with, by scenario.
const ENDS: &[(&str, &str)] = &[
    ("default", "SUCCEEDED accepted  v1.1.0"),
    ("bad-signature", "FAILED 0x000000e3: "),
    ("downgrade", "FAILED rejected: 0x0000000f"),
    ("same-version", "FAILED rejected: 0x00000010"),
    ("incompatible", "FAILED 0x000000d3: "),
    ("self-test-failure", "FAILED rejected: 0xde000001"),
    ("never-starts", "FAILED rejected: 0x00000046"),
    ("lossy", "SUCCEEDED accepted  v1.1.0"),
    ("broker-cut", "SUCCEEDED accepted  v1.1.0"),
    ("http", "SUCCEEDED accepted  v1.1.0"),
    ("fallback", "SUCCEEDED accepted  v1.1.0"),
    ("json", "SUCCEEDED accepted  v1.1.0"),
    ("simple-orchestrator", "SUCCEEDED accepted  v1.1.0"),
    ("cancelled", "CANCELED"),
    ("declined", "REJECTED not during the harvest"),
    ("deferred", "SUCCEEDED accepted  v1.1.0"),
    ("foreign-job", "FAILED 0x0000000c: 0x00000004"),
    ("file-id", "SUCCEEDED accepted  v"),
    ("agent", "SUCCEEDED accepted  v"),
    ("secondary", "SUCCEEDED accepted  v1.1.0"),
    ("secondary-rollback", "FAILED rejected: 0xde000001"),
];

fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut command = otad_command();
    command.arg("demo").args(arguments);
    let process = Process::start("demo", command).unwrap();
    let status = process.wait_exit(DEADLINE).unwrap();
    (status, process.text(Stream::Out), process.text(Stream::Err))
}

fn play(name: &str) -> String {
    let (_, end) = ENDS.iter().find(|(n, _)| *n == name).unwrap();
    let warming = warm_code_cache().unwrap();
    let (status, out, err) = run(&["--scenario", name]);
    assert!(status.success(), "{name}: {status}\n{out}\n{err}");
    warming.done().unwrap();
    let last = out.lines().last().unwrap_or("");
    assert!(last.starts_with(end), "{name}: {last}\n{out}\n{err}");
    out
}

/// Whether these words stand in lines of their own, in this order.
fn assert_order(out: &str, words: &[&str]) {
    let mut lines = out.lines();
    for word in words {
        assert!(
            lines.any(|line| line.contains(word)),
            "{word} is missing or out of order in\n{out}"
        );
    }
}

#[test]
fn a_whole_update_is_told_from_notification_to_commit() {
    let out = play("default");
    assert_order(
        &out,
        &[
            "notified",
            "downloading",
            "downloaded",
            "read back",
            "verified",
            "activated",
            "restarted",
            "self-tested",
            "committed",
            "job ended",
            "runs version 1.1.0, image valid",
        ],
    );
}

#[test]
fn an_image_comes_by_url_and_not_over_mqtt() {
    let out = play("http");
    assert!(out.contains("the cloud has sent 0 blocks"), "{out}");
}

#[test]
fn mqtt_finishes_what_a_dead_image_server_began() {
    let out = play("fallback");
    assert_order(
        &out,
        &["the image server is gone", "downloaded", "committed"],
    );
}

#[test]
fn a_tampered_image_is_never_activated() {
    let out = play("bad-signature");
    // The first line says that it is never activated; a line of the timeline would say that it was.
    assert!(!out.contains(" s  activated"), "{out}");
}

#[test]
fn a_lower_version_is_refused() {
    play("downgrade");
}

#[test]
fn the_running_version_is_refused() {
    play("same-version");
}

#[test]
fn an_image_for_another_product_is_refused() {
    play("incompatible");
}

#[test]
fn a_sick_version_is_rolled_back() {
    let out = play("self-test-failure");
    assert_order(&out, &["activated", "restarted", "rolled back"]);
}

#[test]
fn a_version_that_never_starts_goes_back_by_itself() {
    play("never-starts");
}

#[test]
fn lost_and_doubled_blocks_do_not_matter() {
    play("lossy");
}

#[test]
fn a_cut_connection_pauses_the_download() {
    let out = play("broker-cut");
    // 512 blocks, and at most one window of 31 fetched twice.
    let sent: u32 = out
        .lines()
        .find_map(|l| l.strip_prefix("the cloud has sent "))
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap();
    assert!((512..=512 + 31).contains(&sent), "{sent} blocks\n{out}");
    assert!(out.contains("2 connection(s)"), "{out}");
    assert_order(&out, &["still runs", "the line is cut", "activated"]);
}

#[test]
fn an_image_comes_in_json_as_well() {
    let out = play("json");
    assert_order(&out, &["downloaded", "verified", "activated", "committed"]);
    // 512 blocks, 31 a request at most.
    let asked: u32 = out
        .lines()
        .find_map(|line| line.split_once(" requests for blocks were in JSON"))
        .and_then(|(before, _)| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap();
    assert!(asked >= 512 / 31, "{out}");
}

#[test]
fn a_simple_orchestrator_does_a_whole_update_in_json() {
    let out = play("simple-orchestrator");
    assert_order(&out, &["verified", "activated", "restarted", "committed"]);
    // 128 blocks of 16 KiB, each asked for by itself.
    assert!(out.contains("the cloud has sent 128 blocks"), "{out}");
}

#[test]
fn a_cancelled_job_is_given_up() {
    play("cancelled");
}

#[test]
fn a_declined_job_is_rejected_with_the_reason() {
    play("declined");
}

#[test]
fn a_deferred_activation_waits_for_its_order() {
    let out = play("deferred");
    assert_order(
        &out,
        &[
            "verified",
            "still runs",
            "activated by the owner",
            "restarted",
        ],
    );
}

#[test]
fn a_foreign_job_fails_with_its_code() {
    play("foreign-job");
}

#[test]
fn a_job_for_file_id_1_leaves_target_0_alone() {
    let out = play("file-id");
    assert!(out.contains("of 10446 bytes"), "{out}");
    assert!(out.contains("has sent 3 blocks"), "{out}");
}

#[test]
fn gateway_and_two_mcus_are_updated_in_one_job() {
    let out = play("secondary");
    assert_order(
        &out,
        &[
            "pump: marked for test",
            "valve: marked for test",
            "committed",
            "runs version 1.1.0, image valid",
        ],
    );
    for mcu in ["pump", "valve"] {
        for passed in [
            "sent over its line",
            "restarted",
            "self-tested",
            "committed",
        ] {
            assert!(
                out.contains(&format!("{mcu}: {passed}")),
                "{mcu} {passed}\n{out}"
            );
        }
    }
}

#[test]
fn one_mcu_that_is_not_well_takes_all_three_back() {
    let out = play("secondary-rollback");
    for mcu in ["pump", "valve"] {
        assert_order(
            &out,
            &[&format!("{mcu}: restarted"), &format!("{mcu}: rolled back")],
        );
    }
    assert!(!out.contains("committed"), "{out}");
}

#[test]
fn the_list_names_every_scenario_and_nothing_else() {
    let (status, out, _) = run(&["--list"]);
    assert!(status.success());
    let listed: Vec<_> = out
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    let known: Vec<_> = ENDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, known);
}

#[test]
fn an_unknown_scenario_is_a_usage_error_that_lists_the_known_ones() {
    let (status, _, err) = run(&["--scenario", "toast"]);
    assert_eq!(status.code(), Some(64));
    for (name, _) in ENDS {
        assert!(err.contains(name), "{err}");
    }
}

#[test]
fn an_agent_comes_by_a_job_that_it_ends_itself() {
    let out = play("agent");
    assert_order(&out, &["verified", "activated", "self-tested", "committed"]);
}
