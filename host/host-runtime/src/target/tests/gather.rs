//! Blocks that lie side by side and come in one turn: given to the plugin with one call, and lost by none of the ways in
//! which that may end.

use std::sync::{Arc, Mutex};

use super::double::{Fault, SLOT_B};
use super::swap::{Wrong, ask, build};
use super::world::{FILE, Setup, World, main_of};
use crate::plugin::{Extent, WakeOn};
use crate::target::rest::Resident;
use crate::target::{Limits, limit};
use crate::types::{Failure, Outcome, Started, Token, code};

const BLOCK: usize = 1024;

/// A world whose plugin takes as much as any, and that receives `image`.
fn receiving(image: &[u8], setup: Setup) -> World {
    let mut world = World::new(Setup {
        largest_write: Some(setup.largest_write.unwrap_or(131_072)),
        ..setup
    });
    assert_eq!(world.create("job-1", image), Outcome::Nothing);
    world
}

/// Bring a block; nothing is polled.
fn bring(world: &mut World, image: &[u8], index: usize) -> Started {
    let (from, to) = (index * BLOCK, image.len().min((index + 1) * BLOCK));
    let data = image[from..to].to_vec();
    world.start(|t, now, token| t.write_block(now, token, FILE, from as u64, &data))
}

/// Bring blocks of which each is told as taken.
fn bring_all(world: &mut World, image: &[u8], blocks: impl IntoIterator<Item = usize>) {
    for index in blocks {
        let started = bring(world, image, index);
        assert_eq!(started, Started::Done(Outcome::Nothing), "block {index}");
    }
}

fn blocks(image: &[u8]) -> std::ops::Range<usize> {
    0..image.len().div_ceil(BLOCK)
}

/// Close, in the same turn; it has to wait.
fn begin_close(world: &mut World) -> Token {
    match world.start(|t, _, token| t.close(token, FILE)) {
        Started::Pending(token) => token,
        Started::Done(end) => panic!("{end:?}"),
    }
}

fn given(world: &World) -> Vec<(u64, usize)> {
    std::mem::take(&mut world.truth.lock().unwrap().given)
}

fn strikes(world: &World) -> u32 {
    world.targets.report().remove(0).strikes
}

#[test]
fn what_lies_side_by_side_and_comes_in_one_turn_is_one_call_of_the_plugin() {
    const K: usize = 1024;
    let whole: Vec<usize> = (0..162).collect();
    // Most bytes that the plugin takes, after how many a sync is due, blocks, what the plugin is given.
    type Row<'a> = (u32, u64, &'a [usize], &'a [(u64, usize)]);
    let rows: [Row<'_>; 8] = [
        (131_072, 1 << 20, &[3, 4, 5, 6], &[(3072, 4 * K)]),
        // No more than the plugin takes; the end of the file is shorter.
        (
            131_072,
            1 << 20,
            &whole,
            &[(0, 128 * K), (131_072, 33 * K + 152)],
        ),
        (4096, 1 << 20, &[0, 1, 2, 3, 4], &[(0, 4 * K), (4096, K)]),
        (2500, 1 << 20, &[0, 1, 2], &[(0, 2 * K), (2048, K)]),
        // One that takes no two of them is given each by itself.
        (2047, 1 << 20, &[0, 1], &[(0, K), (1024, K)]),
        (
            131_072,
            1 << 20,
            &[0, 1, 3, 4, 2],
            &[(0, 2 * K), (3072, 2 * K), (2048, K)],
        ),
        // The second time is none.
        (131_072, 1 << 20, &[0, 1, 1, 2, 0], &[(0, 2 * K), (2048, K)]),
        (131_072, 2048, &[0, 1, 2, 3], &[(0, 2 * K), (2048, 2 * K)]),
    ];
    for (largest, sync_bytes, order, expected) in rows {
        let image = World::image(161 * K + 24, 2);
        assert_eq!(image.len(), 161 * K + 152);
        let setup = Setup {
            largest_write: Some(largest),
            sync_bytes: Some(sync_bytes),
            ..Setup::default()
        };
        let mut world = receiving(&image, setup);
        bring_all(&mut world, &image, order.iter().copied());
        world.poll();
        assert_eq!(given(&world), expected, "{largest} {sync_bytes} {order:?}");
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)));
        assert_eq!(world.slots[1].contents(), image);
    }
}

