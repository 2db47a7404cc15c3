//! `otad sign` and `otad verify`.

use std::path::PathBuf;

use clap::Args;

/// `otad sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// A plugin or an agent: a component (`.wasm`) or a shared library (`.so`). With --image the image of an update.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// P-256 private key (PEM).
    #[arg(
        long,
        value_name = "KEY.pem",
        required_unless_present_any = ["manifest_only", "bundle"]
    )]
    pub key: Option<PathBuf>,
    /// Write the manifest and no signature: to be read, changed and signed elsewhere.
    #[arg(long, conflicts_with_all = ["key", "image"])]
    pub manifest_only: bool,
    /// Write FILE.bundle, too: file, manifest and signature in one, for an update of a target with `plugin = "build"`. Without
    /// --key it takes manifest and signature that lie beside FILE.
    #[arg(long, conflicts_with_all = ["manifest_only", "image"])]
    pub bundle: bool,
    /// Sign the file itself, as the image of an update: writes FILE.sig, for `otad update create --signature`.
    #[arg(long, conflicts_with_all = ["least_host", "directory", "device", "in_process", "memory_bytes", "fuel", "host_calls"])]
    pub image: bool,
    /// Oldest otad that may load it.
    #[arg(
        long,
        value_name = "VERSION",
        default_value = env!("CARGO_PKG_VERSION"),
        help_heading = "What the signer allows"
    )]
    pub least_host: String,
    /// Library: a configuration may give it directories at or below this one; may be repeated.
    #[arg(long, value_name = "PATH", help_heading = "What the signer allows")]
    pub directory: Vec<PathBuf>,
    /// Library: a configuration may give it devices at or below this path; may be repeated.
    #[arg(long, value_name = "PATH", help_heading = "What the signer allows")]
    pub device: Vec<PathBuf>,
    /// Library: a configuration may run it in otad's own process.
    #[arg(long, help_heading = "What the signer allows")]
    pub in_process: bool,
    /// Bytes of memory that it may use, where that is less than what otad gives anyway.
    #[arg(long, value_name = "BYTES", help_heading = "What the signer allows")]
    pub memory_bytes: Option<u64>,
    /// Component: instructions a call, by wasmtime's count.
    #[arg(long, value_name = "COUNT", help_heading = "What the signer allows")]
    pub fuel: Option<u64>,
    /// Component: calls of what it is lent, in one call.
    #[arg(long, value_name = "COUNT", help_heading = "What the signer allows")]
    pub host_calls: Option<u32>,
}

impl SignArgs {
    /// Whether an option is given that goes into a manifest.
    #[must_use]
    pub fn allows_something(&self) -> bool {
        self.least_host != env!("CARGO_PKG_VERSION")
            || !self.directory.is_empty()
            || !self.device.is_empty()
            || self.in_process
            || self.memory_bytes.is_some()
            || self.fuel.is_some()
            || self.host_calls.is_some()
    }
}

/// Whose signatures count: one of these is given.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TrustedArgs {
    /// By the trust store of this configuration, and what its gateway has accepted before.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// By the certificates of this directory.
    #[arg(long, value_name = "DIR")]
    pub trust: Option<PathBuf>,
    /// By this certificate (PEM).
    #[arg(long, value_name = "CERT.pem")]
    pub certificate: Option<PathBuf>,
}

/// `otad verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// What was signed.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    /// Whose signatures count.
    pub trusted: TrustedArgs,
    /// It is the image of an update; its signature is FILE.sig, DER or base64.
    #[arg(long)]
    pub image: bool,
    /// Where the image's signature is, if not in FILE.sig.
    #[arg(long, value_name = "SIG", requires = "image")]
    pub signature: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}
