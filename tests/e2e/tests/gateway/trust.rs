//! Who may sign what: nothing that the operator's trust store does not vouch for is ever activated.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::cloud::Signed;
use e2e::gateway::{Lines, read};
use e2e::{Cloud, Gateway, Update, image};
use serde_json::json;
use support::binary::otad_command;
use support::interop;

const THING: &str = "trust";
const SIZE: usize = 6000;

fn gateway_with(cloud: &Cloud, change: impl FnOnce(&mut Lines)) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], change);
    gateway.init(&image::program("1.0.0", "", SIZE));
    gateway
}

fn new_image() -> Vec<u8> {
    image::program("1.1.0", "", SIZE)
}

/// What must hold after a refusal: no mark for the next boot, the old image runs, and a good update works.
fn check_old_runs_and_the_next_works(cloud: &Cloud, gateway: &Gateway, record: &[u8]) {
    assert_eq!(read(&gateway.target_file("main", "record")), record);
    let target = &gateway.status()["devices"][0]["targets"][0];
    assert_eq!(target["running_version"], "1.0.0");
    assert_eq!(target["image_state"], "valid");
    let job = cloud.update(THING, Update::of(new_image()));
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
}

/// A key and a certificate of somebody whom no store knows.
fn stranger() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["stranger".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    (key.serialize_pem(), certificate.pem())
}

#[test]
fn an_unsigned_image_is_refused_before_anything_is_downloaded() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |_| {});
    let record = read(&gateway.target_file("main", "record"));
    let _daemon = gateway.run();
    let update = Update {
        signed: Signed::Unsigned,
        ..Update::of(new_image())
    };
    let job = cloud.update(THING, update);
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("FAILED", "aborted: 0xe3000001"));
    assert_eq!(cloud.stats().stream_requests, 0);
    check_old_runs_and_the_next_works(&cloud, &gateway, &record);
}

#[test]
fn the_setting_for_unsigned_images_is_loud_at_every_start() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.development = "allow_unsigned_images = true".to_owned();
    });
    let loud = "warn DEVELOPMENT SETTING allow_unsigned_images";
    let daemon = gateway.run();
    daemon.wait_said(loud);
    let update = Update {
        signed: Signed::Unsigned,
        ..Update::of(new_image())
    };
    let job = cloud.update(THING, update);
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    let warnings = gateway.status()["devices"][0]["targets"][0]["warnings"].to_string();
    assert!(warnings.contains("unsigned images are taken"), "{warnings}");
    daemon.stop();
    let daemon = gateway.run();
    daemon.wait_said(loud);
}

#[test]
fn a_plain_connection_needs_a_setting_that_is_loud_at_every_start() {
    let cloud = Cloud::start();
    let mut gateway = gateway_with(&cloud, |_| {});
    let mut plain = gateway.command(&["run"]);
    // A network for documentation (RFC 5737): nobody is asked for anything before the configuration is good.
    plain.envs([
        ("OTAD_DEVICE__0__MQTT__ENDPOINT", "192.0.2.1"),
        ("OTAD_DEVICE__0__MQTT__TLS", "false"),
    ]);
    let refused = plain.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains("`allow_plaintext = true`"), "{said}");
    gateway.reconfigure(|lines| lines.development = "allow_plaintext = true".to_owned());
    for _ in 0..2 {
        let daemon = gateway.run();
        daemon.wait_said("warn DEVELOPMENT SETTING allow_plaintext: ");
        daemon.stop();
    }
}

#[test]
fn a_signer_outside_the_trust_store_is_refused() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |_| {});
    let record = read(&gateway.target_file("main", "record"));
    let daemon = gateway.run();
    let update = Update {
        signed: Signed::Key(stranger().0),
        ..Update::of(new_image())
    };
    let job = cloud.update(THING, update);
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("FAILED", "0x000000e3: 0x00000005"));
    assert!(
        !daemon.log().contains("signature valid"),
        "{}",
        daemon.log()
    );
    check_old_runs_and_the_next_works(&cloud, &gateway, &record);
}

