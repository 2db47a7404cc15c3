//! The `afr_ota` job document.

use alloc::string::String;
use alloc::vec::Vec;

use crate::jobs::StreamId;
use crate::stream::BlockGrid;

use super::ParseError;

/// Most files in a job.
pub const FILES_MAX_COUNT: usize = 16;
/// Most bytes of a decoded signature: RSA-4096.
pub const SIGNATURE_MAX_BYTES: usize = 512;

/// A data protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT file streams.
    Mqtt,
    /// HTTP ranges.
    Http,
}

/// The data protocols that a job offers. Names that are not known are ignored, so none may be left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    /// `"MQTT"` is listed.
    pub mqtt: bool,
    /// `"HTTP"` is listed.
    pub http: bool,
}

/// Hash and algorithm of a signature, by its key in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// `sig-sha256-ecdsa`.
    Sha256Ecdsa,
    /// `sig-sha256-rsa`.
    Sha256Rsa,
    /// `sig-sha1-rsa`.
    Sha1Rsa,
    /// `sig-sha1-ecdsa`.
    Sha1Ecdsa,
}

impl SignatureKind {
    /// The key in the document.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Sha256Ecdsa => "sig-sha256-ecdsa",
            Self::Sha256Rsa => "sig-sha256-rsa",
            Self::Sha1Rsa => "sig-sha1-rsa",
            Self::Sha1Ecdsa => "sig-sha1-ecdsa",
        }
    }
}

/// A signature as the document gives it. Nothing is verified here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Hash and algorithm.
    pub kind: SignatureKind,
    /// 1 to [`SIGNATURE_MAX_BYTES`] bytes.
    pub bytes: Vec<u8>,
}

/// One file of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// `fileid`: selects the target.
    pub file_id: u32,
    /// `filesize`, at least 1.
    pub size: u64,
    /// `filepath`, empty if there is none.
    pub path: String,
    /// `certfile`, empty if there is none.
    pub certificate: String,
    /// The signature, if there is one. Whether one is needed is the host's policy.
    pub signature: Option<Signature>,
    /// `update_data_url`.
    pub url: Option<String>,
    /// `auth_scheme`.
    pub auth_scheme: Option<String>,
    /// `attr`, 0 if there is none.
    pub attributes: u32,
    /// `fileType`, 0 if there is none.
    pub file_type: u32,
}

/// A checked job document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Data protocols.
    pub protocols: Protocols,
    /// `streamname`, if there is one.
    pub stream: Option<StreamId>,
    /// 1 to [`FILES_MAX_COUNT`] files in the order of the document, no file id twice.
    pub files: Vec<FileEntry>,
}

impl Job {
    /// Checks that the document has what a protocol needs: a stream for MQTT, a URL for every file for HTTP.
    ///
    /// # Errors
    /// [`ParseError::MissingForProtocol`]; the job's author is at fault.
    pub fn check_protocol(&self, protocol: Protocol) -> Result<(), ParseError> {
        let _ = protocol;
        unimplemented!()
    }

    /// The block grids of all files, in their order.
    ///
    /// # Errors
    /// [`ParseError::TooManyBlocks`] if a file has more blocks of this size than a block map holds.
    pub fn grids(&self, block_size: u32) -> Result<Vec<BlockGrid>, ParseError> {
        let _ = block_size;
        unimplemented!()
    }
}

/// Whether a document is for this parser: an object with a member `afr_ota`. Any other is a custom or foreign job.
#[must_use]
pub fn is_ota(document: &str) -> bool {
    let _ = document;
    unimplemented!()
}

/// Reads an `afr_ota` job document: the value of `jobDocument`, as [`super::JobExecution::document`] has it.
///
/// # Errors
/// [`ParseError::NotOta`] if it is for somebody else; otherwise the first defect, the job's author is at fault.
pub fn parse_job(document: &str) -> Result<Job, ParseError> {
    let _ = document;
    unimplemented!()
}
