//! What `create` refuses, and what it throws away.

use super::double::{Factory, Fault};
use super::medium::Cut;
use super::world::{FILE, Setup, World, main_of};
use crate::plugin::Extent;
use crate::target::{PathRule, TargetConfig, TargetError, Targets, VersionReader};
use crate::types::{Failure, FileSpec, Outcome, Started, TargetState, code};

/// The end of a create of a good specification after `change`.
fn create(change: impl FnOnce(&mut FileSpec)) -> Outcome {
    let mut world = World::direct();
    let mut spec = world.spec("job-1", &World::image(500, 2));
    change(&mut spec);
    world.run(|t, _, token| t.create(token, spec))
}

#[test]
fn a_specification_is_checked_field_by_field() {
    type Change = fn(&mut FileSpec);
    let rows: [(&str, Change, Option<u8>); 19] = [
        ("as it is", |_| {}, None),
        ("unknown file id", |s| s.file_id = 9, Some(0xd0)),
        ("empty job id", |s| s.job_id.clear(), Some(0xd0)),
        ("job id of 64", |s| s.job_id = "a".repeat(64), None),
        ("job id of 65", |s| s.job_id = "a".repeat(65), Some(0xd0)),
        (
            "job id with slash",
            |s| s.job_id = "../a".into(),
            Some(0xd0),
        ),
        ("no bytes", |s| s.size = 0, Some(0xd0)),
        ("block of 255", |s| s.block_size = 255, Some(0xd0)),
        ("block of 256", |s| s.block_size = 256, None),
        ("block of 131072", |s| s.block_size = 131_072, None),
        ("block of 131073", |s| s.block_size = 131_073, Some(0xd0)),
        ("too many blocks", |s| s.size = (1 << 30) + 1, Some(0xe5)),
        (
            "larger than the slot",
            |s| s.size = (1 << 20) + 1,
            Some(0xd5),
        ),
        ("absolute path", |s| s.path = "/etc/x".into(), Some(0xd0)),
        (
            "path that escapes",
            |s| s.path = "a/../../x".into(),
            Some(0xd0),
        ),
        (
            "signature too long",
            |s| s.signature = vec![0; 513],
            Some(0xd0),
        ),
        (
            "SHA-1",
            |s| s.signature_kind = "sig-sha1-rsa".into(),
            Some(0xe3),
        ),
        (
            "unknown label",
            |s| s.certificate = "nobody".into(),
            Some(0xe7),
        ),
        (
            "no signature",
            |s| {
                s.signature_kind.clear();
                s.signature.clear();
            },
            Some(0xe3),
        ),
    ];
    for (name, change, main) in rows {
        match (create(change), main) {
            (Outcome::Nothing, None) => {}
            (Outcome::Failed(failure), Some(main)) if failure.main == main => {}
            (end, _) => panic!("{name}: {end:?}"),
        }
    }
}

#[test]
fn a_listed_path_is_allowed_even_if_it_is_absolute() {
    let mut world = World::new(Setup {
        paths: PathRule {
            allowed: vec!["/opt/app".into()],
        },
        ..Setup::default()
    });
    let mut spec = world.spec("job-1", &World::image(500, 2));
    spec.path = "/opt/app".into();
    let end = world.run(|t, _, token| t.create(token, spec.clone()));
    assert_eq!(end, Outcome::Nothing);
    spec.path = "update.bin".into();
    let end = world.run(|t, _, token| t.create(token, spec));
    assert_eq!(main_of(&end), code::BAD_ARGUMENT);
}

#[test]
fn a_medium_without_room_for_the_image_says_so_before_a_block_comes() {
    const ENOSPC: i32 = 28;
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.slots[1].fail_to_reserve(Some(ENOSPC));
    let spec = world.spec("job-1", &image);
    let Outcome::Failed(failure) = world.run(|t, _, token| t.create(token, spec)) else {
        panic!("there is room");
    };
    assert_eq!((failure.main, failure.sub), (code::STORAGE, 28));
    assert!(failure.detail.contains("find room"), "{failure}");
    // With room the next one goes through.
    world.slots[1].fail_to_reserve(None);
    let spec = world.spec("job-2", &image);
    let end = world.run(|t, _, token| t.create(token, spec));
    assert_eq!(end, Outcome::Nothing);
}

