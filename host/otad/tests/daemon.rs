//! `otad run` from outside: what one damaged device means for the others, and how the daemon ends.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn otad(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otad"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTAD_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A configuration with these devices, on a port where nobody listens.
fn configuration(dir: &Path, devices: &[&str]) -> PathBuf {
    let mut toml = String::from(
        "[daemon]\nstate_dir = \"state\"\n[development]\nallow_unsigned_images = true\nallow_plaintext = true\n",
    );
    for device in devices {
        toml.push_str(&format!(
            r#"
[[device]]
name = "{device}"
[device.mqtt]
endpoint = "localhost"
port = 1
tls = false
[[device.target]]
name = "main"
file_id = 0
plugin = "flash-file"
directory = "targets/{device}"
restart = {{ command = ["./restart.sh"] }}
"#
        ));
    }
    let script = dir.join("restart.sh");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.join("otad.toml");
    std::fs::write(&path, toml).unwrap();
    path
}

/// Put a folder where the journal of a device is: a file whose bytes are no journal would be moved away.
fn damage(dir: &Path, device: &str) {
    let place = dir.join("state/devices").join(device).join("journal");
    std::fs::create_dir_all(place).unwrap();
    for place in [dir.join("state"), dir.join("state/devices")] {
        std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// A daemon that is ended with its test.
struct Daemon {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Daemon {
    /// Start it and read its log up to the line that says that it is ready; those before it come back.
    fn start(config: &Path) -> (Self, String) {
        let mut child = otad(&["run", "--config", config.to_str().unwrap()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Self { child, log };
        let mut before = String::new();
        while !before.contains("ready; control socket") {
            let read = daemon.log.read_line(&mut before).unwrap();
            assert!(read > 0, "the daemon ended: {before}");
        }
        (daemon, before)
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn ask(config: &Path, verb: &[&str]) -> Output {
    let mut arguments = verb.to_vec();
    arguments.extend(["--config", config.to_str().unwrap()]);
    otad(&arguments).output().unwrap()
}

#[test]
fn an_unreadable_journal_stops_its_own_device_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1", "pump-2"]);
    damage(dir.path(), "pump-1");
    let (mut daemon, log) = Daemon::start(&config);
    assert!(log.contains("pump-1: does not run until"), "{log}");
    assert!(log.contains("the journal cannot be read"), "{log}");

    let status = ask(&config, &["status", "--json"]);
    assert!(status.status.success(), "{}", text(&status.stderr));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let devices = status["devices"].as_array().unwrap();
    let of = |name: &str| devices.iter().find(|d| d["device"] == name).unwrap();
    let why = of("pump-1")["failed"].as_str().unwrap();
    assert!(why.contains("the journal cannot be read"), "{why}");
    assert!(of("pump-2")["state_name"].is_string(), "{status}");

    let refused = ask(&config, &["suspend", "--device", "pump-1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("the journal cannot be read"));

    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn without_any_device_left_the_daemon_says_what_is_damaged_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    damage(dir.path(), "pump-1");
    let output = ask(&config, &["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the journal cannot be read"));
}

#[test]
fn a_second_daemon_is_refused_until_the_first_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let (mut daemon, _) = Daemon::start(&config);
    let second = ask(&config, &["run"]);
    assert_eq!(second.status.code(), Some(3));
    assert!(text(&second.stderr).contains("another otad (process"));
    daemon.signal(Signal::INT);
    assert_eq!(daemon.exit_code(), Some(0));
    let (mut daemon, _) = Daemon::start(&config);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}