#[test]
fn a_staged_file_gets_what_lies_side_by_side_with_one_write() {
    let image = World::image(20_000, 2);
    let mut world = receiving(
        &image,
        Setup {
            staged: true,
            ..Setup::default()
        },
    );
    let before = world.power.count();
    bring_all(&mut world, &image, 0..8);
    assert_eq!(world.power.count(), before);
    world.poll();
    assert_eq!(world.power.count(), before + 2, "the blocks, and the map");
    bring_all(&mut world, &image, 8..blocks(&image).end);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn blocks_of_two_extents_are_not_given_together() {
    let image = World::image(8000, 2);
    let extent = |offset, length| Extent {
        region: SLOT_B,
        offset,
        length,
    };
    let mut world = World::new(Setup {
        largest_write: Some(131_072),
        ..Setup::default()
    });
    let rest = image.len() as u64 - 2048;
    world.truth.lock().unwrap().extents = Some(vec![extent(0, 2048), extent(2048, rest)]);
    world.create("job-1", &image);
    bring_all(&mut world, &image, blocks(&image));
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(given(&world), [(0, 2048), (2048, image.len() - 2048)]);
}

#[test]
fn a_plugin_that_breaks_with_gathered_blocks_loses_none_of_them() {
    let most = Limits::default().strikes_max;
    let image = World::image(5000, 2);
    for breaks in 1..most {
        let mut world = receiving(&image, Setup::default());
        world.fault("write-block", Fault::Trap(breaks));
        bring_all(&mut world, &image, blocks(&image));
        // The close comes in the same turn, while there is no instance.
        let end = world.close();
        assert!(matches!(end, Outcome::Verified(_)), "{breaks}: {end:?}");
        assert_eq!(strikes(&world), breaks);
        assert_eq!(world.slots[1].contents(), image);
    }
    for fault in [Fault::Trap(most), Fault::TrapInStep] {
        let mut world = receiving(&image, Setup::default());
        world.fault("write-block", fault);
        bring_all(&mut world, &image, 0..2);
        for _ in 0..20 {
            world.poll();
        }
        assert_eq!(strikes(&world), most);
        assert_eq!(
            main_of(&bring_end(&mut world, &image, 2)),
            code::PLUGIN_FAILED
        );
        assert_eq!(main_of(&world.close()), code::PLUGIN_FAILED);
    }
}

fn bring_end(world: &mut World, image: &[u8], index: usize) -> Outcome {
    match bring(world, image, index) {
        Started::Done(end) => end,
        Started::Pending(token) => world.finish(token),
    }
}

#[test]
fn what_a_plugin_refuses_of_gathered_blocks_fails_what_is_asked_next_by_name() {
    let image = World::image(9000, 2);
    let asked: [fn(&mut World, &[u8]) -> Outcome; 2] = [
        |world, image| bring_end(world, image, 5),
        |world, _| world.close(),
    ];
    for ask in asked {
        let mut world = receiving(&image, Setup::default());
        world.write_blocks(&image, 0..1);
        world.fault(
            "write-block",
            Fault::Fail(1, Failure::new(0xd1, 28, "full")),
        );
        bring_all(&mut world, &image, 1..3);
        world.poll();
        let Outcome::Failed(failure) = ask(&mut world, &image) else {
            panic!("it was taken");
        };
        assert_eq!((failure.main, failure.sub), (0xd1, 28));
        let detail = "bytes 1024 to 3072 that came last are lost: full";
        assert_eq!(failure.detail, detail);
        // Whoever looks what is really there goes on from it.
        assert_eq!(world.reopen("job-1"), Outcome::Held(vec![1, 0]));
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)));
    }
}

