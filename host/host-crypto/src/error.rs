//! Why something is not trusted, sorted by whose fault it is. Numbers are append-only and tested.

use std::path::PathBuf;

/// Main code of a signature that does not hold, as the C agent numbers it (`OtaPalSignatureCheckFailed`).
pub const SIGNATURE_CHECK_FAILED: u8 = 0xe3;

/// Main code of a certificate that cannot be used (`OtaPalBadSignerCert`).
pub const BAD_SIGNER_CERT: u8 = 0xe7;

/// Why an image is not verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    // The job's fault.
    /// The job gives no signature.
    #[error("the job gives no signature; sign the image, or allow unsigned images for development")]
    Missing,
    /// A kind that is refused for its hash.
    #[error("signature kind `{0}` uses SHA-1, which is broken; sign with SHA-256")]
    Weak(String),
    /// A kind that nobody knows.
    #[error("unknown signature kind `{0}`; known are sig-sha256-ecdsa and sig-sha256-rsa")]
    UnknownKind(String),
    /// The signature is not one of this kind.
    #[error("the {kind} signature of {length} bytes is malformed: {reason}")]
    Malformed {
        /// The kind it should be.
        kind: &'static str,
        /// Its bytes.
        length: usize,
        /// What is wrong.
        reason: String,
    },
    /// The signature is well formed and not of these bytes by this key.
    #[error(
        "the signature does not fit the image and certificate `{entry}`: other bytes, or another key"
    )]
    Mismatch {
        /// The trust-store entry.
        entry: String,
    },
    /// The job wants a certificate that the operator has not labelled.
    #[error(
        "no trusted certificate has the label `{0}`; add it to the label table of the target's trust settings"
    )]
    UnknownLabel(String),

    // The operator's fault.
    /// The job names no certificate, and there is no default.
    #[error("the job names no certificate and the target has no default one")]
    NoDefault,
    /// Kind and key do not go together.
    #[error("signature kind {kind} needs another key than the {key} key of certificate `{entry}`")]
    WrongKey {
        /// The kind.
        kind: &'static str,
        /// What the certificate has.
        key: &'static str,
        /// The trust-store entry.
        entry: String,
    },
    /// The certificate is over.
    #[error(
        "certificate `{entry}` ended at {not_after} (unix time), it is {now}; renew it or mend the clock"
    )]
    Expired {
        /// The trust-store entry.
        entry: String,
        /// End of validity.
        not_after: u64,
        /// Wall clock.
        now: u64,
    },
    /// The certificate has not begun.
    #[error(
        "certificate `{entry}` begins at {not_before} (unix time), it is {now}; mend the clock"
    )]
    NotYetValid {
        /// The trust-store entry.
        entry: String,
        /// Begin of validity.
        not_before: u64,
        /// Wall clock.
        now: u64,
    },
}

impl VerifyError {
    /// The main code that the job status prints.
    #[must_use]
    pub fn main(&self) -> u8 {
        match self {
            Self::Missing
            | Self::Weak(_)
            | Self::UnknownKind(_)
            | Self::Malformed { .. }
            | Self::Mismatch { .. }
            | Self::WrongKey { .. } => SIGNATURE_CHECK_FAILED,
            Self::UnknownLabel(_)
            | Self::NoDefault
            | Self::Expired { .. }
            | Self::NotYetValid { .. } => BAD_SIGNER_CERT,
        }
    }

    /// The detail number, append-only.
    #[must_use]
    pub fn sub(&self) -> u32 {
        match self {
            Self::Missing => 1,
            Self::Weak(_) => 2,
            Self::UnknownKind(_) => 3,
            Self::Malformed { .. } => 4,
            Self::Mismatch { .. } => 5,
            Self::WrongKey { .. } => 6,
            Self::UnknownLabel(_) => 7,
            Self::NoDefault => 8,
            Self::Expired { .. } => 9,
            Self::NotYetValid { .. } => 10,
        }
    }
}

/// Why a trust store or policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The directory cannot be read.
    #[error("trust directory {} cannot be read", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the medium says.
        #[source]
        source: std::io::Error,
    },
    /// Others may put a certificate there.
    #[error("trust directory or file {} may be written by its group or by everybody (mode {mode:04o}); chmod go-w it", path.display())]
    Writable {
        /// The path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Somebody else may put a certificate there.
    #[error("trust directory or file {} belongs to uid {owner}; chown it to root or to otad's user", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A file of the directory cannot be read.
    #[error("certificate file {} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the medium says.
        #[source]
        source: std::io::Error,
    },
    /// Too many entries, or too large a file.
    #[error("{what}: {found}, at most {max} are taken")]
    Limit {
        /// What there is too much of.
        what: String,
        /// How much.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// Not a certificate that can verify an image.
    #[error("certificate `{entry}`: {reason}")]
    Certificate {
        /// Entry name, the file name without its ending.
        entry: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The same, of a file in the trust directory.
    #[error(
        "certificate `{entry}` ({}): {reason}; put another one in its place, or take it out of the trust directory",
        path.display()
    )]
    CertificateFile {
        /// Entry name.
        entry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Two entries of one name.
    #[error("there are two certificates named `{0}`; rename one of the files")]
    Duplicate(String),
    /// A label or default that points nowhere.
    #[error("label `{label}` points at `{entry}`, which is not in the trust store")]
    NoEntry {
        /// The label, `default` for the default.
        label: String,
        /// The entry it names.
        entry: String,
    },
}

/// Why a signing key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// No key in it, or one that cannot be read.
    #[error("no P-256 private key (PEM, PKCS#8 or SEC1): {0}")]
    Unreadable(String),
    /// It is protected by a pass phrase.
    #[error("the private key is encrypted; decrypt it first (openssl pkcs8 -in KEY -out PLAIN)")]
    Encrypted,
    /// The curve library did not sign.
    #[error("the private key does not sign")]
    Refused,
    /// Key and certificate are not a pair.
    #[error("the private key does not belong to certificate `{0}`")]
    NotAPair(String),
}
