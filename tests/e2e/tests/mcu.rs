//! Clients that nobody here wrote against `otad mcu-sim`: PyPI's smpclient and mcumgr-toolkit
//! update it, with images that imgtool signed.

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::process::Process;
use support::{binary, interop};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/mcu.py");
const SLOT_BYTES: &str = "262144";
const PATIENCE: Duration = Duration::from_secs(20);

fn run(python: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(python)
        .arg(SCRIPT)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A simulated MCU whose bootloader knows the key of these images.
struct Bench {
    folder: tempfile::TempDir,
    images: Value,
    _mcu: Process,
}

impl Bench {
    fn start(python: &Path, arguments: &[&str]) -> Self {
        let folder = support::temp_dir("mcu").unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let sign = ["sign", "--folder", &file(""), "--slot-size", SLOT_BYTES];
        let images = run(python, &sign);
        let mut command = binary::otad_command();
        command
            .args([
                "mcu-sim",
                "--link",
                &file("mcu"),
                "--flash",
                &file("flash.bin"),
            ])
            .args(["--image", images["1.0.0"].as_str().unwrap()])
            .args(["--key", &file("public.pem"), "--slot-size", SLOT_BYTES])
            // Faster than a UART, so that the test is; the byte order of events is the same.
            .args(["--baud", "1000000"])
            .args(arguments);
        let mut mcu = Process::start("mcu-sim", command).unwrap();
        mcu.wait_line("serving", PATIENCE).unwrap();
        Self {
            folder,
            images,
            _mcu: mcu,
        }
    }

    /// What the script has seen.
    fn talk(&self, python: &Path, verb: &str, more: &[&str]) -> Value {
        let port = self.folder.path().join("mcu").display().to_string();
        let new = self.images["2.0.0"].as_str().unwrap();
        let arguments = [&[verb, "--port", &port, "--new", new], more].concat();
        run(python, &arguments)
    }
}

#[test]
fn smpclient_updates_the_simulated_mcu_with_images_that_imgtool_signed() {
    let Some(python) = interop::python(&["smpclient.transport.serial", "imgtool.main"]) else {
        return;
    };
    let seen = Bench::start(&python, &[]).talk(&python, "talk", &[]);

    assert_eq!(seen["echo"], "hello");
    assert_eq!(seen["buf_size"], 384);
    let settled = json!([[0, "1.0.0", "active", "confirmed"]]);
    let uploaded = json!([[0, "1.0.0", "active", "confirmed"], [1, "2.0.0"]]);
    let on_trial = json!([[0, "2.0.0", "active"], [1, "1.0.0", "confirmed"]]);
    let committed = json!([[0, "2.0.0", "active", "confirmed"], [1, "1.0.0"]]);
    assert_eq!(seen["first"], settled);
    for (way, last) in [("reverted", &uploaded), ("committed", &committed)] {
        let way = &seen[way];
        assert_eq!(way["uploaded"], uploaded);
        let marked = json!([[0, "1.0.0", "active", "confirmed"], [1, "2.0.0", "pending"]]);
        assert_eq!(way["marked"], marked);
        assert_eq!(way["erase"], "9", "no free slot");
        assert_eq!(way["tested"], on_trial);
        assert_eq!(&way["last"], last);
    }
    assert_eq!(seen["committed"]["confirmed"], committed);
}

#[test]
fn mcumgr_toolkit_updates_the_simulated_mcu_also_over_lines_that_lose_and_in_raw_framing() {
    let Some(python) = interop::python(&["mcumgr_toolkit", "imgtool.main"]) else {
        return;
    };
    let lossy = [
        "--fault",
        "lose-response@upload*7",
        "--fault",
        "lose-request@upload*12",
        "--chatter",
        "200",
    ];
    for (mcu, client) in [(&lossy[..], &[][..]), (&["--raw"], &["--raw"])] {
        let seen = Bench::start(&python, mcu).talk(&python, "toolkit", client);

        assert_eq!(seen["echo"], "hello");
        assert_eq!(seen["buf_size"], 384);
        assert_eq!(seen["slots"], json!([262_144, 262_144]));
        let old = json!([0, "1.0.0", "active", "confirmed"]);
        assert_eq!(seen["first"], json!([old]));
        assert_eq!(seen["uploaded"], json!([old, [1, "2.0.0"]]));
        assert_eq!(seen["marked"], json!([old, [1, "2.0.0", "pending"]]));
        let on_trial = json!([[0, "2.0.0", "active"], [1, "1.0.0", "confirmed"]]);
        assert_eq!(seen["tested"], on_trial);
        let committed = json!([[0, "2.0.0", "active", "confirmed"], [1, "1.0.0"]]);
        assert_eq!(seen["confirmed"], committed);
        assert_eq!(seen["last"], committed);
        assert_eq!(seen["erased"], json!([[0, "2.0.0", "active", "confirmed"]]));
    }
}
