//! What a medium may take its time for is done by workers, never on the device's task; and what becomes of it when the
//! operation is given up, the worker fails, or the process dies.

use super::world::{FILE, Setup, World, main_of};
use crate::ports::storage::Storage as _;
use crate::target::{SYNC_BYTES, Targets};
use crate::types::{Outcome, Started, Token, code};

const EIO: i32 = 5;

/// One call of a target's operation that takes its time.
type Call = fn(&mut Targets, Token) -> Started;

/// Begin an operation and drive it to its end while nothing slow is done but by workers.
fn run_watched(world: &mut World, name: &str, call: impl FnOnce(&mut Targets, Token) -> Started) {
    world.bench.hold(true);
    let started = world.start(|t, _, token| call(t, token));
    let Started::Pending(token) = started else {
        panic!("{name}: {started:?}");
    };
    for _ in 0..100 {
        let before = world.state.slow();
        world.poll();
        assert_eq!(world.state.slow(), before, "{name}");
        if let Some(end) = world.ended(token) {
            assert!(!matches!(end, Outcome::Failed(_)), "{name}: {end:?}");
            return world.bench.hold(false);
        }
        world.bench.run_all();
    }
    panic!("{name} does not end");
}

#[test]
fn no_record_is_written_down_on_the_device_s_task() {
    for staged in [false, true] {
        let mut world = World::new(Setup {
            staged,
            ..Setup::default()
        });
        let image = World::image(5000, 2);
        for job in ["job-1", "job-2"] {
            let spec = world.spec(job, &image);
            run_watched(&mut world, "create", |t, token| t.create(token, spec));
            world.write_all(&image);
            run_watched(&mut world, "close", |t, token| t.close(token, FILE));
            let proof = world.targets.verified(FILE).unwrap();
            run_watched(&mut world, "install", |t, token| t.install(token, &proof));
            run_watched(&mut world, "activate", |t, token| t.activate(token, &proof));
            let rest: [(&str, Call); 2] = if job == "job-1" {
                [
                    ("reset", |t, token| t.reset(token, FILE)),
                    ("commit", |t, token| t.commit(token, FILE)),
                ]
            } else {
                [
                    ("reject", |t, token| t.reject(token, FILE)),
                    ("abort", |t, token| t.abort(token, FILE)),
                ]
            };
            for (name, call) in rest {
                run_watched(&mut world, name, call);
            }
        }
    }
}

/// A verified image whose `install` waits for its record to be written.
fn storing() -> (World, Token) {
    let mut world = World::direct();
    world.deliver("job-1", &World::image(500, 2));
    let proof = world.targets.verified(FILE).unwrap();
    world.bench.hold(true);
    let started = world.start(|t, _, token| t.install(token, &proof));
    let Started::Pending(token) = started else {
        panic!("{started:?}");
    };
    world.poll();
    assert_eq!(world.bench.waiting(), 1);
    assert_eq!(world.phase(), "installed");
    (world, token)
}

#[test]
fn a_record_that_cannot_be_written_is_what_it_was() {
    let (mut world, install) = storing();
    world.state.fail_with(Some(EIO));
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(main_of(&world.finish(install)), code::STORAGE);
    assert_eq!(world.phase(), "verified");
    world.state.fail_with(None);
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.phase(), "installed");
}

#[test]
fn a_worker_that_dies_with_the_record_takes_it_back_too() {
    let (mut world, install) = storing();
    world.bench.hold(false);
    world.bench.lose_all();
    assert_eq!(main_of(&world.finish(install)), code::STORAGE);
    assert_eq!(world.phase(), "verified");
}

#[test]
fn a_record_is_taken_back_also_if_its_operation_was_given_up() {
    for (errno, phase) in [(Some(EIO), "verified"), (None, "installed")] {
        let (mut world, install) = storing();
        let started = world.start(|t, _, token| t.reopen(token, "job-1", FILE));
        let Started::Pending(reopen) = started else {
            panic!("{started:?}");
        };
        world.poll();
        assert_eq!(main_of(&world.ended(install).unwrap()), code::CANCELLED);
        world.state.fail_with(errno);
        world.bench.hold(false);
        world.bench.run_all();
        assert_eq!(world.finish(reopen), Outcome::Held(vec![1]));
        assert_eq!(world.phase(), phase);
        world.state.fail_with(None);
        // Memory and medium say the same.
        world.restart();
        assert_eq!(world.phase(), phase);
    }
}

#[test]
fn a_block_map_that_was_torn_is_written_anew_before_the_next_block_counts() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.state.fail_with(Some(28));
    world.write_blocks(&image, 2..3);
    for _ in 0..2 {
        assert_eq!(main_of(&world.write_block(&image, 3)), code::STORAGE);
    }
    world.state.fail_with(None);
    world.bench.hold(true);
    let data = image[3072..4096].to_vec();
    let before = world.state.slow();
    let started = world.start(|t, now, token| t.write_block(now, token, FILE, 3072, &data));
    let Started::Pending(write) = started else {
        panic!("{started:?}");
    };
    world.poll();
    assert_eq!(world.state.slow(), before);
    assert_eq!((world.bench.waiting(), world.ended(write)), (1, None));
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(write), Outcome::Nothing);
    world.poll();
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b1111]));
}

