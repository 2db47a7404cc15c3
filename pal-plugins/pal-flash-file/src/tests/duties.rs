//! Each duty in each state.

use pal_sdk::record::crc32c;

use super::*;

#[test]
fn a_description_fits_the_contract() {
    let description = FlashFile::<Fake>::describe();
    assert_eq!(description.kinds, ["flash-file"]);
    assert_eq!(description.capabilities & 0x03, 0x01, "direct");
    assert_eq!(description.capabilities & 0x10, 0x10, "a self-test");
    assert_eq!(description.largest_write, 131_072);
    assert_eq!(description.schemas, [1]);
}

#[test]
fn open_touches_nothing_and_refuses_what_it_does_not_know() {
    let fake = Fake::default();
    assert!(FlashFile::open(fake.clone(), Vec::new(), None).is_ok());
    let failure = FlashFile::open(fake.clone(), vec![setting("speed", "9")], None).unwrap_err();
    assert_eq!(failure.main, 0xd0);
    assert!(failure.detail.contains("`speed`"));
    let blob = |schema| {
        Some(Blob {
            schema,
            bytes: vec![1, 2, 3],
        })
    };
    assert!(FlashFile::open(fake.clone(), Vec::new(), blob(1)).is_ok());
    let refused = FlashFile::open(fake.clone(), Vec::new(), blob(2));
    assert_eq!(codes(refused), (0xdf, 2));
    assert_eq!(fake.world().calls, []);
}

#[test]
fn a_region_that_is_not_granted_is_named() {
    for name in ["slot-a", "slot-b", "record", "tries"] {
        let mut bench = Bench::new();
        bench.fake.world().region(name).region.name = "other".to_owned();
        let failure = bench.plugin.state().unwrap_err();
        assert_eq!((failure.main, failure.sub), (0xd4, 2));
        assert!(failure.detail.contains(name), "{}", failure.detail);
    }
}

#[test]
fn a_whole_update_ends_in_the_other_slot() {
    let mut bench = Bench::started();
    assert_eq!(bench.told(), (2, Some(0), None));
    for (job, new, slot) in [("job-1", version(1, 1), 1), ("job-2", version(1, 2), 0)] {
        let before = new.minor - 1;
        let bytes = image(new);
        bench.receive(job, &bytes).unwrap();
        assert_eq!(bench.told(), (2, Some(before), Some(false)));
        assert_eq!(bench.plugin.install(), DONE);
        assert_eq!(bench.plugin.activate(digest(&bytes)), DONE);
        assert_eq!(bench.told(), (4, Some(before), Some(false)));
        assert_eq!(bench.plugin.reset(), HOST_RESETS);
        assert_eq!(launcher::launch(&bench.fake), slot);
        assert_eq!(bench.told(), (1, Some(new.minor), Some(true)));
        assert_eq!(bench.self_test(), DONE);
        assert_eq!(bench.plugin.commit(), DONE);
        assert_eq!(bench.told(), (2, Some(new.minor), Some(true)));
        assert_eq!(launcher::launch(&bench.fake), slot);
        assert_eq!(bench.told(), (2, Some(new.minor), Some(true)));
        assert_eq!(bench.plugin.abort(), DONE);
        assert_eq!(bench.told(), (2, Some(new.minor), None));
    }
}

#[test]
fn a_host_that_restarts_anywhere_finds_the_same_state() {
    let mut bench = Bench::received();
    let again = || Some(transfer("job-1", &image(NEW)));
    bench.restart_host(again());
    assert_eq!(bench.told(), (2, Some(0), Some(false)));
    bench.activate().unwrap();
    bench.restart_host(again());
    assert_eq!(bench.told(), (4, Some(0), Some(false)));
    launcher::launch(&bench.fake);
    bench.restart_host(None);
    assert_eq!(bench.told(), (1, Some(1), None));
    bench.restart_host(again());
    assert_eq!(bench.told(), (1, Some(1), Some(true)));
    bench.plugin.commit().unwrap();
    bench.restart_host(again());
    assert_eq!(bench.told(), (2, Some(1), Some(true)));
}

