//! Updates that take another turn: several files, boot loaders, lost connections, orders of the operator, restarts.

use alloc::format;

use super::world::{Boot, World, config, version};
use crate::code::State;
use crate::types::{Command, Event, Outcome};

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

#[test]
fn a_suspension_or_a_shutdown_after_any_event_stops_everything_until_it_is_ended() {
    for shutdown in [false, true] {
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
            let order = match shutdown {
                true => Command::Shutdown { unsubscribe: false },
                false => Command::Suspend,
            };
            world.inbox.push_front(Event::Command(order));
            world.turn();
            let done = |world: &World| {
                (
                    world.published.len(),
                    world.calls.len(),
                    world.subscribed.len(),
                )
            };
            let before = done(&world);
            // What was under way ends, late messages come, the line is cut and mended, a day goes by.
            world.settle();
            world.disconnect();
            world.connect();
            world.settle();
            world.now += 24 * 3_600_000;
            world.give(Event::Timeout);
            world.settle();
            let rest = match shutdown {
                true => State::Stopped,
                false => State::Suspended,
            };
            assert_eq!(world.state(), rest, "after {at} events");
            assert_eq!(
                done(&world),
                before,
                "after {at} events, shutdown {shutdown}"
            );
            match shutdown {
                true => world.crash(),
                false => world.command(Command::Resume),
            }
            world.run_to_end();
            assert_eq!(
                world.verdict().0,
                "SUCCEEDED",
                "after {at} events, shutdown {shutdown}"
            );
        }
    }
}

/// Restarts the host again and again, a moment after each start.
fn restart_until_it_ends(mut world: World, what: &str) -> usize {
    for starts in 0..2000 {
        world.crash();
        world.settle();
        if world.jobs.iter().all(|job| !job.is_open()) {
            assert_eq!(world.verdict().0, "FAILED", "{what}");
            return starts;
        }
    }
    panic!("{what}: restarts put it off for ever");
}

#[test]
fn no_row_of_restarts_puts_a_deadline_off_for_ever() {
    let minute = &[
        ("activation_deadline_ms", "60000"),
        ("self_test_deadline_ms", "60000"),
    ];
    let mut deferred = World::with_config(config(minute, &[(0, &[("activation", "deferred")])]));
    deferred.usual_job();
    deferred.connect();
    deferred.run_to(State::WaitingForActivation);
    let mut tested = World::with_config(config(minute, &[(0, &[("self_test", "external")])]));
    tested.usual_job();
    tested.connect();
    tested.run_to(State::Testing);
    for (world, what) in [(deferred, "a deferral"), (tested, "a test")] {
        // Some restarts are nobody's fault, and cost little.
        let starts = restart_until_it_ends(world, what);
        assert!(starts > 500, "{what}: {starts} restarts");
    }
}

#[test]
fn a_target_whose_activation_is_deferred_is_not_restarted_unasked() {
    let mut world = World::with_config(config(&[], &[(0, &[("activation", "deferred")])]));
    world.usual_job();
    world.connect();
    world.run_to(State::WaitingForActivation);
    for _ in 0..20 {
        world.crash();
        world.settle();
        world.swap();
        world.command(Command::Suspend);
        world.command(Command::Resume);
        world.disconnect();
        world.connect();
        world.settle();
        assert_eq!(world.state(), State::WaitingForActivation);
    }
    // Neither its end nor a cancel touches a target that was never told to change.
    world.cancel_job();
    world.run_to(State::WaitingForJob);
    for call in ["activate 0", "reset 0", "reject 0"] {
        assert_eq!(world.count(call), 0, "{call}");
    }
    assert_eq!(world.targets[&0].code, 2);
}

#[test]
fn the_wait_names_the_job_that_a_notification_offers() {
    let mut world = World::with_config(config(&[("on_job", "ask")], &[(0, &[])]));
    world.connect();
    world.settle();
    let waits = |world: &World| world.waits.last().map(|wait| wait.detail.clone());
    assert_eq!(waits(&world).unwrap(), "a job");
    for job in ["job-1", "job-2"] {
        world.jobs.clear();
        world.create_job(job, &super::world::document(&[(0, 2500, 0)]));
        world.notify();
        world.settle();
        assert_eq!(waits(&world).unwrap(), format!("answer to job {job}"));
    }
}

