//! Options of the verbs that ask a running daemon, or what it has left.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ConfigArg;
use crate::control::protocol::FinishStatus;

/// How the control socket of the daemon is found, and how answers look.
#[derive(Clone, Debug, Args)]
pub struct ControlArgs {
    #[command(flatten)]
    /// Which configuration.
    pub config: ConfigArg,
    /// Control socket, in place of the configuration's.
    #[arg(long, value_name = "PATH", env = "OTAD_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// A verb on one device.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    #[command(flatten)]
    /// The socket.
    pub control: ControlArgs,
    /// Which device; may be left out where there is one.
    #[arg(long, value_name = "THING")]
    pub device: Option<String>,
}

/// A verb on one target or on all that it concerns.
#[derive(Clone, Debug, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Which target, by its name; without it all that the verb concerns.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
}

/// `otad rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    /// The target.
    pub target: TargetArgs,
    /// Why, for the log.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `otad status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Once a second, until interrupted.
    #[arg(long)]
    pub watch: bool,
}

/// `otad why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Which job; without one what each device is about.
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Read this state directory, without asking a daemon.
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub state_dir: Option<PathBuf>,
}

/// `otad history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// At most so many jobs of each device, the newest.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Read this state directory, without asking a daemon.
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub state_dir: Option<PathBuf>,
}

/// `otad events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    /// The device.
    pub device: DeviceArgs,
    /// Only events after this number; all of them, if the device has not come that far.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub after: u64,
    /// Wait for more, until interrupted.
    #[arg(long)]
    pub follow: bool,
}

/// `otad job`.
#[derive(Debug, Subcommand)]
pub enum JobVerb {
    /// The jobs that wait for an answer or for their end, and the one under way.
    #[command(after_help = "\
Offers (on_job = \"ask\", or a `job` hook) wait for `job approve` or `job decline`. Jobs that are no update wait for
somebody to take them, and then for `job finish`. Exit code 2 if there is none, 3 if none is known and
a device does not tell of its own.

Examples:
  otad job list
  otad job list --json                           with the job documents")]
    List(DeviceArgs),
    /// Take the job.
    #[command(after_help = "\
Example:
  otad job approve AFR_OTA-pumps-7

Exit codes: 0 taken, 2 no such job waits, 3 no daemon answers.")]
    Approve {
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
        /// Job id.
        job: String,
    },
    /// Refuse the job: it ends REJECTED and is not offered again.
    #[command(after_help = "\
Example:
  otad job decline AFR_OTA-pumps-7 --reason 'not before the weekend'

Exit codes: 0 declined, 2 no such job waits, 3 no daemon answers.")]
    Decline {
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
        /// Job id.
        job: String,
        /// Why, for the job's status.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End a job that is no update and that the application has run; also after a restart of the daemon.
    #[command(after_help = "\
Example:
  otad job finish reboot-7 --status failed --reason 'no such service'")]
    Finish {
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
        /// Job id.
        job: String,
        /// How it ended.
        #[arg(long, value_enum)]
        status: FinishStatus,
        /// Why, for the job's status.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}