#[test]
fn the_extent_is_the_file_in_the_inactive_slot() {
    let mut bench = Bench::received();
    let size = image(NEW).len() as u64;
    let extents = bench.plugin.extents().unwrap();
    assert_eq!(extents.len(), 1);
    assert_eq!(
        (extents[0].region, extents[0].offset, extents[0].length),
        (1, 0, size)
    );
    let slot = bench.fake.world().region("slot-b").bytes.clone();
    assert_eq!(slot[..image(NEW).len()], image(NEW));
    // It is the same one after a restart, also when committed.
    let again = || Some(transfer("job-1", &image(NEW)));
    bench.activate().unwrap();
    launcher::launch(&bench.fake);
    for _ in 0..2 {
        bench.restart_host(again());
        assert_eq!(bench.plugin.extents().unwrap(), extents);
        bench.plugin.commit().unwrap();
    }
}

#[test]
fn blocks_are_taken_in_any_order_and_only_within_the_file() {
    let mut bench = Bench::started();
    let bytes = image(NEW);
    let size = bytes.len() as u64;
    bench.plugin.create(transfer("job-1", &bytes)).unwrap();
    for (n, block) in bytes.chunks(256).enumerate().rev() {
        bench
            .plugin
            .write_block(n as u64 * 256, block.to_vec())
            .unwrap();
    }
    let slot = bench.fake.world().region("slot-b").bytes.clone();
    assert_eq!(slot[..bytes.len()], bytes);
    for (offset, length) in [(size, 1), (size - 1, 2), (u64::MAX, 1)] {
        let refused = bench.plugin.write_block(offset, vec![0; length]);
        assert_eq!(codes(refused), (0xd0, 0));
    }
}

#[test]
fn a_block_that_the_storage_refuses_is_told_with_its_errno_and_may_come_again() {
    let mut bench = Bench::started();
    let bytes = image(NEW);
    bench.plugin.create(transfer("job-1", &bytes)).unwrap();
    let full = Failure::new(0xd6, 28, "no space left");
    // The calls of one block, the write as the last of them.
    let before = bench.fake.world().calls.len();
    bench.plugin.write_block(0, bytes[..256].to_vec()).unwrap();
    let calls = bench.fake.world().calls.len();
    bench.fake.world().fault = Some((2 * calls - before - 1, full.clone()));
    let block = &bytes[256..512];
    let refused = bench.plugin.write_block(256, block.to_vec());
    assert_eq!(refused, Err(full));
    assert_ne!(bench.fake.world().region("slot-b").bytes[256..512], *block);
    assert_eq!(bench.plugin.write_block(256, block.to_vec()), DONE);
    assert_eq!(bench.fake.world().region("slot-b").bytes[256..512], *block);
}

#[test]
fn a_file_that_does_not_fit_is_refused() {
    let mut bench = Bench::started();
    let of_size = |size| Transfer {
        size,
        ..transfer("job-1", &[])
    };
    assert_eq!(codes(bench.plugin.create(of_size(0))), (0xd0, 0));
    assert_eq!(bench.plugin.create(of_size(1)), DONE);
    assert_eq!(bench.plugin.create(of_size(SLOT_BYTES)), DONE);
    let refused = bench.plugin.create(of_size(SLOT_BYTES + 1));
    assert_eq!(codes(refused), (0xe5, 0));
    // And the one before is still there.
    assert_eq!(bench.plugin.extents().unwrap()[0].length, SLOT_BYTES);
}

#[test]
fn duties_of_a_transfer_need_one() {
    let mut bench = Bench::started();
    let none = (0xd0, sub::NO_TRANSFER);
    assert_eq!(codes(bench.plugin.write_block(0, vec![0])), none);
    assert_eq!(codes(bench.plugin.extents()), none);
    assert_eq!(codes(bench.plugin.examine()), none);
    assert_eq!(codes(bench.activate()), none);
    assert_eq!(codes(bench.plugin.step(4096)), (0xd0, 0));
    assert_eq!(bench.plugin.abort(), DONE);
}

