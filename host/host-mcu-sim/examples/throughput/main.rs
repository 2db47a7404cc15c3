//! How fast uploads are, as shares of the line, in virtual time: smp-core's client against the simulated MCU with its
//! timing. Every row stands beside what it is held against. It measures no machine: the figures are the same everywhere,
//! and `tests/throughput.rs` holds a smaller file to the same rows.
//!
//! `cargo run --release -p host-mcu-sim --example throughput [KIBIBYTES]`

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod rows;

/// Size of the file where none is given, in KiB.
const FILE_KIB: usize = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kib = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => FILE_KIB,
    };
    println!("{kib} KiB; ceiling = what a full packet's framing leaves of the line\n");
    let mut missed = 0;
    for row in rows::measure(kib << 10)? {
        let word = if row.is_met() { "" } else { "  MISSED" };
        missed += usize::from(!row.is_met());
        println!(
            "{:<58} {:>6.1} % {:<15} (goal {:>5.1} %){word}",
            row.name,
            row.value * 100.0,
            row.of,
            row.goal * 100.0,
        );
    }
    if missed > 0 {
        return Err(format!("{missed} rows are missed").into());
    }
    Ok(())
}
