//! What every shipped guest must be, whatever it does. Sizes and imports are judged in `tests/tidy`.

use sha2::{Digest, Sha256};

use super::GUESTS;

#[test]
fn every_guest_is_a_component_with_its_digest() {
    assert!(!GUESTS.is_empty());
    for guest in GUESTS {
        assert_eq!(&guest.bytes[..8], b"\0asm\x0d\0\x01\0", "{}", guest.name);
        assert_eq!(
            Sha256::digest(guest.bytes).as_slice(),
            guest.sha256,
            "{}",
            guest.name
        );
    }
}

#[test]
fn no_guest_names_a_directory_of_this_machine() {
    let mut places = vec![env!("CARGO_MANIFEST_DIR").replace("/host/guest-artifacts", "")];
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME"] {
        places.extend(std::env::var(name).ok().filter(|place| place.len() > 1));
    }
    for guest in GUESTS {
        for place in &places {
            let found = guest
                .bytes
                .windows(place.len())
                .any(|window| window == place.as_bytes());
            assert!(!found, "{} contains {place}", guest.name);
        }
    }
}

#[test]
fn no_guest_imports_wasi() {
    for guest in GUESTS {
        let found = guest.bytes.windows(5).any(|window| window == b"wasi:");
        assert!(!found, "{}", guest.name);
    }
}