#[test]
fn examine_tells_what_the_trailer_says() {
    let mut bench = Bench::received();
    let info = |duty| match duty {
        Ok(Duty::Finished(Answer::Info(info))) => info,
        other => panic!("{other:?}"),
    };
    let told = info(bench.plugin.examine());
    assert_eq!(
        (told.version, told.product.as_deref()),
        (Some(NEW), Some("demo"))
    );
    let raw = vec![7; 3000];
    bench.receive("job-2", &raw).unwrap();
    assert_eq!(info(bench.plugin.examine()).version, None);
    bench.receive("job-3", &raw[..100]).unwrap();
    assert_eq!(info(bench.plugin.examine()).version, None);
    let mut broken = image(NEW);
    *broken.last_mut().unwrap() ^= 1;
    bench.receive("job-4", &broken).unwrap();
    assert_eq!(codes(bench.plugin.examine()), (0xd3, 0));
}

#[test]
fn a_target_that_never_had_an_image_takes_none() {
    let mut bench = Bench::empty();
    assert_eq!(bench.told(), (0, None, None));
    let refused = bench.plugin.create(transfer("job-1", &image(NEW)));
    assert_eq!(codes(refused), (0xe8, sub::NOTHING_CONFIRMED));
}

#[test]
fn an_image_that_uses_up_its_tries_goes_back() {
    let mut bench = Bench::received();
    bench.activate().unwrap();
    for _ in 0..launcher::TRIES {
        assert_eq!(launcher::launch(&bench.fake), 1);
        assert_eq!(bench.told(), (1, Some(1), Some(true)));
    }
    assert_eq!(launcher::launch(&bench.fake), 0);
    assert_eq!(bench.told(), (3, Some(0), Some(false)));
    assert_eq!(codes(bench.plugin.commit()), (0xe8, sub::NOT_RUNNING));
    // The same image may be tried again, and has all its tries.
    assert_eq!(bench.activate(), DONE);
    assert_eq!(bench.told(), (4, Some(0), Some(false)));
    assert_eq!(launcher::launch(&bench.fake), 1);
    assert_eq!(bench.plugin.commit(), DONE);
}

#[test]
fn after_going_back_another_image_may_come() {
    for reject in [false, true] {
        let mut bench = Bench::received();
        bench.activate().unwrap();
        for _ in 0..=launcher::TRIES {
            launcher::launch(&bench.fake);
        }
        if reject {
            assert_eq!(bench.plugin.reject(), DONE);
            assert_eq!(bench.told(), (3, Some(0), Some(false)));
        }
        assert_eq!(bench.plugin.abort(), DONE);
        assert_eq!(bench.told(), (2, Some(0), None));
        let next = image(version(1, 2));
        bench.receive("job-2", &next).unwrap();
        assert_eq!(bench.told(), (2, Some(0), Some(false)));
        // While it is received, and after a restart then, the old image is started.
        assert_eq!(launcher::launch(&bench.fake), 0);
        bench.restart_host(Some(transfer("job-2", &next)));
        bench.plugin.activate(digest(&next)).unwrap();
        assert_eq!(launcher::launch(&bench.fake), 1);
        assert_eq!(bench.told(), (1, Some(2), Some(true)));
        assert_eq!(bench.plugin.commit(), DONE);
    }
}

#[test]
fn a_reject_before_the_restart_is_over_at_once() {
    let mut bench = Bench::received();
    assert_eq!(bench.plugin.reject(), DONE);
    assert_eq!(launcher::record(&bench.fake), (2, 0, 0xff, 0));
    bench.activate().unwrap();
    assert_eq!(bench.plugin.reject(), DONE);
    assert_eq!(bench.plugin.reject(), DONE);
    assert_eq!(launcher::record(&bench.fake), (4, 0, 1, 2));
    assert_eq!(bench.told(), (3, Some(0), Some(false)));
    assert_eq!(launcher::launch(&bench.fake), 0);
    assert_eq!(bench.plugin.abort(), DONE);
}

