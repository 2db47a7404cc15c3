//! What vendors' first plugins do wrong: each ends, with the reason that is true, and leaves a target that can be used.

use std::sync::Arc;

use super::double::{Fault, Record};
use super::swap::{Wrong, build, swap};
use super::world::{Setup, World, command, main_of};
use crate::plugin::Answer;
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
