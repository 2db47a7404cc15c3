//! Good, tampered, wrong key, wrong kind, malformed, high-S, trailing bytes, expired: certificates made on the spot by
//! rcgen, and vectors that OpenSSL made once (`vectors/`).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd};

use super::*;

const IMAGE: &[u8] = b"an image of some bytes";

/// 2030-06-15, between the ends of every certificate here that is not about time.
const NOW: Option<u64> = Some(1_907_712_000);

fn hashed(bytes: &[u8]) -> Hashed {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Certificate and key, after `change`.
fn pair(change: impl FnOnce(&mut CertificateParams)) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (certificate(&key, change), key)
}

fn certificate(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::new(vec!["signer".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    change(&mut params);
    params.self_signed(key).unwrap().pem()
}

fn signature(key: &KeyPair, bytes: &[u8]) -> Vec<u8> {
    SigningKey::from_pem(&key.serialize_pem())
        .unwrap()
        .sign(&hashed(bytes))
        .unwrap()
}

/// A policy with one entry `signer`, the default, also under the label `Code Verify Key`.
fn policy(pem: &str) -> TrustPolicy {
    let mut store = TrustStore::default();
    store.add("signer", pem).unwrap();
    TrustPolicy::new(store)
        .default_entry("signer")
        .unwrap()
        .label("Code Verify Key", "signer")
        .unwrap()
}

fn ecdsa(signature: &[u8]) -> Request<'_> {
    Request {
        kind: "sig-sha256-ecdsa",
        signature,
        label: "",
    }
}

/// Verify `signature` of the openssl image with an openssl certificate.
fn openssl(pem: &str, kind: &'static str, signature: &[u8]) -> Result<Verified, VerifyError> {
    let image = hashed(include_bytes!("../vectors/image.txt"));
    let request = Request {
        kind,
        signature,
        label: "Code Verify Key",
    };
    policy(pem).verify(&image, &request, NOW)
}

const OPENSSL_P256: &str = include_str!("../vectors/openssl-p256.pem");
const OPENSSL_RSA2048: &str = include_str!("../vectors/openssl-rsa2048.pem");
const OPENSSL_RSA4096: &str = include_str!("../vectors/openssl-rsa4096.pem");

#[test]
fn a_good_signature_verifies_and_names_its_signer() {
    let (pem, key) = pair(|_| {});
    let verified = policy(&pem)
        .verify(&hashed(IMAGE), &ecdsa(&signature(&key, IMAGE)), NOW)
        .unwrap();
    assert_eq!(
        (verified.signer(), verified.size(), verified.sha256()),
        ("signer", IMAGE.len() as u64, hashed(IMAGE).sha256())
    );
    assert_eq!(verified.warnings(), []);
}

#[test]
fn every_flipped_bit_of_the_image_is_noticed() {
    let (pem, key) = pair(|_| {});
    let (policy, signature) = (policy(&pem), signature(&key, IMAGE));
    for bit in 0..IMAGE.len() * 8 {
        let mut image = IMAGE.to_vec();
        image[bit / 8] ^= 1 << (bit % 8);
        let refused = policy.verify(&hashed(&image), &ecdsa(&signature), NOW);
        assert!(
            matches!(refused, Err(VerifyError::Mismatch { .. })),
            "bit {bit}: {refused:?}"
        );
    }
}

#[test]
fn every_flipped_bit_of_the_signature_is_refused() {
    let (pem, key) = pair(|_| {});
    let (policy, good) = (policy(&pem), signature(&key, IMAGE));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let refused = policy
            .verify(&hashed(IMAGE), &ecdsa(&bad), NOW)
            .unwrap_err();
        assert_eq!(refused.main(), SIGNATURE_CHECK_FAILED, "bit {bit}");
    }
}

#[test]
fn a_signature_by_another_key_is_a_mismatch() {
    let (pem, _) = pair(|_| {});
    let (_, other) = pair(|_| {});
    let refused = policy(&pem).verify(&hashed(IMAGE), &ecdsa(&signature(&other, IMAGE)), NOW);
    assert_eq!(
        refused,
        Err(VerifyError::Mismatch {
            entry: "signer".into()
        })
    );
}

