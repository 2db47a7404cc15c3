//! What vendors' first plugins do wrong: each ends, with the reason that is true, and leaves a target that can be used.

use std::sync::Arc;

use super::double::{Fault, RECORD, Record};
use super::swap::{Wrong, build, swap};
use super::world::{Setup, World, command, main_of};
use crate::plugin::Answer;
use crate::ports::state_dir::StateDir as _;
use crate::target::ResetPolicy;
use crate::types::{Failure, Outcome, TargetState, code};

/// PAL: commit failed.
const COMMIT_FAILED: u8 = 0xeb;

const NOTHING: Fault = Fault::Answer(Answer::Nothing);

/// A target that the host restarts.
fn restartable() -> World {
    let world = World::new(Setup {
        reset: Some(ResetPolicy::Command(command("reset"))),
        ..Setup::default()
    });
    world.truth.lock().unwrap().host_resets = true;
    world
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

/// What a target may say of itself.
fn says(code: u8, runs_new: Option<bool>) -> TargetState {
    TargetState {
        code,
        running: None,
        runs_new,
    }
}

fn strikes(world: &World) -> u32 {
    world.targets.report().remove(0).strikes
}

fn committed(world: &World) -> bool {
    world.targets.report().remove(0).committed.is_some()
}

#[test]
fn a_commit_that_the_target_does_not_confirm_fails_and_the_image_can_go_back() {
    let mut world = restartable();
    world.deliver_and_start("job-1", &World::image(500, 2));
    world.fault("commit", NOTHING);
    for _ in 0..2 {
        let failure = failed(world.commit());
        assert_eq!((failure.main, failure.sub), (COMMIT_FAILED, 1), "{failure}");
        assert_eq!(
            (world.phase(), committed(&world)),
            ("committing".into(), false)
        );
    }
    assert_eq!(world.state_now().code, 1);
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(world.truth.lock().unwrap().running, 0);
    world.truth.lock().unwrap().faults.clear();
    world.deliver_and_start("job-2", &World::image(700, 3));
    assert_eq!(world.commit(), Outcome::Nothing);
    assert!(committed(&world));
}

#[test]
fn what_the_target_says_after_its_commit_decides() {
    // What it says, and whether the commit holds.
    let rows = [
        (says(0, None), true),
        (says(1, Some(true)), false),
        (says(1, None), false),
        (says(1, Some(false)), false),
        (says(2, Some(true)), true),
        (says(2, None), true),
        (says(2, Some(false)), false),
        (says(3, Some(false)), false),
        (says(4, Some(false)), false),
        (says(5, Some(false)), false),
    ];
    for (state, holds) in rows {
        let mut world = restartable();
        world.deliver_and_start("job-1", &World::image(500, 2));
        world.truth.lock().unwrap().state_then = Some(Ok(state));
        let end = world.commit();
        if holds {
            assert_eq!(end, Outcome::Nothing, "{state:?}");
        } else {
            let failure = failed(end);
            let expected = (COMMIT_FAILED, state.code.into());
            assert_eq!((failure.main, failure.sub), expected, "{failure}");
        }
        assert_eq!(committed(&world), holds, "{state:?}");
    }
    // One that does not answer has read back what it has committed.
    let mut world = restartable();
    world.deliver_and_start("job-1", &World::image(500, 2));
    let silent = Failure::new(code::UNREACHABLE, 0, "silent");
    world.truth.lock().unwrap().state_then = Some(Err(silent));
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.phase(), "committed");
}

#[test]
fn a_build_on_trial_that_has_not_committed_is_sent_back_and_the_former_commits() {
    let mut world = World::direct();
    world.deliver_and_start("job-1", &World::image(5000, 2));
    let next = build(&world, 2, Wrong::CommitsNothing);
    assert_eq!(swap(&mut world, &next), Ok(()));
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.phase(), "committed");
    assert!(next.called().contains(&"commit"));
    let report = world.targets.report().remove(0);
    assert!(report.plugin.contains("1.0.0"), "{}", report.plugin);
    assert_eq!((report.strikes, next.alive()), (0, 0));
    assert_eq!(world.state_now().code, 2);
}

