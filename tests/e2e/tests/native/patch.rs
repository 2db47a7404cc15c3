//! Updates whose files are patches: `patch.c` applies one to the image that runs, and takes none that is for another.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::fs;

use e2e::hostile::{LIBRARY, cc, source};
use e2e::{Cloud, Daemon, Gateway};
use sha2::{Digest as _, Sha256};

use super::update::{THING, board, file};

/// Bytes of an image, of which a patch brings a few.
const IMAGE_BYTES: usize = 300_000;

/// What [`patch`] makes of an image: the middle is another.
fn next(image: &[u8]) -> Vec<u8> {
    [&image[..100_000], b"a new middle", &image[150_000..]].concat()
}

/// A patch in the form of `patch.c` that makes [`next`] of `base`.
fn patch(base: &[u8]) -> Vec<u8> {
    let copy = |offset: u32, length: u32| {
        let numbers = [offset, length].map(u32::to_le_bytes);
        [&b"C"[..], &numbers.concat()].concat()
    };
    let middle = b"a new middle";
    let insert = [b"I", &(middle.len() as u32).to_le_bytes()[..], middle].concat();
    [
        &b"PATCH-1\n"[..],
        &Sha256::digest(base),
        &Sha256::digest(next(base)),
        &copy(0, 100_000),
        &insert,
        &copy(150_000, base.len() as u32 - 150_000),
    ]
    .concat()
}

fn start(cloud: &Cloud, image: &[u8]) -> (Gateway, Daemon) {
    let gateway = board(cloud, "[device.target.settings]\n");
    cc(&gateway.path("pal.so"), &[source("patch.c")], LIBRARY);
    fs::write(gateway.path("pal/image"), image).unwrap();
    let daemon = gateway.run();
    (gateway, daemon)
}

#[test]
fn a_patch_is_applied_to_the_image_that_runs() {
    let cloud = Cloud::start();
    let image = support::image::random_bytes(21, IMAGE_BYTES);
    let (gateway, daemon) = start(&cloud, &image);
    let patch = patch(&image);
    assert!(patch.len() < 200);
    let ended = cloud.wait_end(&cloud.update(THING, file(&patch)));
    assert_eq!(ended.status, "SUCCEEDED", "{ended:?}\n{}", daemon.log());
    assert_eq!(fs::read(gateway.path("pal/image")).unwrap(), next(&image));
    assert!(!gateway.path("pal/old").exists());
    daemon.stop();
}

#[test]
fn a_patch_for_another_image_or_one_that_makes_another_changes_nothing() {
    let cloud = Cloud::start();
    let image = support::image::random_bytes(22, IMAGE_BYTES);
    let (gateway, daemon) = start(&cloud, &image);
    let other = support::image::random_bytes(23, IMAGE_BYTES);
    let mut broken = patch(&image);
    *broken.last_mut().unwrap() ^= 1;
    let mut lies = patch(&image);
    lies[8 + 32] ^= 1;
    for (patch, why) in [
        (patch(&other), "another image than the one that runs"),
        (broken, "leads out of its base"),
        (lies, "not the image that it names"),
        (vec![7; 1000], "no patch"),
    ] {
        let ended = cloud.wait_end(&cloud.update(THING, file(&patch)));
        assert_eq!(ended.status, "FAILED", "{ended:?}\n{}", daemon.log());
        daemon.wait_said(why);
        assert_eq!(fs::read(gateway.path("pal/image")).unwrap(), image);
        assert!(!gateway.path("pal/next").exists());
    }
    daemon.stop();
}
