//! State files that are damaged: what they are needed for is refused by name, everything else goes on.

use super::double::{Fault, version};
use super::world::{FILE, Setup, World, main_of};
use crate::ports::state_dir::StateDir as _;
use crate::target::{Targets, VersionReader, verified_record};
use crate::types::{Failure, Outcome, Started, TargetState, code};

const RECORD: &str = "targets/gateway/app/record.json";
const VERIFIED: &str = "targets/gateway/app/verified.json";

/// Errno of a medium that is ill.
const EIO: i32 = 5;

/// File id of a second target.
const OTHER: u32 = 7;

#[test]
fn a_target_with_a_damaged_record_refuses_every_order_by_name_and_the_others_go_on() {
    for bytes in [&b"{"[..], b"", b"{\"format\": 3}", b"[]"] {
        let mut world = World::direct();
        world.state.store(RECORD, bytes).unwrap();
        let (mut other, elsewhere) = (world.config(), World::direct());
        other.name = "other".into();
        other.file_id = OTHER;
        other.regions = elsewhere.config().regions;
        other.plugin = elsewhere.config().plugin;
        let configs = vec![world.config(), other];
        world.targets = Targets::new("gateway", configs, world.ports()).unwrap();
        let image = World::image(500, 2);
        let ends = [
            world.create("job-1", &image),
            world.reopen("job-1"),
            world.write_block(&image, 0),
            world.close(),
            world.reset(),
            world.self_test(),
            world.commit(),
            world.reject(),
            world.state(),
            world.abort(),
        ];
        for end in ends {
            let Outcome::Failed(failure) = end else {
                panic!("{end:?}");
            };
            assert_eq!(failure.main, code::STORAGE);
            assert!(failure.detail.contains(RECORD), "{failure}");
            assert!(failure.detail.contains("move the file away"), "{failure}");
        }
        assert!(world.targets.verified(FILE).is_err());
        let report = world.targets.report().remove(0);
        assert_eq!(report.phase, "damaged");
        assert!(report.warnings[0].contains(RECORD), "{report:?}");
        assert_eq!(world.calls(), [""; 0], "its plugin is not even opened");
        assert_eq!(world.state.load(RECORD).unwrap().unwrap(), bytes, "kept");
        let mut spec = world.spec("job-1", &image);
        spec.file_id = OTHER;
        let end = world.run(|t, _, token| t.create(token, spec));
        assert_eq!(end, Outcome::Nothing);
        // What the message says: moved away, and otad started again.
        world.state.remove(RECORD).unwrap();
        world.restart();
        world.deliver_and_start("job-1", &image);
        assert_eq!(world.commit(), Outcome::Nothing);
    }
}

#[test]
fn a_record_that_cannot_be_read_is_no_end_of_the_others_either() {
    let mut world = World::direct();
    world.state.fail_reads(true);
    world.targets = Targets::new("gateway", vec![world.config()], world.ports()).unwrap();
    let started = world.start(|t, _, token| t.state(token, FILE));
    let Started::Done(end) = started else {
        panic!("{started:?}");
    };
    assert_eq!(main_of(&end), code::STORAGE);
}

#[test]
fn a_damaged_or_missing_list_of_verified_images_is_made_anew_from_the_record() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver_and_start("job-1", &image);
    assert_eq!(world.commit(), Outcome::Nothing);
    world.deliver("job-2", &World::image(600, 3));
    let whole = verified_record::list(&*world.state, "gateway", "app").unwrap();
    assert_eq!(whole.len(), 2);
    world.state.store(VERIFIED, b"{").unwrap();
    let list = || verified_record::list(&*world.state, "gateway", "app");
    assert_eq!(list().unwrap(), whole);
    world.state.remove(VERIFIED).unwrap();
    assert_eq!(list().unwrap(), whole, "it is missing");
    world.state.store(VERIFIED, b"{").unwrap();
    // Without a record there is nothing to make it from.
    world.state.remove(RECORD).unwrap();
    assert!(list().is_err());
}