#[test]
fn an_image_that_the_record_has_for_committed_goes_back_if_the_target_says_that_it_is_not() {
    for (restarts, state) in [
        (false, says(1, Some(true))),
        (true, says(1, Some(true))),
        (true, says(1, None)),
        (true, says(3, Some(true))),
        (true, says(3, Some(false))),
    ] {
        let mut world = restartable();
        let (truth, record) = (Arc::clone(&world.truth), Arc::clone(&world.record));
        world.programs.on_reset(move || {
            let mut truth = truth.lock().unwrap();
            truth.state = None;
            truth.boot(Record::decode(&record.contents()));
        });
        world.deliver_and_start("job-1", &World::image(500, 2));
        world.fault("commit", NOTHING);
        world.truth.lock().unwrap().state_then = Some(Ok(says(2, Some(true))));
        assert_eq!(world.commit(), Outcome::Nothing);
        world.truth.lock().unwrap().state = Some(Ok(state));
        if restarts {
            world.restart();
        }
        let was = ("committed".to_owned(), true);
        assert_eq!((world.phase(), committed(&world)), was);
        // That is written down before anything is done, or nothing is.
        world.state.fail_with(Some(28));
        assert_eq!(main_of(&world.reject()), code::STORAGE);
        assert_eq!((world.phase(), committed(&world)), was);
        world.state.fail_with(None);
        assert!(!world.calls().contains(&"reject".to_owned()));
        assert_eq!(world.reject(), Outcome::Nothing, "{state:?}");
        let is = ("rejected".to_owned(), false);
        assert_eq!((world.phase(), committed(&world)), is);
        assert_eq!(world.truth.lock().unwrap().running, 0);
        world.truth.lock().unwrap().faults.clear();
        world.deliver_and_start("job-2", &World::image(700, 3));
        assert_eq!(world.commit(), Outcome::Nothing);
    }
}

#[test]
fn an_image_that_is_committed_or_that_nobody_speaks_of_stays() {
    for state in [
        says(0, None),
        says(2, Some(true)),
        says(2, None),
        says(2, Some(false)),
    ] {
        let mut world = restartable();
        world.deliver_and_start("job-1", &World::image(500, 2));
        assert_eq!(world.commit(), Outcome::Nothing);
        world.truth.lock().unwrap().state = Some(Ok(state));
        assert_eq!(main_of(&world.reject()), code::BAD_IMAGE_STATE, "{state:?}");
        assert_eq!(world.phase(), "committed");
        assert!(committed(&world));
        assert!(!world.calls().contains(&"reject".to_owned()));
    }
}

#[test]
fn what_another_image_is_in_test_for_is_taken_back_and_the_committed_one_stays() {
    for state in [
        says(1, Some(false)),
        says(3, None),
        says(4, Some(false)),
        says(5, Some(false)),
    ] {
        let mut world = restartable();
        world.deliver_and_start("job-1", &World::image(500, 2));
        assert_eq!(world.commit(), Outcome::Nothing);
        world.truth.lock().unwrap().state = Some(Ok(state));
        world.fault("reject", NOTHING);
        assert_eq!(world.reject(), Outcome::Nothing, "{state:?}");
        assert_eq!(
            (world.phase(), committed(&world)),
            ("committed".to_owned(), true)
        );
        assert!(world.calls().contains(&"reject".to_owned()));
    }
}

#[test]
fn a_plugin_that_writes_where_it_may_not_fails_with_that_reason_at_once() {
    let image = World::image(5000, 2);
    let told = "may not be written now: a slot is written only within the transfer's extents";
    for gathers in [true, false] {
        let mut world = World::new(Setup {
            largest_write: Some(if gathers { 4096 } else { 1024 }),
            ..Setup::default()
        });
        world.setup.plugin = Some(build(&world, 2, Wrong::WritesOutside) as _);
        world.restart();
        assert_eq!(world.create("job-1", &image), Outcome::Nothing);
        let first = world.write_block(&image, 0);
        world.poll();
        let failure = failed(if gathers { world.close() } else { first });
        assert_eq!((failure.main, failure.sub), (code::BAD_ARGUMENT, 0));
        assert!(failure.detail.contains(told), "{failure}");
        assert!(
            failure.detail.contains("6 bytes at 0 of `slot-a`"),
            "{failure}"
        );
        assert_eq!(world.targets.report().remove(0).strikes, 0);
        assert_eq!(world.abort(), Outcome::Nothing);
    }
}

