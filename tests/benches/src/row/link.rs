//! The grid of delays and losses: what a download makes of a link, as a share of its rate.
//!
//! The baseline is the link: 100 Mbit/s, and nothing else is sent. Losses can only be chosen where messages can be read,
//! so all of it is without TLS. What is measured, and how, is `e2e::link`'s.

use std::time::Duration;

use e2e::link::{Case, measure};
use host_cloud::service::Protocol;

use crate::figure::{Figure, Untaken};
use crate::harness::{Rig, Row, Sample, Turn};

/// By MQTT.
pub const MQTT: Row = Row {
    name: "link-mqtt",
    about: "a download by stream over 100 Mbit/s with delays and lost messages, to the link's rate",
    sample: |rig, turn| sample(rig, turn, Protocol::Mqtt),
};

/// By URL.
pub const HTTP: Row = Row {
    name: "link-http",
    about: "a download by URL over 100 Mbit/s with delays and cut answers, to the link's rate",
    sample: |rig, turn| sample(rig, turn, Protocol::Http),
};

/// 100 Mbit/s.
const LINK_BYTES_PER_S: u64 = 12_500_000;

/// There and back.
const ROUND_TRIPS_MS: [u64; 4] = [0, 20, 50, 200];

/// Of a thousand messages or answers.
const LOST_PER_MILLE: [u64; 3] = [0, 10, 50];

fn sample(rig: &Rig, turn: Turn, plane: Protocol) -> Sample {
    let mut taken = Vec::new();
    for round_trip_ms in ROUND_TRIPS_MS {
        for lost_per_mille in LOST_PER_MILLE {
            let case = Case {
                name: "",
                plane,
                tls: false,
                round_trip: Duration::from_millis(round_trip_ms),
                bytes_per_s: Some(LINK_BYTES_PER_S),
                lost_per_mille,
                image_bytes: rig.image_bytes,
                block_bytes: 16 * 1024,
                agent: "",
                cap_bytes_per_s: None,
            };
            let measured = measure(&case, turn.seed());
            let share = measured.share;
            let share = share.ok_or_else(|| Untaken::because("the link had no rate"))?;
            let mib = LINK_BYTES_PER_S as f64 / f64::from(1 << 20);
            let name = format!("{round_trip_ms} ms, {} % lost", lost_per_mille / 10);
            taken.push(Figure::rate(name, "MiB/s").taken(share * mib, mib));
        }
    }
    Ok(taken)
}
