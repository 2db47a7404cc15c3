//! A gateway: a directory with credentials and a configuration, and the daemon that is started in it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::binary::{self, otad_command};
use support::deadline::{Deadline, PATIENCE, pass};
use support::process::Process;
use tempfile::TempDir;

use crate::Cloud;

/// A first start may have to compile agent and plugin, in a debug build on a machine that does other things too.
const COLD_START: Duration = Duration::from_secs(300);

/// How often it is looked whether a device is as a test wants it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The tests' restart command: the launcher starts the slot, whose program ends at once. Arguments: thing, target.
const RESTART: &str = r#"#!/bin/sh
dir=$(dirname "$0")
"@OTAD@" launch "$2" --device "$1" --config "$dir/otad.toml" >>"$dir/launch.log" 2>&1
exit 0
"#;

/// The tests' programs do not stay up and nobody starts them again: there is nothing to be seen in more time.
const SETTLE: &str = "\n[device.target.settings]\nsettle_ms = 200\n";

/// One target of a device, as lines of the configuration.
#[derive(Clone, Debug)]
pub struct TargetLines {
    /// Name.
    pub name: String,
    /// `fileid`.
    pub file_id: u8,
    /// The `restart` command; none if empty.
    pub restart: String,
    /// More lines of the table.
    pub lines: String,
}

impl TargetLines {
    /// Whether its own lines name another plugin than `flash-file`.
    fn names_plugin(&self) -> bool {
        self.lines.contains("plugin = \"")
    }
}

/// One device, as lines of the configuration.
#[derive(Clone, Debug)]
pub struct DeviceLines {
    /// Thing name.
    pub thing: String,
    /// The port it connects to.
    pub port: u16,
    /// The device whose connection it uses, in place of one of its own.
    pub connection_of: Option<String>,
    /// More lines of `[device.mqtt]`.
    pub mqtt: String,
    /// `[device.agent]`.
    pub agent: String,
    /// Its targets.
    pub targets: Vec<TargetLines>,
}

/// A configuration to be written.
#[derive(Clone, Debug)]
pub struct Lines {
    /// More lines of `[daemon]`.
    pub daemon: String,
    /// More lines of `[trust]`.
    pub trust: String,
    /// `[development]`.
    pub development: String,
    /// `[http]`.
    pub http: String,
    /// `[bandwidth]`.
    pub bandwidth: String,
    /// All devices.
    pub devices: Vec<DeviceLines>,
}

impl Lines {
    /// The first device.
    pub fn device(&mut self) -> &mut DeviceLines {
        &mut self.devices[0]
    }

    /// The first target of the first device.
    pub fn target(&mut self) -> &mut TargetLines {
        &mut self.devices[0].targets[0]
    }
}

