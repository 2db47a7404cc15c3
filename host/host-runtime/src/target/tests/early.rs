//! A file that is read back while it comes: read once if nobody meddles, and as if nothing had been read early if somebody does.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;

use super::double::{Factory, SLOT_B};
use super::medium::MemoryStorage;
use super::world::{FILE, Setup, World, main_of};
use crate::plugin::Extent;
use crate::plugin::lend::BlockDevice as _;
use crate::target::fence::Fence;
use crate::target::regions::{Account, Regions};
use crate::target::{RegionConfig, RegionKind, TargetEvent};
use crate::types::{Failure, Outcome, Started, Token, code};

const EIO: i32 = 5;

/// Bytes of a sync in these tests: 128 blocks.
const SYNC: u64 = 128 * 1024;

/// Bytes of one read of a worker.
const READ: u64 = 256 * 1024;

/// An image of 700 blocks and a little more.
fn image() -> Vec<u8> {
    World::image(700 * 1024, 2)
}

/// A world that receives `image`.
fn receiving(staged: bool, sync_bytes: u64, image: &[u8]) -> World {
    let mut world = World::new(Setup {
        staged,
        sync_bytes: Some(sync_bytes),
        ..Setup::default()
    });
    assert_eq!(world.create("job-1", image), Outcome::Nothing);
    world
}

/// Where the file lies.
fn storage(world: &World) -> Arc<MemoryStorage> {
    match world.staging.file() {
        Some(file) => file,
        None => Arc::clone(&world.slots[1]),
    }
}

/// Bytes of the file's storage that were read so far.
fn read(world: &World) -> u64 {
    storage(world).read_bytes()
}

fn blocks(image: &[u8]) -> usize {
    image.len().div_ceil(1024)
}

/// Write the rest and close; how it ended, and bytes read in all.
fn finish(world: &mut World, image: &[u8], from: usize) -> (Outcome, u64) {
    world.write_blocks(image, from..blocks(image));
    let end = world.close();
    (end, read(world))
}

/// The same, which must go well.
fn finish_well(world: &mut World, image: &[u8], from: usize) -> u64 {
    let (end, read) = finish(world, image, from);
    assert!(matches!(end, Outcome::Verified(_)), "{end:?}");
    assert_eq!(storage(world).contents(), image);
    read
}

#[test]
fn a_file_that_comes_in_order_is_read_once_and_mostly_before_its_close() {
    let image = image();
    for staged in [false, true] {
        let mut world = receiving(staged, SYNC, &image);
        let mut reads = Vec::new();
        for from in (0..blocks(&image)).step_by(100) {
            world.write_blocks(&image, from..blocks(&image).min(from + 100));
            reads.push(read(&world) / 1024);
        }
        assert_eq!(reads, [0, 128, 256, 384, 384, 512, 640, 640], "{staged}");
        let all = finish_well(&mut world, &image, blocks(&image));
        assert_eq!(all, image.len() as u64);
    }
}

#[test]
fn the_end_of_a_file_is_synced_and_read_in_ever_smaller_parts() {
    const MIB: usize = 1 << 20;
    let image = World::image(4 * MIB, 2);
    let mut world = receiving(true, 2 * MIB as u64, &image);
    let mut reads = vec![0];
    for block in 0..blocks(&image) {
        world.write_blocks(&image, block..block + 1);
        let read = read(&world);
        if reads.last() != Some(&read) {
            // The world takes turns: what is synced with a block is read in the next turn at the latest.
            assert!((block as u64 + 1) * 1024 - read <= 64 * 1024, "{block}");
            reads.push(read);
        }
    }
    let quarters: Vec<u64> = reads.iter().map(|read| read * 4 / MIB as u64).collect();
    assert_eq!(quarters, [0, 8, 12, 14]);
    assert_eq!(
        finish_well(&mut world, &image, blocks(&image)),
        image.len() as u64
    );
}

