//! The shipped components against the text of the contract.

use guest_artifacts::GUESTS;
use versioning::component;
use versioning::contract::{Package, Surface};

/// The world of a shipped component, by its name: plugins are called `pal-…`.
fn world_of(name: &str) -> Surface {
    let (package, world) = if name.starts_with("pal-") {
        ("pal", "plugin")
    } else {
        ("agent", "agent")
    };
    let package = Package::read(&versioning::wit().join(package)).expect("the package parses");
    package.surface(world).expect("the world exists")
}

#[test]
fn every_shipped_component_keeps_to_its_world() {
    assert!(!GUESTS.is_empty());
    for guest in GUESTS {
        let surface = component::surface(guest.bytes).unwrap();
        assert_eq!(
            component::violations(&surface, &world_of(guest.name)),
            Vec::<String>::new(),
            "{}",
            guest.name
        );
    }
}

#[test]
fn a_shipped_component_with_one_import_of_wasi_would_be_found() {
    for guest in GUESTS {
        let world = world_of(guest.name);
        let name = component::surface(guest.bytes)
            .unwrap()
            .imports
            .pop_last()
            .unwrap();
        // The same length, so that the bytes stay a component.
        let planted = format!("wasi:{}", &name[5..]);
        let bytes = replace(guest.bytes, name.as_bytes(), planted.as_bytes());
        let found = component::violations(&component::surface(&bytes).unwrap(), &world);
        assert_eq!(
            found,
            [format!("imports {planted}; no WASI is offered")],
            "{}",
            guest.name
        );
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = bytes.to_vec();
    let mut index = 0;
    while index + from.len() <= replaced.len() {
        if &replaced[index..index + from.len()] == from {
            replaced[index..index + from.len()].copy_from_slice(to);
        }
        index += 1;
    }
    replaced
}
