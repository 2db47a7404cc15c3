//! The `afr_ota` job document.

use alloc::string::String;
use alloc::vec::Vec;

use crate::base64;
use crate::code::Base64Status;
use crate::jobs::StreamId;
use crate::json::{self, Value};

use super::member::{bad_name, check_length, needed, number, number_u32, plain_text, put, text};
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

    /// The kind of a key.
    #[must_use]
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == key)
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
}

/// Whether a document is for this parser: an object with a member `afr_ota`. Any other is a custom or a foreign job.
#[must_use]
pub fn is_ota(document: &str) -> bool {
    let parsed = check_length(document.len())
        .is_ok()
        .then(|| json::parse(document).ok());
    let members = parsed.flatten().and_then(Value::members);
    members.is_some_and(|mut members| members.any(|(key, _)| key == "afr_ota"))
}

/// Reads an `afr_ota` job document: the value of `jobDocument`, as [`super::JobExecution::document`] has it.
///
/// # Errors
/// [`ParseError::NotOta`] if it is for somebody else; otherwise the first defect, the job's author is at fault.
pub fn parse_job(document: &str) -> Result<Job, ParseError> {
    check_length(document.len())?;
    let members = json::parse(document)?.members().ok_or(ParseError::NotOta)?;
    let mut ota = None;
    for (key, value) in members {
        if key == "afr_ota" {
            put(&mut ota, value, Field::AfrOta)?;
        }
    }
    let ota = ota.ok_or(ParseError::NotOta)?;
    let members = ota.members().ok_or(ParseError::WrongType {
        field: Field::AfrOta,
    })?;
    let (mut protocols, mut stream, mut files) = (None, None, None);
    for (key, value) in members {
        match &*key {
            "protocols" => put(&mut protocols, read_protocols(value)?, Field::Protocols)?,
            "streamname" => put(&mut stream, read_stream(value)?, Field::StreamName)?,
            "files" => put(&mut files, read_files(value)?, Field::Files)?,
            _ => {}
        }
    }
    Ok(Job {
        protocols: needed(protocols, Field::Protocols)?,
        stream: stream.flatten(),
        files: needed(files, Field::Files)?,
    })
}

fn read_protocols(value: Value<'_>) -> Result<Protocols, ParseError> {
    let field = Field::Protocols;
    let mut protocols = Protocols::default();
    for element in value.elements().ok_or(ParseError::WrongType { field })? {
        match &*text(element, field)? {
            "MQTT" => protocols.mqtt = true,
            "HTTP" => protocols.http = true,
            _ => {}
        }
    }
    Ok(protocols)
}

/// An empty stream name, as jobs for HTTP may have it, is none.
fn read_stream(value: Value<'_>) -> Result<Option<StreamId>, ParseError> {
    let field = Field::StreamName;
    let name = text(value, field)?;
    if name.is_empty() {
        return Ok(None);
    }
    StreamId::new(&name)
        .map(Some)
        .map_err(|error| bad_name(error, field))
}

fn read_files(value: Value<'_>) -> Result<Vec<FileEntry>, ParseError> {
    let field = Field::Files;
    let mut files: Vec<FileEntry> = Vec::new();
    for element in value.elements().ok_or(ParseError::WrongType { field })? {
        if files.len() == FILES_MAX_COUNT {
            return Err(ParseError::TooManyFiles);
        }
        let file = read_file(element, files.len() as u32)?;
        if files.iter().any(|earlier| earlier.file_id == file.file_id) {
            return Err(ParseError::Duplicate {
                field: Field::FileId,
            });
        }
        files.push(file);
    }
    if files.is_empty() {
        Err(ParseError::NoFiles)
    } else {
        Ok(files)
    }
}

fn read_file(value: Value<'_>, file: u32) -> Result<FileEntry, ParseError> {
    let members = value.members().ok_or(ParseError::WrongType {
        field: Field::Files,
    })?;
    let (mut file_id, mut size) = (None, None);
    let (mut path, mut certificate, mut url, mut auth_scheme) = (None, None, None, None);
    let (mut attributes, mut file_type) = (None, None);
    let mut signature: Option<Signature> = None;
    for (key, value) in members {
        let (slot, field, most) = match &*key {
            "filepath" => (&mut path, Field::FilePath, PATH_MAX_BYTES),
            "certfile" => (&mut certificate, Field::CertFile, CERTIFICATE_MAX_BYTES),
            "update_data_url" => (&mut url, Field::UpdateDataUrl, URL_MAX_BYTES),
            "auth_scheme" => (&mut auth_scheme, Field::AuthScheme, AUTH_SCHEME_MAX_BYTES),
            "filesize" => {
                let field = Field::FileSize;
                put(&mut size, number(value, field)?, field)?;
                continue;
            }
            "fileid" | "attr" | "fileType" => {
                let (slot, field) = match &*key {
                    "fileid" => (&mut file_id, Field::FileId),
                    "attr" => (&mut attributes, Field::Attributes),
                    _ => (&mut file_type, Field::FileType),
                };
                put(slot, number_u32(value, field)?, field)?;
                continue;
            }
            other => {
                if let Some(kind) = SignatureKind::from_key(other) {
                    if signature
                        .as_ref()
                        .is_some_and(|earlier| earlier.kind != kind)
                    {
                        return Err(ParseError::TwoSignatures { file });
                    }
                    let bytes = read_signature(value, file)?;
                    put(&mut signature, Signature { kind, bytes }, Field::Signature)?;
                }
                continue;
            }
        };
        put(slot, plain_text(value, field, most)?, field)?;
    }
    let size = needed(size, Field::FileSize)?;
    if size == 0 {
        return Err(ParseError::ZeroFileSize { file });
    }
    Ok(FileEntry {
        file_id: needed(file_id, Field::FileId)?,
        size,
        path: path.unwrap_or_default(),
        certificate: certificate.unwrap_or_default(),
        signature,
        url: url.filter(|url| !url.is_empty()),
        auth_scheme: auth_scheme.filter(|scheme| !scheme.is_empty()),
        attributes: attributes.unwrap_or(0),
        file_type: file_type.unwrap_or(0),
    })
}

fn read_signature(value: Value<'_>, file: u32) -> Result<Vec<u8>, ParseError> {
    let encoded = text(value, Field::Signature)?;
    let bad = |status| ParseError::BadSignature { file, status };
    let bytes = base64::decode(encoded.as_bytes(), SIGNATURE_MAX_BYTES).map_err(bad)?;
    // Line ends or padding alone are base64 of nothing, which signs nothing.
    if bytes.is_empty() {
        Err(bad(Base64Status::InvalidInputSize))
    } else {
        Ok(bytes)
    }
}