/// What a plugin does before each `verb` (to block 300, or between the last block and the close): how the close ends, and
/// what was read beside the whole file.
fn meddle(verb: &'static str, offset: u64, image: &[u8]) -> (Outcome, u64) {
    let mut world = receiving(false, SYNC, image);
    let meddles = |world: &World, yes: bool| {
        let mut truth = world.truth.lock().unwrap();
        truth.scribble.clear();
        if yes {
            truth.scribble.insert(verb, (SLOT_B, offset));
        }
    };
    world.write_blocks(image, 0..300);
    assert_eq!(read(&world), 2 * SYNC);
    meddles(&world, true);
    world.write_blocks(image, 300..301);
    meddles(&world, false);
    world.write_blocks(image, 301..blocks(image));
    meddles(&world, true);
    world.state();
    meddles(&world, false);
    let scribbled = world.truth.lock().unwrap().scribbled.clone();
    assert_eq!(scribbled, [(verb, Ok(()))]);
    let (end, all) = finish(&mut world, image, blocks(image));
    (end, all - image.len() as u64)
}

#[test]
fn a_plugin_that_changes_what_was_read_early_is_found_out_at_the_close() {
    let image = image();
    // Then the blocks are compared with what came, as far as the changed one.
    let compared = |offset: u64| (offset / 1024 + 1) * 1024;
    for offset in [0, 1000, 2 * SYNC - 8, 2 * SYNC - 1] {
        let (end, again) = meddle("write-block", offset, &image);
        assert_eq!(main_of(&end), code::PLUGIN_FAILED, "{offset}");
        assert_eq!(again, 2 * SYNC + compared(offset), "{offset}");
        let (end, again) = meddle("state", offset, &image);
        assert_eq!(main_of(&end), code::PLUGIN_FAILED, "{offset}");
        assert_eq!(again, 5 * SYNC + compared(offset), "{offset}");
    }
    // What was not read early is read at the close in any case.
    for offset in [5 * SYNC, 5 * SYNC + 1000] {
        let (end, again) = meddle("state", offset, &image);
        let expected = (code::PLUGIN_FAILED, compared(offset));
        assert_eq!((main_of(&end), again), expected, "{offset}");
    }
}

#[test]
fn whatever_a_plugin_changes_through_what_it_is_lent_tears_the_fence() {
    type Change = fn(&Regions, &MemoryStorage) -> Result<(), Failure>;
    let rows: [(&str, bool, Change); 7] = [
        ("a write", false, |r, _| r.write_at(0, 7, b"x")),
        ("an erase", false, |r, _| r.erase(0, 7, 1)),
        ("a write further on", true, |r, _| r.write_at(0, SYNC, b"x")),
        ("an erase further on", true, |r, _| r.erase(0, SYNC, 1)),
        ("a read and a sync", true, |r, _| {
            r.read_at(0, 0, 9)?;
            r.sync(0)
        }),
        ("a sync that fails", false, |r, storage| {
            storage.fail_syncs(Some(EIO));
            r.sync(0).unwrap_err();
            Ok(())
        }),
        ("what is refused", true, |r, _| {
            r.write_at(0, 2 * SYNC, b"x").unwrap_err();
            r.erase(0, 2 * SYNC, 1).unwrap_err();
            Ok(())
        }),
    ];
    for (what, stands, change) in rows {
        let storage = MemoryStorage::new(&Arc::default(), 4 * SYNC);
        let region = RegionConfig {
            name: "slot".into(),
            kind: RegionKind::Slot,
            erase_size: 1,
            write_size: 1,
            read_only: false,
            storage: Arc::clone(&storage) as _,
        };
        let regions = Regions::new(vec![region], Arc::new(Account::new(4 * SYNC, 1)));
        let extents = vec![Extent {
            region: 0,
            offset: 0,
            length: 2 * SYNC,
        }];
        let layout = regions.layout(&extents);
        regions.set_window(extents);
        for at in [0, 64 * 1024] {
            regions.write_at(0, at, &[7; 64 * 1024]).unwrap();
        }
        let mut fence = Fence::default();
        assert!(fence.raise(&layout, SYNC));
        change(&regions, &storage).unwrap();
        assert_eq!(fence.stands(&layout, SYNC), stands, "{what}");
    }
}

