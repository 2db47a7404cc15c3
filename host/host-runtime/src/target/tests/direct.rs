//! A direct target from create to commit, and back.

use super::double::{Fault, Record, version};
use super::world::{FILE, Setup, World, command, exit, main_of};
use crate::plugin::WakeOn;
use crate::target::{Limits, ResetPolicy, TargetEvent, VersionReader, verified_record};
use crate::types::{Failure, Outcome, Started, TargetState, Version, code};

#[test]
fn an_update_goes_from_create_to_commit() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    assert_eq!(
        world.state_now(),
        TargetState {
            code: 2,
            running: Some(version(0)),
            runs_new: None
        }
    );
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    assert_eq!(world.phase(), "receiving");
    world.write_all(&image);
    let Outcome::Verified(info) = world.close() else {
        panic!("not verified");
    };
    assert_eq!((info.size, info.signer.as_str()), (5128, "signer"));
    assert_eq!(info.version.map(|v| v.major), Some(2));
    assert_eq!(info.product.as_deref(), Some("app"));
    assert_eq!(world.slots[1].contents(), image);
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.activate(), Outcome::Nothing);
    assert_eq!(world.state_now().code, 4);
    assert_eq!(world.reset(), Outcome::Nothing);
    world.poll();
    assert!(world.events.contains(&TargetEvent::Restarted(FILE)));
    let state = world.state_now();
    assert_eq!((state.code, state.runs_new), (1, Some(true)));
    assert_eq!(world.self_test(), Outcome::Nothing);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.phase(), "committed");
    let report = world.targets.report().remove(0);
    assert_eq!(report.committed, Some(info));
    let record = Record::decode(&world.record.contents());
    assert_eq!((record.confirmed, record.state), (1, 0));
    assert_eq!(
        world.truth.lock().unwrap().alive,
        0,
        "an idle target has no instance"
    );
}

#[test]
fn duties_that_take_steps_end_the_same_way_and_tell_progress_once_a_second() {
    let mut world = World::new(Setup {
        limits: Limits {
            steps_per_poll: 3,
            ..Limits::default()
        },
        ..Setup::default()
    });
    for verb in [
        "create", "install", "activate", "reset", "commit", "state", "reopen",
    ] {
        world.truth.lock().unwrap().steps.insert(verb, 20);
    }
    let image = World::image(5000, 2);
    world.deliver("job-1", &image);
    let proof = world.targets.verified(FILE).unwrap();
    let Started::Pending(token) = world.start(|t, _, token| t.install(token, &proof)) else {
        panic!("over at once");
    };
    let mut told = Vec::new();
    while world.ended(token).is_none() {
        world.poll();
        world.turn_clock(300);
        told.extend(
            world
                .events
                .drain(..)
                .filter(|e| matches!(e, TargetEvent::Progress { .. })),
        );
        if let Some(at) = world.ended(token) {
            assert_eq!(at, Outcome::Nothing);
            break;
        }
        if world.phase() == "installed" {
            break;
        }
    }
    // Seven polls of 300 ms: at the start, after one second, after two.
    assert!((2..=3).contains(&told.len()), "{told:?}");
    for (call, name) in [
        (World::activate as fn(&mut World) -> Outcome, "activate"),
        (World::reset, "reset"),
        (World::self_test, "self-test"),
        (World::commit, "commit"),
    ] {
        assert_eq!(call(&mut world), Outcome::Nothing, "{name}");
    }
    assert_eq!(world.phase(), "committed");
}

#[test]
fn the_next_update_takes_the_other_slot_and_a_shorter_image_leaves_no_tail() {
    let mut world = World::direct();
    let long = World::image(9000, 2);
    world.deliver_and_start("job-1", &long);
    assert_eq!(world.commit(), Outcome::Nothing);
    // What the double says to run in either slot.
    let short = World::image(100, 1);
    world.deliver_and_start("job-2", &short);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.slots[0].contents(), short);
    let shorter = World::image(10, 2);
    world.deliver_and_start("job-3", &shorter);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.slots[1].contents(), shorter);
}

