//! Plugins that break, hang or lie, and media that are full or refuse: every one ends with a named failure, and the
//! next attempt is a fresh one.

use super::double::{Fault, Record, SLOT_B, version};
use super::world::{FILE, Setup, World, command, main_of};
use crate::plugin::{Answer, ExaminedImage, WakeOn};
use crate::target::{Limits, ResetPolicy, SYNC_BYTES, VersionReader};
use crate::types::{Failure, Outcome, Started, code};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// One call of a target's operation.
type Call = fn(&mut World) -> Outcome;

/// A world just before `verb` is called, and the call.
fn before(verb: &str) -> (World, Call) {
    let mut world = World::direct();
    let image = World::image(3000, 2);
    let steps: [(&str, Call); 7] = [
        ("create", |w| w.create("job-1", &World::image(3000, 2))),
        ("install", World::install),
        ("activate", World::activate),
        ("reset", World::reset),
        ("self-test", World::self_test),
        ("commit", World::commit),
        ("state", World::state),
    ];
    for (step, call) in steps {
        if step == verb {
            return (world, call);
        }
        assert_eq!(call(&mut world), Outcome::Nothing, "{step}");
        if step == "create" {
            world.write_all(&image);
            assert!(matches!(world.close(), Outcome::Verified(_)));
        }
    }
    panic!("unknown verb {verb}");
}

const VERBS: [&str; 7] = [
    "create",
    "install",
    "activate",
    "reset",
    "self-test",
    "commit",
    "state",
];

/// Duties that a fresh instance begins again.
const BEGUN_AGAIN: [&str; 4] = ["create", "install", "activate", "self-test"];

#[test]
fn a_plugin_that_traps_is_struck_and_a_fresh_instance_begins_the_duty_again() {
    let most = Limits::default().strikes_max;
    for verb in BEGUN_AGAIN {
        for traps in 1..=most {
            let (mut world, call) = before(verb);
            let fault = Fault::Trap(traps);
            world.fault(verb, fault);
            match call(&mut world) {
                Outcome::Failed(failure) if traps == most => {
                    assert_eq!((failure.main, failure.sub), (code::PLUGIN_FAILED, most));
                }
                end => assert!(traps < most && end == Outcome::Nothing, "{verb}: {end:?}"),
            }
            assert_eq!(world.targets.report().remove(0).strikes, traps, "{verb}");
        }
        let (mut world, call) = before(verb);
        world.fault(verb, Fault::TrapInStep);
        assert_eq!(main_of(&call(&mut world)), code::PLUGIN_FAILED, "{verb}");
        assert_eq!(world.targets.report().remove(0).strikes, most, "{verb}");
    }
}