#[test]
fn what_a_busy_plugin_refuses_is_missing_at_the_close_and_brought_again() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    let busy = Failure::new(code::BUSY, 0, "later");
    world.fault("write-block", Fault::Fail(1, busy));
    bring_all(&mut world, &image, 0..2);
    world.poll();
    bring_all(&mut world, &image, 2..blocks(&image).end);
    assert_eq!(main_of(&world.close()), code::FILE_CLOSE);
    let held = (1 << blocks(&image).end) - 0b100;
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![held]));
    world.write_blocks(&image, 0..2);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_write_of_several_blocks_is_cut_between_them() {
    let image = World::image(6 * 1024, 2);
    for (largest, wanted) in [
        (2500, vec![(0, 2048), (2048, 1024)]),
        (
            1000,
            vec![
                (0, 1000),
                (1000, 24),
                (1024, 1000),
                (2024, 24),
                (2048, 1000),
                (3048, 24),
            ],
        ),
    ] {
        let mut world = receiving(
            &image,
            Setup {
                largest_write: Some(largest),
                ..Setup::default()
            },
        );
        let data = image[..3 * BLOCK].to_vec();
        let end = world.run(|t, now, token| t.write_block(now, token, FILE, 0, &data));
        assert_eq!(end, Outcome::Nothing);
        assert_eq!(given(&world), wanted, "{largest}");
    }
}

#[test]
fn a_build_on_trial_that_breaks_with_gathered_blocks_is_sent_back_and_the_one_before_gets_them() {
    for wrong in [Wrong::TrapsInFirstCall, Wrong::FailsFirstCall] {
        let image = World::image(5000, 2);
        let mut world = receiving(&image, Setup::default());
        let next = build(&world, 2, wrong);
        let answer = ask(&mut world, &next);
        world.poll();
        world.poll();
        bring_all(&mut world, &image, blocks(&image));
        assert!(matches!(world.close(), Outcome::Verified(_)), "{wrong:?}");
        let report = world.targets.report().remove(0);
        assert!(report.plugin.contains("1.0.0"), "{}", report.plugin);
        assert_eq!((report.strikes, next.alive()), (0, 0));
        let calls = next.called();
        assert!(calls.contains(&"write-block"), "{calls:?}");
        // It served when it broke, so whoever put it in has his answer, or has it now.
        assert!(answer.lock().unwrap().is_some());
    }
}

#[test]
fn another_build_is_given_what_the_one_before_had_begun() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    world.truth.lock().unwrap().steps.insert("write-block", 40);
    bring_all(&mut world, &image, blocks(&image));
    world.poll();
    let next = build(&world, 2, Wrong::Nothing);
    let answer = ask(&mut world, &next);
    let close = begin_close(&mut world);
    let end = world.finish(close);
    assert!(matches!(end, Outcome::Verified(_)), "{end:?}");
    assert_eq!(answer.lock().unwrap().take(), Some(Ok(())));
    let whole = (0, image.len());
    assert_eq!(given(&world), [whole, whole]);
}

#[test]
fn a_close_waits_for_a_slow_plugin_and_others_for_the_next_blocks() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    world.truth.lock().unwrap().steps.insert("write-block", 40);
    bring_all(&mut world, &image, 0..2);
    world.poll();
    // It is in the middle of them.
    let mut waiting = Vec::new();
    for index in 2..blocks(&image).end {
        match bring(&mut world, &image, index) {
            Started::Pending(token) => waiting.push(token),
            Started::Done(end) => panic!("{end:?}"),
        }
    }
    assert_eq!(main_of(&world.close()), code::BUSY, "blocks wait");
    for token in waiting {
        assert_eq!(world.finish(token), Outcome::Nothing);
    }
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_close_that_waits_for_a_slow_plugin_hears_what_that_refuses() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    let sleepy = WakeOn {
        after_ms: Some(60_000),
        ..WakeOn::default()
    };
    world.fault("write-block", Fault::Endless(sleepy));
    bring_all(&mut world, &image, blocks(&image));
    let close = begin_close(&mut world);
    world.poll();
    assert_eq!(main_of(&world.close()), code::BUSY, "one close at a time");
    // It hangs, and is struck.
    assert_eq!(main_of(&world.finish(close)), code::PLUGIN_FAILED);
    assert_eq!(world.phase(), "receiving");
}