/// A target with the tests' restart command.
#[must_use]
pub fn target(thing: &str, name: &str, file_id: u8) -> TargetLines {
    TargetLines {
        name: name.to_owned(),
        file_id,
        restart: format!(r#"{{ command = ["./restart.sh", "{thing}", "{name}"] }}"#),
        lines: String::new(),
    }
}

/// A gateway's directory.
#[derive(Debug)]
pub struct Gateway {
    dir: TempDir,
    lines: Lines,
}

impl Gateway {
    /// A gateway with one thing that has one flash-file target called `main`, file id 0.
    #[must_use]
    pub fn new(cloud: &Cloud, thing: &str) -> Self {
        Self::with(cloud, &[thing], |_| {})
    }

    /// The same for several things, with other settings.
    #[must_use]
    pub fn with(cloud: &Cloud, things: &[&str], change: impl FnOnce(&mut Lines)) -> Self {
        let dir = support::temp_dir("gateway").unwrap();
        let mut devices = Vec::new();
        for thing in things {
            let credentials = cloud.thing(thing);
            let own = dir.path().join("credentials").join(thing);
            fs::create_dir_all(&own).unwrap();
            fs::write(own.join("root.pem"), &credentials.root_pem).unwrap();
            fs::write(own.join("certificate.pem"), &credentials.certificate_pem).unwrap();
            fs::write(own.join("private-key.pem"), &credentials.private_key_pem).unwrap();
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(own.join("private-key.pem"), private).unwrap();
            devices.push(DeviceLines {
                thing: (*thing).to_owned(),
                port: cloud.port(),
                connection_of: None,
                mqtt: String::new(),
                agent: String::new(),
                targets: vec![target(thing, "main", 0)],
            });
        }
        let trust = dir.path().join("trust");
        fs::create_dir(&trust).unwrap();
        fs::write(trust.join("signer.pem"), cloud.signer_pem()).unwrap();
        let lines = Lines {
            daemon: String::new(),
            trust: String::new(),
            development: String::new(),
            http: String::new(),
            bandwidth: String::new(),
            devices,
        };
        let mut gateway = Self { dir, lines };
        let otad = binary::otad().display().to_string();
        gateway.script("restart.sh", &RESTART.replace("@OTAD@", &otad));
        gateway.reconfigure(change);
        gateway
    }

    /// Changes the configuration.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lines);
        fs::write(self.config(), render(&self.lines)).unwrap();
    }

    /// A file of the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("otad.toml")
    }

    /// A credential of a thing: `root.pem`, `certificate.pem` or `private-key.pem`.
    #[must_use]
    pub fn credential(&self, thing: &str, name: &str) -> PathBuf {
        self.path(&format!("credentials/{thing}/{name}"))
    }

    /// A file of a target of the first device.
    #[must_use]
    pub fn target_file(&self, target: &str, name: &str) -> PathBuf {
        let thing = &self.lines.devices[0].thing;
        self.path(&format!("targets/{thing}/{target}/{name}"))
    }

    /// Writes an executable script into the directory.
    pub fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `otad VERB … --config …`, as a command.
    #[must_use]
    pub fn command(&self, verb: &[&str]) -> Command {
        let mut command = otad_command();
        command.args(verb).arg("--config").arg(self.config());
        command.current_dir(self.dir.path());
        command
    }

    /// Runs `otad VERB … --config …` to its end.
    #[must_use]
    pub fn verb(&self, verb: &[&str]) -> Output {
        self.command(verb).output().unwrap()
    }

    /// The same; it must succeed. What it printed.
    pub fn expect_verb(&self, verb: &[&str]) -> String {
        let output = self.verb(verb);
        assert!(output.status.success(), "{verb:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Lays down the first image of all targets. A configuration of each device alone stays behind: [`Self::alone`].
    pub fn init(&self, image: &[u8]) {
        let path = self.path("first.img");
        fs::write(&path, image).unwrap();
        let mut alone = Lines {
            devices: Vec::new(),
            ..self.lines.clone()
        };
        for device in &self.lines.devices {
            // By itself: of a thousand devices, reading the others each time takes longer than all that is done with them.
            alone.devices = vec![DeviceLines {
                connection_of: None,
                ..device.clone()
            }];
            let config = self.path(&Self::alone(&device.thing));
            fs::write(&config, render(&alone)).unwrap();
            for target in device.targets.iter().filter(|t| !t.names_plugin()) {
                let image = path.to_str().unwrap();
                let mut command = otad_command();
                command.args(["target", "init", &target.name, image, "--config"]);
                command.arg(&config).current_dir(self.dir.path());
                let output = command.output().unwrap();
                assert!(output.status.success(), "{}: {output:?}", device.thing);
            }
        }
    }

    /// Name of the configuration with one device alone, as it was when the first images were laid down.
    #[must_use]
    pub fn alone(thing: &str) -> String {
        format!("alone-{thing}.toml")
    }

    /// Starts the daemon and waits until it is ready.
    #[must_use]
    pub fn run(&self) -> Daemon {
        self.run_with(|_| {})
    }

    /// The same, with more arguments or another environment.
    #[must_use]
    pub fn run_with(&self, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command(&["run"]);
        change(&mut command);
        self.start(command)
    }

    fn start(&self, command: Command) -> Daemon {
        let warming = binary::warm_code_cache().unwrap();
        let wait = if warming.is_cold() {
            COLD_START
        } else {
            PATIENCE
        };
        let mut process = Process::start("otad run", command).unwrap();
        process.wait_line("ready; control socket", wait).unwrap();
        warming.done().unwrap();
        Daemon { process }
    }

    /// The same, with no file allowed to grow beyond `file_bytes_max`: what a full disk is to a daemon.
    #[must_use]
    pub fn run_limited(&self, file_bytes_max: u64) -> Daemon {
        // The unit of `ulimit -f` is 512 bytes. The signal that comes with it is ignored.
        let script = format!(
            "trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"",
            file_bytes_max / 512
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        self.start(self.wrapped(command))
    }

    /// The same, held to the permissions of files even if root starts it; `None` if this machine cannot do that.
    #[must_use]
    pub fn run_permitted(&self) -> Option<Daemon> {
        let setpriv = || {
            let mut command = Command::new("setpriv");
            command.arg("--bounding-set=-dac_override,-dac_read_search");
            command
        };
        let can = setpriv().arg("true").output();
        if can.is_ok_and(|output| output.status.success()) {
            return Some(self.start(self.wrapped(setpriv())));
        }
        let probe = self.path("forbidden");
        fs::write(&probe, "").unwrap();
        fs::set_permissions(&probe, fs::Permissions::from_mode(0o000)).unwrap();
        // Whoever is stopped here needs no wrapper.
        fs::read(&probe).is_err().then(|| self.run())
    }

    /// `otad run` as the arguments of another program.
    fn wrapped(&self, mut by: Command) -> Command {
        let mut plain = self.command(&["run"]);
        by.arg(plain.get_program()).args(plain.get_args());
        by.current_dir(self.dir.path());
        copy_environment(&mut plain, &mut by);
        by
    }

    /// `otad status --json`.
    #[must_use]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.expect_verb(&["status", "--json"])).unwrap()
    }

    /// Waits until the service has told the first device that there is no job. State `WaitingForJob` is not enough: it begins
    /// with the question, and the answer to that may still bring a job that is made now.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn wait_idle(&self) {
        self.wait_status("idle", |status| {
            status["devices"][0]["wait"]["detail"] == "a job"
        });
    }

    /// The status, once it is as wanted; `what` that is, is named where it does not come.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn wait_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(deadline.left().is_some(), "not {what}: {status:#}");
            pass(LOOK_EVERY);
        }
    }
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    /// Its process.
    pub process: Process,
}