#[test]
fn files_of_all_edge_sizes_are_received() {
    for size in [1, 255, 1023, 1024, 1025, 10_446] {
        let mut world = World::new(Setup {
            version_from: VersionReader::None,
            ..Setup::default()
        });
        let image: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        world.deliver("job-1", &image);
        assert_eq!(world.slots[1].contents(), image, "{size}");
    }
}

/// A world whose operator restarts the target.
fn restartable(version_command: bool) -> World {
    let world = World::new(Setup {
        reset: Some(ResetPolicy::Command(command("reset"))),
        version_command,
        ..Setup::default()
    });
    world.truth.lock().unwrap().host_resets = true;
    world
}

/// Code and running version of the target, as the report has them.
fn shown(world: &World) -> (u8, Option<u8>) {
    let state = world.targets.report().remove(0).state.unwrap();
    (state.code, state.running.map(|v| v.major))
}

#[test]
fn after_a_verdict_the_report_shows_the_target_as_it_is_then() {
    let mut world = restartable(false);
    let major = |slot: u8| Some(version(slot).major);
    world.deliver_and_start("job-1", &World::image(5000, 2));
    assert_eq!(world.state_now().code, 1);
    assert_eq!(shown(&world), (1, major(1)));
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(shown(&world), (2, major(1)));
    world.deliver_and_start("job-2", &World::image(700, 3));
    assert_eq!(world.state_now().code, 1);
    assert_eq!(shown(&world), (1, major(0)));
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(shown(&world).1, major(1));
}

#[test]
fn a_verdict_stands_whether_or_not_the_target_says_how_it_is() {
    let mut world = restartable(false);
    world.deliver_and_start("job-1", &World::image(700, 3));
    let silent = Fault::Answer(crate::plugin::Answer::Nothing);
    world.fault("state", silent);
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(world.phase(), "rejected");
}

#[test]
fn the_operators_command_says_what_runs_after_a_verdict_too() {
    let mut world = restartable(true);
    world.deliver_and_start("job-1", &World::image(5000, 2));
    world.programs.end_with("version", Some(exit(0, "4.0.0")));
    assert_eq!(world.state_now().running.map(|v| v.major), Some(4));
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(shown(&world), (2, Some(4)));
    world.deliver_and_start("job-2", &World::image(700, 3));
    world.programs.end_with("version", Some(exit(0, "3.0.0")));
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(shown(&world).1, Some(3));
}

#[test]
fn a_refused_image_is_left_and_the_old_one_runs() {
    let mut world = World::new(Setup {
        reset: Some(ResetPolicy::Command(command("reset"))),
        ..Setup::default()
    });
    world.truth.lock().unwrap().host_resets = true;
    let image = World::image(5000, 2);
    world.deliver_and_start("job-1", &image);
    assert_eq!(world.state_now().code, 1);
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(world.phase(), "rejected");
    assert_eq!(world.truth.lock().unwrap().running, 0);
    let resets = world.programs.ran.lock().unwrap().len();
    assert_eq!(resets, 2, "one for the test, one for the way back");
    // The next update takes the slot again.
    world.deliver_and_start("job-2", &World::image(700, 3));
    assert_eq!(world.commit(), Outcome::Nothing);
}

#[test]
fn an_activation_that_fails_is_taken_back_by_a_reject_alone() {
    let mut world = World::new(Setup::default());
    world.deliver("job-1", &World::image(500, 2));
    assert_eq!(world.install(), Outcome::Nothing);
    let lost = Failure::new(code::ACTIVATE_FAILED, 0, "the answer was lost");
    world.fault("activate", Fault::Fail(1, lost));
    assert_eq!(main_of(&world.activate()), code::ACTIVATE_FAILED);
    // It may be marked all the same.
    assert_eq!(main_of(&world.abort()), code::BUSY);
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(world.truth.lock().unwrap().running, 0);
    world.deliver_and_start("job-2", &World::image(700, 3));
    assert_eq!(world.commit(), Outcome::Nothing);
}

