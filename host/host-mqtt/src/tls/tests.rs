//! Files that are missing, wrong, or do not belong together.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use rustls::ClientConfig;

use crate::MqttError;
use crate::config::{Security, TlsFiles};

struct Files {
    _dir: TempDir,
    files: TlsFiles,
}

fn files() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["device".to_owned()]).unwrap();
    let place = |name: &str, text: String| -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let files = TlsFiles {
        ca: place("ca.pem", signed.cert.pem()),
        certificate: place("device.pem", signed.cert.pem()),
        key: place("device.key", signed.signing_key.serialize_pem()),
    };
    Files { _dir: dir, files }
}

fn client_config(files: &TlsFiles, alpn: Vec<Vec<u8>>) -> Result<ClientConfig, MqttError> {
    super::client_config(&Security::Tls(files.clone()), alpn).map(Option::unwrap)
}

#[test]
fn a_password_needs_no_certificate_of_the_device_but_the_roots_of_the_broker() {
    let held = files();
    let files = &held.files;
    let by_password = |ca: &PathBuf| {
        super::client_config(&Security::TlsByPassword { ca: ca.clone() }, Vec::new())
    };
    let config = by_password(&files.ca).unwrap().unwrap();
    assert!(!config.client_auth_cert_resolver.has_certs());
    assert!(by_password(&files.key).is_err());
}

#[test]
fn a_good_set_makes_a_configuration_with_its_protocol_names() {
    let files = files();
    let config = client_config(&files.files, vec![b"x-amzn-mqtt-ca".to_vec()]).unwrap();
    assert_eq!(config.alpn_protocols, [b"x-amzn-mqtt-ca".to_vec()]);
    assert!(config.client_auth_cert_resolver.has_certs());
}

#[test]
fn each_file_that_is_missing_or_wrong_is_named() {
    type Change = fn(&TlsFiles) -> &PathBuf;
    let rows: &[(&str, Change)] = &[
        ("CA file", |f| &f.ca),
        ("client certificate", |f| &f.certificate),
        ("private key", |f| &f.key),
    ];
    for (what, which) in rows {
        for (text, words) in [
            (None, "cannot be read"),
            (Some("not PEM at all"), "of no use"),
            (Some(""), "of no use"),
        ] {
            let files = files();
            let path = which(&files.files);
            match text {
                None => fs::remove_file(path).unwrap(),
                Some(text) => fs::write(path, text).unwrap(),
            }
            let error = client_config(&files.files, Vec::new()).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(what), "{told}");
            assert!(told.contains(words), "{told}");
            assert!(told.contains(&path.display().to_string()), "{told}");
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_found_out_before_connecting() {
    let files = files();
    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    fs::write(&files.files.key, other.signing_key.serialize_pem()).unwrap();
    let told = client_config(&files.files, Vec::new())
        .unwrap_err()
        .to_string();
    assert!(told.contains("do not work together"), "{told}");
}

#[test]
fn a_file_larger_than_any_pem_is_not_read() {
    let files = files();
    let file = fs::File::create(&files.files.ca).unwrap();
    file.set_len(super::PEM_MAX_BYTES + 1).unwrap();
    let told = client_config(&files.files, Vec::new())
        .unwrap_err()
        .to_string();
    assert!(told.contains("1048577 bytes"), "{told}");
}