#[test]
fn extents_that_a_plugin_must_not_name_are_refused_and_nothing_is_erased() {
    let extent = |region, offset, length| Extent {
        region,
        offset,
        length,
    };
    let size = World::image(500, 2).len() as u64;
    let half = size / 2;
    let rows: [(&str, Vec<Extent>, bool); 14] = [
        (
            "two halves in order",
            vec![extent(1, 4096, half), extent(1, 0, size - half)],
            true,
        ),
        ("none", vec![], false),
        ("too many", vec![extent(1, 0, 1); 65], false),
        ("too short", vec![extent(1, 0, size - 1)], false),
        ("too long", vec![extent(1, 0, size + 1)], false),
        (
            "an empty one",
            vec![extent(1, 0, size), extent(1, 5000, 0)],
            false,
        ),
        (
            "overlapping",
            vec![extent(1, 0, half), extent(1, half - 1, size - half)],
            false,
        ),
        (
            "a region that is not there",
            vec![extent(9, 0, size)],
            false,
        ),
        ("the record", vec![extent(2, 0, size)], false),
        ("read-only", vec![extent(3, 0, size)], false),
        (
            "beyond the region",
            vec![extent(1, (1 << 20) - 1, size)],
            false,
        ),
        (
            "an offset that overflows",
            vec![extent(1, u64::MAX, size)],
            false,
        ),
        (
            "lengths that overflow",
            vec![extent(1, 0, u64::MAX), extent(1, 1, u64::MAX)],
            false,
        ),
        (
            "the slot of the committed image",
            vec![extent(0, 0, size)],
            false,
        ),
    ];
    for (name, extents, good) in rows {
        let mut world = World::direct();
        // An update before, so that the host knows which slot holds the committed image: slot-b, then slot-a.
        for major in [2, 1] {
            world.deliver_and_start(&format!("before-{major}"), &World::image(300, major));
            assert_eq!(world.commit(), Outcome::Nothing);
        }
        let before = [0, 1].map(|n| world.slots[n].contents());
        world.truth.lock().unwrap().extents = Some(extents);
        let end = world.create("job-1", &World::image(500, 2));
        if good {
            assert_eq!(end, Outcome::Nothing, "{name}");
        } else {
            assert_eq!(main_of(&end), code::PLUGIN_FAILED, "{name}");
            assert_eq!([0, 1].map(|n| world.slots[n].contents()), before, "{name}");
        }
    }
}

#[test]
fn an_image_in_several_extents_is_read_back_in_the_order_of_the_file() {
    // The double writes to its slot at the file's offset: only the identity layout is right for it.
    let mut world = World::block_by_block();
    let image = World::image(4000, 2);
    let size = image.len() as u64;
    world.truth.lock().unwrap().extents = Some(vec![
        Extent {
            region: 1,
            offset: 0,
            length: 1500,
        },
        Extent {
            region: 1,
            offset: 1500,
            length: size - 1500,
        },
    ]);
    world.create("job-1", &image);
    // A block that crosses the border of two extents is not within one of them.
    let end = world.write_block(&image, 1);
    assert_eq!(main_of(&end), code::BAD_ARGUMENT);
    assert_eq!(world.write_block(&image, 0), Outcome::Nothing);
    assert_eq!(world.write_block(&image, 2), Outcome::Nothing);
}

#[test]
fn an_unfinished_transfer_of_an_older_job_is_thrown_away() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.create("old", &image);
    world.write_blocks(&image, 0..3);
    world.calls();
    assert_eq!(world.create("new", &image), Outcome::Nothing);
    assert!(world.calls().contains(&"abort".to_owned()));
    assert_eq!(main_of(&world.reopen("old")), code::NOT_FOUND);
    assert_eq!(world.targets.report()[0].held, 0);
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn while_an_image_is_armed_or_pending_nothing_is_created() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver("job-1", &image);
    world.install();
    world.activate();
    let next = World::image(500, 3);
    assert_eq!(
        main_of(&world.create("job-2", &next)),
        code::BAD_IMAGE_STATE
    );
    world.reset();
    assert_eq!(
        main_of(&world.create("job-2", &next)),
        code::BAD_IMAGE_STATE
    );
    world.power_cut();
    assert_eq!(
        main_of(&world.create("job-2", &next)),
        code::BAD_IMAGE_STATE
    );
    assert_eq!(world.phase(), "activated");
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.create("job-2", &next), Outcome::Nothing);
}

