//! A target that has nothing to do is folded up, and nobody can tell. (All other tests of targets fold them up, too, whenever
//! that may be done: see `World::poll`.)

use super::double::{Factory, version};
use super::world::{FILE, World};
use crate::choice::{self, Place};
use crate::target::rest::Resident;
use crate::types::Outcome;

impl World {
    fn is_resting(&self) -> bool {
        matches!(self.targets.targets[0], Resident::Resting(_))
    }

    fn update(&mut self, image: &[u8]) {
        self.deliver_and_start("job-1", image);
        self.state_now();
        assert_eq!(self.self_test(), Outcome::Nothing);
        assert_eq!(self.commit(), Outcome::Nothing);
        self.poll();
    }

    /// Wake what rests, without asking for anything.
    fn awaken(&mut self) {
        self.targets.find(FILE).unwrap();
        assert!(!self.is_resting());
    }
}

#[test]
fn a_target_rests_before_its_first_transfer_and_after_its_last_and_not_within_one() {
    for mut world in [World::direct(), World::staged()] {
        world.poll();
        assert!(world.is_resting());
        world.state_now();
        // Whoever asked may want something of it now.
        assert!(!world.is_resting());
        assert_eq!(world.poll(), None);
        assert!(world.is_resting());
        let image = World::image(5000, 2);
        assert_eq!(world.create("job-1", &image), Outcome::Nothing);
        assert!(!world.is_resting());
        world.write_all(&image);
        assert!(!world.is_resting());
        world.close();
        for step in [World::install, World::activate, World::reset] {
            assert_eq!(step(&mut world), Outcome::Nothing);
            assert!(!world.is_resting());
        }
        world.poll();
        world.state_now();
        assert_eq!(world.self_test(), Outcome::Nothing);
        assert!(!world.is_resting());
        assert_eq!(world.commit(), Outcome::Nothing);
        world.poll();
        assert!(world.is_resting());
        assert_eq!(world.state_now().code, 2);
    }
}

#[test]
fn what_a_resting_target_reports_is_what_it_would_report_awake() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.update(&image);
    assert!(world.is_resting());
    let resting = world.targets.report();
    assert_eq!(resting[0].phase, "committed");
    assert!(resting[0].committed.is_some());
    assert_eq!(resting[0].state.unwrap().running, Some(version(1)));
    assert!(!resting[0].build.account.is_empty());
    let running = world
        .targets
        .running(FILE)
        .map(|(name, v)| (name.to_owned(), v));
    assert_eq!(running, Some(("app".to_owned(), Some(version(1)))));
    world.awaken();
    assert_eq!(world.targets.report(), resting);
    // And so does one that has done something since, and rests again: its account goes on.
    let calls = |world: &World| world.targets.report()[0].build.account["calls"].all;
    let before = calls(&world);
    world.state_now();
    world.poll();
    assert!(world.is_resting());
    assert!(calls(&world) > before);
}

#[test]
fn the_build_before_and_the_choice_on_the_medium_are_there_after_a_rest() {
    let mut world = World::direct();
    world.poll();
    let chosen = |world: &World| choice::load(&*world.state, &Place::plugin("gateway", "app"));
    assert_eq!(chosen(&world).unwrap(), None);
    assert!(world.is_resting());
    let build = Factory::direct(&world.truth);
    world
        .targets
        .swap(FILE, build, Box::new(|end| end.unwrap()));
    for _ in 0..10 {
        world.poll();
    }
    let choice = chosen(&world).unwrap();
    assert!(world.is_resting());
    assert!(world.targets.report()[0].build.on_trial);
    world.poll();
    assert_eq!(chosen(&world).unwrap(), choice);
}

#[test]
fn records_that_are_known_to_be_durable_are_not_made_so_again_after_a_rest() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    world.update(&image);
    assert!(world.is_resting());
    // A sync would fail the question, as it does after a start.
    world.record.fail_syncs(Some(5));
    assert_eq!(world.state_now().code, 2);
    world.restart();
    assert!(matches!(
        world.run(|t, _, token| t.state(token, FILE)),
        Outcome::Failed(_)
    ));
}
