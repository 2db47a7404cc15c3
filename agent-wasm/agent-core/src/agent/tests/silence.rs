//! Whatever stops answering, and whenever: there is a way out, and once things are well again the job ends with a
//! status of its own.

use alloc::borrow::ToOwned;
use alloc::format;

use super::world::{World, document, version};
use crate::code::State;
use crate::types::Failure;

/// More events than any story here has.
const LONG: usize = 400;

/// Half a day of trouble: longer than every budget, with the defaults.
const TROUBLE_MS: u64 = 12 * 3_600_000;

/// Time for the job to end once all is well again.
const MENDED_MS: u64 = 12 * 3_600_000;

/// What goes wrong, how it is mended, and the ends that may come of it.
struct Trouble {
    name: &'static str,
    begin: fn(&mut World),
    end: fn(&mut World),
    /// Reasons of a failure, besides success.
    reasons: &'static [&'static str],
}

fn lose(world: &mut World, what: &'static str) {
    world.lose.push((what, usize::MAX));
}

fn nothing(_: &mut World) {}

fn find(world: &mut World) {
    world.lose.clear();
}

const MOMENTUM: &str = "aborted: 0x0000000e";
const UNTESTED: &str = "rejected: 0x00000041";
const NOT_BACK: &str = "0x00000042";
const OPERATION: &str = "0x0000004e: 0x00000000";
const NO_ANSWER: &str = "0x00000052: 0x0000002";
const NO_SPACE: &str = "0x000000d6: 0x0000001c";

/// What the network does.
const OF_THE_LINE: &[Trouble] = &[
    Trouble {
        name: "the line is half open",
        begin: |world| lose(world, ""),
        end: find,
        reasons: &[MOMENTUM, UNTESTED, NO_ANSWER],
    },
    Trouble {
        name: "the line is half open and then cut",
        begin: |world| {
            lose(world, "");
            world.inbox.clear();
        },
        end: |world| {
            find(world);
            world.disconnect();
            world.connect();
        },
        reasons: &[MOMENTUM, UNTESTED, NO_ANSWER],
    },
    Trouble {
        name: "there is no line",
        begin: World::disconnect,
        end: World::connect,
        reasons: &[UNTESTED],
    },
];

/// What the service does.
const OF_THE_SERVICE: &[Trouble] = &[
    Trouble {
        name: "no status is answered",
        begin: |world| lose(world, "/update"),
        end: find,
        reasons: &[UNTESTED, NO_ANSWER],
    },
    Trouble {
        name: "no question is answered",
        begin: |world| lose(world, "/get"),
        end: find,
        reasons: &[MOMENTUM, UNTESTED],
    },
    Trouble {
        name: "every status is throttled",
        begin: |world| world.refuse_updates = Some("RequestThrottled"),
        end: |world| world.refuse_updates = None,
        reasons: &[UNTESTED, NO_ANSWER],
    },
    Trouble {
        name: "every status meets an error of the service",
        begin: |world| world.refuse_updates = Some("InternalError"),
        end: |world| world.refuse_updates = None,
        reasons: &[UNTESTED, NO_ANSWER],
    },
];

/// What the host does.
const OF_THE_HOST: &[Trouble] = &[
    Trouble {
        name: "the host ends nothing",
        begin: |world| world.all_hang = true,
        end: |world| world.all_hang = false,
        reasons: &[MOMENTUM, UNTESTED, NOT_BACK, OPERATION],
    },
    Trouble {
        name: "the journal cannot be stored",
        begin: |world| {
            let full = Failure::new(0xd6, 28, "no space");
            world.fail.push(("journal", full, usize::MAX));
        },
        end: |world| world.fail.clear(),
        reasons: &[NO_SPACE],
    },
];

fn close(world: &mut World, status: &str) {
    status.clone_into(&mut world.jobs[0].status);
}

