//! The one command: takes figures, prints the table, writes the file. Also the raw receiver and the holder of agents, as
//! processes of their own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use benches::compare::Earlier;
use benches::figure::Untaken;
use benches::harness::{DEVICES, RUNS_MIN, Rig, Row, take};
use benches::machine::Machine;
use benches::receiver::Order;
use benches::record::{FORMAT, Record};
use benches::row;
use benches::row::devices::Crowd;
use benches::row::instance::Held;
use benches::table;
use clap::builder::TypedValueParser as _;
use clap::{Parser, Subcommand};
use host_sandbox::larder::Larder;

/// That of `otad`.
#[global_allocator]
static LARDER: Larder = Larder;

/// Speed and cost of the whole path, each figure as a ratio against a baseline of the same run.
#[derive(Parser, Debug)]
#[command(
    after_help = "Exit code: 0 all rows were taken, 1 one was not (the table says why), 2 nothing could be done.\n\nExample: cargo run --release -p benches -- --only loopback --against before.json"
)]
struct Arguments {
    /// Runs of each row; fewer than 7 are for trying out
    #[arg(long, default_value_t = RUNS_MIN, value_parser = clap::value_parser!(u64).range(1..=1000).map(|runs| runs as usize))]
    runs: usize,
    /// Only this row; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Size of the images that are downloaded, in MiB
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024).map(|mib| mib as usize))]
    mib: usize,
    /// Devices that are updated at once; fewer are for trying out
    #[arg(long, default_value_t = DEVICES, value_parser = clap::value_parser!(u64).range(1..=4000).map(|count| count as usize))]
    devices: usize,
    /// Where the figures are written [default: benches.json in cargo's target folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Figures of an earlier run: what has changed beyond the spread of both is marked
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Show the rows and what they compare
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when it is started by itself.
#[derive(Subcommand, Debug)]
enum Role {
    /// The raw receiver
    #[command(hide = true)]
    Receive(Order),
    /// A process with idle agents
    #[command(hide = true)]
    Hold(Held),
    /// A process with devices that have nothing to do
    #[command(hide = true)]
    Crowd(Crowd),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.role {
        Some(Role::Receive(order)) => order.receive().map(|()| true),
        Some(Role::Hold(held)) => held.hold().map(|()| true),
        Some(Role::Crowd(crowd)) => crowd.hold().map(|()| true),
        None if arguments.list => list().map(|()| true),
        None => figures(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            support::note(&format!("benches: {error}"));
            ExitCode::from(2)
        }
    }
}

fn list() -> Result<(), Untaken> {
    let lines = row::ALL.iter().map(|row| (row.name, row.about));
    let text: String = lines
        .map(|(name, about)| format!("{name:16} {about}\n"))
        .collect();
    print(&text)
}

/// Whether all rows were taken.
fn figures(arguments: &Arguments) -> Result<bool, Untaken> {
    let rows = chosen(&arguments.only)?;
    let program = std::env::current_exe();
    let program = program.map_err(|error| Untaken::by("finding this program", &error))?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => target_folder(&program).join("benches.json"),
    };
    let machine = Machine::here();
    let image_bytes = arguments.mib << 20;
    // Before minutes are spent.
    let earlier = match &arguments.against {
        Some(path) => Some(earlier(path, &machine, image_bytes)?),
        None => None,
    };
    let mut rig = Rig::new(program, image_bytes);
    rig.devices = arguments.devices;
    let results = take(&rig, &rows, arguments.runs, &mut |text| support::note(text));
    let record = Record {
        format: FORMAT,
        machine,
        runs: arguments.runs,
        image_bytes,
        measured: results.measured,
        skipped: results.skipped,
    };
    // Minutes were spent on the table: it is shown wherever the file cannot be written.
    print(&table::render(&record, earlier.as_ref()))?;
    let written = record.write(&out);
    written.map_err(|error| Untaken::by("writing the figures", &error))?;
    print(&format!("written to {}\n", out.display()))?;
    Ok(record.skipped.is_empty())
}

fn chosen(only: &[String]) -> Result<Vec<Row>, Untaken> {
    let named = |name: &String| {
        let row = row::ALL.iter().find(|row| row.name == name);
        let unknown =
            || Untaken::because(format!("no row is called `{name}`; `--list` shows them"));
        row.copied().ok_or_else(unknown)
    };
    match only {
        [] => Ok(row::ALL.to_vec()),
        only => only.iter().map(named).collect(),
    }
}

fn earlier(path: &Path, machine: &Machine, image_bytes: usize) -> Result<Earlier, Untaken> {
    let record = Record::read(path).map_err(|error| Untaken::by("reading figures", &error))?;
    let earlier = Earlier::of(record, &machine.profile, image_bytes);
    earlier.map_err(|error| Untaken::by(&path.display().to_string(), &error))
}

/// Two folders above the program: `target/release/benches`.
fn target_folder(program: &Path) -> PathBuf {
    let folder = program.ancestors().nth(2);
    folder.map_or_else(std::env::temp_dir, Path::to_owned)
}

fn print(text: &str) -> Result<(), Untaken> {
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Untaken::by("writing", &error))
}