#[test]
fn what_is_not_one_der_signature_is_malformed() {
    let (pem, key) = pair(|_| {});
    let good = signature(&key, IMAGE);
    let mut trailing = good.clone();
    trailing.push(0);
    let mut inner_trailing = good.clone();
    inner_trailing.push(0);
    inner_trailing[1] += 1;
    let raw = vec![0x55; 64];
    let zero_r = [0x30, 0x06, 0x02, 0x01, 0x00, 0x02, 0x01, 0x01].to_vec();
    let negative = [0x30, 0x06, 0x02, 0x01, 0x80, 0x02, 0x01, 0x01].to_vec();
    let long_length = [&[0x30, 0x81, good[1]], &good[2..]].concat();
    let rows = [
        ("trailing byte", trailing),
        ("trailing byte inside", inner_trailing),
        ("cut off", good[..good.len() - 1].to_vec()),
        ("raw r and s", raw),
        ("certificate text", pem.clone().into_bytes()),
        ("r = 0", zero_r),
        ("negative r", negative),
        ("length not in its shortest form", long_length),
        ("one byte", vec![0x30]),
    ];
    for (name, bytes) in rows {
        let refused = policy(&pem).verify(&hashed(IMAGE), &ecdsa(&bytes), NOW);
        assert!(
            matches!(refused, Err(VerifyError::Malformed { .. })),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn signatures_that_openssl_made_verify_with_low_and_with_high_s() {
    for signature in [
        include_bytes!("../vectors/openssl-p256.low-s.sig").as_slice(),
        include_bytes!("../vectors/openssl-p256.high-s.sig").as_slice(),
    ] {
        openssl(OPENSSL_P256, "sig-sha256-ecdsa", signature).unwrap();
    }
}

#[test]
fn rsa_signatures_that_openssl_made_verify() {
    let small = include_bytes!("../vectors/openssl-rsa2048.sig").as_slice();
    let large = include_bytes!("../vectors/openssl-rsa4096.sig").as_slice();
    openssl(OPENSSL_RSA2048, "sig-sha256-rsa", small).unwrap();
    openssl(OPENSSL_RSA4096, "sig-sha256-rsa", large).unwrap();
}

#[test]
fn a_tampered_rsa_signature_or_image_is_a_mismatch() {
    let good = include_bytes!("../vectors/openssl-rsa2048.sig");
    for byte in [0, 1, 100, 255] {
        let mut bad = good.to_vec();
        bad[byte] ^= 0x01;
        let refused = openssl(OPENSSL_RSA2048, "sig-sha256-rsa", &bad);
        assert!(
            matches!(refused, Err(VerifyError::Mismatch { .. })),
            "byte {byte}: {refused:?}"
        );
    }
    let request = Request {
        kind: "sig-sha256-rsa",
        signature: good,
        label: "",
    };
    let refused = policy(OPENSSL_RSA2048).verify(&hashed(IMAGE), &request, NOW);
    assert!(matches!(refused, Err(VerifyError::Mismatch { .. })));
}

#[test]
fn an_rsa_signature_of_another_length_is_malformed() {
    let good = include_bytes!("../vectors/openssl-rsa2048.sig");
    for bytes in [&good[..255], &[good.as_slice(), &[0]].concat()] {
        let refused = openssl(OPENSSL_RSA2048, "sig-sha256-rsa", bytes);
        assert!(matches!(refused, Err(VerifyError::Malformed { .. })));
    }
}

#[test]
fn a_kind_that_is_not_the_key_s_is_refused() {
    let signature = include_bytes!("../vectors/openssl-rsa2048.sig");
    assert_eq!(
        openssl(OPENSSL_RSA2048, "sig-sha256-ecdsa", signature),
        Err(VerifyError::WrongKey {
            kind: "sig-sha256-ecdsa",
            key: "RSA-2048",
            entry: "signer".into()
        })
    );
    assert!(matches!(
        openssl(OPENSSL_P256, "sig-sha256-rsa", signature),
        Err(VerifyError::WrongKey { key: "P-256", .. })
    ));
}

#[test]
fn kinds_with_sha_1_and_unknown_kinds_are_refused_by_name() {
    for (kind, expected) in [
        ("sig-sha1-rsa", VerifyError::Weak("sig-sha1-rsa".into())),
        ("sig-sha1-ecdsa", VerifyError::Weak("sig-sha1-ecdsa".into())),
        ("sig-md5", VerifyError::UnknownKind("sig-md5".into())),
        ("", VerifyError::Missing),
    ] {
        assert_eq!(openssl(OPENSSL_P256, kind, b"x"), Err(expected));
    }
}

#[test]
fn a_job_without_signature_is_refused_unless_the_development_setting_allows_it() {
    let request = Request {
        kind: "",
        signature: b"",
        label: "",
    };
    let strict = policy(OPENSSL_P256);
    assert_eq!(
        strict.verify(&hashed(IMAGE), &request, NOW),
        Err(VerifyError::Missing)
    );
    let lax = strict.allow_unsigned(true);
    let verified = lax.verify(&hashed(IMAGE), &request, NOW).unwrap();
    assert_eq!(
        (verified.signer(), verified.warnings()),
        (UNSIGNED, [Warning::Unsigned].as_slice())
    );
}

#[test]
fn the_development_setting_does_not_excuse_a_bad_signature() {
    let (pem, key) = pair(|_| {});
    let lax = policy(&pem).allow_unsigned(true);
    let signature = signature(&key, b"other bytes");
    assert!(matches!(
        lax.verify(&hashed(IMAGE), &ecdsa(&signature), NOW),
        Err(VerifyError::Mismatch { .. })
    ));
    // A kind with no bytes behind it is a broken job, not an unsigned one.
    assert_eq!(
        lax.verify(&hashed(IMAGE), &ecdsa(b""), NOW),
        Err(VerifyError::Missing)
    );
}

#[test]
fn only_the_label_table_selects_a_certificate() {
    let (pem, key) = pair(|_| {});
    let signature = signature(&key, IMAGE);
    for label in [
        "signer",
        "signer.pem",
        "../signer.pem",
        "/etc/otad/trust/signer.pem",
        "x\n",
    ] {
        let request = Request {
            label,
            ..ecdsa(&signature)
        };
        let refused = policy(&pem)
            .verify(&hashed(IMAGE), &request, NOW)
            .unwrap_err();
        assert_eq!(refused.main(), BAD_SIGNER_CERT, "{label:?}");
        assert!(matches!(refused, VerifyError::UnknownLabel(_)), "{label:?}");
        assert!(!refused.to_string().contains('\n'));
    }
    let request = Request {
        label: "Code Verify Key",
        ..ecdsa(&signature)
    };
    policy(&pem).verify(&hashed(IMAGE), &request, NOW).unwrap();
}

#[test]
fn a_job_without_label_needs_a_default() {
    let (pem, key) = pair(|_| {});
    let mut store = TrustStore::default();
    store.add("signer", &pem).unwrap();
    let refused = TrustPolicy::new(store)
        .verify(&hashed(IMAGE), &ecdsa(&signature(&key, IMAGE)), NOW)
        .unwrap_err();
    assert_eq!((refused.main(), refused.sub()), (BAD_SIGNER_CERT, 8));
}

#[test]
fn validity_counts_to_the_second_and_an_unknown_clock_only_warns() {
    let (pem, key) = pair(|_| {});
    let (policy, signature) = (policy(&pem), signature(&key, IMAGE));
    let (begin, end) = (1_577_836_800, 2_208_988_800);
    let verify = |wall| policy.verify(&hashed(IMAGE), &ecdsa(&signature), wall);
    assert!(verify(Some(begin)).is_ok());
    assert!(verify(Some(end)).is_ok());
    assert!(matches!(
        verify(Some(begin - 1)),
        Err(VerifyError::NotYetValid { .. })
    ));
    let expired = verify(Some(end + 1)).unwrap_err();
    assert_eq!(expired.main(), BAD_SIGNER_CERT);
    assert!(matches!(expired, VerifyError::Expired { .. }));
    assert_eq!(verify(None).unwrap().warnings(), [Warning::UnknownTime]);
}

#[test]
fn a_policy_that_remembers_answers_as_one_that_does_not() {
    let (pem, key) = pair(|_| {});
    let (forgetful, remembering) = (policy(&pem), policy(&pem).remembering());
    let (good, other) = (signature(&key, IMAGE), signature(&key, b"other"));
    for _ in 0..3 {
        for bytes in [IMAGE, b"other", b"third"] {
            for signature in [&*good, &*other, b"nonsense"] {
                for now in [NOW, Some(0), None] {
                    let of = |policy: &TrustPolicy| {
                        policy.verify(&hashed(bytes), &ecdsa(signature), now)
                    };
                    assert_eq!(of(&forgetful), of(&remembering));
                }
            }
        }
    }
}

#[test]
fn the_precheck_ends_as_verify_would_before_any_byte_is_there() {
    let (pem, key) = pair(|_| {});
    let (policy, signature) = (policy(&pem), signature(&key, IMAGE));
    assert_eq!(policy.precheck(&ecdsa(&signature), NOW), Ok(()));
    let expired = policy.precheck(&ecdsa(&signature), Some(4_000_000_000));
    assert!(matches!(expired, Err(VerifyError::Expired { .. })));
    let weak = Request {
        kind: "sig-sha1-rsa",
        ..ecdsa(&signature)
    };
    assert!(matches!(
        policy.precheck(&weak, NOW),
        Err(VerifyError::Weak(_))
    ));
}

#[test]
fn a_certificate_that_may_not_sign_code_is_not_taken() {
    let rows: [(&str, String, &str); 7] = [
        (
            "key usage",
            pair(|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]).0,
            "digitalSignature",
        ),
        (
            "extended key usage",
            pair(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]).0,
            "codeSigning",
        ),
        (
            "another curve",
            certificate(
                &KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
                |_| {},
            ),
            "another curve",
        ),
        (
            "another algorithm",
            certificate(
                &KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
                |_| {},
            ),
            "only P-256 and RSA",
        ),
        (
            "small RSA key",
            include_str!("../vectors/openssl-rsa1024.pem").to_owned(),
            "1024 bits",
        ),
        (
            "two certificates",
            format!("{OPENSSL_P256}{OPENSSL_RSA2048}"),
            "2 PEM certificates",
        ),
        (
            "private key beside it",
            format!(
                "{OPENSSL_P256}{}",
                KeyPair::generate().unwrap().serialize_pem()
            ),
            "private key",
        ),
    ];
    for (name, pem, word) in rows {
        let refused = Certificate::from_pem("bad", &pem).unwrap_err().to_string();
        assert!(refused.contains(word), "{name}: {refused}");
    }
}

#[test]
fn a_certificate_without_usage_extensions_is_taken_and_text_round_it_ignored() {
    let (pem, _) = pair(|p| {
        p.key_usages.clear();
        p.extended_key_usages.clear();
    });
    let dressed = format!("Subject: CN=signer\n\n{pem}\nthat was it\n");
    Certificate::from_pem("plain", &dressed).unwrap();
}

#[test]
fn what_is_no_certificate_is_an_error_and_never_a_panic() {
    let begin = "-----BEGIN CERTIFICATE-----";
    let end = "-----END CERTIFICATE-----";
    let mut rows: Vec<String> = vec![
        String::new(),
        begin.into(),
        format!("{begin}{end}"),
        format!("{begin}\n{end}\n"),
        format!("{begin}\nAAAA\n{end}\n"),
        format!("{end}\n{begin}\n"),
        format!("{begin}\nnot base64 !\n{end}\n"),
    ];
    // A certificate that was cut off somewhere.
    rows.extend(
        (0..OPENSSL_P256.len())
            .step_by(37)
            .map(|n| OPENSSL_P256[..n].to_owned()),
    );
    for pem in rows {
        assert!(Certificate::from_pem("bad", &pem).is_err(), "{pem}");
    }
}

#[test]
fn a_directory_is_loaded_by_ending_and_named_by_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("vendor-2026.pem"), OPENSSL_P256).unwrap();
    fs::write(path.join("partner.crt"), OPENSSL_RSA2048).unwrap();
    fs::write(path.join("README"), "not read").unwrap();
    let store = TrustStore::load(path).unwrap();
    let names: Vec<&str> = store.entries().map(Certificate::entry).collect();
    assert_eq!(names, ["partner", "vendor-2026"]);
}

