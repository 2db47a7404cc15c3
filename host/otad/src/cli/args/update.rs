//! The command line of `otad update`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use host_cloud::service::Threshold;

use super::CloudArg;

const CREATE_HELP: &str = "\
Required: whom it is for (--thing or --group), what it brings (--file or --document), and where it
is created (--cloud, --aws or --aws-json). With AWS also --role and --bucket, and --signing-profile
unless --key or --signature is given; for a profile that is not there yet --certificate-id and
--certfile. Whatever is missing or wrong is named in one go, before anything is created.

An option with [N=] may be given once for each file: --file 1=mcu.img --signature 1=mcu.sig.
Without N= it is for the file of --file-id.

Examples:
  otad update create --cloud cloud --thing pump-1 --file app-1.1.0.img --wait
  otad update create --cloud cloud --group pumps --file app.img --canary 5 --abort-if-failed 10%
  otad update create --cloud cloud --thing pump-1 --file 0=app.img --file 1=mcu.img --key s.key
  otad update create --cloud cloud --thing pump-1 --document job.json       any job document
  otad update create --aws --thing pump-1 --file-id 1 --file mcu.img --role ota --bucket images \\
      --signing-profile pumps --certificate-id 0b7d2c52 --certfile signer

Exit code with --wait: 0 SUCCEEDED, 1 FAILED, 2 CANCELED, 3 TIMED_OUT, 5 REJECTED or refused
(version, product), 6 not verified. With several things it is that of the worst end: 6, 5, 1, 3,
2, 0.";

