//! Another plugin build in the middle of a download: the connection, the job and every acknowledged block stay; builds that
//! are no good are refused with their reason; what was chosen holds over a restart.

use std::fs;
use std::path::Path;
use std::time::Duration;

use e2e::gateway::{Daemon, read};
use e2e::signer::as_version;
use e2e::{Cloud, Gateway, Signer, Update, image};
use serde_json::Value;
use support::deadline::{Deadline, PATIENCE};
use support::proxy::Proxy;

const THING: &str = "swapped";
const SIZE: usize = 6000;

/// 256 blocks of 4 KiB.
const LONG: usize = 1 << 20;

/// Exit code of what is refused.
pub(crate) const REFUSED: Option<i32> = Some(5);

/// The component with a custom section behind it: the same code, and a build of its own by its digest.
pub(crate) fn marked(component: &[u8], mark: u8) -> Vec<u8> {
    // Section 0, of 7 bytes: a name of 4, and 2 of content.
    let section = [0, 7, 4, b'm', b'a', b'r', b'k', mark, mark];
    [component, &section].concat()
}

fn build(gateway: &Gateway) -> Value {
    let told = gateway.expect_verb(&["plugin", "info", "main", "--json"]);
    serde_json::from_str::<Vec<Value>>(&told).unwrap().remove(0)
}

/// Bytes of the image that the target holds.
pub(crate) fn held(gateway: &Gateway) -> u64 {
    gateway.status()["devices"][0]["targets"][0]["held"]
        .as_u64()
        .unwrap()
}

pub(crate) fn file(gateway: &Gateway, name: &str, bytes: &[u8]) -> String {
    let path = gateway.path(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// Swaps of a soak if nobody asks for more; with fewer there is no memory to compare with.
const FEW: u64 = 6;

fn swaps() -> u64 {
    let asked = std::env::var("OTAD_SWAPS").ok();
    asked.map_or(FEW, |text| text.parse().unwrap()).max(FEW)
}

/// Megabytes of memory of the daemon.
fn resident_mib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() / 1024
}

/// Puts in another build after the first one, again and again while update follows update; `swap` is told how many there
/// were. Every update ends well, by one connection, and no memory is lost. Gives how many builds have served.
pub(crate) fn again_and_again(
    cloud: &Cloud,
    proxy: &Proxy,
    daemon: &Daemon,
    swap: impl Fn(u64),
) -> u64 {
    proxy.set_rate(Some(512 * 1024));
    let mut version = 0;
    let mut done = 1;
    let mut resident = None;
    while done < swaps() {
        version += 1;
        let bytes = image::program(&format!("1.{version}.0"), "", LONG);
        let job = cloud.update(THING, Update::of(bytes));
        while cloud.end_within(&job, Duration::ZERO).is_err() && done < swaps() {
            swap(done);
            done += 1;
            if done == swaps() / 2 {
                resident = Some(resident_mib(daemon));
            }
        }
        if done == swaps() {
            proxy.set_rate(None);
        }
        let ended = cloud.wait_end(&job);
        let reason = format!("accepted  v1.{version}.0");
        let end = ("SUCCEEDED", &*reason);
        assert_eq!(ended.as_pair(), end, "after {done} swaps");
    }
    let log = daemon.log();
    assert_eq!(log.matches("connected to ").count(), 1, "{log}");
    let (before, after) = (resident.unwrap(), resident_mib(daemon));
    assert!(after <= before + 16, "{before} MiB, then {after} MiB");
    done
}

/// A gateway with one device behind a proxy, whose plugins come from files.
fn behind(cloud: &Cloud) -> (Gateway, Proxy) {
    let proxy = Proxy::start(([127, 0, 0, 1], cloud.port()).into()).unwrap();
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        lines.development = "allow_file_plugins = true\n".to_owned();
        lines.daemon = "plugin_dir = \"dropped\"\n".to_owned();
        let device = lines.device();
        device.port = proxy.addr().port();
        device.agent = "status_frequency = 8\n".to_owned();
    });
    fs::create_dir(gateway.path("dropped")).unwrap();
    gateway.init(&image::program("1.0.0", "", SIZE));
    (gateway, proxy)
}

#[test]
fn a_plugin_that_is_swapped_again_and_again_loses_nothing_and_no_memory() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind(&cloud);
    let daemon = gateway.run();
    let builds = [1, 2].map(|mark| {
        let bytes = marked(guest_artifacts::FLASH_FILE, mark);
        file(&gateway, &format!("{mark}.wasm"), &bytes)
    });
    let swap = |done| {
        let next = &builds[usize::from(done % 2 == 1)];
        gateway.expect_verb(&["plugin", "swap", "main", next]);
    };
    swap(0);
    let done = again_and_again(&cloud, &proxy, &daemon, swap);
    let plugin = build(&gateway);
    assert_eq!(
        (&plugin["swaps"], &plugin["refused"]),
        (&done.into(), &Value::Null)
    );
    daemon.stop();
}

