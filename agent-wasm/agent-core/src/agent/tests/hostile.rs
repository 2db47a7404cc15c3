//! A host that answers what was not asked, twice, or with something of another kind; a service that says nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::world::{World, config, document, version};
use crate::code::State;
use crate::types::{Event, Failure, ImageInfo, Outcome, TargetState};

/// More events than any story here has.
const LONG: usize = 1000;

/// One outcome of every kind.
fn outcomes() -> Vec<Outcome> {
    vec![
        Outcome::Nothing,
        Outcome::Failed(Failure::new(0xd5, 1, "made up")),
        Outcome::Held(vec![0xff; 3]),
        Outcome::Verified(ImageInfo {
            size: 2500,
            sha256: vec![1; 32],
            version: Some(version(9, 9, 9)),
            product: None,
            signer: String::new(),
        }),
        Outcome::State(TargetState {
            code: 2,
            running: Some(version(1, 1, 0)),
            runs_new: Some(true),
        }),
        Outcome::Other(vec![99]),
    ]
}

#[test]
fn ends_that_belong_to_nothing_change_nothing() {
    for outcome in outcomes() {
        let mut world = World::single();
        world.usual_job();
        world.connect();
        for _ in 0..LONG {
            if world.jobs.iter().all(|job| !job.is_open()) {
                break;
            }
            // Never given out, given out long ago, and a call that the host never saw.
            for token in [0, 1, u64::MAX] {
                if !world.inbox.iter().any(|event| is_end_of(event, token)) {
                    let outcome = outcome.clone();
                    world.give(Event::Done { token, outcome });
                }
            }
            world.give(Event::Ended {
                op: u32::MAX,
                outcome: outcome.clone(),
            });
            world.turn();
        }
        world.run_to_end();
        assert_eq!(world.verdict().0, "SUCCEEDED", "{outcome:?}");
        assert_eq!(world.count("commit 0"), 1);
    }
}

fn is_end_of(event: &Event, wanted: u64) -> bool {
    matches!(event, Event::Done { token, .. } if *token == wanted)
}

#[test]
fn an_end_that_comes_twice_counts_once() {
    let mut world = World::single();
    world.all_slow = true;
    world.usual_job();
    world.connect();
    for _ in 0..LONG {
        if world.jobs.iter().all(|job| !job.is_open()) {
            break;
        }
        let next = world.inbox.front().cloned();
        world.turn();
        if let Some(Event::Done { token, outcome }) = next {
            world.give(Event::Done { token, outcome });
            world.give(Event::Done {
                token,
                outcome: Outcome::Failed(Failure::new(0xd5, 0, "the other way round")),
            });
        }
    }
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED", "{}", world.verdict().1);
    for call in ["create", "close", "install", "activate", "reset", "commit"] {
        assert_eq!(world.count(&format!("{call} 0")), 1, "{call}");
    }
}

#[test]
fn an_end_of_a_wrong_kind_is_a_failure_with_a_reason_and_the_agent_lives() {
    let calls = [
        "create 0",
        "write 0",
        "close 0",
        "install 0",
        "activate 0",
        "reset 0",
        "self-test 0",
        "commit 0",
    ];
    for call in calls {
        for outcome in outcomes() {
            let right = match call {
                "close 0" => matches!(outcome, Outcome::Verified(_)),
                _ => outcome == Outcome::Nothing,
            };
            if !right {
                check_wrong_end(call, &outcome);
            }
        }
    }
}

/// Every call of this name ends so, until the job is over.
fn check_wrong_end(call: &'static str, outcome: &Outcome) {
    let mut world = World::single();
    world.hang.push(call);
    world.usual_job();
    world.connect();
    for _ in 0..LONG {
        if world.jobs.iter().all(|job| !job.is_open()) {
            break;
        }
        while world.open.iter().any(|(_, name)| name == call) {
            world.finish(call, outcome.clone());
        }
        world.turn();
    }
    let what = format!("{call} ends with {outcome:?}");
    world.run_to_end();
    let (status, details) = world.verdict();
    assert_eq!(status, "FAILED", "{what}: {details}");
    assert!(details.contains("reason"), "{what}: {details}");
    assert_eq!(world.targets[&0].running, version(1, 0, 0), "{what}");
    assert_eq!(world.state(), State::WaitingForJob, "{what}");
}

#[test]
fn a_silent_service_is_asked_as_often_as_the_momentum_allows_and_a_file_of_no_bytes_never() {
    for (most, size) in [("1", 2500), ("5", 2500), ("5", 0)] {
        let mut world = World::with_config(config(&[("momentum_max", most)], &[(0, &[])]));
        world.lose.push(("streams/", usize::MAX));
        world.create_job("job1", &document(&[(0, size, 0)]));
        world.connect();
        world.run_to_end();
        let (status, details) = world.verdict();
        assert_eq!(status, "FAILED", "{details}");
        let asked = if size == 0 { 0 } else { most.parse().unwrap() };
        assert_eq!(world.requests, asked, "momentum {most}, {size} bytes");
        assert_eq!(world.count("activate 0"), 0);
        // The agent lives: the next job is done.
        world.lose.clear();
        world.jobs.clear();
        world.events.clear();
        world.usual_job();
        world.notify();
        world.run_to_end();
        assert_eq!(world.verdict().0, "SUCCEEDED", "{}", world.verdict().1);
    }
}
