//! The command line of `otad config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ConfigArg;

/// `otad config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check the file, and the files and programs that it names.
    #[command(after_help = "\
Nothing is created or changed. Each finding names file, line, what is wrong and what to do; `otad run` refuses to start on an error
and logs the warnings.

Example:
  otad config check --config pump-1/otad.toml

Exit codes: 0 good, perhaps with warnings, 78 wrong.")]
    Check {
        #[command(flatten)]
        /// Which configuration.
        config: ConfigArg,
    },
    /// List every key that can be set, table by table: how it is written, or unit and range, default, what it does.
    #[command(after_help = "\
What has no default says what holds where it is \"left out\", or that it is required. A path is relative to the file. [command]
stands for every table that names a program, such as `restart` and `health` of a target, and each hook.

Example:
  otad config keys | grep timeout")]
    Keys,
    /// Make a configuration of what the AWS console lets you download for a thing.
    #[command(after_help = "\
The device certificate and its private key come with the thing; the root is AmazonRootCA1.pem. The endpoint is the answer of
  aws iot describe-endpoint --endpoint-type iot:Data-ATS

Example:
  otad config init --aws --thing pump-1 --endpoint a1b2c3-ats.iot.eu-west-1.amazonaws.com \\
      --certificate 0b7d-certificate.pem.crt --private-key 0b7d-private.pem.key \\
      --root AmazonRootCA1.pem --signer signer.crt --out /etc/otad

Everything is checked before anything is written. For the cloud in a box `otad thing create` makes all of it.")]
    Init(InitArgs),
}

/// `otad config init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// For AWS IoT.
    #[arg(long, required = true)]
    pub aws: bool,
    /// Thing name: 1 to 128 letters, digits, `:`, `_`, `-`.
    #[arg(long, value_name = "NAME")]
    pub thing: String,
    /// Host name of the account's MQTT endpoint.
    #[arg(long, value_name = "HOST")]
    pub endpoint: String,
    /// The endpoint is a domain of your own.
    #[arg(long)]
    pub custom_domain: bool,
    /// The thing's certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// The private key of --certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub private_key: PathBuf,
    /// Root certificate of the endpoint (PEM).
    #[arg(long, value_name = "FILE")]
    pub root: PathBuf,
    /// Certificate (PEM) of one who may sign images, plugins and agents; may be repeated, the first counts for jobs that name none.
    #[arg(long, value_name = "FILE", required = true)]
    pub signer: Vec<PathBuf>,
    /// Directory to write to; created if need be.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace what is there already.
    #[arg(long)]
    pub force: bool,
}
