//! Files and rights that are not what they should be, and an end that has to be forced.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use e2e::gateway::{copy_environment, target};
use e2e::{Cloud, Gateway, Update, image};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::Value;
use support::binary;
use support::deadline::{Deadline, PATIENCE};
use support::process::Process;

const THING: &str = "scarred";
const SIZE: usize = 6000;

/// The end of an update of a target by its file id.
fn update(cloud: &Cloud, file_id: u8, version: &str) -> (String, String) {
    let update = Update {
        file_id,
        ..Update::of(image::program(version, "", SIZE))
    };
    let ended = cloud.wait_end(&cloud.update(THING, update));
    (ended.status, ended.reason)
}

fn succeeded(version: &str) -> (String, String) {
    ("SUCCEEDED".to_owned(), format!("accepted  v{version}"))
}

fn gateway(cloud: &Cloud) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        lines.device().targets.push(target(THING, "mcu", 1));
    });
    gateway.init(&image::program("1.0.0", "", SIZE));
    gateway
}

fn shown(gateway: &Gateway, target: usize) -> Value {
    gateway.status()["devices"][0]["targets"][target].clone()
}

#[test]
fn a_damaged_record_is_the_end_of_its_target_alone_until_it_is_moved_away() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let record = gateway.path(&format!("state/targets/{THING}/mcu/record.json"));
    assert!(record.exists());
    fs::write(&record, "{").unwrap();
    let daemon = gateway.run();
    assert_eq!(update(&cloud, 0, "1.1.0"), succeeded("1.1.0"));
    let (status, reason) = update(&cloud, 1, "1.1.0");
    assert_eq!((&*status, &*reason), ("FAILED", "aborted: 0xd6000000"));
    let name = format!("targets/{THING}/mcu/record.json");
    daemon.wait_said(&name);
    let damaged = shown(&gateway, 1);
    assert_eq!(damaged["phase"], "damaged", "{damaged}");
    let words = damaged["warnings"].to_string();
    assert!(words.contains(&name) && words.contains("move the file away"));
    daemon.stop();
    fs::rename(&record, record.with_extension("damaged")).unwrap();
    let _daemon = gateway.run();
    // `accepted` speaks of file 0.
    assert_eq!(update(&cloud, 1, "1.2.0"), succeeded("1.1.0"));
    assert_eq!(shown(&gateway, 1)["running_version"], "1.2.0");
}

#[test]
fn a_record_that_has_lost_its_last_lines_is_named_and_moved_away() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let daemon = gateway.run();
    for version in ["1.1.0", "1.2.0"] {
        assert_eq!(update(&cloud, 0, version), succeeded(version));
    }
    daemon.stop();
    let record = gateway.path(&format!("state/targets/{THING}/main/record.json"));
    let text = fs::read_to_string(&record).unwrap();
    // The first of the two is the last that it knows of.
    let at = text.find("\"phase\":\"committed\"").unwrap();
    let end = at + text[at..].find('\n').unwrap() + 1;
    assert!(end < text.len(), "{text}");
    fs::write(&record, &text[..end]).unwrap();
    let daemon = gateway.run();
    let (status, reason) = update(&cloud, 0, "1.3.0");
    assert_eq!((&*status, &*reason), ("FAILED", "aborted: 0xd6000000"));
    let said = daemon.wait_said("has lost its end: 1.2.0 runs, and by it 1.1.0 in `slot-b`");
    assert!(said.contains("move the file away"), "{said}");
    daemon.stop();
    fs::rename(&record, record.with_extension("damaged")).unwrap();
    let _daemon = gateway.run();
    assert_eq!(update(&cloud, 0, "1.3.0"), succeeded("1.3.0"));
}