#[test]
fn a_plugin_is_swapped_in_mid_download_and_the_choice_holds_over_a_restart() {
    let cloud = Cloud::start();
    let (gateway, proxy) = behind(&cloud);
    let daemon = gateway.run();
    let before = build(&gateway);
    assert_eq!(before["label"], "builtin:flash-file");
    // Slow enough that the end is far when the first report is seen.
    proxy.set_rate(Some(256 * 1024));
    let bytes = image::program("1.1.0", "", LONG);
    let job = cloud.update(THING, Update::of(bytes.clone()));
    cloud.wait_received(&job, 64);
    // What is on its way arrives; then nothing more comes while builds are tried.
    proxy.stall();
    let plugin = guest_artifacts::FLASH_FILE;
    let bad = [
        (
            "agent.wasm",
            guest_artifacts::AGENT.to_vec(),
            "world `plugin`",
        ),
        ("cut.wasm", plugin[..plugin.len() / 2].to_vec(), "cut off"),
        (
            "mcu.wasm",
            guest_artifacts::SERIAL_MCU.to_vec(),
            "not configured",
        ),
        ("large.wasm", vec![0; 5 << 20], "at most 4194304"),
    ];
    for (name, bytes, words) in bad {
        let output = gateway.verb(&["plugin", "swap", "main", &file(&gateway, name, &bytes)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), REFUSED, "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
        assert_eq!(build(&gateway)["sha256"], before["sha256"]);
    }
    let next = file(&gateway, "next.wasm", &marked(plugin, 1));
    let before_it = held(&gateway);
    assert!(before_it >= 64 * 4096, "{before_it}");
    let said = gateway.expect_verb(&["plugin", "swap", "main", &next]);
    assert!(said.contains("serves target \"main\""), "{said}");
    let after = build(&gateway);
    assert_eq!(after["label"], next.as_str());
    assert_ne!(after["sha256"], before["sha256"]);
    assert_eq!(
        (&after["on_trial"], &after["swaps"]),
        (&true.into(), &1.into())
    );
    assert_eq!(cloud.now(&job).status, "IN_PROGRESS");
    assert!(held(&gateway) >= before_it);
    proxy.set_rate(None);
    proxy.resume();
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    assert!(read(&gateway.target_file("main", "slot-b")) == bytes);
    let account = build(&gateway)["account"].clone();
    let all = |key: &str| account[key]["all"].as_u64().expect(key);
    for key in ["calls", "fuel", "host_calls", "memory_bytes", "bytes_moved"] {
        assert!(all(key) > 0, "{account}");
    }
    // What it has written since it serves came in calls of the host's.
    let written = all("bytes_written");
    assert!(
        written > 0 && written <= all("host_call_bytes"),
        "{account}"
    );
    assert_eq!(account["handles"]["limit"], 64, "{account}");
    let log = daemon.log();
    assert_eq!(log.matches("connected to ").count(), 1, "{log}");
    daemon.stop();
    // Its file is not needed any more: the daemon has kept a copy.
    fs::remove_file(&next).unwrap();
    let mut daemon = gateway.run();
    let kept = build(&gateway);
    assert_eq!(
        (&kept["sha256"], &kept["on_trial"]),
        (&after["sha256"], &false.into())
    );
    gateway.expect_verb(&["plugin", "rollback", "main"]);
    assert_eq!(build(&gateway)["sha256"], before["sha256"]);
    let list = gateway.expect_verb(&["plugin", "list"]);
    assert!(list.contains("builtin:flash-file"), "{list}");
    // What is dropped counts from its rename on.
    for (mark, bytes, word) in [
        (2, marked(plugin, 2), "loaded"),
        (3, plugin[..1000].to_vec(), "refused"),
    ] {
        let draft = file(&gateway, "dropped/draft", &bytes);
        let name = gateway.path(&format!("dropped/{THING}.main.wasm"));
        fs::rename(draft, &name).unwrap();
        daemon.wait_line("put in");
        wait_file(&gateway.path(&format!("dropped/{THING}.main.wasm.{word}")));
        assert!(!name.exists(), "{mark}");
    }
    let label = gateway.path(&format!("dropped/{THING}.main.wasm"));
    assert_eq!(build(&gateway)["label"], label.to_str().unwrap());
    // A bundle has its manifest with it.
    let signed = gateway.path("signed.wasm");
    fs::write(&signed, as_version(plugin, "1.0.0")).unwrap();
    Signer::trusted(&gateway, "vendor").sign(&signed, &["--bundle"]);
    let name = gateway.path(&format!("dropped/{THING}.main.bundle"));
    fs::rename(gateway.path("signed.wasm.bundle"), &name).unwrap();
    daemon.wait_line("signed by vendor");
    wait_file(&gateway.path(&format!("dropped/{THING}.main.bundle.loaded")));
    assert_eq!(build(&gateway)["version"], "1.0.0");
}

/// Waits until a file has its name.
fn wait_file(path: &Path) {
    let deadline = Deadline::after(PATIENCE);
    while !path.exists() {
        assert!(deadline.left().is_some(), "{} is not there", path.display());
        std::thread::yield_now();
    }
}
