//! The program as people run it: its list, its exit codes, its file; and the raw receiver against a real cloud.

use std::path::Path;
use std::process::{Command, Output};

use benches::harness::Rig;
use benches::record::Record;
use benches::row::loopback::{SHAPES, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_benches");

fn benches(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .output()
        .expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn every_row_is_listed() {
    let output = benches(&["--list"]);
    assert!(output.status.success());
    let listed = text(&output.stdout);
    for row in benches::row::ALL {
        assert!(listed.contains(row.name), "{listed}");
    }
}

#[test]
fn what_is_asked_for_wrongly_is_said_before_anything_is_measured() {
    let check = |arguments: &[&str], expected: &str| {
        let output = benches(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(expected), "{said}");
    };
    check(&["--only", "no-such-row"], "no row is called");
    check(&["--runs", "0"], "1..=1000");
    check(&["--against", "no-such-file"], "reading figures");
}

/// Takes a row that cannot be taken, for nowhere is an openssl; its table.
fn without_openssl(out: &Path, code: i32) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(["--only", "crypto", "--runs", "1", "--out"]);
    let output = command.arg(out).env("PATH", "").output();
    let output = output.expect("it starts");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let table = text(&output.stdout);
    assert!(
        table.contains("NOT TAKEN crypto: running `openssl speed`"),
        "{table}"
    );
    table
}

#[test]
fn a_row_that_cannot_be_taken_is_in_the_file_and_in_the_exit_code() {
    let dir = support::temp_dir("benches").unwrap();
    let out = dir.path().join("figures.json");
    let table = without_openssl(&out, 1);
    assert!(table.ends_with(&format!("written to {}\n", out.display())));
    let record = Record::read(&out).unwrap();
    assert_eq!((record.measured.len(), record.skipped.len()), (0, 1));
}

#[test]
fn a_file_that_cannot_be_written_costs_no_table() {
    let dir = support::temp_dir("benches").unwrap();
    let table = without_openssl(&dir.path().join("none/figures.json"), 2);
    assert!(!table.contains("written to"), "{table}");
}

#[test]
fn the_raw_receiver_receives_the_image_with_any_window() {
    let rig = Rig::new(Path::new(PROGRAM).to_owned(), 300_000);
    let site = Site::new(&rig, 1);
    for mut shape in SHAPES {
        for blocks in [1, shape.blocks / 2, shape.blocks] {
            shape.blocks = blocks;
            let received = site.receiver(&rig, shape).unwrap();
            assert!(
                received.seconds > 0.0 && received.cpu_seconds > 0.0,
                "{received:?}"
            );
        }
    }
}

#[test]
fn a_broker_whose_speed_is_measured_does_not_log_each_message() {
    if support::interop::program("mosquitto").is_none() {
        return;
    }
    let rig = Rig::new(Path::new(PROGRAM).to_owned(), 300_000);
    let site = Site::at_mosquitto(&rig, 1).unwrap();
    site.receiver(&rig, SHAPES[0]).unwrap();
    let log = site.broker().unwrap().log();
    // Each of 74 blocks comes and goes.
    assert!(!log.is_empty() && log.len() < 100, "{log:#?}");
}
