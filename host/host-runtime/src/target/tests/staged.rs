//! A staged target: the host fills and verifies the file, the plugin gets exactly those bytes.

use super::world::{FILE, World, main_of};
use crate::types::{Outcome, Started, code};

#[test]
fn an_update_goes_from_create_to_commit() {
    let mut world = World::staged();
    let image = World::image(50_000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    world.write_all(&image);
    let Outcome::Verified(info) = world.close() else {
        panic!("not verified");
    };
    assert_eq!(world.staging.file().unwrap().contents(), image);
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.truth.lock().unwrap().mcu.inactive, image);
    assert!(
        !world.truth.lock().unwrap().mcu.marked,
        "install marks nothing"
    );
    assert_eq!(world.activate(), Outcome::Nothing);
    assert_eq!(world.reset(), Outcome::Nothing);
    assert_eq!(world.state_now().code, 1);
    assert_eq!(world.commit(), Outcome::Nothing);
    assert!(world.truth.lock().unwrap().mcu.confirmed);
    assert_eq!(world.targets.report()[0].committed, Some(info));
    assert_eq!(world.abort(), Outcome::Nothing);
    assert!(world.staging.file().is_none());
}

#[test]
fn a_target_in_test_knows_its_image_after_a_restart_of_the_host() {
    let mut world = World::staged();
    world.deliver_and_start("job-1", &World::image(5000, 2));
    assert_eq!(world.state_now().code, 1);
    world.restart();
    // The first question of an agent that starts, before it opens anything again.
    assert_eq!(world.state_now().code, 1);
    assert_eq!(world.commit(), Outcome::Nothing);
    world.restart();
    assert_eq!(world.state_now().runs_new, Some(true));
}

#[test]
fn an_abort_deletes_the_staging_file() {
    let mut world = World::staged();
    let image = World::image(5000, 2);
    world.deliver("job-1", &image);
    assert_eq!(world.abort(), Outcome::Nothing);
    assert!(world.staging.file().is_none());
    world.deliver("job-2", &image);
}

#[test]
fn what_is_held_without_a_gap_is_what_the_plugin_may_read() {
    let mut world = World::staged();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    // Before the end the plugin finds the last bytes missing, and after a restart too.
    world.write_blocks(&image, 1..6);
    world.restart();
    let Outcome::Held(held) = world.reopen("job-1") else {
        panic!("not held");
    };
    assert_eq!(held, [0b0011_1110]);
    world.write_blocks(&image, 0..1);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    world.restart();
    // Closed, but not verified by this process: install has no proof to be called with.
    assert!(matches!(world.reopen("job-1"), Outcome::Held(_)));
    assert_eq!(
        world.targets.verified(FILE).unwrap_err().main,
        code::NOT_VERIFIED
    );
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.truth.lock().unwrap().mcu.inactive, image);
}

#[test]
fn an_install_in_steps_tells_how_far_it_is() {
    let mut world = World::staged();
    world.truth.lock().unwrap().steps.insert("install", 1000);
    world.deliver("job-1", &World::image(5000, 2));
    let proof = world.targets.verified(FILE).unwrap();
    let Started::Pending(token) = world.start(|t, _, token| t.install(token, &proof)) else {
        panic!("over at once");
    };
    assert_eq!(world.finish(token), Outcome::Nothing);
    let told = world
        .events
        .iter()
        .filter(|e| matches!(e, crate::target::TargetEvent::Progress { total: 1000, .. }))
        .count();
    assert_eq!(told, 1, "no second has passed");
}

#[test]
fn a_staged_target_that_goes_back_keeps_its_old_image() {
    let mut world = World::staged();
    world.deliver_and_start("job-1", &World::image(5000, 2));
    assert_eq!(world.reject(), Outcome::Nothing);
    assert!(!world.truth.lock().unwrap().mcu.new_runs);
    assert_eq!(main_of(&world.commit()), code::BUSY);
    world.deliver_and_start("job-2", &World::image(6000, 3));
    assert_eq!(world.commit(), Outcome::Nothing);
}