/// `otad update`.
#[derive(Debug, Subcommand)]
pub enum UpdateVerb {
    /// Sign images, store them, make a stream and a job of them; in the cloud in a box or at AWS.
    #[command(after_help = CREATE_HELP)]
    Create(Box<CreateArgs>),
    /// Status and reason of an update, for each thing and as a sum.
    #[command(after_help = "\
Examples:
  otad update show AFR_OTA-pumps-7 --cloud cloud
  otad update show AFR_OTA-pumps-7 --aws --region eu-west-1 --json

Exit codes: 0 shown, 2 no such update, 3 nobody answers.")]
    Show {
        #[command(flatten)]
        /// Where.
        at: PlaceArgs,
        /// Job id.
        job: String,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// All updates, or those of one thing or group.
    #[command(after_help = "\
A line each: job id, and how many things it is at which status; at AWS the status of the job, or with --thing its status
there.

Examples:
  otad update list --cloud cloud --group pumps
  otad update list --aws --thing pump-1

Exit codes: 0 listed, 2 there is none, 3 nobody answers.")]
    List {
        #[command(flatten)]
        /// Where.
        at: PlaceArgs,
        /// Only those with an execution on this thing.
        #[arg(long, value_name = "NAME")]
        thing: Option<String>,
        /// Only those for this group.
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cancel an update; with --force also where it is in progress.
    #[command(after_help = "\
A thing that has not begun sees CANCELED. One in progress goes on to its end, or with --force goes back, unless it has
decided to keep the new image by then.

Examples:
  otad update cancel AFR_OTA-pumps-7 --cloud cloud --reason \"wrong image\"
  otad update cancel AFR_OTA-pumps-7 --aws --force

Exit codes: 0 cancelled, 2 no such update or it has ended already, 3 nobody answers.")]
    Cancel {
        #[command(flatten)]
        /// Where.
        at: PlaceArgs,
        /// Job id.
        job: String,
        /// Also in progress.
        #[arg(long)]
        force: bool,
        /// Why, for whoever looks at it later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Forget an update that has ended, its stream and its images; with --force also one that has not.
    #[command(after_help = "\
AWS forgets the job and its stream; images stay in their bucket.

Examples:
  otad update delete AFR_OTA-pumps-7 --cloud cloud
  otad update delete AFR_OTA-pumps-7 --aws --force

Exit codes: 0 forgotten, 1 it has not ended, 2 no such update, 3 no cloud answers.")]
    Delete {
        #[command(flatten)]
        /// Where.
        at: PlaceArgs,
        /// Job id.
        job: String,
        /// Also one that has not ended.
        #[arg(long)]
        force: bool,
    },
}

/// Where updates are looked for.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Directory of a running `otad cloud`, or a copy of its directory `operator`; required without --aws.
    #[arg(long, value_name = "DIR", env = "OTAD_CLOUD")]
    pub cloud: Option<PathBuf>,
    /// At AWS, through the `aws` program, whose credentials are used.
    #[arg(long, help_heading = "AWS")]
    pub aws: bool,
    /// Profile of the `aws` program; its own default if left out.
    #[arg(long, value_name = "NAME", requires = "aws", help_heading = "AWS")]
    pub profile: Option<String>,
    /// Region; the `aws` program's if left out.
    #[arg(long, value_name = "REGION", requires = "aws", help_heading = "AWS")]
    pub region: Option<String>,
}

/// `otad update create`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("elsewhere").args(["aws", "aws_json"]))]
pub struct CreateArgs {
    /// Directory of a running `otad cloud`; required without --aws and --aws-json.
    #[arg(long, value_name = "DIR", env = "OTAD_CLOUD")]
    pub cloud: Option<PathBuf>,
    /// Job id; made up if left out.
    #[arg(long, value_name = "ID")]
    pub job_id: Option<String>,
    /// Wait for the end and show the progress.
    #[arg(long)]
    pub wait: bool,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,

    /// A thing to update; may be repeated.
    #[arg(long, value_name = "NAME", help_heading = "Whom it is for")]
    pub thing: Vec<String>,
    /// A group to update: each of its members; may be repeated.
    #[arg(long, value_name = "NAME", help_heading = "Whom it is for")]
    pub group: Vec<String>,
    /// For those who are members now (the default).
    #[arg(long, conflicts_with = "continuous", help_heading = "Whom it is for")]
    pub snapshot: bool,
    /// Also for those who join a group later; ends only by `update cancel`.
    #[arg(long, conflicts_with = "wait", help_heading = "Whom it is for")]
    pub continuous: bool,

    /// An image: a file, or `sha256:DIGEST` of one that the cloud has already, or `s3://BUCKET/KEY` with AWS.
    #[arg(long, value_name = "[N=]FILE", value_parser = keyed, help_heading = "What it brings")]
    pub file: Vec<Keyed>,
    /// Each file in a job of its own: one that fails takes no other back. Without it one job carries all, and all of them
    /// are updated or none.
    #[arg(long, conflicts_with_all = ["job_id", "aws", "aws_json", "document"], help_heading = "What it brings")]
    pub best_effort: bool,
    /// The target of a --file without N=: 0 = the gateway's own software, others as its configuration says; at most 255.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "What it brings"
    )]
    pub file_id: u8,
    /// `fileType` of the job, 0 to 255; 0 = firmware.
    #[arg(long, value_name = "[N=]TYPE", value_parser = keyed, help_heading = "What it brings")]
    pub file_type: Vec<Keyed>,
    /// `filepath` of the job: a name on the device. At AWS the image's file name if left out.
    #[arg(long, value_name = "[N=]PATH", value_parser = keyed, help_heading = "What it brings")]
    pub filepath: Vec<Keyed>,
    /// Send this job document instead of one made from images.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["file", "key", "signature", "unsigned", "signing_profile", "elsewhere"],
        help_heading = "What it brings"
    )]
    pub document: Option<PathBuf>,
    /// How devices may fetch the images, best first.
    #[arg(
        long,
        value_enum,
        value_name = "PROTOCOL",
        value_delimiter = ',',
        default_value = "mqtt",
        help_heading = "What it brings"
    )]
    pub protocols: Vec<ProtocolArg>,

    /// Private key to sign with (PEM, P-256), in place of the cloud's own.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "signature",
        help_heading = "Who signs"
    )]
    pub key: Option<PathBuf>,
    /// Certificate (PEM) of --key or --signature: checked before anything is created.
    #[arg(long, value_name = "FILE", help_heading = "Who signs")]
    pub certificate: Option<PathBuf>,
    /// A signature made elsewhere, such as by `openssl dgst -sha256 -sign` (DER or base64).
    #[arg(long, value_name = "[N=]FILE", value_parser = keyed, help_heading = "Who signs")]
    pub signature: Vec<Keyed>,
    /// Kind of the signature given by --signature.
    #[arg(
        long,
        value_enum,
        value_name = "KIND",
        default_value_t,
        requires = "signature",
        help_heading = "Who signs"
    )]
    pub signature_kind: SignatureKindArg,
    /// Without any signature: for devices under their development setting.
    #[arg(
        long,
        conflicts_with_all = ["key", "signature", "certificate", "signing_profile", "elsewhere"],
        help_heading = "Who signs"
    )]
    pub unsigned: bool,
    /// A signing profile: used if it is there, else made, locally of --key, --certificate and --certfile.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "signature",
        help_heading = "Who signs"
    )]
    pub signing_profile: Option<String>,
    /// `certfile` of the job: the name of the signer's certificate on the device; the profile's, or empty, if left out.
    #[arg(long, value_name = "NAME", help_heading = "Who signs")]
    pub certfile: Option<String>,

    /// At most so many things a minute, 1 to 1000; all at once if left out.
    #[arg(
        long,
        value_name = "THINGS",
        value_parser = clap::value_parser!(u32).range(1..=1000),
        help_heading = "How it spreads"
    )]
    pub rate: Option<u32>,
    /// So many things first; the others follow when these have ended.
    #[arg(
        long,
        value_name = "THINGS",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "How it spreads"
    )]
    pub canary: Option<u32>,
    /// Give up, and cancel what has not begun, when so many things failed: a percentage such as 10%, or a count.
    #[arg(long, value_name = "FAILURES", help_heading = "How it spreads")]
    pub abort_if_failed: Option<Threshold>,
    /// Ends that --abort-if-failed waits for before it judges; as many as --canary, or 1, if left out.
    #[arg(
        long,
        value_name = "THINGS",
        requires = "abort_if_failed",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "How it spreads"
    )]
    pub abort_minimum: Option<u32>,
    /// Minutes a device may take once it began, 1 to 10080; for ever if left out.
    #[arg(
        long,
        value_name = "MINUTES",
        value_parser = clap::value_parser!(u32).range(1..=10080),
        help_heading = "How it spreads"
    )]
    pub timeout: Option<u32>,

    /// Create it at AWS, through the `aws` program, whose credentials are used.
    #[arg(long, help_heading = "AWS")]
    pub aws: bool,
    /// Ask nobody: write the documents and commands for AWS into this directory.
    #[arg(long, value_name = "DIR", help_heading = "AWS")]
    pub aws_json: Option<PathBuf>,
    #[command(flatten)]
    /// More for AWS.
    pub place: AwsArgs,
}