#[test]
fn an_image_that_went_back_makes_way_for_the_next_one() {
    let mut world = World::direct();
    world.truth.lock().unwrap().never_starts = true;
    world.deliver_and_start("job-1", &World::image(500, 2));
    assert_eq!(world.state_now().code, 3);
    world.truth.lock().unwrap().never_starts = false;
    assert_eq!(
        world.create("job-2", &World::image(600, 3)),
        Outcome::Nothing
    );
}

#[test]
fn what_the_target_says_decides_about_an_image_that_was_activated_before() {
    let say = |code, runs_new| TargetState {
        code,
        running: None,
        runs_new,
    };
    let rows = [
        ("silent", say(0, None), false),
        ("pending", say(1, Some(true)), false),
        ("the old one is valid", say(2, Some(false)), true),
        ("valid, cannot tell which", say(2, None), true),
        ("went back", say(3, Some(false)), true),
        ("refused and still running", say(3, Some(true)), false),
        ("armed", say(4, Some(false)), false),
        ("foreign", say(5, Some(false)), false),
        ("a code of the future", say(9, None), false),
    ];
    for (name, state, good) in rows {
        let mut world = World::direct();
        world.deliver_and_start("job-1", &World::image(500, 2));
        world.truth.lock().unwrap().state = Some(Ok(state));
        world
            .truth
            .lock()
            .unwrap()
            .boot(super::double::Record::default());
        let end = world.create("job-2", &World::image(500, 3));
        let refused = matches!(&end, Outcome::Failed(f) if f.main == code::BAD_IMAGE_STATE);
        assert_eq!(refused, !good, "{name}: {end:?}");
    }
}

#[test]
fn a_commit_whose_end_was_not_seen_still_protects_its_slot() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver_and_start("job-1", &image);
    // The plugin commits, and the host's record of it cannot be written.
    // Changes: the record says `committing`, the plugin writes and syncs its record, the record says `committed`.
    world.power.cut_at(3, Cut::Before);
    assert_eq!(main_of(&world.commit()), code::STORAGE);
    world.power_cut();
    assert_eq!(world.phase(), "committing");
    let say = |runs_new| {
        Some(Ok(TargetState {
            code: 2,
            running: None,
            runs_new,
        }))
    };
    for runs_new in [Some(true), None] {
        world.truth.lock().unwrap().state = say(runs_new);
        // A plugin that wants to overwrite what it has just committed.
        world.truth.lock().unwrap().extents = Some(vec![Extent {
            region: 1,
            offset: 0,
            length: image.len() as u64,
        }]);
        let end = world.create("job-2", &image);
        assert_eq!(main_of(&end), code::PLUGIN_FAILED, "{runs_new:?}: {end:?}");
        assert_eq!(world.slots[1].contents(), image);
    }
}

#[test]
fn an_unreachable_target_is_not_created_on() {
    let mut world = World::direct();
    let silent = Failure::new(code::UNREACHABLE, 0, "no answer");
    world.fault("state", Fault::Fail(1, silent.clone()));
    let end = world.create("job-1", &World::image(500, 2));
    assert_eq!(end, Outcome::Failed(silent));
    assert_eq!(world.phase(), "none");
}

#[test]
fn configurations_that_contradict_themselves_are_refused_by_name() {
    type Change = fn(&mut TargetConfig);
    let rows: [(&str, bool, Change); 9] = [
        ("1 to 64", false, |c| c.name.clear()),
        ("not configured", false, |c| c.regions.clear()),
        ("powers of two", false, |c| c.regions[0].erase_size = 3),
        ("two regions named", false, |c| {
            c.regions[1].name = "slot-a".into()
        }),
        ("version_from", false, |c| {
            c.version_from = VersionReader::None;
            c.product = Some("app".into());
        }),
        ("version_from", false, |c| {
            c.version_from = VersionReader::Plugin;
            c.hardware = Some("rev-b".into());
        }),
        ("staging", true, |c| c.staging = None),
        ("", true, |_| {}),
        ("", false, |c| c.version_from = VersionReader::Mcuboot),
    ];
    for (word, staged, change) in rows {
        let world = World::new(Setup {
            staged,
            ..Setup::default()
        });
        let mut config = world.config();
        change(&mut config);
        match Targets::new("gateway", vec![config], world.ports()) {
            Ok(_) => assert_eq!(word, ""),
            Err(TargetError::Config { reason, .. }) => {
                assert!(
                    !word.is_empty() && reason.contains(word),
                    "{word}: {reason}"
                );
            }
        }
    }
    let world = World::direct();
    let twins = Targets::new(
        "gateway",
        vec![world.config(), world.config()],
        world.ports(),
    );
    assert!(matches!(twins, Err(TargetError::Config { .. })));
}