#[test]
fn a_build_on_trial_that_writes_where_it_may_not_is_sent_back_and_no_block_is_lost() {
    for proved in [false, true] {
        let mut world = World::direct();
        let image = World::image(5000, 2);
        let next = build(&world, 2, Wrong::WritesOutside);
        if proved {
            assert_eq!(swap(&mut world, &next), Ok(()));
            assert_eq!(world.create("job-1", &image), Outcome::Nothing);
        } else {
            assert_eq!(world.create("job-1", &image), Outcome::Nothing);
            assert_eq!(swap(&mut world, &next), Ok(()));
        }
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)));
        let build = world.targets.report().remove(0).build;
        assert_eq!(build.label, "test:double");
        let refused = build.refused.unwrap();
        assert!(refused.contains("may not be written now"), "{refused}");
    }
}

#[test]
fn a_plugin_that_marks_too_early_is_not_busy() {
    for verb in ["create", "install", "state"] {
        let mut world = World::direct();
        let image = World::image(500, 2);
        world.truth.lock().unwrap().insists = Some((verb, RECORD));
        let end = match verb {
            "create" => world.create("job-1", &image),
            "state" => world.state(),
            _ => {
                world.deliver("job-1", &image);
                world.install()
            }
        };
        let failure = failed(end);
        assert_eq!(failure.main, code::BAD_ARGUMENT, "{verb}: {failure}");
        assert!(
            failure.detail.contains("a record is written only in"),
            "{failure}"
        );
    }
}

#[test]
fn a_plugin_that_breaks_over_what_it_saves_is_asked_for_it_once_a_transfer() {
    for staged in [false, true] {
        let mut world = World::new(Setup {
            staged,
            ..Setup::default()
        });
        world.truth.lock().unwrap().breaks_over_saved = true;
        for (job, version) in [("job-1", 2), ("job-2", 3)] {
            world.deliver_and_start(job, &World::image(5000, version));
            assert_eq!(world.self_test(), Outcome::Nothing);
            assert_eq!(world.commit(), Outcome::Nothing);
            let calls = world.calls();
            let asked = calls.iter().filter(|call| *call == "suspend").count();
            assert_eq!((asked, strikes(&world)), (1, 1), "{job}");
        }
    }
}

#[test]
fn what_was_saved_before_a_plugin_breaks_over_it_is_given_to_nobody() {
    let mut world = World::direct();
    world.deliver("job-1", &World::image(500, 2));
    world.truth.lock().unwrap().breaks_over_saved = true;
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(strikes(&world), 1);
    assert_eq!(world.activate(), Outcome::Nothing);
    let opened = world.truth.lock().unwrap().opened.clone();
    assert_eq!(opened.last(), Some(&None), "{opened:?}");
}

#[test]
fn an_instance_that_is_gone_is_no_second_strike() {
    for verdict in [World::commit, World::reject] {
        let mut world = restartable();
        world.deliver_and_start("job-1", &World::image(500, 2));
        assert_eq!(world.state_now().code, 1);
        world.truth.lock().unwrap().breaks_over_saved = true;
        assert_eq!(verdict(&mut world), Outcome::Nothing);
        assert_eq!(strikes(&world), 1);
        // Whoever comes in its place is asked whether it holds.
        let last = world.calls().pop();
        let is_committed = world.phase() == "committed";
        assert_eq!(last.as_deref() == Some("state"), is_committed, "{last:?}");
    }
}