/// A world in which version 2 was committed to slot b, and the target does not say what runs.
fn silent_on_version(setup: Setup) -> World {
    let mut world = World::new(setup);
    examines(&world, 1);
    let image = World::image(500, 2);
    world.deliver_and_start("job-1", &image);
    assert_eq!(world.commit(), Outcome::Nothing);
    world.truth.lock().unwrap().state = Some(Ok(TargetState {
        code: 2,
        ..TargetState::default()
    }));
    world
}

/// Where the plugin reads the version of an image, it is the one of this slot.
fn examines(world: &World, slot: u8) {
    world.truth.lock().unwrap().examined.version = Some(version(slot));
}

#[test]
fn a_damaged_running_image_is_said_and_compared_by_what_was_committed() {
    for allow_downgrade in [false, true] {
        let mut world = silent_on_version(Setup {
            allow_downgrade,
            ..Setup::default()
        });
        let truncated = &World::image(500, 2)[..100];
        world.slots[1].fill(truncated);
        // The agent would refuse the same version, which is the cure.
        assert_eq!(world.state_now().running, None);
        let report = world.targets.report().remove(0);
        assert!(report.image_damaged, "{report:?}");
        assert_eq!(report.state.unwrap().running, Some(version(1)));
        assert!(report.warnings[0].contains("2.0.0"), "{report:?}");
        let older = World::image(600, 1);
        assert_eq!(world.create("older", &older), Outcome::Nothing);
        world.write_all(&older);
        let end = world.close();
        if allow_downgrade {
            assert!(matches!(end, Outcome::Verified(_)), "{end:?}");
        } else {
            assert_eq!(main_of(&end), code::DOWNGRADE);
        }
        world.deliver("newer", &World::image(600, 3));
        world.deliver("again", &World::image(600, 2));
        assert_eq!(world.install(), Outcome::Nothing);
        assert_eq!(world.activate(), Outcome::Nothing);
        assert_eq!(world.reset(), Outcome::Nothing);
        world.truth.lock().unwrap().state = None;
        assert_eq!(world.state_now().code, 1);
        assert_eq!(world.commit(), Outcome::Nothing);
        assert!(!world.targets.report()[0].image_damaged);
    }
}

#[test]
fn an_image_whose_version_its_plugin_cannot_read_is_no_damaged_one() {
    for setup in [
        // The host reads it, from a slot that is whole.
        Setup::default(),
        Setup {
            staged: true,
            ..Setup::default()
        },
        // It may lie where nobody can look.
        Setup {
            staged: true,
            version_from: VersionReader::Plugin,
            ..Setup::default()
        },
        Setup {
            version_from: VersionReader::None,
            ..Setup::default()
        },
    ] {
        let known = setup.version_from != VersionReader::None;
        let mut world = silent_on_version(setup);
        for job in ["job-2", "job-3"] {
            let running = world.state_now().running;
            assert_eq!(running, known.then_some(version(1)));
            assert!(!world.targets.report()[0].image_damaged);
            // What is older the agent refuses, which has heard what runs.
            world.deliver(job, &World::image(600, 1));
        }
    }
}

#[test]
fn an_image_whose_version_only_its_plugin_reads_is_damaged_when_it_reads_it_no_more() {
    let mut world = silent_on_version(Setup {
        version_from: VersionReader::Plugin,
        ..Setup::default()
    });
    assert_eq!(world.state_now().running, None);
    let report = world.targets.report().remove(0);
    assert!(report.image_damaged, "{report:?}");
    assert_eq!(report.state.unwrap().running, Some(version(1)));
    let image = World::image(600, 9);
    examines(&world, 0);
    assert_eq!(world.create("older", &image), Outcome::Nothing);
    world.write_all(&image);
    assert_eq!(main_of(&world.close()), code::DOWNGRADE);
    examines(&world, 1);
    world.deliver("again", &image);
    world.truth.lock().unwrap().state = None;
    assert_eq!(world.state_now().running, Some(version(1)));
    assert!(!world.targets.report()[0].image_damaged);
}

/// Two updates were committed, `same` = of one version; their record was shortened to `length`, where the daemon finds it.
fn shortened(length: usize, same: bool) -> World {
    let mut world = World::direct();
    // What the double says to run in either slot.
    for (job, major) in [("job-1", 2), ("job-2", if same { 2 } else { 1 })] {
        world.deliver_and_start(job, &World::image(500, major));
        assert_eq!(world.commit(), Outcome::Nothing);
    }
    world.truth.lock().unwrap().version = same.then(|| version(1));
    let mut record = world.state.load(RECORD).unwrap().unwrap();
    record.truncate(length);
    world.state.store(RECORD, &record).unwrap();
    world.restart();
    world
}