#[test]
fn an_image_changed_after_signing_is_never_activated() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |_| {});
    let record = read(&gateway.target_file("main", "record"));
    let daemon = gateway.run();
    let mut tampered = new_image();
    tampered[SIZE / 2] ^= 1;
    let update = Update {
        signed: Signed::Before(new_image()),
        ..Update::of(tampered)
    };
    let job = cloud.update(THING, update);
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("FAILED", "0x000000e3: 0x00000005"));
    assert!(
        !daemon.log().contains("signature valid"),
        "{}",
        daemon.log()
    );
    check_old_runs_and_the_next_works(&cloud, &gateway, &record);
}

/// The signature is the image's own; only the size that the job gives is another.
#[test]
fn an_image_of_another_size_than_its_job_says_is_never_activated() {
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.device().agent = "request_timeout_ms = 100\nmomentum_max = 3\n".to_owned();
    });
    let record = read(&gateway.target_file("main", "record"));
    let _daemon = gateway.run();
    // Its job fails; its stream stays, and the others name it.
    let of_the_stream = Update {
        stream_id: Some("sized".to_owned()),
        signed: Signed::Unsigned,
        ..Update::of(new_image())
    };
    let job = cloud.update(THING, of_the_stream);
    assert_eq!(cloud.wait_end(&job).status, "FAILED");
    let signature = cloud.sign(&new_image());
    for (job, size, reason) in [
        ("a-block-less", 4096, "0x000000e3: 0x00000005"),
        ("a-byte-less", SIZE - 1, "0x0000004d: 0x00000004"),
        ("a-byte-more", SIZE + 1, "0x0000004d: 0x00000004"),
        ("a-block-more", SIZE + 4096, "0x0000004d: 0x00000004"),
    ] {
        let document = json!({ "afr_ota": { "protocols": ["MQTT"], "streamname": "sized", "files": [{
            "filepath": "app", "filesize": size, "fileid": 0, "certfile": "", "sig-sha256-ecdsa": signature
        }] } });
        let ended = cloud.wait_end(&cloud.job(THING, job, document));
        assert_eq!(ended.as_pair(), ("FAILED", reason), "{job}");
        assert_eq!(
            read(&gateway.target_file("main", "record")),
            record,
            "{job}"
        );
    }
    check_old_runs_and_the_next_works(&cloud, &gateway, &record);
}

#[test]
fn certfile_selects_an_entry_through_the_label_table_and_nothing_else() {
    let cloud = Cloud::start();
    let (key, certificate) = stranger();
    let gateway = gateway_with(&cloud, |lines| {
        lines.trust = "[trust.labels]\n\"/certs/second.pem\" = \"second\"\n".to_owned();
    });
    fs::write(gateway.path("trust/second.pem"), certificate).unwrap();
    let _daemon = gateway.run();
    let second = |certfile: &str| Update {
        signed: Signed::Key(key.clone()),
        certfile: certfile.to_owned(),
        ..Update::of(new_image())
    };
    // The default entry, an unknown label, the file's own name, and the way out of the store.
    let rows = [
        ("", "0x000000e3: 0x00000005"),
        ("third", "aborted: 0xe7000007"),
        ("second.pem", "aborted: 0xe7000007"),
        ("../trust/second.pem", "aborted: 0xe7000007"),
    ];
    for (certfile, reason) in rows {
        let job = cloud.update(THING, second(certfile));
        let ended = cloud.wait_end(&job);
        assert_eq!(ended.as_pair(), ("FAILED", reason), "{certfile}");
    }
    let job = cloud.update(THING, second("/certs/second.pem"));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
}

