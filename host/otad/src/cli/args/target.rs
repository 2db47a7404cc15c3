//! Options of the verbs about images and the targets that run them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ConfigArg, DeviceArgs};

/// `otad launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Target, by its name.
    pub target: String,
    #[command(flatten)]
    /// Which configuration.
    pub config: ConfigArg,
    /// Which device; may be left out where there is one.
    #[arg(long, value_name = "THING")]
    pub device: Option<String>,
    /// Arguments for the program.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<OsString>,
}

/// `otad image`.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Append the trailer with version, product and hardware; a program stays executable.
    #[command(after_help = "\
The trailer is 128 bytes and lies under the image's signature.

Example:
  otad image pack app --version 1.1.0 --product pump --hardware rev-b -o app-1.1.0.img")]
    Pack(PackArgs),
    /// Print size, digest, version, product and hardware of an image.
    #[command(after_help = "\
Example:
  otad image show app-1.1.0.img")]
    Show {
        /// The image.
        file: PathBuf,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `otad image pack`.
#[derive(Debug, Args)]
pub struct PackArgs {
    /// What to pack.
    pub file: PathBuf,
    /// major.minor.revision, or major.minor.revision+build.
    #[arg(long = "version", value_name = "V")]
    pub image_version: String,
    /// Product that the image is for, at most 48 bytes.
    #[arg(long, value_name = "P", default_value = "")]
    pub product: String,
    /// Hardware that the image is for, at most 44 bytes.
    #[arg(long, value_name = "H", default_value = "")]
    pub hardware: String,
    /// Where to write; FILE.img if left out.
    #[arg(long, short, value_name = "OUT")]
    pub output: Option<PathBuf>,
}

/// `otad target`.
#[derive(Debug, Subcommand)]
pub enum TargetVerb {
    /// Lay down the first image of a flash-file target and confirm it. The daemon must not run.
    #[command(after_help = "\
The running program is what this image brings: an update replaces it from then on. What lies there already is kept unless
--force is given.

Example:
  otad target init main app-1.0.0.img --config pump-1/otad.toml

Exit codes: 0 done, 1 the storage is of no use, 3 a daemon uses it, 5 an image lies there or this one is none.")]
    Init {
        /// Target, by its name.
        target: String,
        /// The image.
        file: PathBuf,
        #[command(flatten)]
        /// Which configuration.
        config: ConfigArg,
        /// Which device; may be left out where there is one.
        #[arg(long, value_name = "THING")]
        device: Option<String>,
        /// Replace what is there already. Until the new image lies there whole, the old one starts.
        #[arg(long)]
        force: bool,
    },
    /// All targets of the configuration: plugin, where each one is, and what runs, if the daemon does.
    #[command(after_help = "\
Example:
  otad target list --json

Exit code 0 also where no daemon answers: then what the configuration says is shown.")]
    List(DeviceArgs),
    /// One target: the same, and its line, reset input and settings.
    #[command(after_help = "\
Example:
  otad target info mcu

Exit code 2 for a target that the configuration does not have.")]
    Info {
        /// Target, by its name.
        target: String,
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
    },
    /// Restart a target behind a serial line and wait until it answers again.
    #[command(after_help = "\
Asks the target itself over its line, as `otad mcu reset --target` does. Where it does not answer, or with --hardware, the \
reset input is pulled that [device.target.hardware_reset] names: a GPIO line, a control line of the port, or a command. \
While a job runs the line is the daemon's. An image that runs on trial goes away.

Example:
  otad target reset mcu --timeout 60
  otad target reset mcu --hardware

Exit code 3 if it does not come back in time, or its line is in use.")]
    Reset {
        /// Target, by its name.
        target: String,
        #[command(flatten)]
        /// Which configuration.
        config: ConfigArg,
        /// Which device; may be left out where there is one.
        #[arg(long, value_name = "THING")]
        device: Option<String>,
        /// Also if its application objects.
        #[arg(long)]
        force: bool,
        /// By its reset input, without asking it.
        #[arg(long, conflicts_with = "force")]
        hardware: bool,
        /// Longest wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(..=super::mcu::RESET_WAIT_MAX_S))]
        timeout: u64,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
}