#[test]
fn a_fresh_instance_begins_what_reads_again_too() {
    let trap_in = |world: &World, verb| {
        let trap = Fault::Trap(1);
        world.truth.lock().unwrap().faults.insert(verb, trap);
    };
    let strikes = |world: &World| world.targets.report().remove(0).strikes;
    let (mut world, _) = before("install");
    world.restart();
    trap_in(&world, "reopen");
    assert!(matches!(world.reopen("job-1"), Outcome::Held(_)));
    assert_eq!(strikes(&world), 1);
    // A close in which the plugin looks at the image.
    let mut world = World::new(Setup {
        version_from: VersionReader::Plugin,
        ..Setup::default()
    });
    let image = World::image(3000, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    world.truth.lock().unwrap().examined.version = Some(version(1));
    trap_in(&world, "examine");
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(strikes(&world), 1);
}

#[test]
fn a_plugin_that_traps_in_any_other_duty_is_struck_and_the_duty_can_be_repeated() {
    for fault in [Fault::Trap(1), Fault::TrapInStep] {
        for verb in VERBS.into_iter().filter(|v| !BEGUN_AGAIN.contains(v)) {
            let (mut world, call) = before(verb);
            world.fault(verb, fault.clone());
            let Outcome::Failed(failure) = call(&mut world) else {
                panic!("{verb} passed");
            };
            assert_eq!(
                (failure.main, failure.sub),
                (code::PLUGIN_FAILED, 1),
                "{verb}"
            );
            assert_eq!(
                world.truth.lock().unwrap().alive,
                0,
                "the broken instance is gone"
            );
            world.truth.lock().unwrap().faults.clear();
            let again = call(&mut world);
            assert!(!matches!(again, Outcome::Failed(_)), "{verb}: {again:?}");
        }
    }
}

#[test]
fn a_fresh_instance_is_opened_with_the_saved_state_and_told_of_the_transfer() {
    let (mut world, call) = before("install");
    world.fault("install", Fault::Trap(1));
    world.calls();
    world.truth.lock().unwrap().opened.clear();
    assert_eq!(call(&mut world), Outcome::Nothing);
    assert_eq!(world.calls(), ["install", "open", "reopen", "install"]);
    assert!(world.truth.lock().unwrap().opened[0].is_some());
    // One that refuses the saved state is opened without.
    world.restart();
    world.truth.lock().unwrap().refuses_saved = true;
    assert_eq!(world.state_now().code, 2);
    assert_eq!(world.calls(), ["open", "open", "reopen", "state"]);
}

#[test]
fn a_plugin_that_breaks_too_often_is_not_tried_again_for_its_transfer() {
    let (mut world, call) = before("install");
    world.fault("install", Fault::Trap(100));
    world.calls();
    let Outcome::Failed(failure) = call(&mut world) else {
        panic!("it passed");
    };
    assert_eq!(failure.sub, Limits::default().strikes_max);
    let again = ["install", "open", "reopen"];
    assert_eq!(world.calls(), [&again[..], &again, &["install"]].concat());
    assert_eq!(main_of(&call(&mut world)), code::PLUGIN_FAILED);
    assert_eq!(world.calls(), [""; 0], "it was not even opened");
    // The way out is open, and another transfer begins anew.
    assert_eq!(world.abort(), Outcome::Nothing);
    world.truth.lock().unwrap().faults.clear();
    world.deliver_and_start("job-2", &World::image(300, 3));
}

#[test]
fn abort_works_with_a_plugin_that_breaks_at_everything() {
    let (mut world, _) = before("install");
    for verb in ["abort", "reopen", "state"] {
        world.fault(verb, Fault::Trap(100));
    }
    assert_eq!(world.abort(), Outcome::Nothing);
    assert_eq!(world.phase(), "none");
    assert_eq!(world.slots[1].contents(), b"");
}

#[test]
fn a_duty_without_end_is_ended_by_its_steps_or_by_the_clock() {
    let sleepy = WakeOn {
        after_ms: Some(60_000),
        ..WakeOn::default()
    };
    let data = WakeOn {
        on_data: true,
        ..WakeOn::default()
    };
    for wake in [WakeOn::default(), sleepy, data] {
        for verb in VERBS {
            let (mut world, call) = before(verb);
            world.fault(verb, Fault::Endless(wake));
            let began = world.now();
            let Outcome::Failed(failure) = call(&mut world) else {
                panic!("{verb} passed");
            };
            assert_eq!(failure.main, code::PLUGIN_FAILED, "{verb}");
            assert!(failure.detail.contains("no progress"), "{failure}");
            assert!(world.now() - began <= Limits::default().duty_stall_ms + 60_000);
            world.truth.lock().unwrap().faults.clear();
            let again = call(&mut world);
            assert!(!matches!(again, Outcome::Failed(_)), "{verb}: {again:?}");
        }
    }
}

#[test]
fn a_duty_that_waits_for_input_alone_is_refused() {
    let (mut world, call) = before("install");
    let input = WakeOn {
        on_input: true,
        ..WakeOn::default()
    };
    world.fault("install", Fault::Endless(input));
    let Outcome::Failed(failure) = call(&mut world) else {
        panic!("it passed");
    };
    assert_eq!(failure.main, code::PLUGIN_FAILED);
    assert!(failure.detail.contains("waits for input"), "{failure}");
}

#[test]
fn an_answer_that_does_not_belong_to_the_duty_breaks_the_plugin() {
    let info = Answer::Info(ExaminedImage::default());
    for (verb, answer) in [
        ("create", info.clone()),
        ("install", Answer::HostResets),
        ("activate", info.clone()),
        ("reset", info.clone()),
        ("commit", Answer::Other(vec![1])),
        ("state", Answer::Nothing),
    ] {
        let (mut world, call) = before(verb);
        world.fault(verb, Fault::Answer(answer));
        assert_eq!(main_of(&call(&mut world)), code::PLUGIN_FAILED, "{verb}");
    }
}

#[test]
fn what_a_plugin_says_about_its_failure_is_passed_on() {
    for verb in VERBS {
        let (mut world, call) = before(verb);
        let failure = Failure::new(0xe6, 77, "boot record is full");
        world.fault(verb, Fault::Fail(1, failure.clone()));
        assert_eq!(call(&mut world), Outcome::Failed(failure), "{verb}");
        let again = call(&mut world);
        assert!(!matches!(again, Outcome::Failed(_)), "{verb}: {again:?}");
    }
}

#[test]
fn a_plugin_that_breaks_while_it_writes_loses_that_block_only() {
    let mut world = World::block_by_block();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.fault("write-block", Fault::Trap(1));
    assert_eq!(main_of(&world.write_block(&image, 2)), code::PLUGIN_FAILED);
    world.calls();
    world.write_blocks(&image, 2..6);
    assert_eq!(world.calls()[..3], ["open", "reopen", "write-block"]);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_plugin_that_names_other_extents_after_reopen_is_struck() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.restart();
    world.truth.lock().unwrap().extents = Some(vec![crate::plugin::Extent {
        region: SLOT_B,
        offset: 4096,
        length: image.len() as u64,
    }]);
    let Outcome::Failed(failure) = world.reopen("job-1") else {
        panic!("it passed");
    };
    assert_eq!(failure.main, code::PLUGIN_FAILED);
    assert!(failure.detail.contains("other extents"), "{failure}");
    world.truth.lock().unwrap().extents = None;
    assert!(matches!(world.reopen("job-1"), Outcome::Held(_)));
}

#[test]
fn blocks_wait_while_a_slow_plugin_writes_and_all_end() {
    let mut world = World::block_by_block();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.truth.lock().unwrap().steps.insert("write-block", 40);
    let mut tokens = Vec::new();
    for index in 0..6 {
        let offset = index * 1024;
        let data = image[offset..image.len().min(offset + 1024)].to_vec();
        match world.start(|t, now, token| t.write_block(now, token, FILE, offset as u64, &data)) {
            Started::Pending(token) => tokens.push(token),
            Started::Done(end) => panic!("{end:?}"),
        }
    }
    assert_eq!(main_of(&world.close()), code::BUSY);
    for token in tokens {
        assert_eq!(world.finish(token), Outcome::Nothing);
    }
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn more_writes_than_may_wait_are_refused() {
    let mut world = World::new(Setup {
        limits: Limits {
            pending_writes_max: 3,
            ..Limits::default()
        },
        largest_write: Some(1024),
        ..Setup::default()
    });
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    let slow = WakeOn {
        after_ms: Some(10),
        ..WakeOn::default()
    };
    world.fault("write-block", Fault::Endless(slow));
    for index in 0..3usize {
        let data = image[index * 1024..][..1024].to_vec();
        let started = world
            .start(|t, now, token| t.write_block(now, token, FILE, index as u64 * 1024, &data));
        assert!(matches!(started, Started::Pending(_)));
    }
    assert_eq!(main_of(&world.write_block(&image, 3)), code::LIMIT);
    assert_eq!(world.abort(), Outcome::Nothing);
    world.poll();
    let cancelled = world
        .events
        .iter()
        .filter(|e| matches!(e, crate::target::TargetEvent::Done { outcome, .. } if main_of(outcome) == code::CANCELLED))
        .count();
    assert_eq!(cancelled, 3);
}

#[test]
fn a_block_that_is_held_is_not_written_again_and_writes_are_checked() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    assert_eq!(main_of(&world.write_block(&image, 0)), code::BUSY);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.calls();
    let whole = image[..4096].to_vec();
    let end = world.run(|t, now, token| t.write_block(now, token, FILE, 0, &whole));
    assert_eq!(end, Outcome::Nothing);
    assert_eq!(
        world.calls(),
        ["write-block"],
        "the two missing blocks at once"
    );
    assert_eq!(world.write_block(&image, 3), Outcome::Nothing);
    assert_eq!(world.calls(), [""; 0]);
    for (offset, length) in [
        (1u64, 1024usize),
        (0, 1000),
        (0, 0),
        (5120, 100),
        (1 << 40, 1024),
    ] {
        let end =
            world.run(|t, now, token| t.write_block(now, token, FILE, offset, &vec![0; length]));
        assert_eq!(main_of(&end), code::BAD_ARGUMENT, "{offset} {length}");
    }
}

#[test]
fn a_block_larger_than_the_plugin_takes_is_cut() {
    let mut world = World::direct();
    let image = World::image(20_000, 2);
    let mut spec = world.spec("job-1", &image);
    spec.block_size = 16_384;
    world.run(|t, _, token| t.create(token, spec));
    world.calls();
    for (offset, end) in [(0, 16_384), (16_384, image.len())] {
        let data = image[offset..end].to_vec();
        let end = world.run(|t, now, token| t.write_block(now, token, FILE, offset as u64, &data));
        assert_eq!(end, Outcome::Nothing);
    }
    // 4096 bytes at a time: four, and 3744 bytes are one.
    assert_eq!(world.calls().len(), 5);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_full_or_read_only_disk_is_named_at_every_step_and_is_no_end() {
    for errno in [ENOSPC, EROFS] {
        for verb in ["create", "install", "activate", "commit"] {
            let (mut world, call) = before(verb);
            world.power.fail_with(Some(errno));
            let Outcome::Failed(failure) = call(&mut world) else {
                panic!("{verb} passed");
            };
            assert_eq!(
                (failure.main, failure.sub),
                (code::STORAGE, errno.cast_unsigned()),
                "{verb}: {failure}"
            );
            world.power.fail_with(None);
            let again = call(&mut world);
            assert!(!matches!(again, Outcome::Failed(_)), "{verb}: {again:?}");
        }
    }
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_the_blocks_loses_none_that_was_acknowledged() {
    for staged in [false, true] {
        let mut world = World::new(Setup {
            staged,
            ..Setup::default()
        });
        let image = World::image(5000, 2);
        world.create("job-1", &image);
        world.write_blocks(&image, 0..3);
        world.power.fail_with(Some(ENOSPC));
        // It is written at the end of its turn.
        world.write_blocks(&image, 3..4);
        let Outcome::Failed(failure) = world.write_block(&image, 4) else {
            panic!("it was taken");
        };
        assert_eq!(
            (failure.main, failure.sub),
            (code::STORAGE, 28),
            "{failure}"
        );
        world.power.fail_with(None);
        world.restart();
        assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0111]));
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)));
    }
}

