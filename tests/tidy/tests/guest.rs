//! The shipped components as files: how big they are, and that they name no machine.

use guest_artifacts::GUESTS;
use support::markdown;
use tidy::{source, tree};

/// Most bytes of each shipped component. For the agent it is what is promised (agent-guest/README.md has a table of where
/// the bytes went). A plugin's limit is its measured size and a fifth more, so that growth is noticed before it is large.
const SIZE_MAX_BYTES: &[(&str, usize)] = &[
    ("agent", 96 * 1024),
    // Its size is nobody's concern but for a limit.
    ("agent-simple", 320 * 1024),
    ("pal-flash-file", 80 * 1024),
    ("pal-serial-mcu", 192 * 1024),
];

#[test]
fn every_component_has_a_size_limit_and_keeps_it() {
    for guest in GUESTS {
        let limit = SIZE_MAX_BYTES.iter().find(|(name, _)| *name == guest.name);
        let (_, limit) =
            limit.unwrap_or_else(|| panic!("{} has no size limit; give it one", guest.name));
        let size = guest.bytes.len();
        assert!(
            size <= *limit,
            "{} has {size} bytes, at most {limit} are allowed",
            guest.name
        );
    }
    for (name, _) in SIZE_MAX_BYTES {
        assert!(
            GUESTS.iter().any(|guest| guest.name == *name),
            "{name} is not shipped"
        );
    }
}

/// The README's table is of one build; small changes need no new one.
#[test]
fn the_agents_size_is_published_with_its_parts() {
    let readme = std::fs::read_to_string(tree::top().join("agent-wasm/agent-guest/README.md"));
    let rows = markdown::table(&readme.unwrap(), "agent-size").unwrap();
    let bytes: Vec<usize> = rows
        .iter()
        .map(|row| row[1].replace(',', "").parse().unwrap())
        .collect();
    let (total, parts) = bytes.split_last().unwrap();
    assert_eq!(parts.iter().sum::<usize>(), *total);
    let agent = GUESTS
        .iter()
        .find(|guest| guest.name == "agent")
        .unwrap()
        .bytes
        .len();
    assert!(
        agent.abs_diff(*total) <= agent / 100,
        "agent.wasm has {agent} bytes, not {total}"
    );
}

#[test]
fn no_component_names_a_path_of_one_machine() {
    for guest in GUESTS {
        assert_eq!(
            source::machine_path_in_bytes(guest.bytes),
            None,
            "{}",
            guest.name
        );
    }
}
