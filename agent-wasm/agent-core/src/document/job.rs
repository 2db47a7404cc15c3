//! The `afr_ota` job document.

use alloc::string::String;
use alloc::vec::Vec;

use crate::base64;
use crate::code::Base64Status;
use crate::jobs::StreamId;
use crate::json::{self, Value};
use crate::stream::{BlockGrid, GridError};

use super::member::{Check, parse_text};
use super::{Field, ParseError};

/// Most files in a job: more than any gateway has targets, few enough for one journal.
pub const FILES_MAX_COUNT: usize = 16;
/// Most bytes of a decoded signature: RSA-4096.
pub const SIGNATURE_MAX_BYTES: usize = 512;
/// Most bytes of `filepath`: the longest path of Linux.
pub const PATH_MAX_BYTES: usize = 4096;
/// Most bytes of `certfile`: a label, or the longest file name of Linux.
pub const CERTIFICATE_MAX_BYTES: usize = 255;
/// Most bytes of `update_data_url`: pre-signed URLs with a session token have two to three thousand, servers take 8 KiB.
pub const URL_MAX_BYTES: usize = 8192;
/// Most bytes of `auth_scheme`: `aws.s3.presigned` has 16.
pub const AUTH_SCHEME_MAX_BYTES: usize = 64;

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
    const ALL: [Self; 4] = [
        Self::Sha256Ecdsa,
        Self::Sha256Rsa,
        Self::Sha1Rsa,
        Self::Sha1Ecdsa,
    ];

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
        let (complete, field) = match protocol {
            Protocol::Mqtt => (self.stream.is_some(), Field::StreamName),
            Protocol::Http => (
                self.files.iter().all(|file| file.url.is_some()),
                Field::UpdateDataUrl,
            ),
        };
        if complete {
            Ok(())
        } else {
            Err(ParseError::MissingForProtocol { field })
        }
    }

    /// The block grids of all files, in their order. The block size is one that [`BlockGrid::new`] takes: settings are
    /// checked before a job is read.
    ///
    /// # Errors
    /// [`ParseError::TooManyBlocks`] if a file has more blocks of this size than a block map holds.
    pub fn grids(&self, block_size: u32) -> Result<Vec<BlockGrid>, ParseError> {
        let mut grids = Vec::new();
        for file in &self.files {
            let blocks = file.size.div_ceil(u64::from(block_size.max(1)));
            let too_many = |_: GridError| ParseError::TooManyBlocks { blocks };
            grids.push(BlockGrid::new(file.size, block_size).map_err(too_many)?);
        }
        Ok(grids)
    }
}

/// Whether a document is for this parser: an object with a member `afr_ota`. Any other is a custom or a foreign job.
#[must_use]
pub fn is_ota(document: &str) -> bool {
    parse_text(document).is_ok_and(|document| json::find(document, OTA).is_some())
}

const OTA: &str = "afr_ota";

/// Reads an `afr_ota` job document: the value of `jobDocument`, as [`super::JobExecution::document`] has it.
///
/// # Errors
/// [`ParseError::NotOta`] if it is for somebody else; otherwise the first defect, the job's author is at fault.
pub fn parse_job(document: &str) -> Result<Job, ParseError> {
    let mut check = Check::default();
    let document = parse_text(document)?;
    let ota = check
        .find(document, OTA, Field::AfrOta)
        .ok_or(ParseError::NotOta)?;
    check.type_of(ota, b'{', Field::AfrOta);
    let protocols = check.need(ota, "protocols", Field::Protocols);
    let stream = check.find(ota, "streamname", Field::StreamName);
    let files = check.need(ota, "files", Field::Files);
    let job = Job {
        protocols: read_protocols(&mut check, protocols),
        stream: read_stream(&mut check, stream),
        files: read_files(&mut check, files),
    };
    check.finish(job)
}

