//! Stories of all kinds of trouble, one after the other and on top of each other, each from its own seed.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::world::{World, config, document};
use crate::agent::timer::Random;
use crate::code::State;
use crate::types::{Command, Failure};

/// Stories; each is what its seed makes of it.
const SEEDS: u64 = 100;

/// Events between two troubles, at most.
const GAP: u64 = 12;

/// Time for everything to come to rest once all is well.
const MENDED_MS: u64 = 10 * 24 * 3_600_000;

/// One thing that happens to the world.
fn trouble(world: &mut World, random: &mut Random) {
    match random.next() % 14 {
        0 | 1 => world.crash(),
        2 | 3 => world.swap(),
        4 => world.disconnect(),
        5 => world.connect(),
        6 => world.lose.push(("", 1 + (random.next() % 5) as usize)),
        7 => world.lose_blocks.push(random.next() % 3),
        8 => {
            let calls = [
                "create 0",
                "close 0",
                "install 0",
                "activate 0",
                "reset 0",
                "commit 0",
                "reject 0",
                "journal",
            ];
            let call = calls[(random.next() % 8) as usize];
            let code = [0xdc, 0xd5, 0xd2, 0xee][(random.next() % 4) as usize];
            world
                .fail
                .push((call, Failure::new(code, 0, "by chance"), 1));
        }
        9 => world.all_slow = !world.all_slow,
        10 => world.command(Command::Suspend),
        11 => world.command(Command::Resume),
        12 if random.next().is_multiple_of(4) => {
            if let Some(job) = world.jobs.first_mut().filter(|job| job.is_open()) {
                job.status = "CANCELED".to_owned();
                world.notify();
            }
        }
        12 => world.targets.values_mut().for_each(|target| {
            // The boot loader gives up an image that nobody has made permanent.
            if target.code == 1 {
                target.revert();
            }
        }),
        _ => {
            world.refuse_updates = match random.next() % 4 {
                0 => Some("RequestThrottled"),
                1 => Some("InternalError"),
                _ => None,
            }
        }
    }
}

fn mend(world: &mut World) {
    world.lose.clear();
    world.lose_blocks.clear();
    world.fail.clear();
    world.hang.clear();
    world.refuse_updates = None;
    world.command(Command::Resume);
    world.connect();
    world.settle();
}

fn rests(world: &World) -> bool {
    let has_job = world.agent.status().job_id.is_some();
    let over = world.jobs.iter().all(|job| !job.is_open());
    over && !has_job && world.state() == State::WaitingForJob && world.inbox.is_empty()
}

/// Plays a story and judges its end; the status that the service has then.
fn play(seed: u64) -> String {
    let mut random = Random(seed);
    let group = random.next().is_multiple_of(3);
    let mut world = if group {
        World::double()
    } else {
        World::single()
    };
    if random.next().is_multiple_of(4) {
        let deferred: &[(&str, &str)] = &[("activation", "deferred")];
        world = World::with_config(config(&[], &[(0, deferred)]));
    }
    let files = [(0, 2500, 0), (1, 1500, 0)];
    let count = world.targets.len();
    world.create_job("job1", &document(&files[..count]));
    world.connect();
    for _ in 0..1 + random.next() % 6 {
        for _ in 0..random.next() % GAP {
            world.turn();
        }
        trouble(&mut world, &mut random);
    }
    mend(&mut world);
    let until = world.now + MENDED_MS;
    let mut turns = 0;
    while !rests(&world) && world.now < until && world.turn() {
        turns += 1;
        assert!(turns < 20_000, "seed {seed}: busy in {:?}", world.state());
    }
    let what = format!("seed {seed}: {:?}\n{}", world.verdict(), world.story());
    assert!(rests(&world), "{what}");
    let succeeded = world.verdict().0 == "SUCCEEDED";
    let split = world.verdict().1.contains("group-split");
    for (file, target) in &world.targets {
        assert!(
            !matches!(target.code, 1 | 4),
            "{file} in {}: {what}",
            target.code
        );
        assert!(split || !succeeded || target.runs_new, "{file}: {what}");
        assert!(
            split || world.verdict().0 != "FAILED" || !target.runs_new,
            "{file}: {what}"
        );
    }
    world.verdict().0.to_owned()
}

#[test]
fn every_story_ends_at_rest_with_a_status_that_the_targets_bear_out() {
    let ends: Vec<String> = (0..SEEDS).map(play).collect();
    for status in ["SUCCEEDED", "FAILED", "CANCELED"] {
        let count = ends.iter().filter(|end| *end == status).count();
        assert!(count > 3, "only {count} stories end {status}");
    }
}