impl Daemon {
    /// Waits for a line behind the one that was found last.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait_line(&mut self, text: &str) -> String {
        self.process
            .wait_line(text, PATIENCE)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until it has logged this, before or behind what was found last. The pipe may hold what it has written: [`Self::log`]
    /// alone proves only what was not said.
    ///
    /// # Panics
    /// If it does not say so.
    pub fn wait_said(&self, text: &str) -> String {
        self.process
            .wait_said(text, PATIENCE)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Ends it in order.
    ///
    /// # Panics
    /// If it does not end with exit code 0.
    pub fn stop(self) {
        let status = self.process.terminate(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(0), "{:?}", self.process.lines());
    }

    /// Everything it has logged, as far as it was read.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.text(support::process::Stream::Err)
    }
}

fn render(lines: &Lines) -> String {
    let mut text = format!(
        "[daemon]\nstate_dir = \"state\"\n{}\n[trust]\ndirectory = \"trust\"\ndefault = \"signer\"\n{}\n",
        lines.daemon, lines.trust
    );
    for (table, lines) in [
        ("development", &lines.development),
        ("http", &lines.http),
        ("bandwidth", &lines.bandwidth),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("[{table}]\n{lines}\n"));
        }
    }
    for device in &lines.devices {
        text.push_str(&render_device(device));
    }
    text
}

fn render_device(device: &DeviceLines) -> String {
    let thing = &device.thing;
    let mut text = format!("[[device]]\nname = \"{thing}\"\n[device.mqtt]\n");
    match &device.connection_of {
        Some(owner) => text.push_str(&format!("connection_of = \"{owner}\"\n")),
        None => text.push_str(&format!(
            "endpoint = \"localhost\"\nport = {}\nroot_certificate = \"credentials/{thing}/root.pem\"\n\
             certificate = \"credentials/{thing}/certificate.pem\"\n\
             private_key = \"credentials/{thing}/private-key.pem\"\n",
            device.port
        )),
    }
    text.push_str(&format!(
        "{}\n[device.agent]\n{}\n",
        device.mqtt, device.agent
    ));
    for target in &device.targets {
        text.push_str(&format!(
            "[[device.target]]\nname = \"{}\"\nfile_id = {}\n",
            target.name, target.file_id
        ));
        if !target.names_plugin() {
            text.push_str(&format!(
                "plugin = \"flash-file\"\ndirectory = \"targets/{thing}/{}\"\n",
                target.name
            ));
        }
        if !target.restart.is_empty() {
            text.push_str(&format!("restart = {}\n", target.restart));
        }
        text.push_str(&target.lines);
        let brings_builds = target.lines.contains("plugin = \"build\"");
        if !brings_builds && !target.lines.contains("[device.target.settings]") {
            text.push_str(SETTLE);
        }
        text.push('\n');
    }
    text
}

/// Gives one command what the other was to have in its environment.
pub fn copy_environment(from: &mut Command, to: &mut Command) {
    for (key, value) in from.get_envs() {
        match value {
            Some(value) => to.env(key, value),
            None => to.env_remove(key),
        };
    }
}

/// Bytes of a file.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