/// A world that receives `image`, and syncs nothing of it for a while.
fn receiving(image: &[u8]) -> World {
    let mut world = World::new(Setup {
        sync_bytes: Some(SYNC_BYTES),
        ..Setup::default()
    });
    assert_eq!(world.create("job-1", image), Outcome::Nothing);
    world
}

/// Writes blocks within one turn of the device: nothing is polled in between.
fn write_in_one_turn(world: &mut World, image: &[u8], blocks: impl Iterator<Item = usize>) {
    for index in blocks {
        let offset = index * 1024;
        let data = image[offset..image.len().min(offset + 1024)].to_vec();
        let started =
            world.start(|t, now, token| t.write_block(now, token, FILE, offset as u64, &data));
        assert_eq!(started, Started::Done(Outcome::Nothing), "block {index}");
    }
}

#[test]
fn blocks_of_one_turn_are_told_at_once_and_entered_with_one_append() {
    // Kind, count and first block; four CRCs; the CRC of the record.
    const RECORD_BYTES: u64 = 8 + 4 * 4 + 4;
    let image = World::image(5000, 2);
    let mut world = receiving(&image);
    let before = world.state.written();
    write_in_one_turn(&mut world, &image, 0..4);
    assert_eq!(world.state.written(), before);
    // One of them again, with other bytes: the map knows of the first ones by then, and those stay.
    write_in_one_turn(&mut world, &vec![0; 5000], 1..2);
    assert_eq!(world.state.written(), before + RECORD_BYTES);
    world.poll();
    assert_eq!(world.state.written(), before + RECORD_BYTES);
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b1111]));
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_process_that_is_killed_in_a_turn_has_none_of_its_blocks() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image);
    world.write_blocks(&image, 0..1);
    write_in_one_turn(&mut world, &image, 1..4);
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0001]));
}

#[test]
fn blocks_of_a_turn_whose_append_fails_are_held_and_the_map_is_written_anew() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image);
    world.write_blocks(&image, 0..1);
    world.bench.hold(true);
    write_in_one_turn(&mut world, &image, 1..4);
    world.state.fail_with(Some(28));
    world.poll();
    world.state.fail_with(None);
    assert_eq!(world.bench.waiting(), 1, "nobody mends the map");
    world.bench.hold(false);
    world.bench.run_all();
    world.poll();
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b1111]));
}

#[test]
fn a_map_that_is_torn_during_a_sync_is_written_anew_after_it_also_if_no_block_comes() {
    let image = World::image(5000, 2);
    let mut world = World::new(Setup {
        sync_bytes: Some(2048),
        ..Setup::default()
    });
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    world.bench.hold(true);
    world.write_blocks(&image, 0..2);
    assert_eq!(world.bench.waiting(), 1, "the sync");
    write_in_one_turn(&mut world, &image, 2..3);
    world.state.fail_with(Some(28));
    world.poll();
    world.state.fail_with(None);
    world.bench.hold(false);
    world.bench.run_all();
    for _ in 0..2 {
        world.poll();
    }
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0111]));
}

#[test]
fn a_map_that_can_be_written_in_no_way_fails_the_next_block() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image);
    world.write_blocks(&image, 0..1);
    world.state.fail_with(Some(28));
    write_in_one_turn(&mut world, &image, 1..3);
    world.poll();
    assert_eq!(main_of(&world.write_block(&image, 3)), code::STORAGE);
    world.state.fail_with(None);
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0001]));
}

#[test]
fn a_block_that_comes_again_finds_its_first_one_held_though_the_map_is_torn() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image);
    write_in_one_turn(&mut world, &image, 0..1);
    world.bench.hold(true);
    world.state.fail_with(Some(28));
    let data = image[..1024].to_vec();
    let started = world.start(|t, now, token| t.write_block(now, token, FILE, 0, &data));
    let Started::Pending(again) = started else {
        panic!("{started:?}");
    };
    world.state.fail_with(None);
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(again), Outcome::Nothing);
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0001]));
}