#[test]
fn a_transfer_that_fills_the_disk_gives_its_space_back_when_it_is_thrown_away() {
    for staged in [false, true] {
        let mut world = World::new(Setup {
            staged,
            ..Setup::default()
        });
        let image = World::image(5000, 2);
        world.create("job-1", &image);
        world.write_blocks(&image, 0..3);
        // What the record of the abort needs is what the transfer holds.
        world.power.fill_up();
        world.write_blocks(&image, 3..4);
        assert_eq!(main_of(&world.write_block(&image, 4)), code::STORAGE);
        assert_eq!(world.abort(), Outcome::Nothing, "staged: {staged}");
        world.restart();
        assert_eq!(main_of(&world.reopen("job-1")), code::NOT_FOUND);
        world.create("job-2", &image);
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)));
    }
}

#[test]
fn after_a_failed_sync_the_blocks_since_the_last_good_one_are_not_held() {
    let mut world = World::new(Setup {
        sync_bytes: Some(2048),
        ..Setup::default()
    });
    let image = World::image(8000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.poll();
    world.bench.hold(true);
    world.write_blocks(&image, 2..4);
    world.slots[1].fail_with(Some(5));
    world.bench.hold(false);
    world.bench.run_all();
    world.poll();
    // The transfer is stuck, by name, until somebody looks what is really there.
    assert_eq!(main_of(&world.write_block(&image, 4)), code::STORAGE);
    assert_eq!(main_of(&world.close()), code::STORAGE);
    world.slots[1].fail_with(None);
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0011]));
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_record_whose_sync_failed_is_not_believed_until_it_is_durable() {
    for verb in ["activate", "commit"] {
        let (mut world, call) = before(verb);
        world.record.fail_syncs(Some(EIO));
        assert_eq!(main_of(&call(&mut world)), code::STORAGE, "{verb}");
        world.calls();
        // As long as the medium refuses, nothing is asked of a plugin that would find its record as it wrote it.
        assert_eq!(main_of(&call(&mut world)), code::STORAGE, "{verb}");
        assert_eq!(main_of(&world.state()), code::STORAGE, "{verb}");
        assert!(world.calls().is_empty(), "{verb}");
        world.record.fail_syncs(None);
        assert_eq!(call(&mut world), Outcome::Nothing, "{verb}");
        let told = Record::decode(&world.record.contents());
        assert_eq!(Record::decode(&world.record.durable()), told, "{verb}");
    }
}

