//! Whole updates through the real daemon with a FreeRTOS PAL in C as its plugin: the project's own example, and whatever
//! stands in `OTAD_FREERTOS_PAL`; and what becomes of an update whose plugin's process, or host, falls in the middle of a
//! write.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::gateway::TargetLines;
use e2e::hostile::{cc, source};
use e2e::{Cloud, Daemon, Gateway, Update};
use host_cloud::service::JobId;
use support::binary::workspace;
use support::deadline::{Deadline, PATIENCE, pass};

pub(super) const THING: &str = "pump-3";

/// Twenty blocks of 16 KiB, the last one short.
const IMAGE_BYTES: usize = 20 * 16 * 1024 - 100;

/// Sources of a PAL instead of the example's, separated by blanks.
const PAL: &str = "OTAD_FREERTOS_PAL";

/// More words for its compiler.
const PAL_FLAGS: &str = "OTAD_FREERTOS_PAL_FLAGS";

/// Compile PAL sources into a plugin, as README.md of `pal-plugins/freertos-pal` says.
pub(super) fn build(plugin: &Path, sources: &[PathBuf], flags: &[String]) {
    let shim = PathBuf::from("pal-plugins/freertos-pal/shim.c");
    let words = ["-shared", "-fPIC", "-Ipal-plugins/freertos-pal/include"];
    let flags = flags.iter().map(String::as_str);
    cc(
        plugin,
        &[sources, &[shim]].concat(),
        &words.into_iter().chain(flags).collect::<Vec<_>>(),
    );
}

fn words(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

pub(super) fn example() -> Vec<PathBuf> {
    vec![workspace().join("pal-plugins/freertos-pal/example/pal.c")]
}

/// The example's sources with those of a test, which wrap these functions of it, and what its compiler is told.
pub(super) fn wrapped(by: &str, functions: &[&str]) -> (Vec<PathBuf>, Vec<String>) {
    let mut sources = example();
    sources.push(source(by));
    let wrap = |function| format!("-Wl,--wrap={function}");
    (sources, functions.iter().map(wrap).collect())
}

fn image(seed: u64) -> Vec<u8> {
    support::image::random_bytes(seed, IMAGE_BYTES)
}

/// Settings of a FreeRTOS PAL.
pub(super) const SETTINGS: &str =
    "[device.target.settings]\nfilepath = \"image.bin\"\ncertificate = \"signer.pem\"\n";

/// A target that is served by the library `pal.so`, which works in `pal`.
pub(super) fn target(settings: &str) -> TargetLines {
    TargetLines {
        name: "board".to_owned(),
        file_id: 1,
        restart: String::new(),
        lines: format!(
            "plugin = \"./pal.so\"\nstaging = \"staging/board\"\nversion_from = \"none\"\n\
             no_revert_allowed = true\n[device.target.native]\ndirectories = [\"pal\"]\n{settings}"
        ),
    }
}

/// A gateway with that target alone, whose library is still to be made.
pub(super) fn board(cloud: &Cloud, settings: &str) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        lines.development = "allow_file_plugins = true".to_owned();
        lines.device().targets = vec![target(settings)];
    });
    fs::create_dir(gateway.path("pal")).unwrap();
    gateway
}

/// A gateway whose one target is such a plugin; the PAL works in `pal`.
fn gateway(cloud: &Cloud, sources: &[PathBuf], flags: &[String]) -> Gateway {
    let gateway = board(cloud, SETTINGS);
    fs::write(gateway.path("pal/signer.pem"), cloud.signer_pem()).unwrap();
    build(&gateway.path("pal.so"), sources, flags);
    gateway
}

pub(super) fn file(image: &[u8]) -> Update {
    Update {
        file_id: 1,
        ..Update::of(image.to_vec())
    }
}

/// Whether some file of the PAL's is this image.
fn holds(gateway: &Gateway, image: &[u8]) -> bool {
    let files = fs::read_dir(gateway.path("pal")).unwrap();
    files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .any(|bytes| bytes == image)
}

#[test]
fn a_freertos_pal_takes_two_updates_from_job_to_commit() {
    let own = words(PAL);
    let sources = match own.is_empty() {
        true => example(),
        false => own.iter().map(PathBuf::from).collect(),
    };
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, &sources, &words(PAL_FLAGS));
    let daemon = gateway.run();
    for seed in [1, 2] {
        let image = image(seed);
        let job = cloud.update(THING, file(&image));
        let ended = cloud.wait_end(&job);
        assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
        assert!(holds(&gateway, &image), "{}", daemon.log());
    }
    if own.is_empty() {
        let boot = fs::read_to_string(gateway.path("pal/boot.txt")).unwrap();
        assert_eq!(boot, "a\n", "to b and back");
    }
    daemon.stop();
}

