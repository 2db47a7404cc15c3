//! The `afr_ota` job document.

use alloc::string::String;
use alloc::vec::Vec;

use crate::base64;
use crate::code::Base64Status;
use crate::jobs::StreamId;
use crate::json::{self, Value};
use crate::stream::{BlockGrid, GridError};

use super::member::{
    bad_name, check_length, collect, needed, number, number_or_0, number_u32, plain_text, text,
};
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
    matches!(afr_ota(document), Ok(_) | Err(ParseError::Duplicate { .. }))
}

/// Reads an `afr_ota` job document: the value of `jobDocument`, as [`super::JobExecution::document`] has it.
///
/// # Errors
/// [`ParseError::NotOta`] if it is for somebody else; otherwise the first defect, the job's author is at fault.
pub fn parse_job(document: &str) -> Result<Job, ParseError> {
    const KEYS: [(&str, Field); 3] = [
        ("protocols", Field::Protocols),
        ("streamname", Field::StreamName),
        ("files", Field::Files),
    ];
    let [protocols, stream, files] = collect(afr_ota(document)?, Field::AfrOta, &KEYS)?;
    Ok(Job {
        protocols: read_protocols(needed(protocols, Field::Protocols)?)?,
        stream: stream.map_or(Ok(None), read_stream)?,
        files: read_files(needed(files, Field::Files)?)?,
    })
}

fn afr_ota(document: &str) -> Result<Value<'_>, ParseError> {
    check_length(document.len())?;
    let document = json::parse(document)?;
    if !matches!(document, Value::Object(_)) {
        return Err(ParseError::NotOta);
    }
    let [ota] = collect(document, Field::Message, &[("afr_ota", Field::AfrOta)])?;
    ota.ok_or(ParseError::NotOta)
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

/// The members of a file; the signature's four keys come last.
const FILE_KEYS: [(&str, Field); 12] = [
    ("fileid", Field::FileId),
    ("filesize", Field::FileSize),
    ("filepath", Field::FilePath),
    ("certfile", Field::CertFile),
    ("update_data_url", Field::UpdateDataUrl),
    ("auth_scheme", Field::AuthScheme),
    ("attr", Field::Attributes),
    ("fileType", Field::FileType),
    (SignatureKind::ALL[0].key(), Field::Signature),
    (SignatureKind::ALL[1].key(), Field::Signature),
    (SignatureKind::ALL[2].key(), Field::Signature),
    (SignatureKind::ALL[3].key(), Field::Signature),
];

fn read_file(value: Value<'_>, file: u32) -> Result<FileEntry, ParseError> {
    let members = collect(value, Field::Files, &FILE_KEYS)?;
    let [
        id,
        size,
        path,
        certificate,
        url,
        scheme,
        attributes,
        file_type,
        signatures @ ..,
    ] = members;
    let size = number(needed(size, Field::FileSize)?, Field::FileSize)?;
    if size == 0 {
        return Err(ParseError::ZeroFileSize { file });
    }
    let url = plain_text(url, Field::UpdateDataUrl, URL_MAX_BYTES)?;
    let auth_scheme = plain_text(scheme, Field::AuthScheme, AUTH_SCHEME_MAX_BYTES)?;
    Ok(FileEntry {
        file_id: number_u32(needed(id, Field::FileId)?, Field::FileId)?,
        size,
        path: plain_text(path, Field::FilePath, PATH_MAX_BYTES)?,
        certificate: plain_text(certificate, Field::CertFile, CERTIFICATE_MAX_BYTES)?,
        signature: read_signatures(signatures, file)?,
        url: Some(url).filter(|url| !url.is_empty()),
        auth_scheme: Some(auth_scheme).filter(|scheme| !scheme.is_empty()),
        attributes: number_or_0(attributes, Field::Attributes)?,
        file_type: number_or_0(file_type, Field::FileType)?,
    })
}

fn read_signatures(
    values: [Option<Value<'_>>; 4],
    file: u32,
) -> Result<Option<Signature>, ParseError> {
    let mut signature = None;
    for (kind, value) in SignatureKind::ALL.into_iter().zip(values) {
        let Some(value) = value else { continue };
        if signature.is_some() {
            return Err(ParseError::TwoSignatures { file });
        }
        signature = Some(Signature {
            kind,
            bytes: read_signature(value, file)?,
        });
    }
    Ok(signature)
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