impl CreateArgs {
    /// The cloud in a box that was named.
    #[must_use]
    pub fn cloud(&self) -> Option<CloudArg> {
        let cloud = self.cloud.clone()?;
        Some(CloudArg { cloud })
    }
}

/// What only AWS asks for.
#[derive(Debug, Args)]
#[command(next_help_heading = "AWS")]
pub struct AwsArgs {
    /// Profile of the `aws` program; its own default if left out.
    #[arg(long, value_name = "NAME", requires = "elsewhere")]
    pub profile: Option<String>,
    /// Region; the `aws` program's if left out, required with --aws-json.
    #[arg(long, value_name = "REGION", requires = "elsewhere")]
    pub region: Option<String>,
    /// Account id, 12 digits; asked of AWS if left out, required with --aws-json.
    #[arg(long, value_name = "ID", requires = "elsewhere")]
    pub account: Option<String>,
    /// Role of the OTA service: name or ARN (--aws-json: ARN for a role with a path). Required.
    #[arg(long, value_name = "ROLE", requires = "elsewhere")]
    pub role: Option<String>,
    /// Bucket for the images, with versioning. Required.
    #[arg(long, value_name = "NAME", requires = "elsewhere")]
    pub bucket: Option<String>,
    /// Certificate of a new signing profile: its id or ARN in AWS Certificate Manager.
    #[arg(long, value_name = "ID", requires = "elsewhere")]
    pub certificate_id: Option<String>,
    /// Signing platform of a new signing profile.
    #[arg(long, value_name = "ID", default_value = "AmazonFreeRTOS-Default")]
    pub platform: String,
}

/// A data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProtocolArg {
    /// MQTT file streams.
    Mqtt,
    /// HTTPS ranges.
    Http,
}

/// A kind of signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SignatureKindArg {
    /// ECDSA on P-256 over SHA-256.
    #[default]
    SigSha256Ecdsa,
    /// RSA PKCS#1 v1.5 over SHA-256.
    SigSha256Rsa,
}

/// A value, and the file id that it is for if one was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// File id.
    pub id: Option<u8>,
    /// The rest.
    pub value: String,
}

/// Read `[N=]VALUE`: what stands before the first `=` counts as a file id if it is all digits.
fn keyed(text: &str) -> Result<Keyed, String> {
    let plain = |value: &str| Keyed {
        id: None,
        value: value.to_owned(),
    };
    let keyed = match text.split_once('=') {
        Some((id, value)) if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) => {
            let id = id
                .parse()
                .map_err(|_| format!("file id {id}: AWS takes 0 to 255"))?;
            Keyed {
                id: Some(id),
                ..plain(value)
            }
        }
        _ => plain(text),
    };
    if keyed.value.is_empty() {
        return Err("there is nothing after it; expected [N=]VALUE".to_owned());
    }
    Ok(keyed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_name_the_file_it_is_for() {
        let of = |text: &str| keyed(text).map(|k| (k.id, k.value));
        assert_eq!(of("app.img"), Ok((None, "app.img".to_owned())));
        assert_eq!(of("1=app.img"), Ok((Some(1), "app.img".to_owned())));
        assert_eq!(of("255=a=b"), Ok((Some(255), "a=b".to_owned())));
        assert_eq!(of("./1=x"), Ok((None, "./1=x".to_owned())));
        assert_eq!(of("=x"), Ok((None, "=x".to_owned())));
        assert!(of("256=x").is_err_and(|e| e.contains("0 to 255")));
        assert!(of("1=").is_err());
        assert!(of("").is_err());
    }
}
