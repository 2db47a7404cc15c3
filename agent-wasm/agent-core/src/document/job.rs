//! The `afr_ota` job document.

use alloc::string::String;
use alloc::vec::Vec;

use crate::base64;
use crate::jobs::StreamId;
use crate::json::Value;
use crate::stream::{BlockGrid, GridError};

use super::error::{KEY_SIGNATURES, KEYS};
use super::member::{Check, Members};
use super::{Defect, Field, ParseError};

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
        KEYS[KEY_SIGNATURES + self as usize]
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
    /// `update_data_url`, empty if there is none.
    pub url: String,
    /// `auth_scheme`, empty if there is none.
    pub auth_scheme: String,
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
    /// [`Defect::MissingForProtocol`]; the job's author is at fault.
    pub fn check_protocol(&self, protocol: Protocol) -> Result<(), ParseError> {
        let (complete, field) = match protocol {
            Protocol::Mqtt => (self.stream.is_some(), Field::StreamName),
            Protocol::Http => (
                self.files.iter().all(|file| !file.url.is_empty()),
                Field::UpdateDataUrl,
            ),
        };
        if complete {
            Ok(())
        } else {
            Err(Defect::MissingForProtocol.of(field))
        }
    }

    /// The block grids of all files, in their order. The block size is one that [`BlockGrid::new`] takes: settings are
    /// checked before a job is read.
    ///
    /// # Errors
    /// [`Defect::TooManyBlocks`] if a file has more blocks of this size than a block map holds.
    pub fn grids(&self, block_size: u32) -> Result<Vec<BlockGrid>, ParseError> {
        let mut grids = Vec::new();
        for file in &self.files {
            let blocks = file.size.div_ceil(u64::from(block_size.max(1)));
            let too_many = |_: GridError| ParseError {
                defect: Defect::TooManyBlocks,
                field: Field::FileSize,
                number: u32::try_from(blocks).unwrap_or(u32::MAX),
            };
            grids.push(BlockGrid::new(file.size, block_size).map_err(too_many)?);
        }
        Ok(grids)
    }
}

/// Whether a document is for this parser: an object with a member `afr_ota`. Any other is a custom or a foreign job.
#[must_use]
pub fn is_ota(document: &str) -> bool {
    let mut check = Check::default();
    let document = check.parse(document);
    check.members(document).find(Field::AfrOta).is_some()
}

/// Reads an `afr_ota` job document: the value of `jobDocument`, as [`super::JobExecution::document`] has it.
///
/// # Errors
/// [`ParseError::NOT_OTA`] if it is for somebody else; otherwise the first defect, the job's author is at fault.
pub fn parse_job(document: &str) -> Result<Job, ParseError> {
    let mut check = Check::default();
    let document = check.parse(document);
    let ota = check.members(document).find(Field::AfrOta);
    if ota.is_none() {
        check.fail(Defect::NotOta, Field::Message, 0);
    }
    let mut ota = check.object(ota, Field::AfrOta);
    let protocols = ota.need(Field::Protocols);
    let stream = ota.text(Field::StreamName);
    let files = ota.need(Field::Files);
    let job = Job {
        protocols: read_protocols(&mut check, protocols),
        stream: read_stream(&mut check, &stream),
        files: read_files(&mut check, files),
    };
    check.finish(job)
}

fn read_protocols(check: &mut Check, value: Option<Value<'_>>) -> Protocols {
    let mut protocols = Protocols::default();
    for (_, element) in check.array(value, Field::Protocols) {
        let name = check.text(Some(element), Field::Protocols);
        protocols.mqtt |= name == "MQTT";
        protocols.http |= name == "HTTP";
    }
    protocols
}

/// An empty stream name, as jobs for HTTP may have it, is none.
fn read_stream(check: &mut Check, name: &str) -> Option<StreamId> {
    if name.is_empty() {
        return None;
    }
    check.name(StreamId::new(name), Field::StreamName)
}

fn read_files(check: &mut Check, value: Option<Value<'_>>) -> Vec<FileEntry> {
    let mut files: Vec<FileEntry> = Vec::new();
    for (_, element) in check.array(value, Field::Files) {
        if files.len() == FILES_MAX_COUNT {
            check.fail(Defect::TooManyFiles, Field::Files, 0);
        }
        // A file with a defect is the last one that counts.
        if !check.is_good() {
            break;
        }
        let file = read_file(check, element, files.len());
        if files.iter().any(|earlier| earlier.file_id == file.file_id) {
            check.fail(Defect::Duplicate, Field::FileId, 0);
        }
        files.push(file);
    }
    if files.is_empty() {
        check.fail(Defect::NoFiles, Field::Files, 0);
    }
    files
}

fn read_file(check: &mut Check, of: Value<'_>, index: usize) -> FileEntry {
    const MOST: u64 = u32::MAX as u64;
    let mut file = check.object(Some(of), Field::Files);
    file.need(Field::FileSize);
    file.need(Field::FileId);
    let size = file.number(Field::FileSize, u64::MAX);
    if size == 0 {
        file.check
            .fail(Defect::ZeroFileSize, Field::FileSize, index);
    }
    FileEntry {
        file_id: file.number(Field::FileId, MOST) as u32,
        size,
        path: file.plain_text(Field::FilePath, PATH_MAX_BYTES),
        certificate: file.plain_text(Field::CertFile, CERTIFICATE_MAX_BYTES),
        signature: read_signatures(&mut file, index),
        url: file.plain_text(Field::UpdateDataUrl, URL_MAX_BYTES),
        auth_scheme: file.plain_text(Field::AuthScheme, AUTH_SCHEME_MAX_BYTES),
        attributes: file.number(Field::Attributes, MOST) as u32,
        file_type: file.number(Field::FileType, MOST) as u32,
    }
}

fn read_signatures(file: &mut Members<'_, '_>, index: usize) -> Option<Signature> {
    let mut signature = None;
    for kind in SignatureKind::ALL {
        let value = file.at(KEY_SIGNATURES + kind as usize, Field::Signature);
        if value.is_none() {
            continue;
        }
        if signature.is_some() {
            file.check
                .fail(Defect::TwoSignatures, Field::Signature, index);
        }
        let encoded = file.check.text(value, Field::Signature);
        let bytes = match base64::decode(encoded.as_bytes(), SIGNATURE_MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(status) => {
                let status = usize::from(status.code());
                file.check
                    .fail(Defect::BadSignature, Field::Signature, status);
                Vec::new()
            }
        };
        signature = Some(Signature { kind, bytes });
    }
    signature
}
