//! Things, groups and certificates from the command line, on this machine and with a copy of the operators' directory.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use e2e::{Cloud, image};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use support::binary::otad_command;

fn otad(cloud: &Path, arguments: &[&str]) -> Output {
    let mut command = otad_command();
    command.args(arguments).arg("--cloud").arg(cloud);
    command.output().unwrap()
}

/// It succeeds; its answer in JSON.
fn json(cloud: &Path, arguments: &[&str]) -> Value {
    let output = otad(cloud, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// It fails with this code and names this.
fn check_refused(cloud: &Path, arguments: &[&str], code: i32, name: &str) {
    let output = otad(cloud, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(name), "{arguments:?}: {said}");
}

#[test]
fn things_and_groups_are_made_listed_shown_and_forgotten_and_unknown_ones_named() {
    let cloud = Cloud::start();
    let dir = cloud.dir();
    let folder = support::temp_dir("things").unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    assert_eq!(otad(&dir, &["thing", "list"]).status.code(), Some(2));
    for name in ["pump-1", "pump-2"] {
        let made = json(&dir, &["thing", "create", name, "--out", &at(name)]);
        assert_eq!(made["created"], true);
        assert!(Path::new(made["config"].as_str().unwrap()).exists());
    }
    json(
        &dir,
        &["group", "create", "east", "--description", "by the sea"],
    );
    let group = json(&dir, &["group", "add", "east", "pump-1", "pump-2"]);
    assert_eq!(group["things"], serde_json::json!(["pump-1", "pump-2"]));
    let things = json(&dir, &["thing", "list"]);
    assert_eq!(things[1]["name"], "pump-2");
    assert_eq!(things[1]["groups"][0], "east");
    let group = json(&dir, &["group", "remove", "east", "pump-2"]);
    assert_eq!(group["things"], serde_json::json!(["pump-1"]));
    assert_eq!(
        json(&dir, &["group", "list"])[0]["description"],
        "by the sea"
    );

    let rows: &[(&[&str], i32, &str)] = &[
        (&["thing", "show", "nobody"], 2, "nobody"),
        (&["thing", "delete", "nobody"], 2, "nobody"),
        (&["thing", "show", "a/b"], 64, "a/b"),
        (&["group", "show", "west"], 2, "west"),
        (&["group", "add", "west", "pump-1"], 2, "west"),
        (&["group", "add", "east", "nobody"], 2, "nobody"),
        (&["group", "delete", "west"], 2, "west"),
        (&["group", "create", "east"], 1, "east"),
        (&["thing", "detach", "pump-1", "00"], 2, "pump-1"),
    ];
    for (arguments, code, name) in rows {
        check_refused(&dir, arguments, *code, name);
    }

    assert_eq!(json(&dir, &["group", "delete", "east"])["deleted"], "east");
    assert_eq!(
        json(&dir, &["thing", "delete", "pump-2"])["deleted"],
        "pump-2"
    );
    assert_eq!(json(&dir, &["thing", "list"]).as_array().unwrap().len(), 1);
}

/// A certificate of an authority that is not the cloud's, and that authority's own.
fn elsewhere(folder: &Path) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([]).unwrap();
    let certificate = certificate.signed_by(&own, &issuer).unwrap().pem();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    (write("own.pem", &certificate), write("ca.pem", &root))
}

#[test]
fn a_certificate_from_elsewhere_is_attached_and_detached_by_its_fingerprint() {
    let cloud = Cloud::start();
    let dir = cloud.dir();
    let made = cloud.thing("pump-1");
    let folder = support::temp_dir("elsewhere").unwrap();
    let (own, root) = elsewhere(folder.path());
    let attach = ["thing", "attach", "pump-1", "--certificate", &own];
    check_refused(&dir, &attach, 1, "registered");
    let thing = json(&dir, &[&attach[..], &["--root", &root]].concat());
    let certificates = thing["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 2, "{thing}");
    let mut others = certificates.iter().filter_map(Value::as_str);
    let theirs = others.find(|f| **f != *made.fingerprint).unwrap();
    let thing = json(&dir, &["thing", "detach", "pump-1", theirs]);
    assert_eq!(thing["certificates"], serde_json::json!([made.fingerprint]));
}

#[test]
fn a_copy_of_the_operators_directory_is_enough_to_make_an_update_from_elsewhere() {
    let cloud = Cloud::start_with(|config| {
        config.operators = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    });
    let folder = support::temp_dir("operator").unwrap();
    let kit = folder.path().join("kit");
    fs::create_dir(&kit).unwrap();
    for name in ["address", "root.pem", "token"] {
        // Permissions come along: the token stays 0600.
        fs::copy(cloud.dir().join("operator").join(name), kit.join(name)).unwrap();
    }
    let out = folder.path().join("pump-1").display().to_string();
    json(&kit, &["thing", "create", "pump-1", "--out", &out]);
    let image_path = folder.path().join("app.img").display().to_string();
    fs::write(&image_path, image::program("1.1.0", "", 300_000)).unwrap();
    let key = cloud.dir().join("pki/signing.key");
    // The signing key is the operator's own; here it happens to be the cloud's.
    let create = [
        "update",
        "create",
        "--thing",
        "pump-1",
        "--file",
        &image_path,
        "--key",
    ];
    let made = json(&kit, &[&create[..], &[&key.display().to_string()]].concat());
    let job = made["job_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(cloud.operator().show(&job).unwrap().executions.len(), 1);
    // What the cloud has is named by its digest; nothing that needs its bytes can be done here.
    let elsewhere = format!("sha256:{}", "0".repeat(64));
    let again = [&create[..5], &[&elsewhere]].concat();
    let unsigned = [&again[..], &["--unsigned"]].concat();
    check_refused(&kit, &unsigned, 1, "no image has the SHA-256");
    let key = key.display().to_string();
    let signed = [&again[..], &["--key", &key]].concat();
    check_refused(&kit, &signed, 64, "takes its bytes");
    // Without the token the copy is of no use.
    fs::write(kit.join("token"), "0123456789abcdef0123").unwrap();
    check_refused(&kit, &["thing", "list"], 1, "token");
}