#[test]
fn a_block_that_is_written_again_as_it_was_costs_a_second_read_and_no_more() {
    let offset = 1000;
    let mut image = image();
    image[offset..offset + 8].copy_from_slice(b"scribble");
    for (verb, again) in [("write-block", 2 * SYNC), ("state", 5 * SYNC)] {
        let (end, read) = meddle(verb, offset as u64, &image);
        assert!(matches!(end, Outcome::Verified(_)), "{verb}: {end:?}");
        assert_eq!(read, again, "{verb}");
    }
}

#[test]
fn blocks_that_a_plugin_leaves_out_are_not_taken_for_what_they_read_as() {
    // Behind the last byte that was written storage reads as 0xff; a later write makes zeros of that.
    let mut image = image();
    image[64 * 1024..128 * 1024].fill(0xff);
    let mut world = receiving(false, SYNC, &image);
    world.truth.lock().unwrap().skips_blank = true;
    let (end, _) = finish(&mut world, &image, 0);
    assert_eq!(storage(&world).contents()[100 * 1024], 0);
    assert_eq!(main_of(&end), code::PLUGIN_FAILED);
}

#[test]
fn nothing_behind_a_hole_is_read_before_it_is_filled() {
    let image = image();
    for staged in [false, true] {
        let mut world = receiving(staged, SYNC, &image);
        world.write_blocks(&image, (0..200).chain(201..300));
        // Of 200 blocks; what is on a page with the hole is left.
        assert_eq!(read(&world), 128 * 1024);
        world.write_blocks(&image, 301..blocks(&image));
        assert_eq!(read(&world), 128 * 1024);
        world.write_blocks(&image, 200..201);
        world.turn_clock(1000);
        world.poll();
        assert_eq!(read(&world), 256 * 1024, "{staged}: up to block 300");
        world.write_blocks(&image, 300..301);
        world.turn_clock(1000);
        world.poll();
        assert_eq!(read(&world), 640 * 1024, "{staged}");
        let all = finish_well(&mut world, &image, blocks(&image));
        assert_eq!(all, image.len() as u64);
    }
}

#[test]
fn a_file_that_comes_backwards_is_read_at_its_close() {
    let image = image();
    let mut world = receiving(true, SYNC, &image);
    world.write_blocks(&image, (0..blocks(&image)).rev());
    assert_eq!(read(&world), 0);
    assert_eq!(
        finish_well(&mut world, &image, blocks(&image)),
        image.len() as u64
    );
}

#[test]
fn a_sync_does_not_stop_an_early_read() {
    let image = image();
    let mut world = receiving(true, SYNC * 4, &image);
    let reader = Reader::begin(&mut world, &image);
    // By time, while the reader is in the middle of its first read.
    world.write_blocks(&image, 512..640);
    world.turn_clock(1000);
    world.poll();
    assert_eq!(world.bench.waiting(), 1, "the sync");
    reader.finish();
    assert_eq!(read(&world), 2 * READ);
    world.bench.hold(false);
    world.bench.run_all();
    world.poll();
    let all = finish_well(&mut world, &image, 640);
    assert_eq!(all, image.len() as u64);
}

#[test]
fn an_early_read_that_fails_fails_nothing() {
    let image = image();
    for staged in [false, true] {
        for lasts in [false, true] {
            let mut world = receiving(staged, SYNC, &image);
            world.write_blocks(&image, 0..100);
            storage(&world).fail_reads(Some(EIO));
            world.write_blocks(&image, 100..200);
            if !lasts {
                storage(&world).fail_reads(None);
                let all = finish_well(&mut world, &image, 200);
                assert_eq!(all, image.len() as u64);
                continue;
            }
            let (end, _) = finish(&mut world, &image, 200);
            assert_eq!(main_of(&end), code::STORAGE);
            // As ever: it may be closed again.
            storage(&world).fail_reads(None);
            finish_well(&mut world, &image, blocks(&image));
        }
    }
}

