//! What can go wrong round the service: files, sockets, certificates, and the operator's own mistakes.

use std::{io, net::SocketAddr, path::Path};

use crate::service::{ImageId, NameError, ServiceError, ThingName};

/// Why the cloud cannot start, or cannot do what an operator asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// The service refused.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Done, but the store failed: it goes on trying, and a restart before it succeeds takes the change back.
    #[error(
        "it is done, but not on disk yet: {0}; make room or mend the disk, and look (`otad update list`, `otad thing list`) before you repeat it"
    )]
    Unstored(String),
    /// A file or directory.
    #[error("cannot {step} {path}: {reason}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A network address.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Unencrypted, and not only for this machine.
    #[error(
        "{0} would serve MQTT without TLS beyond this machine; use a loopback address, TLS, or the development setting"
    )]
    PlainBeyondLoopback(SocketAddr),
    /// Nothing to listen on, and no broker.
    #[error("the cloud needs an address to listen on, with TLS or without, or a broker")]
    NoListener,
    /// Images without TLS where others can see them.
    #[error(
        "{0} would serve images without TLS beyond this machine; use a loopback address, or TLS"
    )]
    PlainImages(SocketAddr),
    /// Seconds outside of AWS's range.
    #[error("URLs that are valid for {0} s are out of range: 60 to 3600")]
    UrlValidity(u32),
    /// A setting about somebody else's broker.
    #[error("{what}: {reason}")]
    Broker {
        /// Which setting or file.
        what: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Another cloud runs on the same directory.
    #[error("another cloud uses {0}; stop it, or choose another directory")]
    InUse(String),
    /// A stored file that makes no sense.
    #[error("{path} is damaged: {reason}; restore it from a copy, or remove it to begin anew")]
    Damaged {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// Not one of this thing's.
    #[error("thing {thing} has no certificate {fingerprint}; `otad thing show {thing}` lists them")]
    UnknownCertificate {
        /// Which thing.
        thing: ThingName,
        /// SHA-256 of what it has not.
        fingerprint: String,
    },
    /// Making or reading certificates and keys.
    #[error("{what}: {reason}")]
    Pki {
        /// Which certificate or key.
        what: String,
        /// Why.
        reason: String,
    },
    /// Too few open files for any use.
    #[error(
        "this process may open {limit} files, it needs at least {needed}; raise the limit (ulimit -n, LimitNOFILE)"
    )]
    Files {
        /// How many it may open.
        limit: u64,
        /// How many it needs.
        needed: u64,
    },
    /// A file with a token.
    #[error("token file {path}: {reason}")]
    Token {
        /// Which.
        path: String,
        /// Why it cannot be used, and what to do.
        reason: String,
    },
    /// The image is not what was announced.
    #[error(
        "{path} has the SHA-256 {found}, announced was {announced}; it changed while the update was made"
    )]
    ImageChanged {
        /// Which.
        path: String,
        /// What the cloud read.
        found: String,
        /// What the caller said.
        announced: String,
    },
    /// Never sent, or removed since.
    #[error("no image has the SHA-256 {0}; send it again")]
    UnknownImage(ImageId),
    /// The system has no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
    /// The cloud has stopped, or its operator socket closed.
    #[error("the cloud has stopped")]
    Stopped,
}

impl CloudError {
    pub(crate) fn io(step: &'static str, path: &Path, error: &io::Error) -> Self {
        Self::Io {
            step,
            path: path.display().to_string(),
            reason: error.to_string(),
        }
    }

    pub(crate) fn pki(what: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Pki {
            what: what.into(),
            reason: reason.to_string(),
        }
    }

    /// A word for programs; never changes its meaning.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Service(error) => error.code(),
            Self::Unstored(_) => "unstored",
            Self::Io { .. } => "io",
            Self::Listen { .. } => "listen",
            Self::PlainBeyondLoopback(_) => "plain_beyond_loopback",
            Self::NoListener => "no_listener",
            Self::PlainImages(_) => "plain_images",
            Self::UrlValidity(_) => "url_validity",
            Self::Broker { .. } => "broker",
            Self::InUse(_) => "in_use",
            Self::Damaged { .. } => "damaged",
            Self::UnknownCertificate { .. } => "unknown_certificate",
            Self::Pki { .. } => "pki",
            Self::Files { .. } => "files",
            Self::Token { .. } => "token",
            Self::ImageChanged { .. } => "image_changed",
            Self::UnknownImage(_) => "unknown_image",
            Self::Random(_) => "random",
            Self::Stopped => "stopped",
        }
    }
}

impl From<NameError> for CloudError {
    fn from(error: NameError) -> Self {
        Self::Service(ServiceError::Name(error))
    }
}
