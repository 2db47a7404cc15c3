//! Options of the verbs about plugin builds.

use std::path::PathBuf;

use clap::Subcommand;

use super::DeviceArgs;

/// `otad plugin`.
#[derive(Debug, Subcommand)]
pub enum PluginVerb {
    /// Which plugin build serves each target.
    #[command(after_help = "\
Examples:
  otad plugin list
  otad plugin list --json

Exit codes: 0 listed, 2 no such device, 3 no daemon answers.")]
    List(DeviceArgs),
    /// The build that serves one target, the one before it, what was refused last.
    #[command(after_help = "\
Example:
  otad plugin info main

Exit codes: 0 told, 2 no such target, 3 no daemon answers.")]
    Info {
        /// Target, by its name.
        target: String,
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
    },
    /// Let another build serve a target, also in the middle of an update.
    #[command(after_help = "\
The new build is loaded and tried beside the old one and takes over between two steps; no block is lost, the connection to the \
broker and other targets notice nothing. Until it has brought a transfer to its end it is on trial: if it breaks, the build \
before serves again by itself. The choice holds over restarts, until the configuration names another plugin. The daemon reads \
FILE with FILE.manifest and FILE.manifest.sig (`otad sign`), and keeps a copy.

Examples:
  otad plugin swap main pal-flash-file-1.1.wasm
  otad plugin swap main pal-flash-file-1.0.wasm --allow-older

Exit codes: 0 it serves, 1 FILE cannot be read, 2 no such target, 3 a swap is under way or no daemon answers, 5 refused: the old \
build serves.")]
    Swap {
        /// Target, by its name.
        target: String,
        /// A component of the world `plugin`; a shared library where the target has `carrier = "native"`.
        file: PathBuf,
        /// Also a version below one that this target has accepted.
        #[arg(long)]
        allow_older: bool,
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
    },
    /// Let the build before serve a target again.
    #[command(after_help = "\
It goes the way of a swap; a second roll-back takes the first one back.

Example:
  otad plugin rollback main

Exit codes: 0 it serves, 2 no such target, or no build before, 3 a swap is under way or no daemon answers, 5 refused.")]
    Rollback {
        /// Target, by its name.
        target: String,
        #[command(flatten)]
        /// The device.
        device: DeviceArgs,
    },
}