fn read_protocols(check: &mut Check, value: Option<Value<'_>>) -> Protocols {
    let mut protocols = Protocols::default();
    let Some(value) = value else { return protocols };
    check.type_of(value, b'[', Field::Protocols);
    for (_, element) in value.walk() {
        let name = check.text(Some(element), Field::Protocols);
        protocols.mqtt |= name == "MQTT";
        protocols.http |= name == "HTTP";
    }
    protocols
}

/// An empty stream name, as jobs for HTTP may have it, is none.
fn read_stream(check: &mut Check, value: Option<Value<'_>>) -> Option<StreamId> {
    let name = check.text(value, Field::StreamName);
    if name.is_empty() {
        return None;
    }
    match StreamId::new(&name) {
        Ok(stream) => Some(stream),
        Err(error) => {
            check.bad_name(error, Field::StreamName);
            None
        }
    }
}

fn read_files(check: &mut Check, value: Option<Value<'_>>) -> Vec<FileEntry> {
    let mut files: Vec<FileEntry> = Vec::new();
    let Some(value) = value else { return files };
    check.type_of(value, b'[', Field::Files);
    for (_, element) in value.walk() {
        if files.len() == FILES_MAX_COUNT {
            check.fail(ParseError::TooManyFiles);
        }
        // A file with a defect is the last one that counts.
        if !check.is_good() {
            break;
        }
        let file = read_file(check, element, files.len() as u32);
        if files.iter().any(|earlier| earlier.file_id == file.file_id) {
            check.fail(ParseError::Duplicate {
                field: Field::FileId,
            });
        }
        files.push(file);
    }
    if files.is_empty() {
        check.fail(ParseError::NoFiles);
    }
    files
}

fn read_file(check: &mut Check, of: Value<'_>, file: u32) -> FileEntry {
    const MOST: u64 = u32::MAX as u64;
    check.type_of(of, b'{', Field::Files);
    let size = check.need(of, "filesize", Field::FileSize);
    let there = size.is_some();
    let size = check.number(size, Field::FileSize, u64::MAX);
    if size == 0 && there {
        check.fail(ParseError::ZeroFileSize { file });
    }
    let id = check.need(of, "fileid", Field::FileId);
    let attributes = check.find(of, "attr", Field::Attributes);
    let file_type = check.find(of, "fileType", Field::FileType);
    let url = check.plain_text(of, "update_data_url", Field::UpdateDataUrl, URL_MAX_BYTES);
    let scheme = check.plain_text(of, "auth_scheme", Field::AuthScheme, AUTH_SCHEME_MAX_BYTES);
    FileEntry {
        file_id: check.number(id, Field::FileId, MOST) as u32,
        size,
        path: check.plain_text(of, "filepath", Field::FilePath, PATH_MAX_BYTES),
        certificate: check.plain_text(of, "certfile", Field::CertFile, CERTIFICATE_MAX_BYTES),
        signature: read_signatures(check, of, file),
        url: (!url.is_empty()).then_some(url),
        auth_scheme: (!scheme.is_empty()).then_some(scheme),
        attributes: check.number(attributes, Field::Attributes, MOST) as u32,
        file_type: check.number(file_type, Field::FileType, MOST) as u32,
    }
}

fn read_signatures(check: &mut Check, of: Value<'_>, file: u32) -> Option<Signature> {
    let mut signature = None;
    for kind in SignatureKind::ALL {
        let Some(value) = check.find(of, kind.key(), Field::Signature) else {
            continue;
        };
        if signature.is_some() {
            check.fail(ParseError::TwoSignatures { file });
        }
        let encoded = check.text(Some(value), Field::Signature);
        let decoded = base64::decode(encoded.as_bytes(), SIGNATURE_MAX_BYTES);
        let (bytes, status) = match decoded {
            // Line ends or padding alone are base64 of nothing, which signs nothing.
            Ok(bytes) if bytes.is_empty() => (bytes, Some(Base64Status::InvalidInputSize)),
            Ok(bytes) => (bytes, None),
            Err(status) => (Vec::new(), Some(status)),
        };
        if let Some(status) = status {
            check.fail(ParseError::BadSignature { file, status });
        }
        signature = Some(Signature { kind, bytes });
    }
    signature
}
