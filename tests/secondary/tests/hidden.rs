//! The time of the serial line is hidden behind a slow download, and a fast download behind the line.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use host_mcu_sim::{MS, sample};
use pal_sdk::Plugin;
use secondary::{Bench, Download, config};

/// Bytes of the image's body: some four hundred chunks.
const BODY_BYTES: usize = 120_000;

/// A packet of 380 bytes on the line of 115200 baud, its answer, and the server's turnaround.
const CHUNK_NS: u64 = (527 + 35) * 10 * 1_000_000_000 / 115_200 + MS;

/// The smallest block: a larger one has to be pushed as a whole after the download's end, if it is the last.
const BLOCK_BYTES: u64 = 256;

fn bench() -> Bench {
    let mut config = config();
    config.geometry = host_mcu_sim::Geometry::new(4096, 256 << 10, 1).unwrap();
    let mut bench = Bench::new(config);
    bench.file = sample::image("2.0.0", BODY_BYTES);
    let transfer = bench.transfer();
    bench.duty("create", |p| p.create(transfer)).unwrap();
    bench
}

fn install(bench: &mut Bench) -> u64 {
    let begin_ns = bench.now_ns;
    bench.duty("install", |p| p.install()).unwrap();
    bench.now_ns - begin_ns
}

/// How long an install takes whose file is there, and then a look at the images.
fn alone_ns() -> (u64, u64) {
    let mut bench = bench();
    bench.stage_file();
    let install_ns = install(&mut bench);
    let begin_ns = bench.now_ns;
    bench.state();
    (install_ns, bench.now_ns - begin_ns)
}

#[test]
fn the_end_comes_one_chunk_and_a_look_after_the_later_of_download_and_line() {
    let (alone_ns, list_ns) = alone_ns();
    let size = BODY_BYTES as u64;
    let line_rate = size * 1_000_000_000 / alone_ns;
    let mut late = Vec::new();
    for percent in [20, 50, 80, 95, 105, 130, 200, 1000] {
        let mut bench = bench();
        let download = Download {
            begin_ns: bench.now_ns,
            rate: line_rate * percent / 100,
            block_bytes: BLOCK_BYTES,
        };
        bench.download = Some(download);
        let took_ns = install(&mut bench);
        let download_ns = download.at_ns(bench.file.len() as u64) - download.begin_ns;
        let late_ns = took_ns.saturating_sub(download_ns.max(alone_ns));
        // As fast as the line itself, to a twentieth: the window is found out while the file is waited for, now and then.
        let chunks = if percent.abs_diff(100) <= 5 { 2 } else { 1 };
        if late_ns > chunks * CHUNK_NS + list_ns {
            let (late_ms, list_ms) = (late_ns / MS, list_ns / MS);
            late.push(format!(
                "a download at {percent} % of the line: {late_ms} ms late, {list_ms} ms of them a look"
            ));
        }
        let written = bench.mcu.view().stats.uploaded_bytes;
        assert_eq!(written, bench.file.len() as u64, "nothing is sent twice");
    }
    assert!(late.is_empty(), "{late:#?}");
}
