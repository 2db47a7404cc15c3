//! Options of the verbs that judge components: `otad sandbox`, `otad replay`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use host_sandbox::fault::Fault;

use super::check::{Builtin, COMPILE_CPU_S, GuestArg, agents, jobs};

/// Seeds from the first to the last, both included: `1..1000`, or one: `7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedsArg {
    /// First.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// Most seeds of one command: a fast machine makes as many in a day.
const SEEDS_MAX: u64 = 1_000_000_000;

impl FromStr for SeedsArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{text:?} is no seed; give A..B, such as 1..1000, or one"))
        };
        let (first, last) = (number(first)?, number(last)?);
        let count = last.checked_sub(first).and_then(|more| more.checked_add(1));
        match count {
            Some(count) if count <= SEEDS_MAX => Ok(Self { first, count }),
            Some(count) => Err(format!("{count} seeds; at most {SEEDS_MAX} at once")),
            None => Err(format!("{first} is after {last}; both ends are included")),
        }
    }
}

/// `otad sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    #[command(flatten)]
    /// The component.
    pub guest: GuestArg,
    /// Seeds, both ends included [default: 1..1000; with --every-cut 1].
    #[arg(long, value_name = "A..B")]
    pub seeds: Option<SeedsArg>,
    /// Only this scenario; otherwise each seed draws one, and --every-cut takes all.
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<String>,
    /// Blocks of each file, in place of the scenario's.
    #[arg(long, value_name = "N", requires = "scenario")]
    pub blocks: Option<usize>,
    /// Only these faults (KIND=…, see --list), in place of those that a seed draws; may be repeated. `none` = none.
    #[arg(
        long = "fault",
        value_name = "FAULT",
        requires = "scenario",
        conflicts_with = "every_cut"
    )]
    pub faults: Vec<FaultArg>,
    /// A plugin of kind flash-file for all targets: a file, or builtin:flash-file. Without it a fast one in this process.
    #[arg(long, value_name = "P.wasm")]
    pub plugin: Option<PathBuf>,
    /// A setting of all targets, for the plugin: what its configuration would have; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    pub setting: Vec<String>,
    /// Kill, and take the power away, before, during and after each call of the scenario.
    #[arg(long)]
    pub every_cut: bool,
    /// End with the first failure.
    #[arg(long)]
    pub first: bool,
    /// Runs at a time [default: one for each core].
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    /// Tell each run with its trace, in place of the tally; for few seeds.
    #[arg(long)]
    pub trace: bool,
    /// List scenarios, and faults as --fault takes them, and end.
    #[arg(long)]
    pub list: bool,
    /// Processor time that compiling a component may take.
    #[arg(long, value_name = "SECONDS", default_value_t = COMPILE_CPU_S, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub compile_seconds: u64,
    /// Answer in JSON; it does not depend on the machine, nor on --jobs.
    #[arg(long)]
    pub json: bool,
}

/// A fault, or none at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultArg(pub Option<Fault>);

impl FromStr for FaultArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let fault = text.parse::<Fault>();
        fault
            .map(|fault| Self(Some(fault)))
            .map_err(|e| e.to_string())
    }
}

/// `otad replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A file that `otad run --record` has written.
    #[arg(value_name = "TRACE")]
    pub trace: PathBuf,
    /// The agent that is to follow it.
    #[arg(value_name = "FILE.wasm", required_unless_present_any = ["builtin", "diff"])]
    pub file: Option<PathBuf>,
    /// A shipped agent, in place of a file.
    #[arg(long, value_parser = agents(), value_name = "NAME", conflicts_with = "file")]
    pub builtin: Option<Builtin>,
    /// Two agents that are to be compared, each a file, builtin:agent or builtin:simple.
    #[arg(long, num_args = 2, value_names = ["OLD.wasm", "NEW.wasm"], conflicts_with_all = ["file", "builtin"])]
    pub diff: Option<Vec<PathBuf>>,
    /// Compare calls that have an effect only: log lines, saved states and times of waiting may differ.
    #[arg(long)]
    pub effects: bool,
    /// Processor time that compiling a component may take.
    #[arg(long, value_name = "SECONDS", default_value_t = COMPILE_CPU_S, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub compile_seconds: u64,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}