#[test]
fn filepath_lands_nowhere_but_where_the_configuration_allows() {
    let cloud = Cloud::start();
    let mut gateway = gateway_with(&cloud, |_| {});
    let names = |gateway: &Gateway| {
        let folder = gateway.path("targets");
        let list = Command::new("find").arg(folder).output().unwrap().stdout;
        String::from_utf8(list).unwrap()
    };
    let with_path = |filepath: &str, version: &str| Update {
        filepath: filepath.to_owned(),
        ..Update::of(image::program(version, "", SIZE))
    };
    let daemon = gateway.run();
    let before = names(&gateway);
    for path in ["../x", "a/../../x", "/x", "/etc/x", ".."] {
        let job = cloud.update(THING, with_path(path, "1.1.0"));
        let ended = cloud.wait_end(&job);
        assert_eq!(ended.as_pair(), ("FAILED", "aborted: 0xd0000001"), "{path}");
    }
    assert_eq!(names(&gateway), before);
    assert!(!Path::new("/x").exists() && !gateway.path("x").exists());
    // A relative name is the plugin's to use; the shipped one has no use for it.
    let job = cloud.update(THING, with_path("a/app.bin", "1.1.0"));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    daemon.stop();
    gateway.reconfigure(|lines| lines.target().lines = "filepaths = [\"/app.bin\"]\n".to_owned());
    let _daemon = gateway.run();
    let job = cloud.update(THING, with_path("a/app.bin", "1.2.0"));
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("FAILED", "aborted: 0xd0000001"));
    let job = cloud.update(THING, with_path("/app.bin", "1.2.0"));
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    assert!(!Path::new("/app.bin").exists());
}

/// Runs openssl in a folder.
fn openssl(program: &Path, folder: &Path, arguments: &str) {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments}: {output:?}");
}

/// An update whose key, certificate and signature were all made by openssl, from the command line.
fn check_openssl(key: &str, kind: &str, in_base64: bool) {
    let Some(program) = interop::program("openssl") else {
        return;
    };
    let cloud = Cloud::start();
    let gateway = gateway_with(&cloud, |lines| {
        lines.trust = "[trust.labels]\n\"ops\" = \"openssl\"\n".to_owned();
    });
    let folder = gateway.path("trust");
    let request =
        "req -x509 -nodes -days 30 -sha256 -subj /CN=ops -keyout ../ops.key -out openssl.pem";
    openssl(&program, &folder, &format!("{request} {key}"));
    let folder = gateway.path("");
    fs::write(folder.join("new.img"), new_image()).unwrap();
    openssl(
        &program,
        &folder,
        "dgst -sha256 -sign ops.key -out raw.sig new.img",
    );
    if in_base64 {
        openssl(&program, &folder, "base64 -in raw.sig -out new.sig");
    } else {
        fs::rename(folder.join("raw.sig"), folder.join("new.sig")).unwrap();
    }
    let _daemon = gateway.run();
    let output = otad_command()
        .args(["update", "create", "--wait", "--thing", THING])
        .args(["--file", "new.img", "--signature", "new.sig"])
        .args(["--signature-kind", kind, "--certfile", "ops"])
        .arg("--cloud")
        .arg(cloud.dir())
        .current_dir(&folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("SUCCEEDED accepted  v1.1.0"), "{said}");
}

#[test]
fn an_ecdsa_signature_by_openssl_is_taken() {
    check_openssl(
        "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1",
        "sig-sha256-ecdsa",
        false,
    );
}

#[test]
fn an_rsa_signature_by_openssl_is_taken() {
    check_openssl("-newkey rsa:2048", "sig-sha256-rsa", true);
}

#[test]
fn openssl_verifies_the_signature_in_the_job_document() {
    let Some(program) = interop::program("openssl") else {
        return;
    };
    let cloud = Cloud::start();
    let _credentials = cloud.thing(THING);
    let dir = support::temp_dir("openssl").unwrap();
    fs::write(dir.path().join("new.img"), new_image()).unwrap();
    fs::write(dir.path().join("signer.pem"), cloud.signer_pem()).unwrap();
    let output = otad_command()
        .args(["update", "create", "--json", "--thing", THING])
        .args(["--file", "new.img"])
        .arg("--cloud")
        .arg(cloud.dir())
        .current_dir(dir.path())
        .output()
        .unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let job = facts["job_id"].as_str().unwrap().parse().unwrap();
    let document = cloud.operator().show(&job).unwrap().document;
    let signature = &document["afr_ota"]["files"][0]["sig-sha256-ecdsa"];
    let signature = BASE64.decode(signature.as_str().unwrap()).unwrap();
    fs::write(dir.path().join("new.sig"), signature).unwrap();
    openssl(
        &program,
        dir.path(),
        "x509 -in signer.pem -noout -pubkey -out key.pem",
    );
    let verify = "dgst -sha256 -verify key.pem -signature new.sig new.img";
    openssl(&program, dir.path(), verify);
}