#[test]
fn one_bad_file_refuses_the_directory_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("good.pem"), OPENSSL_P256).unwrap();
    fs::write(path.join("bad.pem"), "nothing").unwrap();
    let refused = TrustStore::load(path).unwrap_err().to_string();
    assert!(refused.contains("`bad`"), "{refused}");
    let file = path.join("bad.pem").display().to_string();
    assert!(refused.contains(&file), "{refused}");
    fs::write(path.join("bad.pem"), vec![b' '; 64 * 1024 + 1]).unwrap();
    let refused = TrustStore::load(path).unwrap_err();
    assert!(matches!(refused, TrustError::Limit { found: 65_537, .. }));
    fs::rename(path.join("bad.pem"), path.join("good.crt")).unwrap();
    fs::write(path.join("good.crt"), OPENSSL_P256).unwrap();
    let refused = TrustStore::load(path).unwrap_err();
    assert!(matches!(refused, TrustError::Duplicate(name) if name == "good"));
}

#[test]
fn a_directory_or_file_that_others_may_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let file = path.join("good.pem");
    fs::write(&file, OPENSSL_P256).unwrap();
    for (victim, mode) in [
        (file.as_path(), 0o646),
        (file.as_path(), 0o664),
        (path, 0o757),
        (path, 0o775),
    ] {
        let before = fs::metadata(victim).unwrap().permissions();
        fs::set_permissions(victim, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(
            TrustStore::load(path),
            Err(TrustError::Writable { path, .. }) if path == victim
        ));
        fs::set_permissions(victim, before).unwrap();
    }
    TrustStore::load(path).unwrap();
}