#[test]
fn an_old_copy_of_the_state_is_named_and_nothing_is_written_to_a_slot() {
    let mut world = World::direct();
    let deliver = |world: &mut World, job: &str, major: u8| {
        world.deliver_and_start(job, &World::image(500, major));
        assert_eq!(world.commit(), Outcome::Nothing);
    };
    // What the double says to run in either slot.
    deliver(&mut world, "job-1", 2);
    let copy = [RECORD, VERIFIED].map(|file| world.state.load(file).unwrap().unwrap());
    deliver(&mut world, "job-2", 1);
    for (file, bytes) in [RECORD, VERIFIED].iter().zip(&copy) {
        world.state.store(file, bytes).unwrap();
    }
    world.restart();
    let slots = [0, 1].map(|slot| world.slots[slot].contents());
    let image = World::image(600, 4);
    assert!(matches!(world.state(), Outcome::State(_)));
    let Outcome::Failed(failure) = world.create("job-3", &image) else {
        panic!("the slot that runs was given away");
    };
    assert_eq!(failure.main, code::STORAGE);
    for words in [
        RECORD,
        "1.0.0 runs",
        "2.0.0 in `slot-b`",
        "`otad target init app IMAGE --device gateway --force`",
    ] {
        assert!(failure.detail.contains(words), "{words}: {failure}");
    }
    assert_eq!([0, 1].map(|slot| world.slots[slot].contents()), slots);
    assert_eq!(world.abort(), Outcome::Nothing);
    let report = world.targets.report().remove(0);
    assert!(report.record_outdated);
    assert!(
        report.warnings[0].contains("older than what runs"),
        "{report:?}"
    );
}

/// Where such a record may be cut: behind whole lines, and behind half of one.
fn cuts(same: bool) -> (Vec<u8>, Vec<usize>) {
    let whole = shortened(usize::MAX, same).state.load(RECORD).unwrap();
    let whole = whole.unwrap();
    let ends = (1..=whole.len()).filter(|end| whole[end - 1] == b'\n');
    let cuts: Vec<usize> = ends.flat_map(|end| [end, end - 9]).collect();
    assert!(cuts.len() > 20, "{cuts:?}");
    (whole, cuts)
}

/// Whether a failure says what has happened to the record and what to do.
fn is_told(failure: &Failure) -> bool {
    failure.detail.contains(RECORD) && failure.detail.contains("move the file away")
}

/// What an agent may ask of such a target before its next job: each asks how it is before anything else, and the target may
/// have no answer yet.
const BEFORE: [fn(&mut World) -> Vec<Outcome>; 7] = [
    |world| vec![world.state()],
    |world| vec![world.state(), world.abort()],
    |world| vec![world.abort()],
    // The medium is full.
    |world| {
        world.power.fill_up();
        let end = world.abort();
        world.power.make_room();
        vec![end]
    },
    // It is ill for a while.
    |world| {
        world.state.fail_with(Some(EIO));
        world.abort();
        world.state.fail_with(None);
        vec![world.abort()]
    },
    |world| {
        world.state.fail_with(Some(EIO));
        world.create("job-3", &World::image(600, 4));
        world.state.fail_with(None);
        vec![world.abort()]
    },
    // The job is given up while its record is still being written.
    |world| {
        let spec = world.spec("job-3", &World::image(600, 4));
        world.bench.hold(true);
        world.start(|t, _, token| t.create(token, spec));
        world.poll();
        world.state.fail_with(Some(EIO));
        let abort = world.start(|t, _, token| t.abort(token, FILE));
        world.bench.hold(false);
        world.bench.run_all();
        world.state.fail_with(None);
        match abort {
            Started::Done(end) => vec![end],
            Started::Pending(token) => vec![world.finish(token)],
        }
    },
];