#[test]
fn an_image_lands_where_the_job_says_and_the_configuration_allows() {
    let cloud = Cloud::start();
    let (sources, flags) = wrapped("placed.c", &["otaPal_CreateFileForRx"]);
    let settings = "[device.target.settings]\ncertificate = \"signer.pem\"\n";
    let mut gateway = board(&cloud, settings);
    let allowed = "filepaths = [\"app-1.bin\"]\n";
    gateway.reconfigure(|lines| lines.target().lines.insert_str(0, allowed));
    build(&gateway.path("pal.so"), &sources, &flags);
    let daemon = gateway.run();
    let image = image(4);
    let end = |filepath: &str| {
        let file = Update {
            filepath: filepath.to_owned(),
            ..file(&image)
        };
        cloud.wait_end(&cloud.update(THING, file))
    };
    let refused = end("other.bin");
    assert_eq!(refused.as_pair(), ("FAILED", "aborted: 0xd0000001"));
    assert!(!gateway.path("pal/other.bin").exists());
    let ended = end("app-1.bin");
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    assert!(fs::read(gateway.path("pal/app-1.bin")).unwrap() == image);
    daemon.stop();
}

/// An update in whose third block the plugin's process falls into trouble, once.
struct Trouble {
    daemon: Daemon,
    gateway: Gateway,
    cloud: Cloud,
    image: Vec<u8>,
    job: JobId,
}

impl Trouble {
    /// Begins one, and waits for the trouble.
    fn begin(trouble: &str) -> Self {
        let cloud = Cloud::start();
        let (sources, mut flags) = wrapped("trouble.c", &["otaPal_WriteBlock"]);
        flags.push(trouble.to_owned());
        let gateway = gateway(&cloud, &sources, &flags);
        let daemon = gateway.run();
        let image = image(3);
        let job = cloud.update(THING, file(&image));
        let deadline = Deadline::after(PATIENCE);
        while !gateway.path("pal/trouble").exists() {
            assert!(deadline.left().is_some(), "{}", daemon.log());
            pass(Duration::from_millis(2));
        }
        Self {
            daemon,
            gateway,
            cloud,
            image,
            job,
        }
    }

    /// The process that holds the plugin.
    fn child(&self) -> String {
        let mut children = children(self.daemon.process.id());
        assert_eq!(children.len(), 1, "one plugin at work");
        children.remove(0)
    }

    /// It ends well, under the daemon that runs now.
    fn end(self) -> Daemon {
        let ended = self.cloud.wait_end(&self.job);
        let log = self.daemon.log();
        assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{log}");
        assert!(holds(&self.gateway, &self.image));
        self.daemon
    }
}

#[test]
fn a_segfault_of_the_plugin_in_mid_write_costs_its_process_and_not_the_update() {
    let daemon = Trouble::begin("-DTROUBLE=*(volatile int *)16 = 1").end();
    daemon.wait_said("by signal 11");
    daemon.stop();
}

/// Trouble that lasts as long as the process.
const HANGS: &str = "-DTROUBLE=for (;;) sleep(1)";

#[test]
fn kill_9_of_the_plugin_in_mid_write_costs_its_process_and_not_the_update() {
    let trouble = Trouble::begin(HANGS);
    let killed = Command::new("kill").args(["-9", &trouble.child()]).status();
    assert!(killed.unwrap().success());
    let daemon = trouble.end();
    daemon.wait_said("by signal 9");
    daemon.stop();
}

#[test]
fn nothing_is_left_of_a_plugin_whose_host_is_killed() {
    let mut trouble = Trouble::begin(HANGS);
    let child = trouble.child();
    trouble.daemon.process.kill(PATIENCE).unwrap();
    let deadline = Deadline::after(PATIENCE);
    while is_plugin(&child) {
        assert!(deadline.left().is_some(), "process {child} is still there");
        pass(Duration::from_millis(2));
    }
    trouble.daemon = trouble.gateway.run();
    trouble.end().stop();
}

/// Whether this process holds a plugin, and has not ended.
fn is_plugin(process: &str) -> bool {
    let line = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.contains("pal-host")
}

/// Processes that hold plugins of this daemon.
pub(super) fn children(daemon: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{daemon}/task")).unwrap();
    let mut found = Vec::new();
    for thread in threads {
        let list = fs::read_to_string(thread.unwrap().path().join("children")).unwrap();
        for child in list.split_whitespace() {
            if is_plugin(child) {
                found.push(child.to_owned());
            }
        }
    }
    found
}