#[test]
fn the_store_takes_its_limit_and_not_one_more() {
    let mut store = TrustStore::default();
    for n in 0..ENTRIES_MAX {
        store.add(&format!("entry-{n}"), OPENSSL_P256).unwrap();
    }
    assert!(matches!(
        store.add("one-more", OPENSSL_P256),
        Err(TrustError::Limit { .. })
    ));
}

#[test]
fn a_label_must_point_at_an_entry() {
    let refused = TrustPolicy::new(TrustStore::default()).label("a", "nowhere");
    assert!(matches!(refused, Err(TrustError::NoEntry { .. })));
    let refused = TrustPolicy::new(TrustStore::default()).default_entry("nowhere");
    assert!(matches!(refused, Err(TrustError::NoEntry { .. })));
}

#[test]
fn a_signing_key_is_read_as_pkcs8_and_as_sec1_and_signs_the_same() {
    use p256::pkcs8::{EncodePrivateKey, LineEnding};
    let secret = p256::SecretKey::from_slice(&[7; 32]).unwrap();
    let pkcs8 = secret.to_pkcs8_pem(LineEnding::LF).unwrap();
    let sec1 = secret.to_sec1_pem(LineEnding::LF).unwrap();
    // As `openssl ecparam -genkey` writes it.
    let with_parameters = format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
        sec1.as_str()
    );
    let signatures: Vec<Vec<u8>> = [pkcs8.as_str(), sec1.as_str(), &with_parameters]
        .map(|pem| {
            SigningKey::from_pem(pem)
                .unwrap()
                .sign(&hashed(IMAGE))
                .unwrap()
        })
        .into();
    assert_eq!(signatures[0], signatures[1]);
    assert_eq!(signatures[0], signatures[2]);
}

