//! The command line of the cloud in a box and of its things.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use host_cloud::http::HttpFault;

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
    /// TCP port for images by pre-signed URL, for `update create --protocols http`; 0 = any that is free [default: none].
    #[arg(long, value_name = "PORT")]
    pub http: Option<u16>,
    /// Fault of the image server on purpose, for its next COUNT answers, one list after the other: nothing, expired,
    /// busy, status-NNN, wrong-range, whole, short, long, slow, redirect-loop, redirect-plain, broken-tls.
    #[arg(
        long = "http-fault",
        value_name = "FAULT[:COUNT]",
        requires = "http",
        value_parser = http_fault
    )]
    pub http_faults: Vec<(HttpFault, u32)>,
    /// Name or address that its certificate is valid for, besides this machine's own; may be given several times. The first
    /// is what URLs, the operators' directory and, where --listen is all addresses, configurations of things call it.
    #[arg(long = "name", value_name = "HOST")]
    pub names: Vec<String>,
    /// Let operators of other machines in here, with TLS and a token: who has a copy of DIR/operator is one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub operators: Option<std::net::SocketAddr>,
    /// Limits of the service.
    #[arg(long, value_enum, default_value_t)]
    pub limits: LimitsArg,
    /// What is logged, such as `debug` or `info,host_cloud=trace`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "OTAD_LOG")]
    pub log: String,
    // Last: its heading holds for what follows.
    #[command(flatten)]
    /// Somebody else's broker.
    pub broker: BrokerArgs,
}

fn http_fault(text: &str) -> Result<(HttpFault, u32), String> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let fault = name.parse::<HttpFault>().map_err(|e| e.to_string())?;
    match count.parse() {
        Ok(count) if count > 0 => Ok((fault, count)),
        _ => Err(format!(
            "a count of \"{count}\", expected 1 to {}",
            u32::MAX
        )),
    }
}

/// Somebody else's broker.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "At somebody else's broker")]
pub struct BrokerArgs {
    /// Answer at this broker instead of listening: mqtt://HOST:PORT, or mqtts://HOST:PORT with TLS.
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
    /// Directory of a running `otad cloud`, or a copy of its directory `operator` from another machine. One that is only
    /// starting is waited for: 5 s, or $OTAD_CLOUD_WAIT_MS; each try has 5 s in any case.
    #[arg(long, value_name = "DIR", env = "OTAD_CLOUD")]
    pub cloud: PathBuf,
}

/// Which cloud, and how it is answered.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    #[command(flatten)]
    /// Which cloud.
    pub cloud: CloudArg,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// `otad thing`.
#[derive(Debug, Subcommand)]
pub enum ThingVerb {
    /// Register a thing: private key, certificate, root certificate and a ready configuration with a flash-file target.
    #[command(after_help = "\
Example:
  otad thing create pump-1 --cloud cloud --out pump-1")]
    Create {
        /// Thing name: 1 to 128 letters, digits, `:`, `_`, `-`.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
        /// Directory to write to; created if need be.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Replace what is there already.
        #[arg(long)]
        force: bool,
    },
    /// All things, with their groups and the jobs that have not ended.
    #[command(after_help = "\
Example:
  otad thing list --cloud cloud

Exit codes: 0 listed, 2 there is none, 3 no cloud answers.")]
    List {
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
    /// One thing: its certificates, groups and jobs.
    #[command(after_help = "\
Example:
  otad thing show pump-1 --cloud cloud --json

Exit codes: 0 done, 2 no such thing, 3 no cloud answers.")]
    Show {
        /// Thing name.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
    /// Forget a thing: its certificates are detached and its connections end.
    #[command(after_help = "\
Example:
  otad thing delete pump-1 --cloud cloud

Exit codes: 0 done, 2 no such thing, 3 no cloud answers.")]
    Delete {
        /// Thing name.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
        /// Also while a job has not ended on it.
        #[arg(long)]
        force: bool,
    },
    /// Register a certificate that somebody else made: its holder may speak for the thing.
    #[command(after_help = "\
The certificate must lead to the cloud's root or to one that was registered before; --root registers one. A root alone lets
nobody in.

Example:
  otad thing attach pump-1 --cloud cloud --certificate pump-1.pem --root our-ca.pem")]
    Attach {
        /// Thing name.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
        /// The certificate (PEM), perhaps with its chain.
        #[arg(long, value_name = "FILE")]
        certificate: PathBuf,
        /// The root (PEM) that it leads to, where the cloud does not know it yet.
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
    },
    /// Take a certificate away: it is refused from now on, and its connections end.
    #[command(after_help = "\
Example:
  otad thing detach pump-1 4f1c… --cloud cloud    the fingerprint as `thing show` prints it

Exit codes: 0 done, 2 no such thing or certificate, 3 no cloud answers.")]
    Detach {
        /// Thing name.
        name: String,
        /// SHA-256 of the certificate, as `otad thing show` lists it.
        fingerprint: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
}

/// `otad group`.
#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Make a group of things.
    #[command(after_help = "\
Example:
  otad group create east --cloud cloud
  otad group add east pump-1 pump-2 --cloud cloud
  otad update create --cloud cloud --group east --file app.img --wait")]
    Create {
        /// Group name: 1 to 128 letters, digits, `:`, `_`, `-`.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
        /// What it is for.
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// All groups with the number of their things.
    #[command(after_help = "\
Example:
  otad group list --cloud cloud

Exit codes: 0 listed, 2 there is none, 3 no cloud answers.")]
    List {
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
    /// One group: its things and its continuous jobs.
    #[command(after_help = "\
Example:
  otad group show east --cloud cloud --json

Exit codes: 0 done, 2 no such group, 3 no cloud answers.")]
    Show {
        /// Group name.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
    /// Things join a group, and get its continuous jobs.
    #[command(after_help = "\
Example:
  otad group add east pump-1 pump-2 --cloud cloud

Exit codes: 0 done, 2 no such group or thing, 3 no cloud answers.")]
    Add {
        /// Group name.
        name: String,
        /// Thing names.
        #[arg(required = true)]
        things: Vec<String>,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
    /// Things leave a group; continuous jobs that they have not begun are taken back.
    #[command(after_help = "\
Example:
  otad group remove east pump-2 --cloud cloud

Exit codes: 0 done, 2 no such group or thing, 3 no cloud answers.")]
    Remove {
        /// Group name.
        name: String,
        /// Thing names.
        #[arg(required = true)]
        things: Vec<String>,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
    /// Forget a group; its things stay.
    #[command(after_help = "\
Example:
  otad group delete east --cloud cloud

Exit codes: 0 done, 2 no such group, 3 no cloud answers.")]
    Delete {
        /// Group name.
        name: String,
        #[command(flatten)]
        /// Which cloud.
        ask: AskArgs,
    },
}