#[test]
fn a_write_that_waits_when_the_map_is_torn_is_begun_when_it_is_mended() {
    const HALF: usize = 12 * 1024;
    let mut setup = Setup {
        sync_bytes: Some(SYNC_BYTES),
        ..Setup::default()
    };
    setup.limits.steps_per_poll = 1;
    let mut world = World::new(setup);
    let image = World::image(2 * HALF, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    // Three calls each: two with the write, the third by the poll, with which the map is torn.
    let [first, second] = [0, HALF].map(|offset| {
        let data = image[offset..offset + HALF].to_vec();
        let started =
            world.start(|t, now, token| t.write_block(now, token, FILE, offset as u64, &data));
        let Started::Pending(token) = started else {
            panic!("{started:?}");
        };
        token
    });
    world.bench.hold(true);
    world.state.fail_with(Some(28));
    world.poll();
    world.state.fail_with(None);
    assert_eq!(world.ended(first), Some(Outcome::Nothing));
    assert_eq!(world.ended(second), None);
    assert_eq!(
        world.calls().iter().filter(|c| *c == "write-block").count(),
        3
    );
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(second), Outcome::Nothing);
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

/// Begins to write a block, with a plugin that takes its time for it.
fn begin_block(world: &mut World, image: &[u8], index: usize) -> Token {
    let offset = index * 1024;
    let data = image[offset..offset + 1024].to_vec();
    let started =
        world.start(|t, now, token| t.write_block(now, token, FILE, offset as u64, &data));
    match started {
        Started::Pending(token) => token,
        Started::Done(end) => panic!("block {index}: {end:?}"),
    }
}

#[test]
fn a_block_that_a_failed_sync_ends_half_way_leaves_no_duty_to_the_plugin() {
    let mut world = World::new(Setup {
        sync_bytes: Some(1024),
        largest_write: Some(1024),
        ..Setup::default()
    });
    let image = World::image(3000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    world.bench.hold(true);
    world.write_blocks(&image, 0..1);
    assert_eq!(world.bench.waiting(), 1, "the sync");
    world.truth.lock().unwrap().steps.insert("write-block", 40);
    let write = begin_block(&mut world, &image, 1);
    world.slots[1].fail_with(Some(EIO));
    world.bench.hold(false);
    world.bench.run_all();
    world.slots[1].fail_with(None);
    assert_eq!(main_of(&world.finish(write)), code::STORAGE);
    world.truth.lock().unwrap().steps.clear();
    world.calls();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0]));
    assert_eq!(world.calls(), ["open", "reopen"]);
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_block_that_a_block_map_ends_was_not_begun() {
    let mut setup = Setup {
        sync_bytes: Some(SYNC_BYTES),
        largest_write: Some(1024),
        ..Setup::default()
    };
    setup.limits.steps_per_poll = 1;
    let mut world = World::new(setup);
    let image = World::image(3000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    // Three calls a block: two with the first write, the third by the poll, with which the map is torn.
    world.truth.lock().unwrap().steps.insert("write-block", 2);
    let [first, second] = [0, 1].map(|index| begin_block(&mut world, &image, index));
    world.state.fail_with(Some(28));
    world.poll();
    assert_eq!(world.ended(first), Some(Outcome::Nothing));
    assert_eq!(main_of(&world.finish(second)), code::STORAGE);
    world.state.fail_with(None);
    world.truth.lock().unwrap().steps.clear();
    assert_eq!(world.truth.lock().unwrap().given, [(0, 1024)]);
    world.calls();
    assert_eq!(world.write_block(&image, 1), Outcome::Nothing);
    // It had no duty to be taken from it.
    assert_eq!(world.calls(), ["write-block"]);
}

#[test]
fn what_is_asked_in_the_same_turn_finds_the_blocks_entered() {
    let image = World::image(3000, 2);
    let mut world = receiving(&image);
    write_in_one_turn(&mut world, &image, 0..4);
    let image_is = world.close();
    assert!(matches!(image_is, Outcome::Verified(_)), "{image_is:?}");
}

#[test]
fn reading_back_ends_when_the_targets_go() {
    let mut world = World::direct();
    let image = World::image(800_000, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    world.bench.hold(true);
    world.start(|t, _, token| t.close(token, FILE));
    world.poll();
    // The flush; the next piece of work reads back.
    world.bench.run_all();
    world.poll();
    assert_eq!(world.bench.waiting(), 1);
    let before = world.slots[1].reads();
    world.targets = Targets::new("none", Vec::new(), world.ports()).unwrap();
    world.bench.run_all();
    assert_eq!(world.slots[1].reads(), before);
}

#[test]
fn a_file_is_read_back_from_the_medium_and_not_from_a_cache() {
    let mut world = World::new(Setup {
        sync_bytes: Some(SYNC_BYTES),
        ..Setup::default()
    });
    let image = World::image(3000, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    // Somebody else's fsync failed, and the error went to him.
    world.slots[1].fail_with(Some(EIO));
    world.slots[1].sync().unwrap_err();
    world.slots[1].fail_with(None);
    assert_eq!(world.slots[1].contents(), image);
    assert_ne!(main_of(&world.close()), 0);
    assert!(world.targets.verified(FILE).is_err());
}

#[test]
fn a_process_that_dies_between_a_failed_sync_and_the_block_map_holds_no_block_that_was_lost() {
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
    world.slots[1].fail_with(Some(EIO));
    world.bench.run_all();
    world.slots[1].fail_with(None);
    world.bench.hold(false);
    // Killed here: the worker has its EIO, and nobody has heard of it.
    world.restart();
    assert_eq!(world.slots[1].contents(), image[..4096], "so it seems");
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0011]));
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.slots[1].durable(), image);
}