#[test]
fn who_gives_a_transfer_up_gives_up_its_gathered_blocks_and_the_close_that_waits() {
    let image = World::image(5000, 2);
    for verb in ["abort", "reopen", "create"] {
        let mut world = receiving(&image, Setup::default());
        world.write_blocks(&image, 0..1);
        world.truth.lock().unwrap().steps.insert("write-block", 40);
        bring_all(&mut world, &image, 1..blocks(&image).end);
        let close = begin_close(&mut world);
        world.poll();
        assert_eq!(world.ended(close), None);
        world.truth.lock().unwrap().steps.clear();
        let end = match verb {
            "abort" => world.abort(),
            "reopen" => world.reopen("job-1"),
            _ => world.create("job-2", &image),
        };
        let expected = match verb {
            "reopen" => Outcome::Held(vec![0b0001]),
            _ => Outcome::Nothing,
        };
        assert_eq!(end, expected, "{verb}");
        let close = world.ended(close).unwrap();
        assert_eq!(main_of(&close), code::CANCELLED, "{verb}");
        if verb == "abort" {
            assert_eq!(world.slots[1].contents(), b"");
            continue;
        }
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)), "{verb}");
    }
}

#[test]
fn a_create_gives_up_told_blocks_and_a_question_of_the_operator_s_alike() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    // The plugin breaks with the blocks, and before a fresh one is given them it is asked.
    world.fault("write-block", Fault::Trap(1));
    world.truth.lock().unwrap().steps.insert("state", 40);
    bring_all(&mut world, &image, 0..3);
    let answer = Arc::new(Mutex::new(None));
    let told = Arc::clone(&answer);
    let reply = move |end| *told.lock().unwrap() = Some(end);
    world.targets.ask(FILE, Box::new(reply));
    world.calls();
    world.poll();
    let calls = world.calls();
    assert!(calls.iter().any(|call| call == "state"), "{calls:?}");
    assert!(world.targets.report()[0].held == 0 && answer.lock().unwrap().is_none());
    world.truth.lock().unwrap().steps.clear();
    assert_eq!(world.create("job-2", &image), Outcome::Nothing);
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    // It is asked again, and answered.
    assert!(matches!(answer.lock().unwrap().take(), Some(Ok(_))));
}

#[test]
fn an_abort_gives_the_plugin_nothing_that_it_throws_away() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    bring_all(&mut world, &image, 0..3);
    assert_eq!(world.abort(), Outcome::Nothing);
    world.poll();
    assert!(given(&world).is_empty());
    assert!(world.targets.report()[0].job_id.is_none());
}

#[test]
fn gathered_bytes_count_as_waiting_ones() {
    let image = World::image(8000, 2);
    let mut world = receiving(
        &image,
        Setup {
            limits: Limits {
                pending_bytes_max: 2500,
                ..Limits::default()
            },
            ..Setup::default()
        },
    );
    let slow = WakeOn {
        after_ms: Some(10),
        ..WakeOn::default()
    };
    world.fault("write-block", Fault::Endless(slow));
    bring_all(&mut world, &image, 0..2);
    let Started::Done(Outcome::Failed(failure)) = bring(&mut world, &image, 2) else {
        panic!("it was taken");
    };
    let expected = (code::LIMIT, limit::PENDING_BYTES);
    assert_eq!((failure.main, failure.sub), expected);
    assert_eq!(given(&world), [(0, 2048)]);
}

#[test]
fn a_question_of_the_operator_s_does_not_come_between_a_turn_and_its_blocks() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    world.calls();
    bring_all(&mut world, &image, 0..3);
    world.targets.ask(FILE, Box::new(|_| {}));
    world.poll();
    assert_eq!(world.calls(), ["write-block", "state"]);
    assert_eq!(world.targets.report()[0].held, 3072);
}

#[test]
fn a_target_keeps_no_room_for_blocks_beyond_their_turn() {
    let image = World::image(5000, 2);
    let mut world = receiving(&image, Setup::default());
    bring_all(&mut world, &image, 0..3);
    let room = |world: &World| match &world.targets.targets[0] {
        Resident::Awake(target) => (target.writes.len(), target.writes.capacity()),
        Resident::Resting(_) => panic!("it receives"),
    };
    assert_eq!(room(&world).0, 1);
    world.poll();
    assert_eq!(room(&world), (0, 0));
}
