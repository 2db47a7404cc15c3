//! The self-test: an image passes if it stays up.

use super::*;

/// A new image marked and started once.
fn pending() -> Bench {
    let mut bench = Bench::received();
    bench.activate().unwrap();
    assert_eq!(launcher::launch(&bench.fake), 1);
    bench
}

#[test]
fn an_image_that_stays_up_for_ten_seconds_passes_and_not_before() {
    let mut bench = pending();
    let begun_ms = bench.fake.world().now_ms;
    assert_eq!(bench.self_test(), DONE);
    assert_eq!(bench.fake.world().now_ms - begun_ms, 10_000);
    assert_eq!(bench.plugin.commit(), DONE);
}

#[test]
fn an_image_that_has_to_be_started_again_does_not_pass() {
    let mut bench = pending();
    assert!(matches!(bench.plugin.self_test(), Ok(Duty::Working(_))));
    bench.fake.world().now_ms += 500;
    assert!(matches!(bench.plugin.step(4096), Ok(Duty::Working(_))));
    launcher::launch(&bench.fake);
    bench.fake.world().now_ms += 1500;
    let again = bench.plugin.step(4096);
    assert_eq!(codes(again), (0xe8, sub::STARTED_AGAIN));
    // The test is over.
    assert_eq!(codes(bench.plugin.step(4096)), (0xd0, 0));
    assert_eq!(bench.plugin.reject(), HOST_RESETS);
}

#[test]
fn an_image_that_goes_back_during_its_test_does_not_pass() {
    let mut bench = pending();
    assert!(matches!(bench.plugin.self_test(), Ok(Duty::Working(_))));
    while launcher::launch(&bench.fake) == 1 {}
    bench.fake.world().now_ms += 2000;
    let again = bench.plugin.step(4096);
    assert_eq!(codes(again), (0xe8, sub::NOT_RUNNING));
    assert_eq!(bench.told(), (3, Some(0), Some(false)));
}

#[test]
fn a_step_that_comes_early_does_not_shorten_the_test() {
    let mut bench = pending();
    bench.plugin.self_test().unwrap();
    for _ in 0..100 {
        assert!(matches!(bench.plugin.step(4096), Ok(Duty::Working(_))));
    }
    bench.fake.world().now_ms += 9999;
    assert!(matches!(bench.plugin.step(4096), Ok(Duty::Working(_))));
    bench.fake.world().now_ms += 1;
    assert_eq!(bench.plugin.step(4096), DONE);
}

#[test]
fn a_committed_image_is_not_watched_again() {
    let mut bench = pending();
    bench.plugin.commit().unwrap();
    assert_eq!(bench.plugin.self_test(), DONE);
}

#[test]
fn an_abort_ends_the_test() {
    let mut bench = pending();
    bench.plugin.self_test().unwrap();
    let _ = bench.plugin.abort();
    assert_eq!(codes(bench.plugin.step(4096)), (0xd0, 0));
}

#[test]
fn the_time_to_stay_up_is_a_setting_within_limits() {
    for (value, ms) in [("100", 100), ("700", 700), ("60000", 60_000)] {
        let mut bench = pending();
        let settings = vec![setting("settle_ms", value)];
        bench.plugin = FlashFile::open(bench.fake.clone(), settings, None).unwrap();
        assert_eq!(bench.self_test(), DONE);
        assert_eq!(bench.fake.world().now_ms, ms);
    }
    for value in ["", "0", "99", "60001", "4294967296", "-1", "2s"] {
        let settings = vec![setting("settle_ms", value)];
        let failure = FlashFile::open(Fake::default(), settings, None).unwrap_err();
        assert_eq!(failure.main, 0xd0, "{value}");
        assert!(
            failure.detail.contains("100 to 60000"),
            "{}",
            failure.detail
        );
    }
}