#[test]
fn a_duty_that_ends_well_in_spite_of_a_failed_sync_is_not_believed() {
    let (mut world, commit) = before("commit");
    world.truth.lock().unwrap().ignores_failed_syncs = true;
    world.record.fail_syncs(Some(EIO));
    assert_eq!(main_of(&commit(&mut world)), code::STORAGE);
    world.record.fail_syncs(None);
    world.truth.lock().unwrap().ignores_failed_syncs = false;
    assert_eq!(commit(&mut world), Outcome::Nothing);
    world.power_cut();
    assert_eq!(world.state_now().code, 2, "it is confirmed for good");
}

#[test]
fn what_a_duty_wrote_and_did_not_sync_is_durable_before_its_end_is_told() {
    for verb in ["activate", "commit"] {
        let (mut world, call) = before(verb);
        world.truth.lock().unwrap().forgets_to_sync = true;
        world.record.fail_syncs(Some(EIO));
        assert_eq!(main_of(&call(&mut world)), code::STORAGE, "{verb}");
        world.record.fail_syncs(None);
        assert_eq!(call(&mut world), Outcome::Nothing, "{verb}");
        let told = Record::decode(&world.record.contents());
        assert_eq!(Record::decode(&world.record.durable()), told, "{verb}");
        let done = match verb {
            "activate" => told.state == 1,
            _ => told.confirmed == 1,
        };
        assert!(done, "{verb}: {told:?}");
    }
}