/// What becomes of the job behind the agent's back: it ends there and then.
const OF_THE_JOB: &[Trouble] = &[
    Trouble {
        name: "the job is cancelled and nobody says so",
        begin: |world| close(world, "CANCELED"),
        end: nothing,
        reasons: &[],
    },
    Trouble {
        name: "the job is cancelled",
        begin: World::cancel_job,
        end: nothing,
        reasons: &[],
    },
    Trouble {
        name: "the job has timed out",
        begin: |world| {
            close(world, "TIMED_OUT");
            world.notify();
        },
        end: nothing,
        reasons: &[],
    },
    Trouble {
        name: "every status is refused as nonsense",
        begin: |world| world.refuse_updates = Some("InvalidRequest"),
        end: nothing,
        reasons: &[],
    },
    Trouble {
        name: "every status is refused without a word about the job",
        begin: |world| world.refuse_updates = Some("VersionMismatch"),
        end: nothing,
        reasons: &[],
    },
];

fn is_over(world: &World) -> bool {
    world.jobs.iter().all(|job| !job.is_open())
}

/// Lets things happen until something is so, or the time is over.
fn pass(world: &mut World, name: &str, time_ms: u64, done: fn(&World) -> bool) {
    let until = world.now + time_ms;
    let mut turns = 0;
    while world.now < until && !done(world) && world.turn() {
        turns += 1;
        assert!(turns < 5000, "{name}: busy in {:?}", world.state());
    }
}

/// The agent is idle.
fn rests(world: &World) -> bool {
    let has_job = world.agent.status().job_id.is_some();
    world.state() == State::WaitingForJob && world.inbox.is_empty() && !has_job
}

fn has_ended(world: &World) -> bool {
    rests(world) && world.events.iter().any(|event| event.kind == 16)
}

/// A story with this trouble after so many events; none if it is over before.
fn suffer(trouble: &Trouble, at: usize) -> Option<World> {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    for _ in 0..at {
        if is_over(&world) || !world.turn() {
            return None;
        }
    }
    if is_over(&world) {
        return None;
    }
    (trouble.begin)(&mut world);
    pass(&mut world, trouble.name, TROUBLE_MS, |_| false);
    (trouble.end)(&mut world);
    pass(&mut world, trouble.name, MENDED_MS, has_ended);
    Some(world)
}

fn at_every_event(trouble: &Trouble, check: fn(&Trouble, &World, &str)) {
    for at in 0..LONG {
        let Some(world) = suffer(trouble, at) else {
            assert!(at > 25, "the story has steps");
            return;
        };
        let what = format!("{} after {at}: {:?}", trouble.name, world.verdict());
        check(trouble, &world, &what);
    }
    panic!("the story has no end");
}

/// The job has ended with success, or with one of the reasons; and the target shows which.
fn check_end(trouble: &Trouble, world: &World, what: &str) {
    assert!(has_ended(world), "{what}\n{}", world.story());
    let (status, details) = world.verdict();
    let target = &world.targets[&0];
    if status == "SUCCEEDED" {
        assert!(target.runs_new && target.code == 2, "{what}");
        return;
    }
    assert_eq!(status, "FAILED", "{what}");
    let known = trouble
        .reasons
        .iter()
        .any(|reason| details.contains(reason));
    assert!(known, "{what}");
    // A host that ends nothing has not taken the image back either; a start does.
    assert!(!target.runs_new || world.count("reject 0") > 1, "{what}");
    assert!(!target.runs_new || target.code != 2, "{what}");
}

/// The service takes nothing more: before the decision the old image runs in the end, after it the new one.
fn check_closed(_: &Trouble, world: &World, what: &str) {
    assert!(rests(world), "{what}\n{}", world.story());
    let target = &world.targets[&0];
    let stays = world.count("commit 0") == 1;
    assert_eq!(target.runs_new && target.code == 2, stays, "{what}");
    assert!(stays || target.running == version(1, 0, 0), "{what}");
    let ended = world.events.iter().rev().find(|event| event.kind == 16);
    let why = ended
        .and_then(|event| event.failure.as_ref())
        .map(|failure| failure.main);
    let said = ended.is_none_or(|event| !event.document.is_empty());
    // 0x51: carried out and untold; 0x12: withdrawn; 0x45: refused. Or it was told before, or never taken.
    let expected: &[u8] = if stays { &[0x51, 0x45] } else { &[0x12, 0x45] };
    assert!(
        said || why.is_some_and(|why| expected.contains(&why)),
        "{what}: {why:?}"
    );
    // And that is all: nothing is tried over and over with a job that the service does not let go on.
    assert!(world.requests <= 3, "{what}: {} requests", world.requests);
}

