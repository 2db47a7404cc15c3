//! How fast uploads are, as shares of the line, in virtual time: smp-core's client against the simulated MCU with its
//! timing. One run, the same file, each row beside what it is held against. It measures no machine: the figures are the
//! same everywhere.
//!
//! `cargo run --release -p host-mcu-sim --example throughput [KIBIBYTES]`

#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use host_mcu_sim::fault::Chance;
use host_mcu_sim::{Config, Error, Geometry, MS, Mcu, State, Timing, sample};
use smp_core::client::{Client, ClientConfig, Plan, Poll, Source};
use smp_core::frame::Framing;
use smp_core::mcuboot::{Image, sha256};
use smp_core::reply::Parameters;

/// Size of the file where none is given, in KiB.
const FILE_KIB: usize = 256;
/// An upload that takes longer than a day of virtual time has stopped.
const END_NS: u64 = 24 * 3_600_000 * MS;

/// One line with one server.
#[derive(Clone, Copy)]
struct Line {
    baud: u32,
    buf_size: u16,
    slow_flash: bool,
    lost_per_mille: u16,
    framing: Framing,
}

/// What an upload came to.
#[derive(Clone, Copy)]
struct Outcome {
    bytes_per_s: f64,
    /// Bytes of the file in each byte that the client wrote.
    efficiency: f64,
}

/// The file, whole from the beginning.
struct File<'a> {
    bytes: &'a [u8],
    hash: Vec<u8>,
}

impl Source for File<'_> {
    fn held(&mut self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> bool {
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let piece = begin
            .checked_add(into.len())
            .and_then(|end| self.bytes.get(begin..end));
        piece.map(|piece| into.copy_from_slice(piece)).is_some()
    }

    fn hash(&mut self) -> Option<Vec<u8>> {
        Some(self.hash.clone())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kib = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => FILE_KIB,
    };
    let file = sample::image("2.0.0", kib << 10);
    let line = |baud, buf_size| Line {
        baud,
        buf_size,
        slow_flash: false,
        lost_per_mille: 0,
        framing: Framing::Console,
    };
    let small = line(115_200, 384);
    let one = run(small, 1, &file)?;
    let two = run(small, 2, &file)?;
    println!(
        "{kib} KiB; shares are of the line's bytes, ceilings what the framing leaves of them\n"
    );
    row(
        "115200, 384: window 1",
        share(small, one),
        "of the line, goal 61 %",
    );
    row(
        "115200, 384: window 2",
        of_ceiling(small, two),
        "of the ceiling, goal 96 %",
    );
    let large = line(115_200, 2048);
    let outcome = run(large, 2, &file)?;
    row(
        "115200, 2048: window 2",
        of_ceiling(large, outcome),
        "of the ceiling, goal 95 %",
    );
    for baud in [921_600, 3_000_000] {
        let fast = line(baud, 384);
        let outcome = run(fast, 3, &file)?;
        let name = format!("{baud}, 384: window 3");
        row(
            &name,
            of_ceiling(fast, outcome),
            "of the ceiling, goal 95 %",
        );
    }
    let slow = Line {
        slow_flash: true,
        ..small
    };
    let slow_one = run(slow, 1, &file)?;
    let slow_three = run(slow, 3, &file)?;
    let gain = slow_three.bytes_per_s / slow_one.bytes_per_s;
    row("slow flash: window 3", gain, "of window 1, goal 120 %");
    let lossy = Line {
        lost_per_mille: 10,
        ..small
    };
    let lossy_one = run(lossy, 1, &file)?;
    let lossy_two = run(lossy, 2, &file)?;
    row(
        "1 % lost: window 2",
        lossy_two.bytes_per_s / two.bytes_per_s,
        "of loss-free, goal 90 %",
    );
    row(
        "1 % lost: window 2",
        lossy_two.bytes_per_s / lossy_one.bytes_per_s,
        "of window 1, goal 100 %",
    );
    let raw = Line {
        framing: Framing::Raw,
        ..small
    };
    let outcome = run(raw, 2, &file)?;
    row(
        "115200, 384, raw: window 2",
        share(raw, outcome),
        "of the line",
    );
    Ok(())
}

fn row(name: &str, value: f64, of: &str) {
    println!("{name:<28} {:>6.1} % {of}", value * 100.0);
}

fn share(line: Line, outcome: Outcome) -> f64 {
    outcome.bytes_per_s / (f64::from(line.baud) / 10.0)
}

fn of_ceiling(line: Line, outcome: Outcome) -> f64 {
    share(line, outcome) / outcome.efficiency
}

fn mcu(line: Line) -> Result<Mcu, Error> {
    let mut config = Config::new(Geometry::new(4096, 1 << 20, 1)?);
    config.factory.primary = vec![sample::image("1.0.0", 20_000)];
    config.timing = if line.slow_flash {
        Timing::slow_flash(line.baud)
    } else {
        Timing::line(line.baud)
    };
    config.server.buf_size = line.buf_size;
    // Page by page, as a server does whose slot takes seconds to erase.
    config.server.erases_progressively = line.slow_flash;
    config.framing = line.framing;
    config.chance = Chance::losing(line.lost_per_mille);
    Mcu::new(config)
}

/// Uploads once, from the first byte written to the last answer.
fn run(line: Line, window: u8, file: &[u8]) -> Result<Outcome, Box<dyn std::error::Error>> {
    let mut mcu = mcu(line)?;
    let mut now_ns = 0;
    let mut waste = Vec::new();
    while mcu.state() == State::Starting {
        now_ns = mcu.deadline_ns().unwrap_or(now_ns).max(now_ns);
        mcu.transmit(now_ns, &mut waste);
    }
    let mut client = Client::new(ClientConfig {
        framing: line.framing,
        baud: line.baud,
        window_max: window,
    });
    client.set_sizes(Some(Parameters {
        buf_size: line.buf_size.into(),
        buf_count: 4,
    }));
    let mut source = File {
        bytes: file,
        hash: Image::examine(&mut &*file, file.len() as u64)?.hash,
    };
    let plan = Plan {
        size: file.len() as u64,
        name: sha256(file).to_vec(),
        name_is_digest: true,
        image: None,
        repeat_image: false,
        listed_image: 0,
    };
    client.upload(now_ns / MS, plan);
    let begin_ns = now_ns;
    let mut written: usize = 0;
    loop {
        match client.poll(now_ns / MS, &mut source) {
            Poll::Done(result) => {
                result?;
                break;
            }
            Poll::Idle | Poll::Working => {}
        }
        let out = client.output().to_vec();
        client.written(out.len());
        written += out.len();
        mcu.receive(now_ns, &out);
        let mut arrived = Vec::new();
        mcu.transmit(now_ns, &mut arrived);
        if !arrived.is_empty() {
            client.receive(now_ns / MS, &arrived);
            continue;
        }
        let deadline_ns = client.deadline().map(|at_ms| at_ms.saturating_mul(MS));
        let next_ns = [mcu.deadline_ns(), deadline_ns].into_iter().flatten().min();
        // The client counts whole milliseconds: one that is not over yet has to pass.
        now_ns = next_ns
            .filter(|at_ns| *at_ns > now_ns)
            .unwrap_or(now_ns + MS);
        if now_ns > END_NS {
            return Err("the upload stands still".into());
        }
    }
    let seconds = (now_ns - begin_ns) as f64 / 1e9;
    Ok(Outcome {
        bytes_per_s: file.len() as f64 / seconds,
        efficiency: file.len() as f64 / written as f64,
    })
}
