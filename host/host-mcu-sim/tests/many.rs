//! Sixteen simulated MCUs on sixteen pseudo terminals, in real time: all of them together take as long as the slowest
//! alone. `OTAD_MANY_KIB` is the size of the largest file and asks for the full bound; without it the files are small,
//! and the bound leaves room for a machine that does something else as well.
//!
//! `OTAD_MANY_KIB=256 cargo test --release -p host-mcu-sim --test many -- --nocapture`

#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

#[path = "server/bench.rs"]
#[expect(dead_code, reason = "the suite for any server uses the rest")]
mod bench;

use std::path::PathBuf;
use std::time::Duration;

use bench::{Bench, Place, Power};
use host_mcu_sim::{Config, Framing, Geometry, MS, Mcu, Port, Simulation, Slot, Timing, sample};
use tempfile::TempDir;

const MCUS: usize = 16;
const BAUD: u32 = 115_200;
const KIB_SMALL: usize = 6;
/// Makespan in thousandths of the slowest one alone.
const BOUND_FULL: u128 = 1200;
const BOUND_SMALL: u128 = 4000;

/// Size of each MCU's file: the last one's is the largest.
fn body_bytes(index: usize, kib: usize) -> usize {
    (kib << 10) * (MCUS + index + 1) / (2 * MCUS)
}

struct Target {
    bench: Bench,
    file: Vec<u8>,
}

fn target(folder: &TempDir, name: &str, body: usize) -> Target {
    let slot_bytes = u32::try_from(body + (32 << 10))
        .unwrap()
        .next_multiple_of(4096);
    let mut config = Config::new(Geometry::new(4096, slot_bytes, 1).unwrap());
    config.factory.primary = vec![sample::image("1.0.0", 2000)];
    config.timing = Timing::line(BAUD);
    // Nobody waits for a start.
    config.timing.boot_ns = MS;
    let port = Port::Pty {
        link: Some(folder.path().join(name)),
    };
    let simulation = Simulation::start(Mcu::new(config).unwrap(), &port).unwrap();
    let place = Place::Tty(PathBuf::from(simulation.address()));
    let power = Power::Simulated(Box::new(simulation));
    let mut bench = Bench::new(place, BAUD, Framing::Console, power);
    bench.begin_anew();
    Target {
        bench,
        file: sample::image("2.0.0", body),
    }
}

/// Uploads and says how long it took.
fn upload(target: &mut Target) -> Duration {
    let begin = bench::now();
    target
        .bench
        .upload(&target.file, |_| {}, u64::MAX)
        .unwrap()
        .unwrap();
    let took = begin.elapsed();
    let Power::Simulated(simulation) = &target.bench.power else {
        return took;
    };
    let view = simulation.with(|mcu, _| mcu.view());
    assert!(view.slot(0, Slot::Secondary).is_some());
    assert_eq!(view.stats.uploaded_bytes, target.file.len() as u64);
    took
}

#[test]
fn sixteen_mcus_at_once_take_the_time_of_the_slowest_alone() {
    let asked: Option<usize> = std::env::var("OTAD_MANY_KIB")
        .ok()
        .map(|kib| kib.parse().unwrap());
    let kib = asked.unwrap_or(KIB_SMALL);
    let folder = tempfile::tempdir().unwrap();
    let slowest = upload(&mut target(&folder, "alone", body_bytes(MCUS - 1, kib)));
    let mut targets: Vec<Target> = (0..MCUS)
        .map(|index| target(&folder, &index.to_string(), body_bytes(index, kib)))
        .collect();
    let begin = bench::now();
    std::thread::scope(|scope| {
        for target in &mut targets {
            scope.spawn(|| upload(target));
        }
    });
    let together = begin.elapsed();
    let thousandths = together.as_micros() * 1000 / slowest.as_micros().max(1);
    let bound = if asked.is_some() {
        BOUND_FULL
    } else {
        BOUND_SMALL
    };
    let text = format!("{MCUS} of up to {kib} KiB: {together:?}, the slowest alone {slowest:?}");
    assert!(thousandths <= bound, "{text}");
    if asked.is_some() {
        bench::step(&text);
    }
}
