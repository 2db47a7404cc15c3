//! The command line of `otad update`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CloudArg;

/// `otad update`.
#[derive(Debug, Subcommand)]
pub enum UpdateVerb {
    /// Sign an image, store it, make a stream and a job of it.
    #[command(after_help = "\
Signs with the cloud's own signing key unless --key or --signature is given.

Examples:
  otad update create --cloud cloud --thing pump-1 --file app-1.1.0.img --wait
  otad update create --cloud cloud --thing pump-1 --file-id 1 --file mcu.img --key signer.key
  otad update create --cloud cloud --thing pump-1 --document job.json     any job document

Exit code with --wait: 0 SUCCEEDED, 1 FAILED, 2 CANCELED, 3 TIMED_OUT, 5 REJECTED or refused (version, product), 6 not
verified.")]
    Create(Box<CreateArgs>),
    /// Status and reason of an update.
    Show {
        #[command(flatten)]
        /// Which cloud.
        cloud: CloudArg,
        /// Job id.
        job: String,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// All updates.
    List {
        #[command(flatten)]
        /// Which cloud.
        cloud: CloudArg,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cancel an update; with --force also one that is in progress.
    Cancel {
        #[command(flatten)]
        /// Which cloud.
        cloud: CloudArg,
        /// Job id.
        job: String,
        /// Also in progress.
        #[arg(long)]
        force: bool,
    },
}

/// `otad update create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    /// Which cloud.
    pub cloud: CloudArg,
    /// The thing to update.
    #[arg(long, value_name = "NAME")]
    pub thing: String,
    /// The image.
    #[arg(long, value_name = "FILE", required_unless_present = "document")]
    pub file: Option<PathBuf>,
    /// The target: 0 = the gateway's own software, others what its configuration says.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub file_id: u32,
    /// `fileType` of the job; 0 = firmware.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub file_type: u32,
    /// Job id; made up if left out.
    #[arg(long, value_name = "ID")]
    pub job_id: Option<String>,
    /// Private key to sign with (PEM, P-256), in place of the cloud's own.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    pub key: Option<PathBuf>,
    /// A signature made elsewhere, such as by `openssl dgst -sha256 -sign` (DER or base64).
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Kind of the signature given by --signature.
    #[arg(
        long,
        value_name = "KIND",
        default_value = "sig-sha256-ecdsa",
        requires = "signature"
    )]
    pub signature_kind: String,
    /// Without any signature: for devices under their development setting.
    #[arg(long, conflicts_with_all = ["key", "signature"])]
    pub unsigned: bool,
    /// `certfile` of the job: the name of the signer's certificate on the device.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub certfile: String,
    /// `filepath` of the job: a name on the device.
    #[arg(long, value_name = "PATH", default_value = "")]
    pub filepath: String,
    /// Send this job document instead of one made from an image.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "key", "signature", "unsigned"])]
    pub document: Option<PathBuf>,
    /// Wait for the end and show the progress.
    #[arg(long)]
    pub wait: bool,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}