#[test]
fn what_an_instance_wrote_and_did_not_sync_is_durable_before_the_next_one_reads_it() {
    let (mut world, commit) = before("commit");
    world.truth.lock().unwrap().dies_before_sync = true;
    assert_eq!(main_of(&commit(&mut world)), code::PLUGIN_FAILED);
    world.truth.lock().unwrap().dies_before_sync = false;
    // It finds itself done, and writes nothing.
    assert_eq!(commit(&mut world), Outcome::Nothing);
    let told = Record::decode(&world.record.contents());
    assert_eq!(told.confirmed, 1);
    assert_eq!(Record::decode(&world.record.durable()), told);
}

#[test]
fn blocks_wait_for_a_sync_that_is_too_slow() {
    let mut world = World::new(Setup {
        sync_bytes: Some(1024),
        ..Setup::default()
    });
    let image = World::image(8000, 2);
    world.create("job-1", &image);
    world.bench.hold(true);
    world.write_blocks(&image, 0..2);
    assert_eq!(world.bench.waiting(), 1, "one sync at a time");
    let data = image[2048..3072].to_vec();
    let Started::Pending(token) =
        world.start(|t, now, token| t.write_block(now, token, FILE, 2048, &data))
    else {
        panic!("it did not wait");
    };
    world.poll();
    assert_eq!(world.ended(token), None);
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(token), Outcome::Nothing);
}