#[test]
fn an_old_copy_of_the_state_is_named_and_the_image_laid_down_anew() {
    let cloud = Cloud::start();
    let gateway = Gateway::new(&cloud, THING);
    gateway.init(&image::program("1.0.0", "", SIZE));
    let (state, slots) = (gateway.path("state"), gateway.target_file("main", ""));
    let copy = |from: &Path, to: &Path| {
        if to.exists() {
            fs::remove_dir_all(to).unwrap();
        }
        let status = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(status.unwrap().success());
    };
    let backup = ["state", "slots"].map(|name| gateway.path(&format!("backup-{name}")));
    let launch = || gateway.verb(&["launch", "main"]).status.code();
    copy(&state, &backup[0]);
    copy(&slots, &backup[1]);
    let daemon = gateway.run();
    assert_eq!(update(&cloud, 0, "1.1.0"), succeeded("1.1.0"));
    daemon.stop();
    copy(&backup[0], &state);
    assert_eq!(launch(), Some(6));
    let daemon = gateway.run();
    let words = "is older than what runs (1.1.0 runs, and by it 1.0.0 in `slot-a`)";
    daemon.wait_said(words);
    let (status, reason) = update(&cloud, 0, "1.2.0");
    assert_eq!((&*status, &*reason), ("FAILED", "aborted: 0xd6000000"));
    for verb in ["status", "why"] {
        let said = gateway.expect_verb(&[verb]);
        assert!(said.contains(words), "{said}");
        assert!(
            said.contains("otad target init main IMAGE --device scarred --force"),
            "{said}"
        );
    }
    // Beside the daemon its directory tells less than it does itself.
    let beside = gateway.verb(&["why", "--state-dir", state.to_str().unwrap()]);
    let said = String::from_utf8([beside.stdout, beside.stderr].concat()).unwrap();
    let words = format!("a daemon uses {} and was not asked", state.display());
    assert!(said.contains(&words), "{said}");
    assert!(!said.contains("unknown time"), "{said}");
    assert!(!said.contains("the daemon does not run"), "{said}");
    daemon.stop();
    let image = gateway.path("right.img");
    fs::write(&image, image::program("1.1.0", "", SIZE)).unwrap();
    gateway.expect_verb(&["target", "init", "main", image.to_str().unwrap(), "--force"]);
    assert_eq!(launch(), Some(0));
    let daemon = gateway.run();
    assert_eq!(update(&cloud, 0, "1.2.0"), succeeded("1.2.0"));
    daemon.stop();
    // What belongs together is put back together.
    copy(&backup[0], &state);
    copy(&backup[1], &slots);
    assert_eq!(launch(), Some(0));
    let _daemon = gateway.run();
    assert_eq!(shown(&gateway, 0)["running_version"], "1.0.0");
    assert_eq!(update(&cloud, 0, "1.3.0"), succeeded("1.3.0"));
}

#[test]
fn a_damaged_running_image_is_said_and_mended_by_a_job_but_not_by_an_older_version() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let slot = gateway.target_file("main", "slot-a");
    fs::OpenOptions::new()
        .write(true)
        .open(slot)
        .unwrap()
        .set_len(100)
        .unwrap();
    let daemon = gateway.run();
    daemon.wait_said("the running image is damaged: `slot-a`");
    daemon.wait_said("runs version 1.0.0, image damaged");
    let why = gateway.expect_verb(&["why"]);
    assert!(
        why.contains("target main: the running image is damaged"),
        "{why}"
    );
    let refused = ("FAILED".to_owned(), "0x0000000f: 0x00000000".to_owned());
    assert_eq!(update(&cloud, 0, "0.9.0"), refused);
    assert_eq!(update(&cloud, 0, "1.0.0"), succeeded("1.0.0"));
    let mended = shown(&gateway, 0);
    assert_eq!(mended["image_state"], "valid", "{mended}");
    assert_eq!(mended["running_version"], "1.0.0", "{mended}");
}

