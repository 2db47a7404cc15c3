//! Restarts: a process that is killed, and power that fails, at every single change of storage and state directory.

use super::medium::Cut;
use super::world::{FILE, Setup, World, main_of};
use crate::target::verified_record;
use crate::types::{Outcome, Started, code};

#[test]
fn a_killed_process_finds_every_block_of_the_turns_before() {
    for staged in [false, true] {
        let mut world = World::new(Setup {
            staged,
            ..Setup::default()
        });
        let image = World::image(10_000, 2);
        world.create("job-1", &image);
        world.write_blocks(&image, [1, 4, 9].into_iter());
        world.restart();
        assert_eq!(
            main_of(&world.write_block(&image, 0)),
            code::BUSY,
            "reopen first"
        );
        assert_eq!(main_of(&world.close()), code::BUSY, "reopen first");
        assert_eq!(
            world.reopen("job-1"),
            Outcome::Held(vec![0b0001_0010, 0b10])
        );
        assert_eq!(
            world.reopen("job-1"),
            Outcome::Held(vec![0b0001_0010, 0b10])
        );
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)));
        assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0xff, 0b11]));
    }
}

#[test]
fn a_power_cut_costs_what_was_not_synced_and_nothing_else() {
    for staged in [false, true] {
        let mut world = World::new(Setup {
            staged,
            sync_bytes: Some(4096),
            ..Setup::default()
        });
        let image = World::image(10_000, 2);
        world.create("job-1", &image);
        world.write_blocks(&image, 0..6);
        world.power_cut();
        assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b1111, 0]));
        world.write_all(&image);
        assert!(matches!(world.close(), Outcome::Verified(_)));
    }
}

#[test]
fn a_block_whose_bytes_were_lost_is_not_held_though_the_map_has_it() {
    let mut world = World::direct();
    let image = World::image(10_000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..6);
    // The map reached the medium, the data of one block did not.
    world.slots[1].flip(3 * 1024 * 8 + 5);
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0011_0111, 0]));
    world.write_blocks(&image, [3].into_iter());
    // What was dropped and written again counts after the next restart.
    world.restart();
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0b0011_1111, 0]));
}

#[test]
fn a_transfer_is_reopened_by_its_own_name_only() {
    let mut world = World::direct();
    assert_eq!(main_of(&world.reopen("job-1")), code::NOT_FOUND);
    world.create("job-1", &World::image(500, 2));
    world.restart();
    assert_eq!(main_of(&world.reopen("job-2")), code::NOT_FOUND);
    assert!(matches!(world.reopen("job-1"), Outcome::Held(_)));
}

/// Blocks of a long file that come in one turn of the device.
const TURN_BLOCKS: usize = 16;

/// What an agent does that remembers nothing but its job: look how things are, and go on from there. `Err` = something
/// failed; the caller finds out whether the power did.
fn drive(world: &mut World, image: &[u8]) -> Result<(), Outcome> {
    fn ok(end: Outcome) -> Result<(), Outcome> {
        match end {
            Outcome::Failed(_) => Err(end),
            _ => Ok(()),
        }
    }
    let state = match world.state() {
        Outcome::State(state) => state,
        failed => return Err(failed),
    };
    if state.runs_new == Some(true) {
        if state.code == 1 {
            ok(world.self_test())?;
        }
        return ok(world.commit());
    }
    let held = match world.reopen("job-1") {
        Outcome::Held(held) => held,
        Outcome::Failed(failure) if failure.main == code::NOT_FOUND => {
            ok(world.create("job-1", image))?;
            vec![0; image.len().div_ceil(1024).div_ceil(8)]
        }
        failed => return Err(failed),
    };
    for index in 0..image.len().div_ceil(1024) {
        if held[index / 8] & (1 << (index % 8)) == 0 {
            ok(world.write_block(image, index))?;
        }
        if index % TURN_BLOCKS == TURN_BLOCKS - 1 {
            world.poll();
        }
    }
    ok(world.close())?;
    let proof = world.targets.verified(FILE).map_err(Outcome::Failed)?;
    ok(world.run(|t, _, token| t.install(token, &proof)))?;
    ok(world.run(|t, _, token| t.activate(token, &proof)))?;
    ok(world.reset())?;
    ok(world.self_test())?;
    ok(world.commit())
}

/// After every cut: the slot that boots holds the old image, or the new one to the last byte.
fn check_bootable(world: &World, image: &[u8], at: u64, cut: Cut) {
    let running = usize::from(world.truth.lock().unwrap().running);
    let bytes = world.slots[running].contents();
    assert!(
        bytes == b"the old image" || bytes == image,
        "cut {cut:?} {at}: neither image boots"
    );
    if bytes == image {
        let mut hasher = host_crypto::Hasher::default();
        hasher.update(&bytes);
        let known =
            verified_record::contains(&*world.state, "gateway", "app", hasher.finish().sha256());
        assert!(
            known.unwrap(),
            "cut {cut:?} {at}: the launcher would not start it"
        );
    }
}

