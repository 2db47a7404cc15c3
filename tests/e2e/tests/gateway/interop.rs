//! Clients that nobody here wrote against the cloud in a box: paho-mqtt and cbor2 in Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Cloud, Update};
use host_cloud::BrokerConfig;
use serde_json::{Value, json};
use support::mosquitto::Mosquitto;
use support::{image, interop};

const THING: &str = "python-pump";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/device.py");

/// Three blocks of 4096 bytes but for the last one, and whole ones.
const SIZES: [usize; 3] = [1, 10_446, 300 * 1024];

fn python() -> Option<PathBuf> {
    interop::python(&["paho.mqtt.client", "cbor2"])
}

/// Runs the device to its end; what it has seen.
fn run(python: &Path, folder: &Path, port: u16, more: &[&str]) -> Value {
    let mut command = Command::new(python);
    command
        .arg(SCRIPT)
        .args(["--host", "localhost", "--port", &port.to_string()])
        .args(["--thing", THING, "--out", "file"])
        .args(more)
        .current_dir(folder);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{more:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One update per size; the device fetches it whole and what it asks for in vain has its code.
fn check(python: &Path, cloud: &Cloud, encoding: &str, more: &[&str]) {
    let folder = support::temp_dir("python").unwrap();
    for size in SIZES {
        let bytes = image::random_bytes(size as u64, size);
        let job = cloud.update(THING, Update::of(bytes.clone()));
        let arguments = [&["--encoding", encoding][..], more].concat();
        let seen = run(python, folder.path(), cloud.port(), &arguments);
        assert_eq!(seen["job"], job.as_str());
        assert_eq!(seen["next"], Value::Null);
        let file = fs::read(folder.path().join("file.0")).unwrap();
        assert!(file == bytes, "{size} bytes in {encoding}");
        let mut refusals = json!({
            "block_size": "BlockSizeOutOfBounds",
            "offset": "OffsetOutOfBounds",
            "file": "ResourceNotFound",
            "version": "VersionMismatch",
        });
        if encoding == "cbor" {
            refusals["bitmap"] = "InvalidCbor".into();
        }
        assert_eq!(seen["refusals"], refusals);
        assert_eq!(seen["mismatch"], json!(["rejected", "VersionMismatch"]));
        assert_eq!(seen["unknown"], json!(["rejected", "ResourceNotFound"]));
        assert_eq!(cloud.now(&job).status, "SUCCEEDED");
    }
}

/// Mutual TLS with files, as a device has them.
fn credentials(cloud: &Cloud) -> [String; 6] {
    let own = cloud.thing(THING);
    let file = |path: PathBuf| path.display().to_string();
    [
        "--ca".to_owned(),
        file(own.root_path),
        "--certificate".to_owned(),
        file(own.certificate_path),
        "--key".to_owned(),
        file(own.private_key_path),
    ]
}

#[test]
fn a_python_device_fetches_jobs_and_whole_streams_in_cbor_and_json() {
    let Some(python) = python() else {
        return;
    };
    let cloud = Cloud::start();
    let own = credentials(&cloud);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    for encoding in ["cbor", "json"] {
        check(&python, &cloud, encoding, &own);
    }
    // Blocks as large and as small as the service takes.
    check(
        &python,
        &cloud,
        "cbor",
        &[&own[..], &["--block-size", "131072"]].concat(),
    );
    check(
        &python,
        &cloud,
        "json",
        &[&own[..], &["--block-size", "256"]].concat(),
    );
}

#[test]
fn a_python_device_reaches_the_cloud_through_mosquitto() {
    let Some(python) = python() else {
        return;
    };
    let Some(broker) = Mosquitto::start(None).unwrap() else {
        return;
    };
    let url = format!("mqtt://{}", broker.addr()).parse().unwrap();
    let cloud = Cloud::start_with(|config| {
        config.tls = None;
        config.broker = Some(BrokerConfig::new(url));
    });
    cloud.wait_broker();
    let _credentials = cloud.thing(THING);
    for encoding in ["cbor", "json"] {
        check(&python, &cloud, encoding, &["--subscribe"]);
    }
}