#[test]
fn after_damage_of_history_and_events_nothing_is_invented_and_no_number_comes_again() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let daemon = gateway.run();
    assert_eq!(update(&cloud, 0, "1.1.0"), succeeded("1.1.0"));
    gateway.wait_idle();
    let numbers = |after: &str| -> Vec<u64> {
        let told = gateway.verb(&["events", "--json", "--after", after]);
        let told = String::from_utf8(told.stdout).unwrap();
        let events = told.lines().map(|line| serde_json::from_str(line).unwrap());
        events
            .map(|event: Value| event["sequence"].as_u64().unwrap())
            .collect()
    };
    let last = numbers("0").pop().unwrap();
    daemon.stop();
    let file = |name: &str| gateway.path(&format!("state/devices/{THING}/{name}"));
    let length = fs::metadata(file("history")).unwrap().len();
    fs::write(file("history"), vec![b'#'; length as usize]).unwrap();
    let stopped = gateway.verb(&["history"]);
    let said = String::from_utf8(stopped.stderr).unwrap();
    assert!(said.contains("is damaged"), "{said}");
    let daemon = gateway.run();
    daemon.wait_said("the history of jobs is damaged: 0 jobs can be read");
    let shown = gateway.expect_verb(&["history"]);
    assert!(
        shown.contains("SUCCEEDED  no more than its end is known"),
        "{shown}"
    );
    assert!(!shown.contains("0 bytes"), "{shown}");
    daemon.stop();
    fs::remove_file(file("events.log")).unwrap();
    let _daemon = gateway.run();
    assert_eq!(update(&cloud, 0, "1.2.0"), succeeded("1.2.0"));
    gateway.wait_idle();
    assert!(numbers(&last.to_string())[0] > last);
    // Whoever has seen more than there is gets what there is; between two listings another event may come.
    let deadline = Deadline::after(PATIENCE);
    loop {
        let [beyond, all] = ["5000", "0"].map(numbers);
        if beyond == all {
            break;
        }
        assert!(deadline.left().is_some(), "{beyond:?} {all:?}");
    }
}

#[test]
fn a_state_directory_that_others_may_write_launches_nothing() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let state = gateway.path("state");
    for (mode, code) in [(0o777, 78), (0o770, 78), (0o700, 0)] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let output = gateway.verb(&["launch", "main"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{mode:o}: {said}");
        assert_eq!(said.contains("chmod go-w"), code != 0, "{said}");
    }
}

/// A verb of somebody whose files are for everybody unless they say otherwise.
fn open_handed(gateway: &Gateway, verb: &[&str]) -> Command {
    let mut plain = gateway.command(verb);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" \"$@\""]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.current_dir(gateway.path(""));
    copy_environment(&mut plain, &mut command);
    command
}

#[test]
fn slots_and_records_may_be_written_by_their_owner_alone() {
    let cloud = Cloud::start();
    let gateway = Gateway::new(&cloud, THING);
    let image = gateway.path("first.img");
    fs::write(&image, image::program("1.0.0", "", SIZE)).unwrap();
    let init = ["target", "init", "main", image.to_str().unwrap()];
    assert!(open_handed(&gateway, &init).status().unwrap().success());
    let warming = binary::warm_code_cache().unwrap();
    let run = open_handed(&gateway, &["run"]);
    let mut daemon = Process::start("otad run", run).unwrap();
    daemon.wait_line("ready; ", PATIENCE * 5).unwrap();
    warming.done().unwrap();
    assert_eq!(update(&cloud, 0, "1.1.0"), succeeded("1.1.0"));
    daemon.terminate(PATIENCE).unwrap();
    let directory = gateway.target_file("main", "");
    let mut seen = Vec::new();
    let mut check = |path: &Path| {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
        seen.push(path.to_owned());
    };
    check(&directory);
    for entry in fs::read_dir(&directory).unwrap() {
        check(&entry.unwrap().path());
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    // Where somebody else has made it, that is said.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o775)).unwrap();
    let output = gateway.verb(&["config", "check"]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("may be written by group or others"), "{said}");
}

#[test]
fn a_second_signal_ends_a_daemon_that_hangs_in_its_end() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud);
    let mut daemon = gateway.run();
    // Whoever writes the journal waits for a reader of this pipe, for ever.
    let pipe = gateway.path(&format!("state/devices/{THING}/journal.new"));
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    cloud.update(THING, Update::of(image::program("1.1.0", "", SIZE)));
    daemon.wait_line("new state [CreatingFile]");
    for said in ["SIGTERM: stopping", "SIGINT while stopping: ended at once"] {
        let signal = match said.starts_with("SIGTERM") {
            true => Signal::TERM,
            false => Signal::INT,
        };
        assert_eq!(daemon.process.exit(), None, "it does not hang");
        daemon.process.signal(signal).unwrap();
        daemon.wait_line(said);
    }
    let status = daemon.process.wait_exit(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1));
    // What was cut off goes on.
    fs::remove_file(&pipe).unwrap();
    let _daemon = gateway.run();
    assert_eq!(update(&cloud, 1, "1.1.0"), succeeded("1.1.0"));
}