#[test]
fn a_plugin_that_is_not_tried_again_has_its_last_fault_told() {
    let mut world = World::direct();
    world.deliver("job-1", &World::image(500, 2));
    world.fault("install", Fault::Trap(3));
    assert_eq!(main_of(&world.install()), code::PLUGIN_FAILED);
    let failure = failed(world.install());
    let told = "broke 3 times in this transfer and is not tried again (limit 0x1";
    assert!(failure.detail.contains(told), "{failure}");
    assert!(failure.detail.ends_with(": unreachable"), "{failure}");
}

#[test]
fn other_bytes_than_came_are_no_fault_of_the_signature() {
    let image = World::image(5000, 2);
    for restarts in [false, true] {
        let mut world = World::direct();
        world.setup.plugin = Some(build(&world, 2, Wrong::WritesElse) as _);
        world.restart();
        assert_eq!(world.create("job-1", &image), Outcome::Nothing);
        world.write_all(&image);
        if restarts {
            // The map of the process before says it as well.
            assert_eq!(main_of(&world.close()), code::PLUGIN_FAILED);
            world.restart();
        }
        let failure = failed(world.close());
        let told = "block 0 (1024 bytes at 0 of the file) reads back otherwise than it came";
        assert_eq!((failure.main, failure.sub), (code::PLUGIN_FAILED, 0));
        assert!(failure.detail.starts_with(told), "{failure}");
        assert!(failure.detail.ends_with("(test:2)"), "{failure}");
    }
    // The bytes are what came, and somebody else's.
    let mut world = World::direct();
    let mut spec = world.spec("job-1", &image);
    spec.signature = world.spec("job-1", &World::image(5000, 3)).signature;
    let created = world.run(|targets, _, token| targets.create(token, spec));
    assert_eq!(created, Outcome::Nothing);
    world.write_all(&image);
    assert_eq!(main_of(&world.close()), code::SIGNATURE);
    // Nobody knows what came.
    world.slots[1].flip(7);
    world
        .state
        .remove("targets/gateway/app/blocks.map")
        .unwrap();
    assert_eq!(main_of(&world.close()), code::SIGNATURE);
}

#[test]
fn a_build_on_trial_that_writes_other_bytes_costs_one_job_and_is_sent_back() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    let next = build(&world, 2, Wrong::WritesElse);
    assert_eq!(swap(&mut world, &next), Ok(()));
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    world.write_all(&image);
    assert_eq!(main_of(&world.close()), code::PLUGIN_FAILED);
    let build = world.targets.report().remove(0).build;
    assert_eq!(build.label, "test:double");
    let refused = build.refused.unwrap();
    assert!(refused.contains("reads back otherwise"), "{refused}");
    assert_eq!(world.abort(), Outcome::Nothing);
    world.deliver_and_start("job-2", &image);
    assert_eq!(world.commit(), Outcome::Nothing);
}

#[test]
fn a_build_that_took_over_in_a_transfer_does_not_pay_for_what_another_one_wrote() {
    let image = World::image(5000, 2);
    for (closed, restarts) in [(false, false), (true, false), (true, true)] {
        let mut world = World::direct();
        world.setup.plugin = Some(build(&world, 2, Wrong::WritesElse) as _);
        world.restart();
        assert_eq!(world.create("job-1", &image), Outcome::Nothing);
        world.write_all(&image);
        if closed {
            assert_eq!(main_of(&world.close()), code::PLUGIN_FAILED);
        }
        let mended = build(&world, 3, Wrong::Nothing);
        if restarts {
            world.setup.plugin = Some(Arc::clone(&mended) as _);
            world.setup.former = Some(build(&world, 2, Wrong::Nothing) as _);
            world.restart();
        } else {
            assert_eq!(swap(&mut world, &mended), Ok(()));
        }
        let failure = failed(world.close());
        assert_eq!(failure.main, code::PLUGIN_FAILED);
        let told = "a plugin of this transfer has written other bytes";
        assert!(failure.detail.contains(told), "{failure}");
        let build = world.targets.report().remove(0).build;
        assert_eq!((&*build.label, build.refused), ("test:3", None));
    }
}
