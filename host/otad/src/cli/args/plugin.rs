//! Options of the verbs about plugin builds.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CheckArgs, DeviceArgs, TrustedArgs};

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
broker and other targets notice nothing. Until it has committed or rejected an image it is on trial: if it breaks, the build \
before serves again by itself. The choice holds over restarts, until the configuration names another plugin. The daemon reads \
FILE with FILE.manifest and FILE.manifest.sig (`otad sign`), and keeps a copy; `builtin:flash-file` and `builtin:serial-mcu` are \
parts of otad.

Examples:
  otad plugin swap main pal-flash-file-1.1.wasm
  otad plugin swap main pal-flash-file-1.0.wasm --allow-older

Exit codes: 0 it serves, 1 FILE cannot be read, 2 no such target, 3 a swap is under way or no daemon answers, 5 refused: the old \
build serves.")]
    Swap {
        /// Target, by its name.
        target: String,
        /// A component of the world `plugin`, or a shared library where the target has `carrier = "native"`; or `builtin:NAME`.
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
    /// Would a gateway load this file? Who has signed it, and is it what was signed?
    #[command(after_help = "\
As `otad verify`, which takes agents and images too.

Examples:
  otad plugin verify pump.wasm --config /etc/otad/otad.toml
  otad plugin verify board.so --certificate vendor.pem --json

Exit codes: 0 it would be loaded, 5 refused (older than what was accepted, needs a newer otad, another contract), 6 not verified.")]
    Verify {
        /// A component or a library.
        file: PathBuf,
        #[command(flatten)]
        /// Whose signatures count.
        trusted: TrustedArgs,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Is this plugin fit to ship? The cases of the contract, without hardware, cloud or network.
    #[command(after_help = "\
As `otad check`, for a plugin. A library runs in a process of its own; what it may open is one empty directory, anew for each case.

Examples:
  otad plugin test pump.wasm
  otad plugin test board.so --setting filepath=image.bin
  otad plugin test pump.wasm --only power --junit report.xml

Exit codes: 0 fit, 1 a case failed, 2 no case of that name, 5 refused before any case was run.")]
    Test(CheckArgs),
    /// Begin a plugin: a project that builds, passes `otad plugin test` and can be put into a gateway.
    #[command(after_help = "\
It makes the folder NAME with a plugin that works, all that it is compiled with, and a README.md that says how to go on. C takes a C \
compiler and make, and source that was written as a FreeRTOS PAL; Rust takes cargo with the target wasm32-unknown-unknown.

Examples:
  otad plugin new pal-pump --rust
  otad plugin new board-pal --c

Exit codes: 0 made, 1 the folder exists or cannot be made, 64 no name for a plugin.")]
    New(NewArgs),
    /// Make a component of the module that a compiler has left.
    #[command(after_help = "\
For a plugin or an agent that was built for wasm32-unknown-unknown with the bindings of its SDK.

Example:
  otad plugin wrap target/wasm32-unknown-unknown/release/pal_pump.wasm --output pal-pump.wasm

Exit codes: 0 written, 1 a file cannot be read or written, 5 it is no such module.")]
    Wrap {
        /// What the compiler has left.
        module: PathBuf,
        /// Where the component goes.
        #[arg(long, short, value_name = "FILE.wasm")]
        output: PathBuf,
    },
}

/// `otad plugin new`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("language").args(["c", "rust"]).required(true))]
pub struct NewArgs {
    /// Of the plugin, and of the folder that is made: [a-z0-9-].
    pub name: String,
    /// In C, as a PAL of FreeRTOS: a shared library.
    #[arg(long)]
    pub c: bool,
    /// In Rust, by the SDK: a component, or a shared library.
    #[arg(long)]
    pub rust: bool,
}
