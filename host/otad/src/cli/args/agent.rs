//! Options of the verbs about agent builds.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DeviceArgs;

/// `otad agent`.
#[derive(Debug, Subcommand)]
pub enum AgentVerb {
    /// Which agent build serves each device.
    #[command(after_help = "\
Examples:
  otad agent list
  otad agent list --json

Exit codes: 0 listed, 2 no such device, 3 no daemon answers.")]
    List(DeviceArgs),
    /// Let another build serve a device, or all of them, also in the middle of an update.
    #[command(after_help = "\
The new build is loaded, tried where it reaches nothing, and started beside the old one with all that the old one knows; the \
connection to the broker, transfers and targets notice nothing. It is on trial until a job has succeeded under it or it has run for \
--trial seconds without a break: if it breaks, the build before serves again by itself and goes on with the update. The choice \
holds over restarts, until the configuration names another agent. The daemon reads FILE, and keeps a copy; `builtin:agent` is the \
one that is part of otad.

With --all one device comes first (--canary, or the first of the configuration); once the build has proved itself there, the rest \
follow, one by one. Any device on which it is refused or sent back stops that; one that does not run is passed over, and named \
at the end. The verb stays until the last trial is over; interrupted, it stops swapping, and goes on where it was when it is \
given again.

Examples:
  otad agent swap agent-1.1.wasm
  otad agent swap agent-1.1.wasm --all --canary pump-1 --trial 3600
  otad agent swap builtin:agent

Exit codes: 0 it serves (with --all: and has proved itself), 1 FILE cannot be read or, with --all, a device does not run, 2 no \
such device, 3 a swap is under way or no daemon answers, 5 refused or sent back: the old build serves there.")]
    Swap(AgentSwapArgs),
    /// Let the build before serve a device again, or all that have one.
    #[command(after_help = "\
It goes the way of a swap; a second roll-back takes the first one back.

Examples:
  otad agent rollback
  otad agent rollback --all

Exit codes: 0 it serves, 1 with --all a device does not run, 2 no such device, or no build before, 3 a swap is under way or no \
daemon answers, 5 refused.")]
    Rollback {
        /// All devices.
        #[arg(long, conflicts_with = "device")]
        all: bool,
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
    },
}

/// `otad agent swap`.
#[derive(Debug, Args)]
pub struct AgentSwapArgs {
    /// A component of the world `agent`, or `builtin:agent`, `builtin:simple`.
    pub file: PathBuf,
    /// All devices: one first, then the rest.
    #[arg(long, conflicts_with = "device")]
    pub all: bool,
    /// With --all: which device comes first.
    #[arg(long, value_name = "THING", requires = "all")]
    pub canary: Option<String>,
    /// Take it also where it is older than what the device has accepted.
    #[arg(long)]
    pub allow_older: bool,
    /// How long it has to run without a break, unless a job succeeds before.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub trial: u64,
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
}
