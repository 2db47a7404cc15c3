//! `otad check`, and how a component is named on the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

/// Processor time that compiling a component may take, in seconds: 4 MiB of ordinary code take five to ten in a release
/// build, and a debug build is ten times slower.
pub(crate) const COMPILE_CPU_S: u64 = if cfg!(debug_assertions) { 120 } else { 30 };

/// A component that ships in this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Builtin {
    /// The agent.
    Agent,
    /// The simple orchestrator, a second agent.
    Simple,
    /// The plugin for A/B slots in files.
    FlashFile,
    /// The plugin for secondary MCUs behind a serial line.
    SerialMcu,
}

/// The agents among them.
pub(super) fn agents() -> impl TypedValueParser<Value = Builtin> {
    let agents = [Builtin::Agent, Builtin::Simple];
    let names = agents.iter().filter_map(Builtin::to_possible_value);
    PossibleValuesParser::new(names).try_map(|name| Builtin::from_str(&name, false))
}

/// How many things are done at once.
pub(super) fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok();
    number.ok_or_else(|| {
        "give 1 or more; without it as many as this machine has processors".to_owned()
    })
}

/// Which component: a file, or one that ships in this program.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct GuestArg {
    /// A component (`.wasm`) of world `ota:agent/agent` or `ota:pal/plugin`, or a plugin as a shared library (`.so`).
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The shipped component of this name, in place of a file.
    #[arg(long, value_enum, value_name = "NAME")]
    pub builtin: Option<Builtin>,
}

/// `otad check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    /// The component.
    pub guest: GuestArg,
    /// Only cases whose name holds this text; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// List the cases for this component, with what each asks for and where that is written, and end.
    #[arg(long)]
    pub list: bool,
    /// Cases at once; without it as many as this machine has processors.
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    /// Also ask for what the contract leaves open and the shipped agent does; on by itself with --builtin, but for `simple`.
    #[arg(long)]
    pub exact: bool,
    /// A setting of the target, for a plugin: what its configuration would have; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    pub setting: Vec<String>,
    /// Report in JSON, on standard output.
    #[arg(long)]
    pub json: bool,
    /// Write a JUnit report to this file too.
    #[arg(long, value_name = "FILE.xml")]
    pub junit: Option<PathBuf>,
    /// Also print what was not asked of this component, and why.
    #[arg(long, short)]
    pub verbose: bool,
    /// Processor time that compiling the component may take.
    #[arg(long, value_name = "SECONDS", default_value_t = COMPILE_CPU_S, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub compile_seconds: u64,
    /// Compile what stands on standard input into this directory and end: what a child process is for.
    #[arg(long, hide = true, value_name = "DIR", conflicts_with = "builtin")]
    pub compile_into: Option<PathBuf>,
    /// Compile it for virtual time.
    #[arg(long, hide = true, requires = "compile_into")]
    pub virtual_time: bool,
    /// Compile it for virtual time in haste.
    #[arg(
        long,
        hide = true,
        requires = "compile_into",
        conflicts_with = "virtual_time"
    )]
    pub hasty_time: bool,
}
