//! Updates that take another turn: several files, boot loaders, lost connections, orders of the operator, restarts.

use alloc::format;

use super::world::{Boot, World, version};
use crate::code::State;
use crate::types::{Command, Outcome};

const LONG: usize = 400;

#[test]
fn two_files_end_as_one_job() {
    let mut world = World::double();
    world.create_job(
        "job-2",
        &super::world::document(&[(0, 2500, 0), (1, 1500, 0)]),
    );
    world.connect();
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
    for file in [0, 1] {
        for call in ["install", "activate", "reset", "self-test", "commit"] {
            assert_eq!(world.count(&format!("{call} {file}")), 1, "{call} {file}");
        }
    }
}

#[test]
fn a_target_that_does_not_run_the_new_image_fails_the_job() {
    for (boot, reason) in [
        (Boot::Old, "rejected: 0x00000046"),
        (Boot::Never, "rejected: 0x00000042"),
    ] {
        let mut world = World::single();
        if let Some(target) = world.targets.get_mut(&0) {
            target.boot = boot;
        }
        world.usual_job();
        world.connect();
        world.run_to_end();
        let (status, details) = world.verdict();
        assert_eq!(status, "FAILED", "{boot:?}");
        assert!(details.contains(reason), "{boot:?}: {details}");
        assert_eq!(world.count("commit 0"), 0, "{boot:?}");
    }
}

#[test]
fn a_host_that_restarts_with_its_target_goes_on() {
    let mut world = World::single();
    if let Some(target) = world.targets.get_mut(&0) {
        target.boot = Boot::WithHost;
    }
    world.usual_job();
    world.connect();
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
    assert_eq!(world.targets[&0].running, version(1, 1, 0));
}

#[test]
fn a_job_cancelled_while_it_downloads_leaves_nothing() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_to(State::WaitingForFileBlock);
    world.cancel_job();
    world.run_to(State::WaitingForJob);
    assert_eq!(world.count("abort 0"), 1);
    assert!(
        world
            .statuses()
            .iter()
            .all(|status| status.contains("IN_PROGRESS"))
    );
    assert_eq!(world.phase(0), u8::MAX, "no file is left");
}

#[test]
fn a_suspended_agent_asks_for_nothing_until_it_resumes() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_to(State::WaitingForFileBlock);
    world.command(Command::Suspend);
    world.settle();
    assert_eq!(world.state(), State::Suspended);
    let asked = world.published.len();
    world.disconnect();
    world.connect();
    world.settle();
    assert_eq!(world.published.len(), asked, "nothing is asked for");
    assert_eq!(world.state(), State::Suspended);
    world.command(Command::Resume);
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
    assert!(
        world
            .changes()
            .iter()
            .any(|change| change.contains("Suspend"))
    );
}

#[test]
fn an_installation_that_ends_late_is_waited_for() {
    let mut world = World::single();
    world.hang.push("install 0");
    world.usual_job();
    world.connect();
    world.run_to(State::Installing);
    world.settle();
    assert_eq!(world.state(), State::Installing);
    world.hang.clear();
    world.finish("install 0", Outcome::Nothing);
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
}

#[test]
fn a_swap_or_a_crash_after_any_event_changes_nothing_at_the_end() {
    for crash in [false, true] {
        for at in 0..LONG {
            let mut world = World::single();
            world.usual_job();
            world.connect();
            for _ in 0..at {
                if world.jobs.iter().all(|job| !job.is_open()) || !world.turn() {
                    break;
                }
            }
            if world.jobs.iter().all(|job| !job.is_open()) {
                assert!(at > 20, "the story has steps");
                break;
            }
            if crash {
                world.crash();
            } else {
                world.swap();
            }
            world.run_to_end();
            let (status, details) = world.verdict();
            assert_eq!(status, "SUCCEEDED", "{at}, crash {crash}: {details}");
            assert_eq!(world.targets[&0].running, version(1, 1, 0));
        }
    }
}
