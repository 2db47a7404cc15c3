//! The throughput rows with a small file: in virtual time, so exact, fast and the same on every machine. The full table is
//! `cargo run --release -p host-mcu-sim --example throughput`.

#[path = "../examples/throughput/rows.rs"]
mod rows;

/// Large enough for a window to prove itself, small enough for a debug build.
const FILE_BYTES: usize = 96 << 10;

#[test]
fn every_row_of_the_throughput_table_is_met() {
    let missed: Vec<_> = rows::measure(FILE_BYTES)
        .unwrap()
        .into_iter()
        .filter(|row| !row.is_met())
        .map(|row| {
            format!(
                "{}: {:.3} {}, goal {}",
                row.name, row.value, row.of, row.goal
            )
        })
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}