#[test]
fn a_line_that_fails_at_any_event_delays_the_job_or_ends_it_with_a_reason() {
    OF_THE_LINE
        .iter()
        .for_each(|trouble| at_every_event(trouble, check_end));
}

#[test]
fn a_service_that_says_nothing_useful_from_any_event_on_ends_the_job_with_a_reason() {
    OF_THE_SERVICE
        .iter()
        .for_each(|trouble| at_every_event(trouble, check_end));
}

#[test]
fn a_host_that_stops_working_at_any_event_ends_the_job_with_a_reason() {
    OF_THE_HOST
        .iter()
        .for_each(|trouble| at_every_event(trouble, check_end));
}

#[test]
fn a_job_that_is_closed_at_any_event_goes_back_before_the_decision_and_stays_after_it() {
    OF_THE_JOB
        .iter()
        .for_each(|trouble| at_every_event(trouble, check_closed));
}

/// Turns until the story is over or so many events have been given.
fn play_on(world: &mut World, events: usize) -> bool {
    for _ in 0..events {
        if is_over(world) || !world.turn() {
            return false;
        }
    }
    !is_over(world)
}

/// A job that is closed after so many events, with a crash so many events later.
fn cancel_and_crash(world: &mut World, at: usize, later: usize, deleted: bool) -> bool {
    if !play_on(world, at) {
        return false;
    }
    close(world, "CANCELED");
    if deleted {
        // Under its old name nobody knows it any more.
        "gone".clone_into(&mut world.jobs[0].id);
    }
    world.notify();
    for _ in 0..later {
        if !world.turn() {
            break;
        }
    }
    world.crash();
    pass(world, "cancel and crash", MENDED_MS, rests);
    true
}

#[test]
fn a_job_that_is_closed_and_a_crash_soon_after_leave_one_image_or_the_other() {
    for deleted in [false, true] {
        for at in 0..LONG {
            let mut steps = 0;
            for later in 0..8 {
                let mut world = World::single();
                world.usual_job();
                world.connect();
                if !cancel_and_crash(&mut world, at, later, deleted) {
                    break;
                }
                steps += 1;
                let what = format!("{at} and {later}, deleted {deleted}");
                assert!(rests(&world), "{what}\n{}", world.story());
                let target = &world.targets[&0];
                assert!(!matches!(target.code, 1 | 4), "{what}: {}", target.code);
                let committed = world.count("commit 0") > 0;
                assert_eq!(target.runs_new, committed, "{what}\n{}", world.story());
            }
            if steps == 0 {
                assert!(at > 25, "the story has steps");
                break;
            }
        }
    }
}

#[test]
fn two_crashes_at_any_two_events_change_nothing_at_the_end() {
    for first in 0..LONG {
        let mut steps = 0;
        for second in 0..12 {
            let mut world = World::single();
            world.usual_job();
            world.connect();
            if !play_on(&mut world, first) {
                break;
            }
            world.crash();
            if play_on(&mut world, second) {
                world.crash();
            }
            steps += 1;
            pass(&mut world, "two crashes", MENDED_MS, has_ended);
            let what = format!("{first} and {second}: {:?}", world.verdict());
            assert_eq!(world.verdict().0, "SUCCEEDED", "{what}\n{}", world.story());
            assert_eq!(world.targets[&0].code, 2, "{what}");
        }
        if steps == 0 {
            assert!(first > 25, "the story has steps");
            return;
        }
    }
}

