//! Clients that nobody here wrote against `otad mcu-sim`: PyPI's smpclient updates it, with images that imgtool signed.

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

#[test]
fn smpclient_updates_the_simulated_mcu_with_images_that_imgtool_signed() {
    let Some(python) = interop::python(&["smpclient.transport.serial", "imgtool.main"]) else {
        return;
    };
    let folder = support::temp_dir("mcu").unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let sign = ["sign", "--folder", &file(""), "--slot-size", SLOT_BYTES];
    let images = run(&python, &sign);
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
        .args(["--baud", "1000000"]);
    let mut mcu = Process::start("mcu-sim", command).unwrap();
    mcu.wait_line("serving", PATIENCE).unwrap();

    let new = images["2.0.0"].as_str().unwrap();
    let seen = run(&python, &["talk", "--port", &file("mcu"), "--new", new]);

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