#[test]
fn a_reject_of_the_running_image_needs_the_host_to_restart_it() {
    let mut bench = Bench::received();
    bench.activate().unwrap();
    launcher::launch(&bench.fake);
    assert_eq!(bench.plugin.reject(), HOST_RESETS);
    assert_eq!(bench.told(), (3, Some(1), Some(true)));
    assert_eq!(bench.plugin.reject(), HOST_RESETS);
    let create = bench.plugin.create(transfer("job-2", &image(NEW)));
    assert_eq!(codes(create), (0xe8, sub::REJECTED_RUNS));
    bench.restart_host(Some(transfer("job-1", &image(NEW))));
    assert_eq!(launcher::launch(&bench.fake), 0);
    assert_eq!(bench.plugin.reject(), DONE);
    assert_eq!(bench.told(), (3, Some(0), Some(false)));
}

#[test]
fn a_committed_image_cannot_be_rejected() {
    let mut bench = Bench::received();
    bench.activate().unwrap();
    launcher::launch(&bench.fake);
    bench.plugin.commit().unwrap();
    let before = launcher::record(&bench.fake);
    assert_eq!(codes(bench.plugin.reject()), (0xea, sub::COMMITTED));
    assert_eq!(launcher::record(&bench.fake), before);
}

#[test]
fn only_a_running_new_image_is_committed() {
    let mut bench = Bench::received();
    let not_running = (0xe8, sub::NOT_RUNNING);
    assert_eq!(codes(bench.plugin.commit()), not_running);
    assert_eq!(codes(bench.plugin.self_test()), not_running);
    bench.activate().unwrap();
    assert_eq!(codes(bench.plugin.commit()), not_running);
    launcher::launch(&bench.fake);
    assert_eq!(bench.self_test(), DONE);
    bench.plugin.reject().unwrap();
    assert_eq!(codes(bench.plugin.commit()), not_running);
}

#[test]
fn every_duty_may_be_repeated_without_another_write() {
    let mut bench = Bench::received();
    assert_eq!(bench.activate(), DONE);
    let armed = launcher::record(&bench.fake);
    assert_eq!(bench.activate(), DONE);
    assert_eq!(launcher::record(&bench.fake), armed);
    launcher::launch(&bench.fake);
    assert_eq!(bench.activate(), DONE);
    assert_eq!(launcher::record(&bench.fake), armed);
    assert_eq!(bench.plugin.commit(), DONE);
    let committed = launcher::record(&bench.fake);
    assert_eq!(bench.plugin.commit(), DONE);
    assert_eq!(bench.activate(), DONE);
    assert_eq!(bench.self_test(), DONE);
    assert_eq!(launcher::record(&bench.fake), committed);
}

#[test]
fn while_an_image_is_armed_or_pending_no_other_transfer_gets_in() {
    let other = image(version(1, 2));
    let mut bench = Bench::received();
    bench.activate().unwrap();
    assert_eq!(codes(bench.plugin.abort()), (0xe9, sub::ARMED));
    let create = bench.plugin.create(transfer("job-2", &other));
    assert_eq!(codes(create), (0xe8, sub::ARMED));
    let reopen = bench.plugin.reopen(transfer("job-2", &other));
    assert_eq!(codes(reopen), (0xe8, sub::FOREIGN));
    launcher::launch(&bench.fake);
    let create = bench.plugin.create(transfer("job-2", &other));
    assert_eq!(codes(create), (0xe8, sub::PENDING));
    let reopen = bench.plugin.reopen(transfer("job-2", &other));
    assert_eq!(codes(reopen), (0xe8, sub::FOREIGN));
    // Without a transfer it is still known what runs, and it can be decided.
    bench.restart_host(None);
    assert_eq!(bench.told(), (1, Some(1), None));
    assert_eq!(bench.plugin.commit(), DONE);
}

