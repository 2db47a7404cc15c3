//! Hashing and signatures of host-crypto, to what `openssl speed` of this machine does with the same.
//!
//! `openssl speed`, because `openssl dgst` of one small signature is the start of a process and nothing else, and the
//! `openssl` crate would bring a second TLS library into the tree for one figure. Both sides count processor time.

use std::process::Command;
use std::time::Duration;

use host_crypto::{Hasher, Request, TrustPolicy, TrustStore};
use support::usage::of_this_thread;

use crate::figure::{Figure, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};

/// The row.
pub const ROW: Row = Row {
    name: "crypto",
    about: "SHA-256, ECDSA P-256 and RSA-2048 of host-crypto, to `openssl speed`",
    sample,
};

/// Bytes that are hashed.
const HASHED_BYTES: usize = 64 << 20;

/// Bytes that are hashed at once, on both sides.
const PIECE_BYTES: usize = 64 << 10;

/// How long signatures are checked, as openssl does.
const CHECKED: Duration = Duration::from_secs(1);

const IMAGE: &[u8] = include_bytes!("../../../../host/host-crypto/vectors/image.txt");

/// A certificate, what is signed with it, and a signature.
struct Vector {
    name: &'static str,
    kind: &'static str,
    /// As `openssl speed` calls it.
    algorithm: &'static str,
    certificate: &'static str,
    signature: &'static [u8],
}

const VECTORS: [Vector; 2] = [
    Vector {
        name: "ECDSA P-256, verify",
        kind: "sig-sha256-ecdsa",
        algorithm: "ecdsap256",
        certificate: include_str!("../../../../host/host-crypto/vectors/openssl-p256.pem"),
        signature: include_bytes!("../../../../host/host-crypto/vectors/openssl-p256.low-s.sig"),
    },
    Vector {
        name: "RSA-2048, verify",
        kind: "sig-sha256-rsa",
        algorithm: "rsa2048",
        certificate: include_str!("../../../../host/host-crypto/vectors/openssl-rsa2048.pem"),
        signature: include_bytes!("../../../../host/host-crypto/vectors/openssl-rsa2048.sig"),
    },
];

fn sample(_: &Rig, turn: Turn) -> Sample {
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let (ours, theirs) = turn.both(hash, || {
        let piece = PIECE_BYTES.to_string();
        openssl(&["-bytes", &piece, "-evp", "sha256"], |line| {
            line.strip_prefix("+F:")?.split(':').next_back()
        })
    })?;
    let mut taken = vec![Figure::rate("SHA-256", "MiB/s").taken(mib(ours), mib(theirs))];
    for vector in VECTORS {
        let (ours, theirs) = turn.both(
            || verify(&vector),
            || openssl(&[vector.algorithm], verified),
        )?;
        taken.push(Figure::rate(vector.name, "1/s").taken(ours, theirs));
    }
    Ok(taken)
}

/// How many signatures are checked in a second, by a line on RSA or ECDSA: behind its tag number, bits, signed, verified. Of
/// RSA, openssl 3.2 and later also say encrypted and decrypted.
fn verified(line: &str) -> Option<&str> {
    let fields = line.strip_prefix("+F2:");
    let fields = fields.or_else(|| line.strip_prefix("+F4:"))?;
    fields.split(':').nth(3)
}

fn spent() -> Result<Duration, Untaken> {
    of_this_thread().map_err(|error| Untaken::by("own processor time", &error))
}

/// Bytes a second.
fn hash() -> Result<f64, Untaken> {
    let piece = vec![7; PIECE_BYTES];
    let mut hasher = Hasher::default();
    let before = spent()?;
    while hasher.size() < HASHED_BYTES as u64 {
        hasher.update(&piece);
    }
    let hashed = hasher.finish();
    Ok(hashed.size() as f64 / (spent()? - before).as_secs_f64())
}

/// Checks a second.
fn verify(vector: &Vector) -> Result<f64, Untaken> {
    let failed = |error: &dyn std::error::Error| Untaken::by(vector.name, error);
    let mut store = TrustStore::default();
    let added = store.add("vector", vector.certificate);
    added.map_err(|error| failed(&error))?;
    let policy = TrustPolicy::new(store).default_entry("vector");
    let policy = policy.map_err(|error| failed(&error))?;
    let mut hasher = Hasher::default();
    hasher.update(IMAGE);
    let hashed = hasher.finish();
    let request = Request {
        kind: vector.kind,
        signature: vector.signature,
        label: "",
    };
    let before = spent()?;
    let mut count = 0.0;
    loop {
        let verified = policy.verify(&hashed, &request, None);
        verified.map_err(|error| failed(&error))?;
        count += 1.0;
        let spent = spent()? - before;
        if spent >= CHECKED {
            return Ok(count / spent.as_secs_f64());
        }
    }
}

/// The first number that `pick` finds in a line of `openssl speed`.
fn openssl(what: &[&str], pick: fn(&str) -> Option<&str>) -> Result<f64, Untaken> {
    let mut command = Command::new("openssl");
    command.args(["speed", "-mr", "-seconds", "1"]).args(what);
    let output = command.output();
    let output = output.map_err(|error| Untaken::by("running `openssl speed`", &error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text
        .lines()
        .filter_map(pick)
        .find_map(|field| field.trim().parse().ok());
    number.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().next_back().unwrap_or_default();
        Untaken::because(format!(
            "`openssl speed {}` gave no figure: {last}",
            what.join(" ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_of_checks_is_found_in_lines_of_each_age() {
        let check = |line: &str, expected: Option<&str>| assert_eq!(verified(line), expected);
        check("+F2:2:2048:3662.5:66322.2", Some("66322.2"));
        check("+F2:2:2048:3662.5:66322.2:58001.1:3590.4", Some("66322.2"));
        check("+F4:3:256:55019.0:16777.2", Some("16777.2"));
        check("+F:22:sha256:1503238553.6", None);
        check("+R2:3662:2048:1.00", None);
    }

    #[test]
    fn an_answer_without_a_figure_is_a_reason() {
        let said = openssl(&["no-such-algorithm"], |_| None).unwrap_err();
        let text = said.to_string();
        assert!(text.contains("openssl speed"), "{text}");
    }
}
