//! Downloads over a link, by both planes: the pieces that the measurements stand on, on small images.

use std::time::Duration;

use e2e::link::{Case, measure};
use host_cloud::service::Protocol;

const MQTT: Case = Case {
    name: "mqtt",
    plane: Protocol::Mqtt,
    tls: true,
    round_trip: Duration::from_millis(10),
    bytes_per_s: Some(12_500_000),
    lost_per_mille: 0,
    image_bytes: 3 << 20,
    block_bytes: 16 * 1024,
    agent: "",
    cap_bytes_per_s: None,
};

const HTTP: Case = Case {
    name: "http",
    plane: Protocol::Http,
    ..MQTT
};

/// Neither plane fetches a block twice without need, and envelopes are small.
fn check(case: &Case) {
    let measured = measure(case, 1);
    assert!(measured.wasted <= 0.01, "{case:?}: {measured:?}");
    // Handshakes and control count too, on an image of 3 MiB.
    assert!(measured.wire <= 1.08, "{case:?}: {measured:?}");
    assert!(measured.share > Some(0.02), "{case:?}: {measured:?}");
}

#[test]
fn a_stream_brings_each_block_once() {
    check(&MQTT);
}

#[test]
fn ranges_bring_each_byte_once() {
    check(&HTTP);
}

#[test]
fn lost_messages_and_cut_answers_are_asked_for_again() {
    for case in [MQTT, HTTP] {
        let case = Case {
            tls: false,
            lost_per_mille: 50,
            agent: "request_timeout_ms = 300\n",
            ..case
        };
        let measured = measure(&case, 7);
        assert!(measured.seconds < 20.0, "{case:?}: {measured:?}");
    }
}

#[test]
fn a_bandwidth_cap_is_not_exceeded() {
    // What the bucket holds at first, a request of 128 KiB, is less than one in a hundred of the image.
    const CAP: u64 = 4 << 20;
    for case in [MQTT, HTTP] {
        let case = Case {
            cap_bytes_per_s: Some(CAP),
            image_bytes: 16 << 20,
            ..case
        };
        let measured = measure(&case, 3);
        let rate = case.image_bytes as f64 / measured.seconds;
        assert!(rate <= 1.02 * CAP as f64, "{case:?}: {measured:?}");
    }
}

/// What more memory a large image may take than a small one: a window on its way, and half of it as slack.
const GROWTH_MAX_KIB: u64 = 6 * 1024;

/// `OTAD_LARGE_MIB` says how large the image is; 300 is what the project promises.
#[test]
fn a_large_image_takes_no_more_memory_than_a_small_one() {
    let mib = std::env::var("OTAD_LARGE_MIB").map_or(24, |text| text.parse().unwrap());
    for case in [MQTT, HTTP] {
        let peak = |mib: usize| {
            let case = Case {
                round_trip: Duration::ZERO,
                bytes_per_s: None,
                image_bytes: mib << 20,
                ..case
            };
            measure(&case, 5).peak_kib
        };
        let (small, large) = (peak(2), peak(mib));
        support::note(&format!(
            "{}: {small} KiB with 2 MiB, {large} with {mib}",
            case.name
        ));
        assert!(large <= small + GROWTH_MAX_KIB, "{small} {large}");
    }
}