#[test]
fn what_is_no_signing_key_is_refused_with_its_reason() {
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(matches!(
        SigningKey::from_pem(&p384.serialize_pem()),
        Err(SigningError::Unreadable(_))
    ));
    assert!(matches!(
        SigningKey::from_pem(OPENSSL_P256),
        Err(SigningError::Unreadable(_))
    ));
    assert!(matches!(
        SigningKey::from_pem(encrypted),
        Err(SigningError::Encrypted)
    ));
}

#[test]
fn a_stream_is_signed_as_its_bytes_are() {
    let (pem, key) = pair(|_| {});
    let key = SigningKey::from_pem(&key.serialize_pem()).unwrap();
    let image: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let (streamed, signature) = key.sign_stream(image.as_slice()).unwrap();
    assert_eq!(streamed, hashed(&image));
    policy(&pem)
        .verify(&streamed, &ecdsa(&signature), NOW)
        .unwrap();
}

#[test]
fn a_key_knows_its_certificate() {
    let (pem, key) = pair(|_| {});
    let key = SigningKey::from_pem(&key.serialize_pem()).unwrap();
    let own = Certificate::from_pem("own", &pem).unwrap();
    let other = Certificate::from_pem("other", OPENSSL_P256).unwrap();
    assert_eq!(key.check_pair(&own), Ok(()));
    assert_eq!(
        key.check_pair(&other),
        Err(SigningError::NotAPair("other".into()))
    );
}

#[test]
fn the_numbers_of_the_errors_are_frozen() {
    let text = String::new;
    let rows = [
        (VerifyError::Missing, 0xe3, 1),
        (VerifyError::Weak(text()), 0xe3, 2),
        (VerifyError::UnknownKind(text()), 0xe3, 3),
        (
            VerifyError::Malformed {
                kind: "",
                length: 0,
                reason: text(),
            },
            0xe3,
            4,
        ),
        (VerifyError::Mismatch { entry: text() }, 0xe3, 5),
        (
            VerifyError::WrongKey {
                kind: "",
                key: "",
                entry: text(),
            },
            0xe3,
            6,
        ),
        (VerifyError::UnknownLabel(text()), 0xe7, 7),
        (VerifyError::NoDefault, 0xe7, 8),
        (
            VerifyError::Expired {
                entry: text(),
                not_after: 0,
                now: 0,
            },
            0xe7,
            9,
        ),
        (
            VerifyError::NotYetValid {
                entry: text(),
                not_before: 0,
                now: 0,
            },
            0xe7,
            10,
        ),
    ];
    for (error, main, sub) in rows {
        assert_eq!((error.main(), error.sub()), (main, sub), "{error:?}");
    }
}
