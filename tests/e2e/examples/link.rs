//! How much of a link both data planes use: a table of medians over interleaved runs.
//!
//! `cargo run --release -p e2e --example link -- [RUNS] [MIB]`, 7 runs of 64 MiB by default; the daemon that is measured
//! is the one of the same profile (`cargo build --release -p otad` first).

use std::time::Duration;

use e2e::link::{Case, Measured, measure};
use host_cloud::service::Protocol;

/// 100 Mbit/s.
const LINK_BYTES_PER_S: u64 = 12_500_000;

const MQTT: Case = Case {
    name: "mqtt, 50 ms",
    plane: Protocol::Mqtt,
    tls: true,
    round_trip: Duration::from_millis(50),
    bytes_per_s: Some(LINK_BYTES_PER_S),
    lost_per_mille: 0,
    image_bytes: 0,
    block_bytes: 16 * 1024,
    agent: "",
    cap_bytes_per_s: None,
};

const HTTP: Case = Case {
    name: "http, 50 ms",
    plane: Protocol::Http,
    ..MQTT
};

/// Loss without TLS: the link has to see messages and answers.
const CASES: [Case; 8] = [
    MQTT,
    HTTP,
    Case {
        name: "mqtt, 50 ms, 5 % of messages lost",
        tls: false,
        lost_per_mille: 50,
        ..MQTT
    },
    Case {
        name: "http, 50 ms, 5 % of answers cut",
        tls: false,
        lost_per_mille: 50,
        ..HTTP
    },
    Case {
        name: "mqtt, 200 ms",
        round_trip: Duration::from_millis(200),
        ..MQTT
    },
    Case {
        name: "http, 200 ms",
        round_trip: Duration::from_millis(200),
        ..HTTP
    },
    Case {
        name: "mqtt, 50 ms, a cap of half the link",
        cap_bytes_per_s: Some(LINK_BYTES_PER_S / 2),
        ..MQTT
    },
    Case {
        name: "http, 50 ms, a cap of half the link",
        cap_bytes_per_s: Some(LINK_BYTES_PER_S / 2),
        ..HTTP
    },
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| {
        let argument = arguments.next();
        argument.map_or(default, |text| text.parse().expect("a number"))
    };
    let (runs, mib) = (number(7), number(64));
    let mut found: Vec<Vec<Measured>> = vec![Vec::new(); CASES.len()];
    for run in 0..runs {
        for (case, found) in CASES.iter().zip(&mut found) {
            let case = Case {
                image_bytes: mib << 20,
                ..*case
            };
            found.push(measure(&case, run as u64 + 1));
        }
    }
    support::note(&format!(
        "{runs} runs each, {mib} MiB in blocks of 16 KiB, 100 Mbit/s; medians (least to most)"
    ));
    support::note("link | share of the link | seconds | wire/image | twice | peak memory");
    for (case, found) in CASES.iter().zip(&found) {
        support::note(&row(case.name, found));
    }
}

fn row(name: &str, found: &[Measured]) -> String {
    let of = |pick: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = found.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        (
            at(values.len() / 2),
            at(0),
            at(values.len().saturating_sub(1)),
        )
    };
    let (share, least, most) = of(|m| 100.0 * m.share.unwrap_or(f64::NAN));
    let (seconds, wire, twice) = (of(|m| m.seconds), of(|m| m.wire), of(|m| 100.0 * m.wasted));
    let peak = of(|m| m.peak_kib as f64 / 1024.0);
    format!(
        "{name} | {share:.1} % ({least:.1} to {most:.1}) | {:.2} | {:.4} | {:.2} % | {:.1} MiB",
        seconds.0, wire.0, twice.0, peak.0
    )
}
