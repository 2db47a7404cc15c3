//! The command line of the cloud in a box and of its things.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `otad cloud`.
#[derive(Debug, Args)]
pub struct CloudArgs {
    /// Where certificates, jobs and images are kept; created if need be.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub listen: std::net::IpAddr,
    /// TCP port; 0 = any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    pub port: u16,
    /// Limits of the service.
    #[arg(long, value_enum, default_value_t)]
    pub limits: LimitsArg,
    /// What is logged.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// Limits of the cloud in a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LimitsArg {
    /// Those of AWS IoT: 16 MB a file, 128 KiB a message and so on.
    #[default]
    Aws,
    /// Only those of the wire.
    None,
}

/// Which cloud.
#[derive(Clone, Debug, Args)]
pub struct CloudArg {
    /// Directory of a running `otad cloud`.
    #[arg(long, value_name = "DIR", env = "OTAD_CLOUD")]
    pub cloud: PathBuf,
}

/// `otad thing`.
#[derive(Debug, Subcommand)]
pub enum ThingVerb {
    /// Register a thing: private key, certificate, root certificate and a ready configuration with a flash-file target.
    Create {
        /// Thing name: 1 to 128 letters, digits, `:`, `_`, `-`.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        cloud: CloudArg,
        /// Directory to write to; created if need be.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Replace what is there already.
        #[arg(long)]
        force: bool,
    },
}