/// Two files; the job is closed after so many events, and the host dies so many later, if at all.
fn close_group(at: usize, later: Option<usize>) -> Option<World> {
    let mut world = World::double();
    world.create_job("job-2", &document(&[(0, 2500, 0), (1, 1500, 0)]));
    world.connect();
    if !play_on(&mut world, at) {
        return None;
    }
    world.cancel_job();
    if let Some(later) = later {
        for _ in 0..later {
            if !world.turn() {
                break;
            }
        }
        world.crash();
    }
    pass(&mut world, "a group", MENDED_MS, rests);
    Some(world)
}

#[test]
fn a_group_whose_job_is_closed_at_any_event_is_all_new_or_all_old() {
    for later in [None, Some(0), Some(2), Some(5)] {
        for at in 0..LONG {
            let Some(world) = close_group(at, later) else {
                assert!(at > 35, "the story has steps");
                break;
            };
            let what = format!("{at} and {later:?}\n{}", world.story());
            assert!(rests(&world), "{what}");
            let sides = [0, 1].map(|file| world.targets[&file].runs_new);
            assert_eq!(sides[0], sides[1], "{what}");
            for target in world.targets.values() {
                assert!(!matches!(target.code, 1 | 4), "{what}");
            }
        }
    }
}

#[test]
fn an_end_whose_request_was_damaged_on_its_way_is_told_again() {
    for code in ["InvalidRequest", "InvalidJson", "InvalidTopic"] {
        let mut world = World::single();
        world.usual_job();
        world.connect();
        world.run_to(State::Committing);
        let refusal = format!(r#"{{"code":"{code}","message":"","clientToken":"TOKEN"}}"#);
        world.update_answers.push_back(("rejected", refusal));
        world.run_to_end();
        assert_eq!(world.verdict().0, "SUCCEEDED", "{code}");
    }
}

#[test]
fn a_ready_that_nobody_answers_says_when_it_is_given_up_at_the_latest() {
    let mut world = World::single();
    world.usual_job();
    lose(&mut world, "/update");
    world.connect();
    world.run_to(State::Reporting);
    let told = |wait: &crate::types::Wait| wait.gives_up.filter(|_| wait.reason == 8);
    let told: alloc::vec::Vec<_> = world.waits.iter().filter_map(told).collect();
    assert!(!told.is_empty());
    assert!(told.iter().all(|until| world.now <= *until), "{told:?}");
}

/// A job for a target that does not answer the first questions after the job has come.
fn silent(questions: usize, image: crate::types::Version) -> World {
    let mut world = World::single();
    if let Some(target) = world.targets.get_mut(&0) {
        target.image = image;
    }
    let no_answer = Failure::new(0xd4, 0, "no answer");
    world.fail.push(("state 0", no_answer, questions));
    world.usual_job();
    world.connect();
    world.run_to_end();
    world
}

#[test]
fn a_target_that_is_silent_when_its_job_begins_is_asked_again_before_it_takes_the_image() {
    let newer = silent(1, version(1, 1, 0));
    assert_eq!(newer.verdict().0, "SUCCEEDED");
    let closed = newer.calls.iter().position(|call| call == "close 0");
    let after = &newer.calls[closed.unwrap() + 1..];
    assert_eq!(after[..2], ["state 0", "install 0"]);
    // What it says then counts: neither the same image nor an older one is taken.
    for image in [version(1, 0, 0), version(0, 9, 0)] {
        let older = silent(1, image);
        assert_eq!(older.verdict().0, "FAILED", "{image:?}");
        assert_eq!(older.count("install 0"), 0, "{image:?}");
    }
    // One that says nothing then either takes nothing.
    let gone = silent(2, version(1, 1, 0));
    let (status, details) = gone.verdict();
    assert_eq!(status, "FAILED");
    assert!(details.contains("0x000000d4"), "{details}");
    assert_eq!(gone.count("install 0"), 0);
}

#[test]
fn a_few_lost_questions_do_not_use_up_the_time_of_a_self_test() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_to(State::WaitingForRestart);
    // With pauses that double to five minutes the seventh comes after ten, and a test has five.
    world.lose.push(("/get", 6));
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED");
    assert_eq!(world.lose[0].1, 0, "all of them were lost");
}