#[test]
fn a_reject_whose_restart_does_not_help_fails_by_name() {
    let mut world = World::new(Setup {
        reset: Some(ResetPolicy::Command(command("reset"))),
        ..Setup::default()
    });
    world.deliver_and_start("job-1", &World::image(500, 2));
    // The plugin's own reset started the new image; the operator's command does nothing.
    *world.programs.ran.lock().unwrap() = Vec::new();
    world.programs.end_with("reset", Some(exit(0, "")));
    world.truth.lock().unwrap().running = 1;
    let stuck = std::sync::Arc::clone(&world.truth);
    world.slots[0].fill(b"the old image");
    stuck.lock().unwrap().never_starts = false;
    world.fault("reject", Fault::Answer(crate::plugin::Answer::HostResets));
    let end = world.reject();
    assert_eq!(main_of(&end), 0xea);
    assert_eq!(world.phase(), "rejecting");
    world.truth.lock().unwrap().faults.clear();
    assert_eq!(world.reject(), Outcome::Nothing);
}

#[test]
fn the_host_resets_by_the_operator_s_command_with_its_environment() {
    let mut world = World::new(Setup {
        reset: Some(ResetPolicy::Command(command("reset"))),
        ..Setup::default()
    });
    world.truth.lock().unwrap().host_resets = true;
    world.deliver_and_start("job-1", &World::image(500, 2));
    let ran = world.programs.ran.lock().unwrap().clone();
    let expected = [
        ("OTAD_TARGET", "app"),
        ("OTAD_JOB", "job-1"),
        ("OTAD_VERSION", "2.0.0"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(ran, [("reset".to_owned(), expected.to_vec())]);
    world.poll();
    assert!(world.events.contains(&TargetEvent::Restarted(FILE)));
}

#[test]
fn a_reset_command_that_fails_and_a_target_without_one_are_named() {
    let mut world = World::new(Setup {
        reset: Some(ResetPolicy::Command(command("reset"))),
        ..Setup::default()
    });
    world.truth.lock().unwrap().host_resets = true;
    world.programs.end_with("reset", Some(exit(7, "")));
    world.deliver("job-1", &World::image(500, 2));
    world.install();
    world.activate();
    let Outcome::Failed(failure) = world.reset() else {
        panic!("it passed");
    };
    assert_eq!((failure.main, failure.sub), (code::ACTIVATE_FAILED, 7));
    let mut world = World::direct();
    world.truth.lock().unwrap().host_resets = true;
    assert_eq!(main_of(&world.reset()), code::UNSUPPORTED);
}

#[test]
fn after_a_reset_command_that_failed_the_old_image_is_started_once_more() {
    let runs = 2;
    for again in [0, 7] {
        let mut world = World::new(Setup {
            reset: Some(ResetPolicy::Command(command("reset"))),
            ..Setup::default()
        });
        world.truth.lock().unwrap().host_resets = true;
        // It ends what runs and starts nothing.
        world.programs.on_reset(|| {});
        world.programs.end_with("reset", Some(exit(7, "")));
        world.deliver("job-1", &World::image(500, 2));
        world.install();
        world.activate();
        assert_eq!(main_of(&world.reset()), code::ACTIVATE_FAILED);
        world.programs.end_with("reset", Some(exit(again, "")));
        assert_eq!(world.reject(), Outcome::Nothing);
        assert_eq!(world.phase(), "rejected");
        assert_eq!(world.programs.ran.lock().unwrap().len(), runs);
        // Once, and not at each end to come.
        world.deliver("job-2", &World::image(600, 3));
        world.install();
        world.activate();
        assert_eq!(world.reject(), Outcome::Nothing);
        assert_eq!(world.programs.ran.lock().unwrap().len(), runs);
    }
}

#[test]
fn a_target_that_is_the_process_restarts_it_after_everything_is_on_disk() {
    let mut world = World::new(Setup {
        reset: Some(ResetPolicy::Process),
        ..Setup::default()
    });
    world.truth.lock().unwrap().host_resets = true;
    world.deliver_and_start("job-1", &World::image(500, 2));
    world.poll();
    assert_eq!(world.events, [TargetEvent::ProcessRestart(FILE)]);
    assert_eq!(world.truth.lock().unwrap().alive, 0);
    world.power_cut();
    assert_eq!(world.state_now().code, 1);
    // On the way back nobody sees the end of `reject` but the next process.
    let Started::Pending(token) = world.start(|t, _, token| t.reject(token, FILE)) else {
        panic!("over at once");
    };
    world.poll();
    assert_eq!(world.events, [TargetEvent::ProcessRestart(FILE)]);
    assert_eq!(world.ended(token), None);
    world.power_cut();
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(world.truth.lock().unwrap().running, 0);
}

#[test]
fn the_operator_s_own_check_may_refuse_an_image_and_nothing_else() {
    let mut world = World::new(Setup {
        inspect: true,
        ..Setup::default()
    });
    let image = World::image(500, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    world.programs.end_with("inspect", Some(exit(7, "")));
    let Outcome::Failed(failure) = world.close() else {
        panic!("it was let through");
    };
    assert_eq!((failure.main, failure.sub), (code::EXTRA_CHECK, 7));
    assert!(world.targets.verified(FILE).is_err());
    let (_, environment) = world.programs.ran.lock().unwrap().pop().unwrap();
    let said = |key: &str| {
        let mut pairs = environment.iter().filter(|(k, _)| k == key);
        let value = pairs.next().map(|(_, value)| value.clone());
        assert_eq!(pairs.next(), None, "{key} stands there twice");
        value
    };
    for (key, value) in [
        ("OTAD_JOB", "job-1"),
        ("OTAD_FILE", "0"),
        ("OTAD_VERSION", "2.0.0"),
        ("OTAD_SIZE", &image.len().to_string()),
    ] {
        assert_eq!(said(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(said("OTAD_SHA256").map(|digest| digest.len()), Some(64));
    // It says yes: the image is what it was before.
    world.programs.end_with("inspect", Some(exit(0, "")));
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.abort(), Outcome::Nothing);
    // What is not well signed it is not even shown.
    let mut spec = world.spec("job-2", &image);
    spec.signature[20] ^= 1;
    let created = world.run(|targets, _, token| targets.create(token, spec));
    assert_eq!(created, Outcome::Nothing);
    world.write_all(&image);
    world.programs.ran.lock().unwrap().clear();
    assert_eq!(main_of(&world.close()), 0xe3);
    let ran = world.programs.ran.lock().unwrap();
    assert!(ran.iter().all(|(name, _)| name != "inspect"), "{ran:?}");
}

#[test]
fn the_self_test_is_the_plugin_s_and_the_operator_s() {
    let mut world = World::new(Setup {
        health: true,
        ..Setup::default()
    });
    world.deliver_and_start("job-1", &World::image(500, 2));
    assert_eq!(world.self_test(), Outcome::Nothing);
    world.programs.end_with("health", Some(exit(3, "")));
    let Outcome::Failed(failure) = world.self_test() else {
        panic!("it passed");
    };
    assert_eq!((failure.main, failure.sub), (code::EXTRA_CHECK, 3));
    world.programs.end_with("health", Some(exit(0, "")));
    let refusal = Failure::new(0x99, 0, "not mine");
    world.fault("self-test", Fault::Fail(1, refusal));
    // A code that no plugin has.
    assert_eq!(main_of(&world.self_test()), code::PLUGIN_FAILED);
    assert_eq!(world.self_test(), Outcome::Nothing);
}

#[test]
fn a_reject_ends_the_self_test_that_is_under_way() {
    let mut world = World::new(Setup {
        health: true,
        ..Setup::default()
    });
    world.deliver_and_start("job-1", &World::image(500, 2));
    world.programs.end_with("health", None);
    let Started::Pending(test) = world.start(|t, _, token| t.self_test(token, FILE)) else {
        panic!("over at once");
    };
    world.truth.lock().unwrap().boot(Record::default());
    world.poll();
    assert_eq!(world.reject(), Outcome::Nothing);
    world.poll();
    assert_eq!(main_of(&world.ended(test).unwrap()), code::CANCELLED);
    // The command ends when nobody waits for it any more.
    let reply = world.programs.replies.lock().unwrap().remove(0);
    reply(exit(0, ""));
    assert_eq!(world.state_now().code, 3);
}

#[test]
fn what_the_program_prints_is_the_version_that_runs() {
    let mut world = World::new(Setup {
        version_command: true,
        ..Setup::default()
    });
    let four = Version {
        major: 4,
        minor: 5,
        revision: 6,
        build: 0,
    };
    for (end, running) in [
        (exit(0, "app 4.5.6\n"), Some(four)),
        (exit(0, "no version"), None),
        (exit(1, "4.5.6"), None),
    ] {
        world.programs.end_with("version", Some(end));
        assert_eq!(world.state_now().running, running);
    }
}

#[test]
fn a_state_waits_its_turn_and_other_operations_are_refused_meanwhile() {
    let mut world = World::new(Setup {
        version_command: true,
        ..Setup::default()
    });
    world.programs.end_with("version", None);
    let Started::Pending(first) = world.start(|t, _, token| t.state(token, FILE)) else {
        panic!("over at once");
    };
    let Started::Pending(second) = world.start(|t, _, token| t.state(token, FILE)) else {
        panic!("over at once");
    };
    let image = World::image(500, 2);
    world.poll();
    assert_eq!(main_of(&world.create("job-1", &image)), code::BUSY);
    world.programs.end_with("version", Some(exit(0, "1.0.0")));
    let reply = world.programs.replies.lock().unwrap().remove(0);
    reply(exit(0, "0.9.0"));
    assert!(matches!(world.finish(first), Outcome::State(_)));
    assert!(matches!(world.finish(second), Outcome::State(_)));
    for _ in 0..Limits::default().waiting_states_max + 1 {
        world.programs.end_with("version", None);
        world.start(|t, _, token| t.state(token, FILE));
    }
    assert_eq!(main_of(&world.state()), code::LIMIT);
}

#[test]
fn a_commit_of_an_image_that_does_not_run_is_refused() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver("job-1", &image);
    assert_eq!(main_of(&world.commit()), code::BUSY);
    world.install();
    world.activate();
    // Armed, the old one runs.
    assert_eq!(main_of(&world.commit()), code::BAD_IMAGE_STATE);
    world.truth.lock().unwrap().never_starts = true;
    world.reset();
    assert_eq!(world.state_now().code, 3);
    assert_eq!(main_of(&world.commit()), code::BAD_IMAGE_STATE);
    assert_eq!(world.phase(), "activated");
    assert_eq!(world.reject(), Outcome::Nothing);
}

#[test]
fn a_repeated_commit_and_a_repeated_activate_change_nothing() {
    let mut world = World::direct();
    world.deliver_and_start("job-1", &World::image(500, 2));
    assert_eq!(world.activate(), Outcome::Nothing);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(main_of(&world.reject()), code::BAD_IMAGE_STATE);
    let state = world.state_now();
    assert_eq!((state.code, state.runs_new), (2, Some(true)));
}

#[test]
fn abort_before_activate_frees_the_slot_and_after_it_is_refused() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    assert_eq!(world.abort(), Outcome::Nothing, "nothing there is no error");
    world.deliver("job-1", &image);
    world.install();
    assert_eq!(world.abort(), Outcome::Nothing);
    assert_eq!(world.phase(), "none");
    assert_eq!(world.slots[1].contents(), b"");
    assert_eq!(main_of(&world.reopen("job-1")), code::NOT_FOUND);
    world.deliver_and_start("job-2", &image);
    assert_eq!(main_of(&world.abort()), code::BUSY);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert_eq!(world.abort(), Outcome::Nothing);
    assert_eq!(
        world.slots[1].contents(),
        image,
        "the committed image stays"
    );
}

#[test]
fn abort_cancels_what_is_under_way_at_any_point() {
    let image = World::image(5000, 2);
    for verb in ["create", "install"] {
        let mut world = World::direct();
        let sleep = WakeOn {
            after_ms: Some(1000),
            ..WakeOn::default()
        };
        world.fault(verb, Fault::Endless(sleep));
        let started = if verb == "create" {
            let spec = world.spec("job-1", &image);
            world.start(|t, _, token| t.create(token, spec))
        } else {
            world.deliver("job-1", &image);
            let proof = world.targets.verified(FILE).unwrap();
            world.start(|t, _, token| t.install(token, &proof))
        };
        let Started::Pending(token) = started else {
            panic!("{verb} is over at once");
        };
        assert_eq!(world.abort(), Outcome::Nothing, "{verb}");
        world.poll();
        assert_eq!(main_of(&world.ended(token).unwrap()), code::CANCELLED);
        assert_eq!(world.phase(), "none");
        world.truth.lock().unwrap().faults.clear();
        world.deliver("job-2", &image);
    }
}

#[test]
fn an_abort_waits_for_the_worker_before_the_slot_is_used_again() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.bench.hold(true);
    let spec = world.spec("job-1", &image);
    let Started::Pending(create) = world.start(|t, _, token| t.create(token, spec)) else {
        panic!("over at once");
    };
    world.poll();
    assert_eq!(world.bench.waiting(), 1, "the erase of job-1");
    let Started::Pending(abort) = world.start(|t, _, token| t.abort(token, FILE)) else {
        panic!("did not wait");
    };
    world.poll();
    assert_eq!(main_of(&world.ended(create).unwrap()), code::CANCELLED);
    assert_eq!(world.ended(abort), None);
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(abort), Outcome::Nothing);
    world.deliver("job-2", &image);
}

#[test]
fn the_launcher_finds_the_digest_of_what_was_verified_and_of_nothing_else() {
    let mut world = World::new(Setup {
        limits: Limits {
            verified_images_max: 2,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let image = World::image(500, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    let listed = |world: &World| verified_record::list(&*world.state, "gateway", "app").unwrap();
    assert_eq!(listed(&world), []);
    let Outcome::Verified(first) = world.close() else {
        panic!("not verified");
    };
    let contains = |world: &World, sha256| {
        verified_record::contains(&*world.state, "gateway", "app", sha256).unwrap()
    };
    assert!(contains(&world, &first.sha256));
    assert!(!contains(&world, &[0; 32]));
    world.install();
    world.activate();
    world.reset();
    world.commit();
    for n in 3..10 {
        world.deliver("job-n", &World::image(500, n));
    }
    let images = listed(&world);
    assert_eq!(images.len(), 3);
    assert!(contains(&world, &first.sha256), "the committed one stays");
}

#[test]
fn the_first_image_of_a_target_counts_as_committed_and_its_slot_is_kept() {
    let mut world = World::direct();
    let image = verified_record::VerifiedImage {
        sha256: [1; 32],
        size: 13,
        version: None,
        signer: "initial".into(),
    };
    verified_record::enter_initial(&*world.state, "gateway", "app", "slot-b", image).unwrap();
    world.restart();
    // The plugin would take slot-b, which the host knows to hold the committed image.
    let end = world.create("job-1", &World::image(500, 2));
    assert_eq!(main_of(&end), code::PLUGIN_FAILED);
    assert!(verified_record::contains(&*world.state, "gateway", "app", &[1; 32]).unwrap());
}

/// A world in which the operator's restart command returns long before the launcher has started anything.
fn slow_launcher() -> World {
    let world = restartable(false);
    world.programs.on_reset(|| {});
    world
}

fn launch(world: &World) {
    let record = Record::decode(&world.record.contents());
    world.truth.lock().unwrap().boot(record);
}

fn restarts(world: &World) -> usize {
    let told = |e: &&TargetEvent| matches!(e, TargetEvent::Restarted(_));
    world.events.iter().filter(told).count()
}

#[test]
fn a_restart_is_told_when_the_target_is_no_longer_armed_and_not_when_the_command_ends() {
    let mut world = slow_launcher();
    world.deliver("job-1", &World::image(500, 2));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.activate(), Outcome::Nothing);
    assert_eq!(world.reset(), Outcome::Nothing);
    for _ in 0..20 {
        let wake = world.poll().unwrap();
        let limits = Limits::default();
        assert!(wake <= world.now() + limits.restart_poll_ms);
        world.turn_clock(wake.saturating_sub(world.now()));
    }
    assert_eq!(restarts(&world), 0, "it is still armed");
    assert_eq!(world.state_now().code, 4, "and may be asked meanwhile");
    launch(&world);
    world.turn_clock(Limits::default().restart_poll_ms);
    for _ in 0..5 {
        world.poll();
    }
    assert_eq!(restarts(&world), 1);
    assert_eq!(world.poll(), None, "nobody looks any more");
    assert_eq!(world.programs.ran.lock().unwrap().len(), 1);
    assert_eq!(world.state_now().code, 1);
    assert_eq!(world.commit(), Outcome::Nothing);
}

#[test]
fn a_target_that_stays_armed_or_silent_is_told_as_restarted_in_the_end() {
    let unreachable = Failure::new(0xd4, 0, "silent");
    for silent in [false, true] {
        let mut world = slow_launcher();
        world.deliver("job-1", &World::image(500, 2));
        assert_eq!(world.install(), Outcome::Nothing);
        assert_eq!(world.activate(), Outcome::Nothing);
        assert_eq!(world.reset(), Outcome::Nothing);
        if silent {
            world.truth.lock().unwrap().state = Some(Err(unreachable.clone()));
        }
        let began = world.now();
        while let Some(wake) = world.poll() {
            world.turn_clock(wake.saturating_sub(world.now()));
        }
        assert_eq!(restarts(&world), 1, "{silent}");
        assert_eq!(world.now() - began, Limits::default().restart_wait_ms);
    }
}

#[test]
fn a_reject_waits_until_the_old_image_runs_and_restarts_once() {
    let mut world = slow_launcher();
    world.deliver("job-1", &World::image(500, 2));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.activate(), Outcome::Nothing);
    launch(&world);
    let started = world.start(|t, _, token| t.reject(token, FILE));
    let Started::Pending(token) = started else {
        panic!("{started:?}");
    };
    for _ in 0..20 {
        let wake = world.poll().unwrap();
        world.turn_clock(wake.saturating_sub(world.now()));
    }
    assert_eq!(world.ended(token), None);
    launch(&world);
    assert_eq!(world.finish(token), Outcome::Nothing);
    assert_eq!(world.phase(), "rejected");
    assert_eq!(world.programs.ran.lock().unwrap().len(), 1);
}

#[test]
fn a_target_that_is_watched_can_be_rejected_at_once() {
    let mut world = slow_launcher();
    world.deliver("job-1", &World::image(500, 2));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.activate(), Outcome::Nothing);
    assert_eq!(world.reset(), Outcome::Nothing);
    world.truth.lock().unwrap().steps.insert("state", 1000);
    world.poll();
    world.truth.lock().unwrap().steps.clear();
    assert_eq!(world.reject(), Outcome::Nothing);
    assert_eq!(restarts(&world), 0);
}
