//! Images of all sizes that matter: none, the least, at and next to a block, many blocks, large blocks.

use e2e::gateway::read;
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::Limits;
use support::image::random_bytes;

const THING: &str = "sizes";

/// A gateway whose images are bytes without a trailer.
fn gateway(cloud: &Cloud, agent: &str) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], |lines| {
        lines.device().agent = agent.to_owned();
        lines.target().lines = "version_from = \"none\"\n".to_owned();
    });
    gateway.init(b"first");
    gateway
}

/// One update after another; each must end well and lie in the slot that was free.
fn check(cloud: &Cloud, gateway: &Gateway, sizes: &[usize]) {
    let _daemon = gateway.run();
    let mut slots = ["slot-b", "slot-a"].into_iter().cycle();
    for (seed, &size) in sizes.iter().enumerate() {
        let bytes = random_bytes(seed as u64, size);
        let job = cloud.update(THING, Update::of(bytes.clone()));
        let ended = cloud.wait_end(&job);
        assert_eq!(ended.status, "SUCCEEDED", "{size} bytes: {ended:?}");
        let slot = slots.next().unwrap_or_default();
        let found = read(&gateway.target_file("main", slot));
        assert!(found == bytes, "{size} bytes: {slot} holds something else");
    }
}

#[test]
fn a_file_of_0_bytes_ends_failed_and_activates_nothing() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, "");
    let daemon = gateway.run();
    let before = read(&gateway.target_file("main", "record"));
    let job = cloud.update(THING, Update::of(Vec::new()));
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("FAILED", "0x0000000c: 0x00000003"));
    assert_eq!(read(&gateway.target_file("main", "record")), before);
    assert_eq!(cloud.stats().stream_requests, 0);
    assert!(!daemon.log().contains("activating"), "{}", daemon.log());
}

#[test]
fn one_byte_one_block_and_one_more_arrive() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, "block_size = 1024\n");
    check(&cloud, &gateway, &[1, 1023, 1024, 1025, 2048]);
}

#[test]
fn the_seeds_file_of_10446_bytes_takes_three_blocks_of_4096() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, "");
    check(&cloud, &gateway, &[10_446]);
    assert_eq!(cloud.stats().blocks, 3);
}

#[test]
fn five_mebibytes_arrive_in_blocks_of_one_kibibyte() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, "block_size = 1024\n");
    check(&cloud, &gateway, &[5 << 20]);
    assert_eq!(cloud.stats().blocks, 5 << 10);
}

#[test]
fn forty_mebibytes_arrive_in_blocks_of_64_kibibytes_without_the_limits_of_aws() {
    let cloud = Cloud::start_with(|config| config.limits = Limits::None);
    let gateway = gateway(&cloud, "block_size = 65536\n");
    check(&cloud, &gateway, &[40 << 20]);
}

#[test]
fn a_program_with_a_trailer_runs_from_the_slot_byte_for_byte() {
    let cloud = Cloud::start();
    let gateway = Gateway::new(&cloud, THING);
    gateway.init(&image::program("1.0.0", "echo 1.0.0", 10_446));
    let _daemon = gateway.run();
    let new = image::program("1.1.0", "echo 1.1.0 >\"$(dirname \"$0\")/said\"", 10_446);
    let job = cloud.update(THING, Update::of(new.clone()));
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.as_pair(), ("SUCCEEDED", "accepted  v1.1.0"));
    assert_eq!(read(&gateway.target_file("main", "slot-b")), new);
    assert_eq!(read(&gateway.target_file("main", "said")), b"1.1.0\n");
}
