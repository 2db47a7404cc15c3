//! `otad run` from outside: what one damaged device means for the others, and how the daemon ends.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

fn otad(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otad"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTAD_") {
            command.env_remove(name);
        }
    }
    // Kept from run to run: what a debug build compiles for half a minute.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    command.env("OTAD_DAEMON__CACHE_DIR", target.join("otad-code-cache"));
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
        Self::start_with(config, |_| {})
    }

    fn start_with(config: &Path, change: impl FnOnce(&mut Command)) -> (Self, String) {
        let mut command = otad(&["run", "--config", config.to_str().unwrap()]);
        change(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Self { child, log };
        let before = daemon.wait_log("ready; control socket");
        (daemon, before)
    }

    /// Read the log up to a line with these words.
    fn wait_log(&mut self, words: &str) -> String {
        let mut before = String::new();
        while !before.contains(words) {
            let read = self.log.read_line(&mut before).unwrap();
            assert!(read > 0, "the daemon ended without `{words}`: {before}");
        }
        before
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

/// A service manager: what it hears, message by message.
struct Manager(UnixDatagram);

impl Manager {
    fn hear(&self) -> String {
        let mut bytes = [0; 1024];
        let n = self.0.recv(&mut bytes).unwrap();
        text(&bytes[..n])
    }

    /// The next message that begins like this.
    fn wait(&self, start: &str) -> String {
        loop {
            let message = self.hear();
            if message.starts_with(start) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_start_life_work_reload_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let place = dir.path().join("notify");
    let manager = UnixDatagram::bind(&place).unwrap();
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(60)))
        .unwrap();
    let manager = Manager(manager);
    let (mut daemon, _) = Daemon::start_with(&config, |command| {
        command.env("NOTIFY_SOCKET", &place);
        command.env("WATCHDOG_USEC", "600000");
    });
    let mut first = Vec::new();
    while first.iter().filter(|m| *m == "WATCHDOG=1\n").count() < 2 {
        first.push(manager.hear());
    }
    assert!(first.contains(&"READY=1\n".to_owned()), "{first:?}");
    let status = "STATUS=1 device, 0 connected, no job\n".to_owned();
    assert!(first.contains(&status), "{first:?}");
    daemon.signal(Signal::HUP);
    let reloading = manager.wait("RELOADING=1\n");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.wait("READY=1\n");
    manager.wait("WATCHDOG=1\n");
    daemon.signal(Signal::TERM);
    manager.wait("STOPPING=1\n");
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_reload_takes_a_whole_configuration_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let (mut daemon, _) = Daemon::start(&config);
    let names = || {
        let status = ask(&config, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let devices = status["devices"].as_array().unwrap();
        let name = |d: &serde_json::Value| d["device"].as_str().unwrap().to_owned();
        devices.iter().map(name).collect::<Vec<_>>()
    };
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("file_id = 0", "file_id = -1")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_log("the configuration is not taken, the former one goes on");
    std::fs::write(&config, &good).unwrap();
    assert_eq!(names(), ["pump-1"]);

    let more = configuration(dir.path(), &["pump-1", "pump-2"]);
    assert_eq!(more, config);
    let moved = std::fs::read_to_string(&more).unwrap();
    let moved = moved.replace("state_dir = \"state\"", "state_dir = \"other\"");
    std::fs::write(&more, moved).unwrap();
    daemon.signal(Signal::HUP);
    let log = daemon.wait_log("ready again, with 2 devices");
    assert!(log.contains("state_dir has changed"), "{log}");
    std::fs::write(&config, &good).unwrap();
    assert_eq!(names(), ["pump-1", "pump-2"]);
    assert!(!dir.path().join("other").exists());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

/// A certificate that may sign images, and vouch for a server.
fn certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["images of ours".to_owned()];
    let params = rcgen::CertificateParams::new(names).unwrap();
    params.self_signed(&key).unwrap().pem()
}

#[test]
fn a_file_on_disk_that_is_wrong_changes_nothing_at_a_reload_and_is_named_by_run_and_check() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let mut toml = std::fs::read_to_string(&config).unwrap();
    toml.push_str("[trust]\ndirectory = \"trust\"\n[http]\nroots = [\"images.pem\"]\n");
    std::fs::write(&config, toml).unwrap();
    let trust = dir.path().join("trust");
    std::fs::DirBuilder::new()
        .mode(0o755)
        .create(&trust)
        .unwrap();
    std::fs::write(trust.join("ours.pem"), certificate()).unwrap();
    let root = dir.path().join("images.pem");
    std::fs::write(&root, certificate()).unwrap();

    let (mut daemon, _) = Daemon::start(&config);
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (file, content) in [
        (trust.join("x.pem"), "hello"),
        (root.clone(), no_certificate),
    ] {
        let former = std::fs::read(&file).ok();
        std::fs::write(&file, content).unwrap();
        let name = file.display().to_string();
        daemon.signal(Signal::HUP);
        let log = daemon.wait_log("the configuration is not taken, the former one goes on");
        assert!(!log.contains("stopping"), "{log}");
        let log = if log.contains(&name) {
            log
        } else {
            daemon.wait_log(&name)
        };
        assert!(!log.contains("ready again"), "{log}");
        assert!(ask(&config, &["status"]).status.success());
        for verb in [&["run"][..], &["config", "check"]] {
            let refused = ask(&config, verb);
            let said = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(78), "{verb:?}: {said}");
            assert!(said.contains(&name), "{verb:?}: {said}");
        }
        match former {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
    }
    daemon.signal(Signal::HUP);
    daemon.wait_log("ready again, with 1 devices");
    // One that is never written to its end: SIGTERM does not wait for it.
    std::fs::remove_file(&root).unwrap();
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, &root, FileType::Fifo, mode, 0).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_log("reading");
    daemon.signal(Signal::TERM);
    daemon.wait_log("SIGTERM: stopping");
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_state_directory_that_others_may_write_changes_nothing_at_a_reload_and_is_named_by_run_and_check()
 {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let (mut daemon, _) = Daemon::start(&config);
    let state = dir.path().join("state");
    let set = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&state, permissions).unwrap();
    };
    set(0o777);
    daemon.signal(Signal::HUP);
    let log = daemon.wait_log("the configuration is not taken, the former one goes on");
    assert!(!log.contains("stopping"), "{log}");
    for verb in [&["run"][..], &["config", "check"]] {
        let refused = ask(&config, verb);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(78), "{verb:?}: {said}");
        assert!(
            said.contains("may be written by group or others"),
            "{verb:?}: {said}"
        );
    }
    set(0o700);
    daemon.signal(Signal::HUP);
    daemon.wait_log("ready again, with 1 devices");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_daemon_that_says_nothing_is_taken_for_one_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let (mut daemon, _) = Daemon::start(&config);
    daemon.signal(Signal::STOP);
    let silent = ask(&config, &["status"]);
    let said = text(&silent.stderr);
    assert_eq!(silent.status.code(), Some(3), "{said}");
    assert!(said.contains("has said nothing for 10 s"), "{said}");
    daemon.signal(Signal::CONT);
    assert!(ask(&config, &["status"]).status.success());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_daemon_that_is_still_starting_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    damage(dir.path(), "pump-1");
    let journal = dir.path().join("state/devices/pump-1/journal");
    std::fs::remove_dir(&journal).unwrap();
    // It is never written to its end.
    mknodat(CWD, &journal, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let mut command = otad(&["run", "--config", config.to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let mut daemon = Daemon { child, log };
    daemon.wait_log("pump-1: creating MQTT client");
    let status = ask(&config, &["status"]);
    let said = text(&[status.stdout, status.stderr].concat());
    assert_eq!(status.status.code(), Some(0), "{said}");
    assert!(said.contains("it is being started"), "{said}");
    for verb in ["suspend", "history"] {
        let refused = ask(&config, &[verb]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{verb}: {said}");
        assert!(said.contains("ask again"), "{verb}: {said}");
    }
}

#[test]
fn settings_that_a_plugin_refuses_are_told_by_check_and_at_the_start_and_change_nothing_at_a_reload()
 {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let good = std::fs::read_to_string(&config).unwrap();
    let with = |line: &str| {
        let toml = format!("{good}[device.target.settings]\n{line}\n");
        std::fs::write(&config, toml).unwrap();
    };
    for (line, word) in [
        ("settle_ms = 600000000000", "600000000000"),
        ("settle_mss = 500", "settle_mss"),
    ] {
        with(line);
        let checked = ask(&config, &["config", "check"]);
        let said = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(78), "{said}");
        assert!(said.contains(word), "{said}");
    }
    let (mut daemon, mut log) = Daemon::start(&config);
    let told = "plugin builtin:flash-file does not begin";
    if !log.contains(told) {
        log.push_str(&daemon.wait_log(told));
    }
    assert!(log.contains("settle_mss"), "{log}");
    let status = text(&ask(&config, &["status"]).stdout);
    assert!(status.contains("its plugin does not begin"), "{status}");
    // What it runs with already is no reason against the rest.
    configuration(dir.path(), &["pump-1", "pump-2"]);
    let both = std::fs::read_to_string(&config).unwrap();
    let second = both.strip_prefix(&good).unwrap();
    with(&format!("settle_mss = 500\n{second}"));
    daemon.signal(Signal::HUP);
    daemon.wait_log("ready again, with 2 devices");

    with("settle_ms = 500");
    assert!(ask(&config, &["config", "check"]).status.success());
    daemon.signal(Signal::HUP);
    daemon.wait_log("ready again, with 1 devices");
    let status = text(&ask(&config, &["status"]).stdout);
    assert!(!status.contains("its plugin does not begin"), "{status}");
    with("settle_mss = 500");
    daemon.signal(Signal::HUP);
    daemon.wait_log("the configuration is not taken, the former one goes on");
    let plugin = dir.path().join("plugin.wasm");
    std::fs::write(&plugin, guest_artifacts::SERIAL_MCU).unwrap();
    let unfit = good
        .replace("plugin = \"flash-file\"", "plugin = \"./plugin.wasm\"")
        .replace("directory = \"targets/pump-1\"", "version_from = \"none\"")
        .replace("[development]", "[development]\nallow_file_plugins = true");
    std::fs::write(&config, unfit).unwrap();
    let said = text(&ask(&config, &["config", "check"]).stderr);
    assert!(said.contains("is not configured"), "{said}");
    daemon.signal(Signal::HUP);
    daemon.wait_log("the configuration is not taken, the former one goes on");
    let status = text(&ask(&config, &["status"]).stdout);
    assert!(!status.contains("its plugin does not begin"), "{status}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn why_and_history_ask_the_daemon_and_read_what_a_stopped_one_left() {
    let dir = tempfile::tempdir().unwrap();
    let config = configuration(dir.path(), &["pump-1"]);
    let (mut daemon, _) = Daemon::start(&config);
    let why = ask(&config, &["why"]);
    assert_eq!(why.status.code(), Some(0));
    let said = text(&why.stdout);
    assert!(said.starts_with("pump-1: no job under way"), "{said}");
    assert_eq!(text(&why.stderr), "");
    assert_eq!(ask(&config, &["why", "job-9"]).status.code(), Some(2));
    assert_eq!(ask(&config, &["history"]).status.code(), Some(2));

    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let why = ask(&config, &["why"]);
    let (said, warned) = (text(&why.stdout), text(&why.stderr));
    assert_eq!(why.status.code(), Some(0), "{warned}");
    assert!(
        said.contains("the daemon does not run; it was stopped at"),
        "{said}"
    );
    assert!(warned.contains("no daemon was asked"), "{warned}");
    let (mut daemon, _) = Daemon::start(&config);
    daemon.signal(Signal::KILL);
    daemon.exit_code();
    let said = text(&ask(&config, &["why"]).stdout);
    assert!(said.contains("was not stopped in order"), "{said}");
    let state = dir.path().join("state");
    let direct = otad(&["why", "--json", "--state-dir", state.to_str().unwrap()])
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&direct.stdout).unwrap();
    assert_eq!(answer["answers"][0]["device"], "pump-1");
    assert_eq!(answer["answers"][0]["from"], "state directory");
    let nowhere = otad(&["history", "--state-dir", "/nowhere"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("/nowhere"));
}