#[test]
fn an_update_survives_a_cut_of_the_power_at_every_change() {
    every_cut(&World::image(6000, 2), 2048, World::power_cut);
}

#[test]
fn an_update_survives_a_kill_of_the_process_at_every_change() {
    every_cut(&World::image(6000, 2), 2048, kill);
}

#[test]
fn an_update_that_is_read_early_survives_a_cut_or_a_kill_at_every_change() {
    let (image, sync_bytes) = (World::image(150_000, 2), 128 * 1024);
    for comes_back in [World::power_cut, kill] {
        let world = every_cut(&image, sync_bytes, comes_back);
        assert_eq!(world.slots[1].reads(), 2, "one of them early");
    }
}

fn kill(world: &mut World) {
    world.power.restore();
    world.restart();
}

/// The world that had no cut.
fn every_cut(image: &[u8], sync_bytes: u64, comes_back: fn(&mut World)) -> World {
    let setup = Setup {
        sync_bytes: Some(sync_bytes),
        ..Setup::default()
    };
    let mut uncut = World::new(setup.clone());
    let began = uncut.power.count();
    drive(&mut uncut, image).unwrap();
    let changes = uncut.power.count() - began;
    assert!(changes > 30, "{changes} changes");
    for cut in [Cut::Before, Cut::During, Cut::After] {
        for at in 0..changes {
            let mut world = World::new(setup.clone());
            world.power.cut_at(at, cut);
            drop(drive(&mut world, image));
            assert!(world.power.is_dark(), "cut {cut:?} {at}");
            comes_back(&mut world);
            check_bootable(&world, image, at, cut);
            drive(&mut world, image).unwrap_or_else(|end| panic!("cut {cut:?} {at}: {end:?}"));
            assert_eq!(world.phase(), "committed", "cut {cut:?} {at}");
            assert_eq!(world.truth.lock().unwrap().running, 1, "cut {cut:?} {at}");
            assert_eq!(world.slots[1].contents(), image, "cut {cut:?} {at}");
            // The next update must find the slots as they should be.
            world.deliver_and_start("job-2", &World::image(100, 3));
            assert_eq!(world.commit(), Outcome::Nothing, "cut {cut:?} {at}");
        }
    }
    uncut
}

#[test]
fn a_staged_update_survives_a_cut_of_the_power_at_every_change() {
    let image = World::image(6000, 2);
    let setup = Setup {
        staged: true,
        sync_bytes: Some(2048),
        ..Setup::default()
    };
    let mut world = World::new(setup.clone());
    let began = world.power.count();
    drive(&mut world, &image).unwrap();
    let changes = world.power.count() - began;
    for cut in [Cut::Before, Cut::During, Cut::After] {
        for at in 0..changes {
            let mut world = World::new(setup.clone());
            world.power.cut_at(at, cut);
            drop(drive(&mut world, &image));
            world.power_cut();
            drive(&mut world, &image).unwrap_or_else(|end| panic!("cut {cut:?} {at}: {end:?}"));
            let truth = world.truth.lock().unwrap();
            assert!(truth.mcu.confirmed, "cut {cut:?} {at}");
            assert_eq!(truth.mcu.inactive, image, "cut {cut:?} {at}");
        }
    }
}

#[test]
fn a_block_is_fetched_again_only_if_it_was_not_synced() {
    let mut world = World::new(Setup {
        sync_bytes: Some(2048),
        ..Setup::default()
    });
    let image = World::image(20_000, 2);
    world.create("job-1", &image);
    let mut writes = 0;
    for round in 0..20 {
        let Outcome::Held(held) = world.reopen("job-1") else {
            panic!("round {round}");
        };
        let missing: Vec<usize> = (0..image.len().div_ceil(1024))
            .filter(|i| held[i / 8] & (1 << (i % 8)) == 0)
            .collect();
        // The last pair may be too short for a sync by bytes.
        if missing.len() <= 2 {
            break;
        }
        for index in missing.into_iter().take(5) {
            assert_eq!(world.write_block(&image, index), Outcome::Nothing);
            writes += 1;
        }
        world.power_cut();
    }
    // Of each five, four are synced in pairs; at most one is lost to a cut.
    let blocks = image.len().div_ceil(1024);
    assert!(
        writes <= blocks + blocks / 4,
        "{writes} writes for {blocks} blocks"
    );
    world.reopen("job-1");
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn an_agent_that_lost_its_tokens_reopens_over_what_is_under_way() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    world.bench.hold(true);
    let Started::Pending(close) = world.start(|t, _, token| t.close(token, FILE)) else {
        panic!("over at once");
    };
    let Started::Pending(reopen) = world.start(|t, _, token| t.reopen(token, "job-1", FILE)) else {
        panic!("did not wait for the worker");
    };
    world.poll();
    assert_eq!(main_of(&world.ended(close).unwrap()), code::CANCELLED);
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(reopen), Outcome::Held(vec![0b0011_1111]));
    assert!(matches!(world.close(), Outcome::Verified(_)));
}
