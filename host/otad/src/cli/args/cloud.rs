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
    /// TCP port for MQTT over TLS; 0 = any that is free [default: 8883; none with --broker].
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    #[command(flatten)]
    /// Somebody else's broker.
    pub broker: BrokerArgs,
    /// Limits of the service.
    #[arg(long, value_enum, default_value_t)]
    pub limits: LimitsArg,
    /// What is logged.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// Somebody else's broker.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "At somebody else's broker")]
pub struct BrokerArgs {
    /// Answer at this broker instead of listening: mqtt://HOST[:PORT], or mqtts://HOST[:PORT] with TLS.
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// Certificate (PEM) that the broker's leads to; needed for mqtts://.
    #[arg(long, value_name = "FILE", requires = "broker")]
    pub broker_ca: Option<PathBuf>,
    /// Own certificate (PEM), for a broker that asks for one.
    #[arg(long, value_name = "FILE", requires_all = ["broker", "broker_key"])]
    pub broker_certificate: Option<PathBuf>,
    /// Private key (PEM) of that certificate.
    #[arg(long, value_name = "FILE", requires = "broker_certificate")]
    pub broker_key: Option<PathBuf>,
    /// User name, for a broker that asks for one.
    #[arg(long, value_name = "NAME", requires = "broker")]
    pub broker_user: Option<String>,
    /// File whose first line is the password.
    #[arg(long, value_name = "FILE", requires = "broker_user")]
    pub broker_password_file: Option<PathBuf>,
    /// MQTT client id at the broker.
    #[arg(
        long,
        value_name = "ID",
        requires = "broker",
        default_value = "otad-cloud"
    )]
    pub broker_client_id: String,
    /// Development only: a broker on another machine without TLS.
    #[arg(long, requires = "broker")]
    pub broker_plaintext: bool,
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