#[test]
fn an_early_reader_that_dies_fails_nothing() {
    let image = image();
    let mut world = receiving(false, SYNC, &image);
    world.write_blocks(&image, 0..128);
    assert_eq!(read(&world), SYNC);
    world.write_blocks(&image, 128..255);
    world.bench.hold(true);
    world.write_blocks(&image, 255..256);
    world.bench.run_all();
    world.poll();
    assert_eq!(world.bench.waiting(), 1, "the second early read");
    world.bench.lose_all();
    world.bench.hold(false);
    world.poll();
    let all = finish_well(&mut world, &image, 256);
    assert_eq!(all, SYNC + image.len() as u64);
}

#[test]
fn what_was_read_before_a_sync_failed_is_read_again() {
    let image = image();
    for staged in [false, true] {
        let mut world = receiving(staged, SYNC, &image);
        world.write_blocks(&image, 0..200);
        assert_eq!(read(&world), SYNC);
        storage(&world).fail_syncs(Some(EIO));
        world.write_blocks(&image, 200..256);
        assert_eq!(main_of(&world.write_block(&image, 256)), code::STORAGE);
        assert_eq!(main_of(&world.close()), code::STORAGE);
        storage(&world).fail_syncs(None);
        let Outcome::Held(held) = world.reopen("job-1") else {
            panic!("not held");
        };
        assert_eq!(held.iter().map(|b| b.count_ones()).sum::<u32>(), 128);
        let before = read(&world);
        let all = finish_well(&mut world, &image, 128);
        assert_eq!(all - before, image.len() as u64, "{staged}");
    }
}

#[test]
fn nothing_is_early_after_a_restart_or_a_reopen() {
    let image = image();
    for staged in [false, true] {
        for restart in [false, true] {
            let mut world = receiving(staged, SYNC, &image);
            world.write_blocks(&image, 0..256);
            assert_eq!(read(&world), 2 * SYNC);
            if restart {
                world.restart();
            }
            assert!(matches!(world.reopen("job-1"), Outcome::Held(_)));
            assert_eq!(read(&world), 2 * SYNC);
            let all = finish_well(&mut world, &image, 256);
            assert_eq!(all, 2 * SYNC + image.len() as u64, "{staged} {restart}");
        }
    }
}

#[test]
fn another_instance_of_the_plugin_has_the_file_read_again() {
    let image = image();
    let mut world = receiving(false, SYNC, &image);
    world.write_blocks(&image, 0..300);
    let served = Arc::new(Mutex::new(None));
    let reply = Arc::clone(&served);
    let next = Factory::direct(&world.truth);
    world.targets.swap(
        FILE,
        next,
        Box::new(move |end| *reply.lock().unwrap() = Some(end)),
    );
    for _ in 0..5 {
        world.poll();
    }
    assert_eq!(*served.lock().unwrap(), Some(Ok(())));
    let all = finish_well(&mut world, &image, 300);
    assert_eq!(all, 2 * SYNC + image.len() as u64);
}

/// A worker on a thread of its own that stands in the middle of its first early read.
struct Reader {
    thread: JoinHandle<()>,
    gate: SyncSender<()>,
}

impl Reader {
    /// Of the first 512 blocks, which are durable.
    fn begin(world: &mut World, image: &[u8]) -> Self {
        world.bench.hold(true);
        world.write_blocks(image, 0..512);
        world.bench.run_all();
        world.poll();
        let (gate, opened) = sync_channel(1);
        let (arrived, arrives) = sync_channel(1);
        let (opened, arrived) = (Mutex::new(opened), Mutex::new(arrived));
        storage(world).on_read(move || {
            // Nobody listens to the second one, and nobody holds it up.
            arrived.lock().unwrap().try_send(()).ok();
            let opened: &Receiver<()> = &opened.lock().unwrap();
            opened.recv().ok();
        });
        let work = world.bench.take_all();
        assert_eq!(work.len(), 1, "the early read");
        let thread = std::thread::spawn(move || work.into_iter().for_each(|work| work()));
        arrives.recv().unwrap();
        Self { thread, gate }
    }

    /// Let it go on, to its end.
    fn finish(self) {
        drop(self.gate);
        self.thread.join().unwrap();
    }
}

fn pending(started: Started) -> Token {
    match started {
        Started::Pending(token) => token,
        Started::Done(end) => panic!("over at once: {end:?}"),
    }
}