#[test]
fn slow_blocks_are_synced_by_time() {
    let mut world = World::direct();
    let image = World::image(8000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..1);
    let before = world.power.count();
    let wake = world.poll();
    assert_eq!(wake, Some(world.now() + Limits::default().sync_after_ms));
    assert_eq!(world.power.count(), before);
    world.turn_clock(Limits::default().sync_after_ms);
    assert_eq!(world.poll(), None);
    assert_eq!(world.power.count(), before + 2, "the data, then the mark");
    world.power_cut();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![1]));
    const { assert!(SYNC_BYTES > 1024) };
}

#[test]
fn the_block_map_costs_less_than_one_percent() {
    let mut world = World::staged();
    let image = World::image(900_000, 2);
    let mut spec = world.spec("job-1", &image);
    spec.block_size = 4096;
    world.run(|t, _, token| t.create(token, spec));
    let before = world.state.written();
    for (n, block) in image.chunks(4096).enumerate() {
        let data = block.to_vec();
        let end =
            world.run(|t, now, token| t.write_block(now, token, FILE, n as u64 * 4096, &data));
        assert_eq!(end, Outcome::Nothing);
    }
    let written = world.state.written() - before;
    assert!(written * 100 < image.len() as u64, "{written} bytes");
}

/// A world with a complete file of four blocks, of which the first two were made durable.
fn half_durable(sync_bytes: u64) -> (World, Vec<u8>) {
    let mut world = World::new(Setup {
        sync_bytes: Some(sync_bytes),
        ..Setup::default()
    });
    let image = World::image(4096 - 128, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.turn_clock(Limits::default().sync_after_ms);
    world.poll();
    world.bench.hold(true);
    world.write_blocks(&image, 2..4);
    (world, image)
}

/// Begin a close that has something to wait for.
fn begin_close(world: &mut World) -> u64 {
    let started = world.start(|t, _, token| t.close(token, FILE));
    world.poll();
    match started {
        Started::Pending(token) => token,
        Started::Done(end) => panic!("{end:?}"),
    }
}

/// The worker that waits finds a medium that fails, once.
fn fail_what_waits(world: &World) {
    assert_eq!(world.bench.waiting(), 1);
    world.slots[1].fail_with(Some(5));
    world.bench.run_all();
    world.slots[1].fail_with(None);
    world.bench.hold(false);
}

/// Not even a second fsync, which passes, makes it good; what was lost is fetched again, and only then verified.
fn fetched_again(world: &mut World, image: &[u8]) {
    assert_eq!(world.phase(), "receiving");
    assert_eq!(main_of(&world.close()), code::STORAGE, "closed again");
    assert_eq!(world.slots[1].contents(), image, "as the page cache has it");
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0011]));
    world.write_all(image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_sync_that_fails_while_a_close_waits_for_it_fails_the_close() {
    let (mut world, image) = half_durable(2048);
    let close = begin_close(&mut world);
    fail_what_waits(&world);
    assert_eq!(main_of(&world.finish(close)), code::STORAGE);
    fetched_again(&mut world, &image);
}

#[test]
fn a_failed_flush_fails_the_close_and_is_not_made_good_by_closing_again() {
    let (mut world, image) = half_durable(SYNC_BYTES);
    let close = begin_close(&mut world);
    fail_what_waits(&world);
    assert_eq!(main_of(&world.finish(close)), code::STORAGE);
    fetched_again(&mut world, &image);
}

#[test]
fn a_failed_flush_of_a_close_that_was_given_up_is_not_forgotten() {
    let (mut world, image) = half_durable(SYNC_BYTES);
    begin_close(&mut world);
    let started = world.start(|t, _, token| t.reopen(token, "job-1", FILE));
    let Started::Pending(reopen) = started else {
        panic!("it did not wait for the worker");
    };
    fail_what_waits(&world);
    assert_eq!(world.finish(reopen), Outcome::Held(vec![0b0011]));
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_close_that_was_given_up_may_have_gone_through() {
    let (mut world, _) = half_durable(SYNC_BYTES);
    begin_close(&mut world);
    let started = world.start(|t, _, token| t.reopen(token, "job-1", FILE));
    let Started::Pending(reopen) = started else {
        panic!("it did not wait for the worker");
    };
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(reopen), Outcome::Held(vec![0b1111]));
    assert_eq!(world.phase(), "closed");
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_plugin_that_broke_too_often_can_still_be_reset_committed_and_rejected() {
    for commits in [true, false] {
        let (mut world, _) = before("self-test");
        world.setup.reset = Some(ResetPolicy::Command(command("reset")));
        world.restart();
        let fault = Fault::Trap(Limits::default().strikes_max);
        world.fault("self-test", fault);
        for _ in 0..Limits::default().strikes_max {
            assert_eq!(main_of(&world.self_test()), code::PLUGIN_FAILED);
        }
        assert_eq!(
            main_of(&world.self_test()),
            code::PLUGIN_FAILED,
            "struck out"
        );
        assert_eq!(main_of(&world.abort()), code::BUSY);
        if commits {
            assert_eq!(world.reset(), Outcome::Nothing);
            assert_eq!(world.commit(), Outcome::Nothing);
            assert_eq!(world.phase(), "committed");
        } else {
            assert_eq!(world.reject(), Outcome::Nothing);
            assert_eq!(world.phase(), "rejected");
        }
        world.deliver_and_start("job-2", &World::image(300, 3));
    }
}

#[test]
fn a_plugin_that_breaks_in_reopen_is_asked_without_the_transfer_and_struck_once() {
    let (mut world, _) = before("self-test");
    world.restart();
    let fault = Fault::Trap(1);
    world.fault("reopen", fault);
    let state = world.state_now();
    assert_eq!((state.code, state.runs_new), (1, None));
    let fault = Fault::Trap(1);
    world.fault("self-test", fault);
    assert_eq!(world.self_test(), Outcome::Nothing);
    let strikes = world.targets.report().remove(0).strikes;
    assert_eq!(strikes, 2, "one strike for reopen, one for this");
    world.setup.reset = Some(ResetPolicy::Command(command("reset")));
    world.restart();
    let fault = Fault::Trap(100);
    world.fault("reopen", fault);
    assert_eq!(world.reject(), Outcome::Nothing);
}

#[test]
fn a_state_waits_for_the_end_of_a_block_and_not_for_all_of_them() {
    let mut world = World::block_by_block();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.truth.lock().unwrap().steps.insert("write-block", 40);
    let mut writes = Vec::new();
    for index in 0..4usize {
        let data = image[index * 1024..][..1024].to_vec();
        let at = index as u64 * 1024;
        match world.start(|t, now, token| t.write_block(now, token, FILE, at, &data)) {
            Started::Pending(token) => writes.push(token),
            Started::Done(end) => panic!("{end:?}"),
        }
    }
    world.poll();
    world.calls();
    let Started::Pending(state) = world.start(|t, _, token| t.state(token, FILE)) else {
        panic!("in the middle of a block");
    };
    assert!(matches!(world.finish(state), Outcome::State(_)));
    let calls = world.calls();
    let asked = calls.iter().position(|call| call == "state").unwrap();
    let before = |verb: &str| calls[..asked].iter().filter(|c| *c == verb).count();
    assert_eq!(before("write-block"), 0, "{calls:?}");
    assert!(before("step") < 40, "the rest of the block: {calls:?}");
    for token in writes {
        assert_eq!(world.finish(token), Outcome::Nothing);
    }
}

#[test]
fn what_is_asked_for_is_begun_by_the_next_poll_and_not_in_the_agent_s_call() {
    let (mut world, _) = before("install");
    let proof = world.targets.verified(FILE).unwrap();
    world.calls();
    let changes = world.power.count();
    let started = world.start(|t, _, token| t.install(token, &proof));
    let Started::Pending(token) = started else {
        panic!("{started:?}");
    };
    assert_eq!(world.calls(), [""; 0]);
    assert_eq!(world.power.count(), changes, "nothing was written");
    assert_eq!(world.finish(token), Outcome::Nothing);
    world.calls();
    let image = World::image(3000, 3);
    let changes = world.power.count();
    let spec = world.spec("job-2", &image);
    let abort = world.start(|t, _, token| t.abort(token, FILE));
    assert!(matches!(abort, Started::Pending(_)));
    let create = world.start(|t, _, token| t.create(token, spec));
    assert!(
        matches!(create, Started::Done(Outcome::Failed(_))),
        "abort is under way"
    );
    assert_eq!(world.calls(), [""; 0]);
    assert_eq!(world.power.count(), changes);
}

#[test]
fn a_block_takes_few_calls_of_a_slow_plugin_within_the_agent_s_call() {
    let mut world = World::block_by_block();
    let image = World::image(3000, 2);
    world.create("job-1", &image);
    let spin = Fault::Endless(WakeOn::default());
    world.fault("write-block", spin);
    world.calls();
    let data = image[..1024].to_vec();
    let started = world.start(|t, now, token| t.write_block(now, token, FILE, 0, &data));
    assert!(matches!(started, Started::Pending(_)));
    assert_eq!(world.calls(), ["write-block", "step"]);
    let data = image[1024..2048].to_vec();
    world.start(|t, now, token| t.write_block(now, token, FILE, 1024, &data));
    assert_eq!(world.calls(), [""; 0], "it is not the first");
}

#[test]
fn waiting_writes_are_limited_in_bytes_too_and_one_may_always_wait() {
    let mut world = World::new(Setup {
        limits: Limits {
            pending_bytes_max: 2500,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let image = World::image(8000, 2);
    world.create("job-1", &image);
    let slow = WakeOn {
        after_ms: Some(10),
        ..WakeOn::default()
    };
    let fault = Fault::Endless(slow);
    world.fault("write-block", fault);
    let mut write = |from: usize, length: usize| {
        let data = image[from..from + length].to_vec();
        match world.start(|t, now, token| t.write_block(now, token, FILE, from as u64, &data)) {
            Started::Pending(_) => None,
            Started::Done(Outcome::Failed(failure)) => Some((failure.main, failure.sub)),
            Started::Done(end) => panic!("{end:?}"),
        }
    };
    let refused = Some((code::LIMIT, crate::target::limit::PENDING_BYTES));
    assert_eq!(write(0, 3072), None, "larger than the limit, but alone");
    assert_eq!(write(3072, 1024), refused);
    assert_eq!(world.abort(), Outcome::Nothing);
}