#[test]
fn an_unknown_file_id_is_a_failure_everywhere() {
    let mut world = World::direct();
    let rows: [fn(&mut World) -> Outcome; 8] = [
        |w| w.run(|t, _, token| t.reopen(token, "j", FILE + 1)),
        |w| w.run(|t, now, token| t.write_block(now, token, FILE + 1, 0, &[0])),
        |w| w.run(|t, _, token| t.close(token, FILE + 1)),
        |w| w.run(|t, _, token| t.reset(token, FILE + 1)),
        |w| w.run(|t, _, token| t.commit(token, FILE + 1)),
        |w| w.run(|t, _, token| t.reject(token, FILE + 1)),
        |w| w.run(|t, _, token| t.state(token, FILE + 1)),
        |w| w.run(|t, _, token| t.abort(token, FILE + 1)),
    ];
    for call in rows {
        assert_eq!(main_of(&call(&mut world)), code::BAD_ARGUMENT);
    }
    assert_eq!(
        world.targets.verified(FILE + 1).unwrap_err().main,
        code::BAD_ARGUMENT
    );
}

#[test]
fn a_plugin_that_did_not_take_the_transfer_back_does_not_decide_about_its_commit() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver_and_start("job-1", &image);
    // The commit is written down and fails; then the new image goes down and the old one is back.
    let failure = Failure::new(0xec, 0, "not now");
    let fault = Fault::Fail(1, failure);
    world.fault("commit", fault);
    assert!(matches!(world.commit(), Outcome::Failed(_)));
    assert_eq!(world.phase(), "committing");
    world.truth.lock().unwrap().state = Some(Ok(TargetState {
        code: 2,
        running: None,
        runs_new: None,
    }));
    world.restart();
    let failure = Failure::new(code::STORAGE, 5, "one bad read");
    let fault = Fault::Fail(1, failure);
    world.fault("reopen", fault);
    let end = world.create("job-2", &World::image(600, 3));
    assert_eq!(main_of(&end), code::BAD_IMAGE_STATE);
    assert_eq!(world.phase(), "committing", "nothing was settled");
}

#[test]
fn a_target_that_cannot_go_back_is_updated_only_if_the_operator_says_so() {
    for allowed in [false, true] {
        let truth = std::sync::Arc::default();
        let mut world = World::new(Setup {
            plugin: Some(Factory::one_way(&truth)),
            allow_no_revert: allowed,
            ..Setup::default()
        });
        let end = world.create("job-1", &World::image(500, 2));
        if allowed {
            assert_eq!(end, Outcome::Nothing);
            continue;
        }
        assert_eq!(main_of(&end), code::NO_REVERT);
        assert_eq!(world.phase(), "none", "nothing was changed");
        assert!(truth.lock().unwrap().calls.is_empty());
    }
}

#[test]
fn who_asks_how_a_target_is_and_then_wants_something_of_it_does_so_with_one_instance() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.state_now();
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    let calls = world.calls();
    assert_eq!(calls.iter().filter(|call| *call == "open").count(), 1);
    assert_eq!(calls[..4], ["open", "state", "state", "create"]);
}

#[test]
fn an_instance_that_was_only_asked_goes_with_the_next_poll_or_an_abort() {
    let mut world = World::direct();
    world.state_now();
    assert_eq!(world.poll(), None);
    world.state_now();
    assert_eq!(world.calls(), ["open", "state", "open", "state"]);
    // There is nothing to be thrown away, and nobody is asked to do so.
    let aborted = world.start(|t, _, token| t.abort(token, FILE));
    assert_eq!(aborted, Started::Done(Outcome::Nothing));
    assert_eq!(world.calls(), [""; 0]);
    world.state_now();
    assert_eq!(world.calls(), ["open", "state"]);
}