#[test]
fn an_image_that_nobody_marked_is_foreign() {
    let mut bench = Bench::received();
    bench.activate().unwrap();
    launcher::launch(&bench.fake);
    // Somebody lays the old image down anew while the new one runs.
    let old = image(OLD);
    bench.fake.world().region("record").place(0, &[0xff; 8192]);
    launcher::init(&bench.fake, &old, digest(&old));
    assert_eq!(bench.told(), (5, None, None));
    for result in [
        bench.plugin.create(transfer("job-2", &image(NEW))),
        bench.activate(),
        bench.plugin.commit(),
        bench.plugin.reject(),
    ] {
        assert_eq!(codes(result), (0xe8, sub::FOREIGN));
    }
    launcher::launch(&bench.fake);
    assert_eq!(bench.told(), (2, Some(0), Some(false)));
}

#[test]
fn a_damaged_state_record_stops_everything_that_would_write() {
    let mut bench = Bench::received();
    bench.fake.world().region("record").place(20, &[0xaa]);
    assert_eq!(bench.told(), (2, Some(0), Some(false)), "one copy is left");
    bench
        .fake
        .world()
        .region("record")
        .place(4096 + 20, &[0xaa]);
    let damaged = (0xd6, 74);
    assert_eq!(codes(bench.plugin.state()), damaged);
    assert_eq!(codes(bench.activate()), damaged);
    assert_eq!(codes(bench.plugin.commit()), damaged);
    assert_eq!(codes(bench.plugin.reject()), damaged);
    let create = bench.plugin.create(transfer("job-2", &image(NEW)));
    assert_eq!(codes(create), damaged);
}

#[test]
fn a_damaged_launcher_record_is_unknown_only_where_it_matters() {
    let damage = |bench: &Bench| {
        bench.fake.world().region("tries").place(5, &[0xaa]);
        bench.fake.world().region("tries").place(4096 + 5, &[0xaa]);
    };
    let mut bench = Bench::received();
    damage(&bench);
    assert_eq!(
        bench.told(),
        (2, Some(0), Some(false)),
        "only one can have been started"
    );
    let mut bench = Bench::received();
    bench.activate().unwrap();
    launcher::launch(&bench.fake);
    damage(&bench);
    assert_eq!(bench.told(), (0, None, None));
    assert_eq!(codes(bench.plugin.commit()), (0xe8, sub::UNKNOWN));
    // The way back stays open.
    assert_eq!(bench.plugin.reject(), HOST_RESETS);
    assert_eq!(launcher::launch(&bench.fake), 0);
    assert_eq!(bench.plugin.reject(), DONE);
}

#[test]
fn storage_that_refuses_a_write_is_told_with_its_errno() {
    let mut bench = Bench::received();
    let full = Failure::new(0xd6, 28, "no space left");
    // Reads of both copies of both records come first.
    let write = bench.fake.world().calls.len() + 4;
    bench.fake.world().fault = Some((write, full.clone()));
    assert_eq!(bench.activate(), Err(full));
    assert_eq!(bench.told(), (2, Some(0), Some(false)));
    assert_eq!(bench.activate(), DONE);
}

#[test]
fn a_record_of_a_later_kind_is_not_touched() {
    type Change = fn(&mut [u8]);
    let rows: &[Change] = &[
        |copy| copy[12] = 2,
        |copy| copy[12] = 0xff,
        |copy| copy[14] = 3,
        |copy| copy[13] = 1,
        |copy| {
            copy[13] = 0;
            copy[14] = 1;
        },
    ];
    for change in rows {
        let mut bench = Bench::started();
        for at in [0, 4096] {
            let mut world = bench.fake.world();
            let mut copy = world.region("record").bytes[at..at + 128].to_vec();
            change(&mut copy);
            let crc = crc32c(&copy[..124]).to_le_bytes();
            copy[124..].copy_from_slice(&crc);
            world.region("record").place(at, &copy);
        }
        assert_eq!(codes(bench.plugin.state()), (0xd6, 74));
    }
}

#[test]
fn suspended_state_opens_a_successor() {
    let mut bench = Bench::received();
    let blob = bench.plugin.suspend().unwrap();
    bench.plugin = FlashFile::open(bench.fake.clone(), Vec::new(), Some(blob)).unwrap();
    bench.plugin.reopen(transfer("job-1", &image(NEW))).unwrap();
    assert_eq!(bench.activate(), DONE);
    assert_eq!(launcher::launch(&bench.fake), 1);
}