#[test]
fn a_shortened_record_costs_no_image_and_is_named() {
    for same in [false, true] {
        let (whole, cuts) = cuts(same);
        let rows = || BEFORE.iter().enumerate();
        let mut told = 0;
        for (cut, (row, before)) in cuts
            .iter()
            .flat_map(|cut| rows().map(move |row| (*cut, row)))
        {
            let mut world = shortened(cut, same);
            let running = world.slots[0].contents();
            let mut ends = before(&mut world);
            ends.push(world.create("job-3", &World::image(600, 4)));
            let text = String::from_utf8_lossy(&whole[..cut]);
            for end in &ends {
                match end {
                    Outcome::State(_) | Outcome::Nothing => {}
                    // It may be in test, by the record.
                    Outcome::Failed(failure) if failure.main == code::BUSY => {}
                    Outcome::Failed(failure) => {
                        assert!(is_told(failure), "{row}: {text}{failure}");
                        // Of two images of one version a plugin may take one for the other.
                        let puts = failure.detail.starts_with("plugin puts the file into");
                        let main = match same && puts {
                            true => code::PLUGIN_FAILED,
                            false => code::STORAGE,
                        };
                        assert_eq!(failure.main, main, "{failure}");
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(world.slots[0].contents(), running, "{row}: {text}");
            if let Some(Outcome::Failed(_)) = ends.last() {
                told += 1;
                world.state.remove(RECORD).unwrap();
                world.restart();
                world.state_now();
            }
            world.deliver_and_start("job-4", &World::image(700, 5));
            assert_eq!(world.commit(), Outcome::Nothing);
            assert_eq!(world.slots[0].contents(), running, "{row}: {text}");
        }
        assert!(told > 10, "{told}");
    }
}

/// The target has not said what runs, its transfer is received on, and then it says that it runs it. How the
/// question ends, and a block that comes meanwhile, or a close behind a block that was gathered and is still to be written.
fn found_out_late(mut world: World, gathered: bool) -> Option<[Outcome; 2]> {
    let says = |runs_new| TargetState {
        code: 2,
        runs_new,
        ..TargetState::default()
    };
    let image = World::image(500, 1);
    world.truth.lock().unwrap().state = Some(Ok(says(None)));
    world.state();
    // Nothing is held of the file.
    let map = "targets/gateway/app/blocks.map";
    world.state.remove(map).unwrap();
    match world.reopen("job-2") {
        Outcome::Held(held) if held == [0] => {}
        _ => return None,
    }
    let write = |t: &mut Targets, now, token| t.write_block(now, token, FILE, 0, &image);
    if gathered {
        assert_eq!(world.start(write), Started::Done(Outcome::Nothing));
        world.fault("write-block", Fault::Trap(1));
    }
    world.truth.lock().unwrap().state = Some(Ok(says(Some(true))));
    let asked = world.start(|t, _, token| t.state(token, FILE));
    let other = if gathered {
        world.start(|t, _, token| t.close(token, FILE))
    } else {
        world.start(write)
    };
    Some([asked, other].map(|started| match started {
        Started::Pending(token) => world.finish(token),
        Started::Done(_) => panic!("{started:?}"),
    }))
}

#[test]
fn blocks_and_a_close_that_wait_when_the_record_is_found_out_end_with_it() {
    let (_, cuts) = cuts(false);
    for gathered in [false, true] {
        let late = |cut: &usize| found_out_late(shortened(*cut, false), gathered);
        let ends: Vec<Outcome> = cuts.iter().filter_map(late).flatten().collect();
        assert!(!ends.is_empty());
        for end in ends {
            let Outcome::Failed(failure) = end else {
                panic!("{end:?}");
            };
            assert!(is_told(&failure), "{failure}");
            assert_eq!(failure.main, code::STORAGE);
        }
    }
}

#[test]
fn the_committed_image_brought_once_more_is_no_old_record() {
    let image = World::image(500, 2);
    let mut world = World::direct();
    world.deliver_and_start("job-1", &image);
    assert_eq!(world.commit(), Outcome::Nothing);
    world.deliver("job-2", &image);
    // By digest it is this one that runs.
    world.truth.lock().unwrap().state = Some(Ok(TargetState {
        code: 2,
        runs_new: Some(true),
        ..TargetState::default()
    }));
    world.restart();
    world.state_now();
    assert_eq!(world.targets.report()[0].phase, "verified");
}
