//! Whole updates of a gateway in virtual time, well and badly.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be set up has nothing to test"
)]

use host_cloud::service::ExecutionStatus;
use world::{Faults, Gateway, image};

mod world;

/// Steps of an update of 100 KiB with every fault there is are some thousand.
const STEPS_MAX: u32 = 100_000;

fn updated(new: &[u8], faults: Faults) -> Gateway {
    let mut gateway = Gateway::new(new, faults);
    gateway.run(STEPS_MAX);
    gateway
}

fn check_updated(gateway: &Gateway, new: &[u8]) {
    let (status, details) = gateway.execution();
    assert_eq!(status, ExecutionStatus::Succeeded, "{details}");
    assert_eq!(gateway.confirmed(), new);
    assert!(!gateway.is_armed());
}

fn check_kept(gateway: &Gateway, reason: &str) {
    let (status, details) = gateway.execution();
    assert_eq!(status, ExecutionStatus::Failed, "{details}");
    assert_eq!(details["reason"], reason);
    assert_eq!(gateway.confirmed(), image(0, 1000));
    assert!(!gateway.is_armed());
}

#[test]
fn an_update_goes_from_notification_to_commit_through_a_restart_of_the_process() {
    let new = image(1, 100_000);
    let gateway = updated(&new, Faults::default());
    check_updated(&gateway, &new);
    assert_eq!(gateway.starts, 2);
    let blocks = (new.len() as u64).div_ceil(4096);
    assert_eq!(gateway.blocks_sent, blocks);
}

#[test]
fn lost_and_doubled_blocks_cost_time_and_nothing_else() {
    let new = image(1, 400_000);
    let faults = Faults {
        lose_every: 3,
        double_every: 4,
        ..Faults::default()
    };
    check_updated(&updated(&new, faults), &new);
}

#[test]
fn an_image_with_another_ones_signature_is_never_marked_for_boot() {
    let faults = Faults {
        bad_signature: true,
        ..Faults::default()
    };
    let gateway = updated(&image(1, 100_000), faults);
    check_kept(&gateway, "0x000000e3: 0x00000005");
    assert_eq!(gateway.starts, 1);
}

#[test]
fn the_same_version_is_refused_before_it_is_activated() {
    let gateway = updated(&image(0, 50_000), Faults::default());
    check_kept(&gateway, "rejected: 0x00000010");
    assert_eq!(gateway.starts, 1);
}

#[test]
fn an_image_that_never_comes_up_is_taken_back() {
    let faults = Faults {
        never_starts: true,
        ..Faults::default()
    };
    let gateway = updated(&image(1, 50_000), faults);
    check_kept(&gateway, "rejected: 0x00000046");
    assert_eq!(gateway.starts, 2);
}

#[test]
fn a_connection_that_is_cut_again_and_again_delays_an_update() {
    let new = image(1, 400_000);
    let mut gateway = Gateway::new(&new, Faults::default());
    for _ in 0..20 {
        for _ in 0..13 {
            gateway.step();
        }
        gateway.disconnect();
        gateway.step();
        gateway.connect();
    }
    gateway.run(STEPS_MAX);
    check_updated(&gateway, &new);
}

#[test]
fn a_wall_clock_that_jumps_by_years_both_ways_changes_nothing() {
    let new = image(1, 100_000);
    let straight = updated(&new, Faults::default());
    let mut jumping = Gateway::new(&new, Faults::default());
    // Unknown, the beginning of 1970, the year 2100, the year 2030, the end of what 64 bits count.
    let jumps = [
        None,
        Some(0),
        Some(4_102_444_800),
        Some(1_900_000_000),
        Some(u64::MAX / 2),
    ];
    for jump in jumps.into_iter().cycle() {
        if jumping.execution().0.is_terminal() {
            break;
        }
        jumping.now.wall_s = jump;
        jumping.step();
    }
    jumping.run(STEPS_MAX);
    check_updated(&jumping, &new);
    let story = |g: &Gateway| (g.blocks_sent, g.starts, g.now.now_ms, g.writes());
    assert_eq!(story(&jumping), story(&straight));
}

/// Below 0.4 % for the block map, and 24 KiB a job: together less than 1 % of images of 4 MiB and more.
#[test]
fn what_is_written_besides_the_image_is_less_than_one_percent() {
    let new = image(1, 1 << 20);
    let before = Gateway::new(&new, Faults::default()).bytes_written();
    let gateway = updated(&new, Faults::default());
    check_updated(&gateway, &new);
    let besides = gateway.bytes_written() - before - new.len() as u64;
    let parts = gateway.state_written();
    let map = parts["targets/gateway-7/app/blocks.map"];
    assert!(map * 250 < new.len() as u64, "{parts:#?}");
    assert!(besides - map < 24 * 1024, "{besides}: {parts:#?}");
}

#[test]
fn a_power_cut_at_any_write_of_an_update_is_survived() {
    let new = image(1, 20_000);
    let blocks = (new.len() as u64).div_ceil(4096);
    let first = Gateway::new(&new, Faults::default()).writes();
    let whole = updated(&new, Faults::default()).writes();
    assert!(whole > first + blocks, "{first} to {whole} writes");
    let mut went_back = 0;
    for cut in first + 1..=whole {
        let mut gateway = Gateway::new(&new, Faults::default());
        gateway.cut_at_write(cut);
        gateway.run(STEPS_MAX);
        let (status, details) = gateway.execution();
        // A cut while the new image is in test may cost it its try: then the old one runs, and the job says so.
        if status == ExecutionStatus::Succeeded {
            assert_eq!(gateway.confirmed(), new, "cut {cut}");
        } else {
            assert_eq!(gateway.confirmed(), image(0, 1000), "cut {cut}: {details}");
            went_back += 1;
        }
        assert!(!gateway.is_armed(), "cut {cut}");
        assert!(
            gateway.blocks_sent <= 2 * blocks,
            "cut {cut}: {} blocks",
            gateway.blocks_sent
        );
    }
    assert_eq!(went_back, 0, "of {} cuts", whole - first);
}
