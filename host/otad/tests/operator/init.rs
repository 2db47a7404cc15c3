//! `otad config init --aws`: a configuration of downloaded files, or every reason why not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::{done, otad, refused};

const ENDPOINT: &str = "a1b2c3d4e5f6g7-ats.iot.eu-west-1.amazonaws.com";

/// A certificate and its key, as files of a folder.
fn pair(folder: &Path, certificate: &str, key: &str) {
    let pair = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["x".to_owned()])
        .unwrap()
        .self_signed(&pair)
        .unwrap();
    fs::write(folder.join(certificate), made.pem()).unwrap();
    fs::write(folder.join(key), pair.serialize_pem()).unwrap();
}

fn downloads() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    pair(dir.path(), "thing.pem.crt", "thing.pem.key");
    pair(dir.path(), "other.pem.crt", "other.pem.key");
    pair(dir.path(), "signer.crt", "signer.key");
    pair(dir.path(), "AmazonRootCA1.pem", "root.key");
    dir
}

/// The whole command line, with some values replaced.
fn init(folder: &Path, changes: &[(&str, &str)], more: &[&str]) -> std::process::Output {
    let mut arguments = vec!["config", "init", "--aws"];
    for (option, value) in [
        ("--thing", "pump-1"),
        ("--endpoint", ENDPOINT),
        ("--certificate", "thing.pem.crt"),
        ("--private-key", "thing.pem.key"),
        ("--root", "AmazonRootCA1.pem"),
        ("--signer", "signer.crt"),
        ("--out", "etc"),
    ] {
        let value = changes
            .iter()
            .find(|c| c.0 == option)
            .map_or(value, |c| c.1);
        arguments.extend([option, value]);
    }
    otad(folder, &[&arguments[..], more].concat())
}

#[test]
fn downloaded_files_become_a_configuration_that_passes_its_check() {
    let dir = downloads();
    let said = done(&init(dir.path(), &[], &[]));
    assert!(said.contains("wrote etc/otad.toml"), "{said}");
    let out = dir.path().join("etc");
    let mode = |file: &str| fs::metadata(out.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("private-key.pem"), 0o600);
    assert_eq!(mode("certificate.pem") & 0o022, 0);
    assert_eq!(mode("trust") & 0o022, 0);
    assert_eq!(mode("trust/signer.pem") & 0o022, 0);
    let checked = otad(
        dir.path(),
        &["config", "check", "--config", "etc/otad.toml"],
    );
    assert!(done(&checked).contains("good, 1 device(s)"));
}

#[test]
fn what_is_there_is_replaced_only_by_force() {
    let dir = downloads();
    done(&init(dir.path(), &[], &[]));
    let key = fs::read(dir.path().join("etc/private-key.pem")).unwrap();
    let other = [
        ("--certificate", "other.pem.crt"),
        ("--private-key", "other.pem.key"),
    ];
    refused(
        &init(dir.path(), &other, &[]),
        5,
        &["otad.toml already", "--force"],
    );
    assert_eq!(
        fs::read(dir.path().join("etc/private-key.pem")).unwrap(),
        key
    );
    // A key that others could read before is not written into as it is.
    let path = dir.path().join("etc/private-key.pem");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let said = done(&init(dir.path(), &other, &["--force"]));
    assert!(said.contains("replaced etc/private-key.pem"), "{said}");
    assert_ne!(fs::read(&path).unwrap(), key);
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// What is replaced, and words of the error.
type Row = (
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const WRONG: &[Row] = &[
    (
        &[("--private-key", "other.pem.key")],
        &[
            "--private-key other.pem.key",
            "do not go together",
            "begin alike",
        ],
    ),
    (
        &[
            ("--certificate", "thing.pem.key"),
            ("--private-key", "thing.pem.crt"),
        ],
        &[
            "2 things",
            "--certificate thing.pem.key",
            "swap",
            "--private-key thing.pem.crt",
        ],
    ),
    (
        &[("--root", "thing.pem.key")],
        &[
            "--root thing.pem.key: holds no PEM certificate",
            "AmazonRootCA1.pem",
        ],
    ),
    (
        &[("--root", "nowhere.pem")],
        &["--root nowhere.pem: No such file"],
    ),
    (
        &[("--endpoint", "https://x")],
        &["--endpoint \"https://x\"", "no scheme"],
    ),
    (
        &[("--endpoint", "a1.iot.eu-west-1.amazonaws.com")],
        &["--endpoint", "iot:Data-ATS"],
    ),
    (
        &[("--endpoint", "broker.example")],
        &["--endpoint", "--custom-domain"],
    ),
    (&[("--thing", "a b")], &["--thing \"a b\""]),
    (
        &[("--signer", "signer.key")],
        &["--signer signer.key", "private key"],
    ),
    (
        &[
            ("--thing", ""),
            ("--endpoint", ""),
            ("--root", "x"),
            ("--signer", "y"),
        ],
        &["4 things are missing or wrong; nothing was created"],
    ),
];

#[test]
fn everything_that_is_wrong_is_named_and_nothing_is_written() {
    let dir = downloads();
    for (changes, words) in WRONG {
        refused(&init(dir.path(), changes, &[]), 64, words);
        assert!(!dir.path().join("etc").exists(), "{changes:?}");
    }
    let own = [("--endpoint", "iot.example.com")];
    done(&init(dir.path(), &own, &["--custom-domain"]));
}

/// Made by `openssl x509 -req` without an extension, for some key; until 2126.
const VERSION_1: &str = "-----BEGIN CERTIFICATE-----
MIIBHjCBxQIUAOw3NJOqMyV5id8WqAIEAhQ9aZwwCgYIKoZIzj0EAwIwETEPMA0G
A1UEAwwGcHVtcC0xMCAXDTI2MTEyMzEzNDcwMloYDzIxMjYxMDMwMTM0NzAyWjAR
MQ8wDQYDVQQDDAZwdW1wLTEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASr/n0R
KGK1ytSG6VNfaT5+DYTUiQaYhAJXKRZo0tVd7ZptNQT/kuwD3aCkZ4zRMKpV6rLr
Gio5vBwqsWyZwJVYMAoGCCqGSM49BAMCA0gAMEUCIB0Zur35DlRkKoApn2vuB8Oy
ikBlQg0sqZjhJWXqbOUGAiEA7Jk8d85KRM9BhreJP/9UtyhG1xteMgLTA04+J8tZ
DMo=
-----END CERTIFICATE-----
";

#[test]
fn a_certificate_that_tls_does_not_take_is_told_by_its_version_and_one_that_has_ended_is_warned_of()
{
    let dir = downloads();
    done(&init(dir.path(), &[], &[]));
    let config = ["config", "check", "--config", "etc/otad.toml"];
    let certificate = dir.path().join("etc/certificate.pem");

    fs::write(dir.path().join("thing.pem.crt"), VERSION_1).unwrap();
    fs::write(&certificate, VERSION_1).unwrap();
    for output in [otad(dir.path(), &config), init(dir.path(), &[], &[])] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        for words in [".pem", "of X.509 version 1", "-extfile"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!said.contains("do not go together"), "{said}");
    }

    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("etc/private-key.pem"), key.serialize_pem()).unwrap();
    let checked = otad(dir.path(), &config);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("etc/certificate.pem has ended"), "{said}");
    assert!(said.contains("2002-01-01"), "{said}");
}