#[test]
fn an_offer_by_a_notification_outlives_an_older_answer_that_there_is_no_job() {
    let mut world = World::with_config(config(&[("on_job", "ask")], &[(0, &[])]));
    world.connect();
    let asked = |world: &World| {
        let mut sent = world.published.iter();
        sent.any(|(topic, _)| topic.ends_with("$next/get"))
    };
    world.run_until("the question", asked);
    // The question is answered, but the answer is on its way when the job is made.
    let is_answer = |event: &Event| matches!(event, Event::Message { .. });
    let at = world.inbox.iter().position(is_answer).unwrap();
    let answer = world.inbox.remove(at);
    world.usual_job();
    world.notify();
    world.inbox.extend(answer);
    world.settle();
    assert_eq!(world.waits.last().unwrap().detail, "answer to job job1");
}

#[test]
fn a_job_told_before_the_first_question_does_not_keep_it_from_being_asked() {
    for on_job in ["ignore", "ask"] {
        let mut world = World::with_config(config(&[("on_job", on_job)], &[(0, &[])]));
        world.connect();
        world.run_until("a subscription", |world| !world.subscribed.is_empty());
        world.usual_job();
        world.notify();
        let news = world.inbox.pop_back().unwrap();
        world.inbox.push_front(news);
        world.settle();
        let mut sent = world.published.iter();
        assert!(
            sent.any(|(topic, _)| topic.ends_with("$next/get")),
            "{on_job}"
        );
        assert_eq!(world.state(), State::WaitingForJob, "{on_job}");
    }
}

#[test]
fn a_decision_that_cannot_be_written_down_is_not_made_and_one_that_is_goes_through() {
    let full = || crate::types::Failure::new(0xd6, 28, "no space");
    let mut early = World::single();
    early.slow.push("self-test 0");
    early.usual_job();
    early.connect();
    early.run_to(State::Testing);
    early.run_until("the test", |world| world.count("self-test 0") == 1);
    early.fail.push(("journal", full(), usize::MAX));
    early.run_until("the end", |world| !world.jobs[0].is_open());
    assert_eq!(early.verdict().0, "FAILED", "{}", early.verdict().1);
    assert_eq!(early.count("commit 0"), 0);
    assert_eq!(early.targets[&0].running, version(1, 0, 0));

    let mut late = World::double();
    late.hang.push("commit 0");
    let files = [(0, 2500, 0), (1, 1500, 0)];
    late.create_job("job-2", &super::world::document(&files));
    late.connect();
    late.run_until("the commit", |world| world.count("commit 0") == 1);
    late.fail.push(("journal", full(), usize::MAX));
    late.targets.values_mut().for_each(|target| target.code = 2);
    late.finish("commit 0", Outcome::Nothing);
    late.run_until("the end", |world| !world.jobs[0].is_open());
    assert_eq!(late.verdict().0, "SUCCEEDED", "{}", late.verdict().1);
    assert_eq!(late.count("commit 1"), 1);
}

#[test]
fn a_job_withdrawn_after_the_decision_stays_and_the_news_say_so() {
    let mut world = World::single();
    world.hang.push("commit 0");
    world.usual_job();
    world.connect();
    world.run_until("the commit", |world| world.count("commit 0") == 1);
    world.jobs[0].status = "CANCELED".into();
    world
        .targets
        .values_mut()
        .for_each(|target| target.code = 2);
    world.finish("commit 0", Outcome::Nothing);
    world.run_to(State::WaitingForJob);
    world.settle();
    let ended = world.events.iter().find(|event| event.kind == 16).unwrap();
    let failure = ended.failure.as_ref().unwrap();
    assert_eq!((failure.main, failure.sub), (0x51, 0));
    assert!(!failure.detail.is_empty());
    assert_eq!(ended.version, Some(version(1, 1, 0)));
    assert!(ended.document.is_empty(), "no status was taken");
    assert_eq!(world.count("reject 0"), 0);
}