#[test]
fn an_abort_ends_an_early_read_after_the_bytes_it_is_at_and_nothing_is_left_of_it() {
    let image = image();
    for staged in [false, true] {
        let mut world = receiving(staged, 512 * 1024, &image);
        let reader = Reader::begin(&mut world, &image);
        let abort = pending(world.start(|t, _, token| t.abort(token, FILE)));
        world.poll();
        assert_eq!(world.ended(abort), None, "the storage is in use");
        reader.finish();
        assert_eq!(read(&world), READ, "{staged}: one read of two");
        world.bench.hold(false);
        let file: Weak<MemoryStorage> = match world.staging.file() {
            Some(file) => Arc::downgrade(&file),
            None => Weak::new(),
        };
        assert_eq!(world.finish(abort), Outcome::Nothing);
        assert!(file.upgrade().is_none(), "{staged}");
        world.deliver("job-2", &image);
    }
}

#[test]
fn a_close_goes_on_from_where_the_early_reader_is() {
    let image = image();
    for staged in [false, true] {
        let mut world = receiving(staged, 512 * 1024, &image);
        let reader = Reader::begin(&mut world, &image);
        // No block waits for it.
        world.write_blocks(&image, 512..blocks(&image));
        let close = pending(world.start(|t, _, token| t.close(token, FILE)));
        world.poll();
        assert_eq!(world.bench.waiting(), 0, "the close waits for the reader");
        reader.finish();
        assert_eq!(read(&world), READ, "{staged}");
        world.poll();
        // Flushed; the read of the rest waits for a worker.
        world.bench.run_all();
        world.poll();
        world.turn_clock(1000);
        world.poll();
        let told: Vec<_> = world
            .events
            .iter()
            .filter_map(|event| match event {
                TargetEvent::Progress { token, done, total } if *token == close => {
                    Some((*done, *total))
                }
                _ => None,
            })
            .collect();
        assert_eq!(told, [(READ, image.len() as u64)]);
        world.bench.hold(false);
        world.bench.run_all();
        let end = world.finish(close);
        assert!(matches!(end, Outcome::Verified(_)), "{end:?}");
        assert_eq!(read(&world), image.len() as u64);
    }
}

#[test]
fn a_close_that_is_given_up_is_closed_again_by_reading_everything() {
    let image = image();
    let mut world = receiving(false, 512 * 1024, &image);
    world.write_blocks(&image, 0..blocks(&image));
    world.bench.hold(true);
    let close = pending(world.start(|t, _, token| t.close(token, FILE)));
    world.poll();
    world.bench.run_all();
    world.poll();
    assert_eq!(world.bench.waiting(), 1, "reading the rest");
    let reopen = pending(world.start(|t, _, token| t.reopen(token, "job-1", FILE)));
    world.poll();
    assert_eq!(main_of(&world.ended(close).unwrap()), code::CANCELLED);
    world.bench.hold(false);
    world.bench.run_all();
    assert!(matches!(world.finish(reopen), Outcome::Held(_)));
    assert_eq!(read(&world), 512 * 1024);
    let all = finish_well(&mut world, &image, blocks(&image));
    assert_eq!(all, 512 * 1024 + image.len() as u64);
}

#[test]
fn an_early_read_goes_on_beside_a_sync_and_the_next_one_follows() {
    let image = image();
    let mut world = receiving(false, SYNC, &image);
    world.bench.hold(true);
    world.write_blocks(&image, 0..128);
    world.bench.run_all();
    world.poll();
    assert_eq!(world.bench.waiting(), 1, "an early read");
    world.write_blocks(&image, 128..256);
    assert_eq!(world.bench.waiting(), 2, "and a sync behind it");
    world.bench.run_all();
    assert_eq!(read(&world), SYNC);
    world.poll();
    assert_eq!(world.bench.waiting(), 1, "the next early read");
    world.bench.run_all();
    assert_eq!(read(&world), 2 * SYNC);
    world.bench.hold(false);
    assert_eq!(finish_well(&mut world, &image, 256), image.len() as u64);
}
