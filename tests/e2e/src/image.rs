//! Images: programs with a trailer, and bytes that are none.

use host_runtime::target::trailer::{TRAILER_BYTES, Trailer};
use host_runtime::types::Version;

/// A shell script of `size` bytes in all, with a trailer that says its version. It runs `body` and ends.
///
/// # Panics
/// If the script does not fit, or the version is none.
#[must_use]
pub fn program(version: &str, body: &str, size: usize) -> Vec<u8> {
    for_product(version, "", body, size)
}

/// The same, for a product.
///
/// # Panics
/// As [`program`].
#[must_use]
pub fn for_product(version: &str, product: &str, body: &str, size: usize) -> Vec<u8> {
    let mut bytes = format!("#!/bin/sh\n{body}\nexit\n").into_bytes();
    let payload = size.checked_sub(TRAILER_BYTES).unwrap();
    assert!(bytes.len() <= payload, "{} bytes do not fit", bytes.len());
    // Behind `exit` a shell reads nothing; no two blocks are alike.
    let seed = version
        .bytes()
        .fold(7, |sum: u64, b| sum * 31 + u64::from(b));
    let rest = payload - bytes.len();
    bytes.extend(support::image::random_bytes(seed, rest));
    let trailer = Trailer {
        version: parse(version),
        product: product.to_owned(),
        hardware: String::new(),
        payload_bytes: payload as u64,
    };
    bytes.extend(trailer.encode().unwrap());
    bytes
}

fn parse(version: &str) -> Version {
    let parts: Vec<u16> = version.split('.').map(|p| p.parse().unwrap()).collect();
    let [major, minor, revision] = parts[..] else {
        panic!("{version} is no version");
    };
    Version {
        major: major.try_into().unwrap(),
        minor: minor.try_into().unwrap(),
        revision,
        build: 0,
    }
}
