//! State files that are damaged: what they are needed for is refused by name, everything else goes on.

use super::world::{FILE, World, main_of};
use crate::ports::state_dir::StateDir as _;
use crate::target::{Targets, verified_record};
use crate::types::{Outcome, Started, code};

const RECORD: &str = "targets/gateway/app/record.json";
const VERIFIED: &str = "targets/gateway/app/verified.json";

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
fn a_damaged_list_of_verified_images_is_made_anew_from_the_record() {
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
    // Without a record there is nothing to make it from.
    world.state.remove(RECORD).unwrap();
    assert!(list().is_err());
}
