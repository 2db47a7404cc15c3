//! When lent storage may be written, and when not: every rule, tried by a plugin that tries.

use super::double::{RECORD, SLOT_A, SLOT_B};
use super::world::{FILE, Setup, World};
use crate::types::{Outcome, code};

/// Regions by number: tries is lent read-only.
const TRIES: u32 = 3;

/// Run a whole update with a plugin that writes to (region, offset) before each verb; what came of it by verb.
fn scribbles(region: u32, offset: u64) -> Vec<(&'static str, Option<u8>)> {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    {
        let mut truth = world.truth.lock().unwrap();
        for verb in [
            "open",
            "create",
            "write-block",
            "state",
            "install",
            "activate",
            "reset",
            "self-test",
            "commit",
            "reject",
            "abort",
            "reopen",
        ] {
            truth.scribble.insert(verb, (region, offset));
        }
    }
    // An aborted transfer first, so that `abort` is seen; `reject` comes last.
    world.create("job-0", &image);
    assert_eq!(world.abort(), Outcome::Nothing);
    world.create("job-1", &image);
    world.restart();
    world.reopen("job-1");
    world.write_all(&image);
    if matches!(world.close(), Outcome::Verified(_)) {
        world.install();
        world.activate();
        world.reset();
        world.self_test();
        world.reject();
        world.commit();
    }
    let scribbled = world.truth.lock().unwrap().scribbled.clone();
    let mut by_verb: Vec<(&'static str, Option<u8>)> = Vec::new();
    for (verb, end) in scribbled {
        let end = end.err().map(|failure| failure.main);
        if !by_verb.contains(&(verb, end)) {
            by_verb.push((verb, end));
        }
    }
    by_verb.sort_unstable();
    by_verb
}

#[test]
fn the_slot_is_written_only_within_the_extents_from_create_to_close() {
    let refused = Some(code::BUSY);
    let ends = scribbles(SLOT_B, 0);
    for verb in [
        "open",
        "create",
        "install",
        "activate",
        "reset",
        "self-test",
        "abort",
    ] {
        let of_verb: Vec<_> = ends.iter().filter(|(v, _)| *v == verb).collect();
        // `abort` comes while the transfer still receives: what it writes is thrown away.
        let expected = if verb == "abort" { None } else { refused };
        assert_eq!(of_verb, [&(verb, expected)], "{verb}");
    }
    assert!(ends.contains(&("write-block", None)));
    // Beyond the 5128 bytes of the file, the same slot is closed at all times.
    for (verb, end) in scribbles(SLOT_B, 5125) {
        assert_eq!(end, refused, "{verb}");
    }
}

#[test]
fn the_slot_of_the_image_that_runs_is_never_written() {
    for (verb, end) in scribbles(SLOT_A, 0) {
        assert_eq!(end, Some(code::BUSY), "{verb}");
    }
}

#[test]
fn the_record_is_written_only_in_activate_and_what_follows_it() {
    let ends = scribbles(RECORD, 4096);
    for (verb, end) in &ends {
        let allowed = ["activate", "reset", "reject", "commit"].contains(verb);
        assert_eq!(
            *end,
            if allowed { None } else { Some(code::BUSY) },
            "{verb}"
        );
    }
    for verb in ["activate", "reset", "reject"] {
        assert!(ends.contains(&(verb, None)), "{verb}");
    }
}

#[test]
fn a_reset_or_reject_without_activate_does_not_open_the_record() {
    let mut world = World::direct();
    for verb in ["reset", "reject"] {
        world
            .truth
            .lock()
            .unwrap()
            .scribble
            .insert(verb, (RECORD, 4096));
    }
    world.reset();
    world.reject();
    world.deliver("job-1", &World::image(500, 2));
    world.install();
    world.reset();
    world.reject();
    let scribbled = world.truth.lock().unwrap().scribbled.clone();
    assert_eq!(scribbled.len(), 4);
    for (verb, end) in scribbled {
        assert_eq!(end.unwrap_err().main, code::BUSY, "{verb}");
    }
}

#[test]
fn a_region_that_is_lent_read_only_is_never_written() {
    for (verb, end) in scribbles(TRIES, 0) {
        assert_eq!(end, Some(code::BUSY), "{verb}");
    }
}

#[test]
fn storage_beyond_its_bounds_and_regions_that_are_not_there_are_bad_arguments() {
    for (region, offset) in [(SLOT_B, 1 << 20), (SLOT_B, u64::MAX), (4, 0), (u32::MAX, 0)] {
        for (verb, end) in scribbles(region, offset) {
            if verb == "open" {
                continue;
            }
            assert_eq!(end, Some(code::BAD_ARGUMENT), "{verb} {region} {offset}");
        }
    }
}

#[test]
fn after_a_restart_the_slot_is_locked_until_reopen_and_for_ever_once_closed() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    for verb in ["state", "reopen", "install"] {
        world
            .truth
            .lock()
            .unwrap()
            .scribble
            .insert(verb, (SLOT_B, 0));
    }
    world.create("job-1", &image);
    world.restart();
    world.state();
    world.reopen("job-1");
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    world.restart();
    world.state();
    world.reopen("job-1");
    world.close();
    world.install();
    let scribbled = world.truth.lock().unwrap().scribbled.clone();
    assert!(scribbled.len() >= 5);
    for (verb, end) in scribbled {
        // The very first question came before the transfer; everything else must not write either.
        assert_eq!(end.unwrap_err().main, code::BUSY, "{verb}");
    }
    assert_eq!(world.slots[1].contents(), image);
}

#[test]
fn a_plugin_that_moves_too_much_in_one_call_is_stopped() {
    let mut world = World::new(Setup {
        limits: crate::target::Limits {
            call_bytes_max: 4096,
            ..crate::target::Limits::default()
        },
        ..Setup::default()
    });
    let image = World::image(500, 2);
    world.create("job-1", &image);
    // Two halves of the account in one call: the double's own read of its record and then the block.
    let mut spec = world.spec("job-2", &vec![7; 8192]);
    spec.block_size = 8192;
    assert_eq!(
        world.run(|t, _, token| t.create(token, spec)),
        Outcome::Nothing
    );
    let end = world.run(|t, now, token| t.write_block(now, token, FILE, 0, &[7; 8192]));
    let Outcome::Failed(failure) = end else {
        panic!("it was taken");
    };
    assert_eq!(
        (failure.main, failure.sub),
        (code::LIMIT, crate::target::limit::PLUGIN_CALL_BYTES)
    );
}

#[test]
fn a_plugin_syncs_a_few_times_in_a_call_and_never_while_it_writes_blocks() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    let may = crate::target::Limits::default().call_syncs_max;
    for (verb, allowed) in [("create", may), ("write-block", 0), ("activate", may - 1)] {
        world.truth.lock().unwrap().syncs = Some(verb);
        match verb {
            "create" => assert_eq!(world.create("job-1", &image), Outcome::Nothing),
            "write-block" => {
                world.write_all(&image);
                assert!(matches!(world.close(), Outcome::Verified(_)));
                assert_eq!(world.install(), Outcome::Nothing);
            }
            _ => assert!(
                matches!(world.activate(), Outcome::Failed(_)),
                "its own sync was too much"
            ),
        }
        let mut truth = world.truth.lock().unwrap();
        let ends = std::mem::take(&mut truth.synced);
        let passed = ends.iter().filter(|end| end.is_ok()).count();
        if verb != "activate" {
            assert_eq!(passed, allowed as usize, "{verb}");
        }
        let last = ends.last().unwrap().clone().unwrap_err();
        assert_eq!(last.main, code::LIMIT);
    }
}
