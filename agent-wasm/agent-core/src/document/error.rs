//! Why a job message or document was not taken, with the numbers for the cloud.

use core::fmt;

use crate::code::Base64Status;
use crate::stream::BLOCKS_MAX_COUNT;

/// A member that an error is about. The numbers are append-only: they go to the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The message as a whole.
    Message,
    /// `execution`.
    Execution,
    /// `execution.jobId`.
    JobId,
    /// `execution.status`.
    Status,
    /// `execution.statusDetails`.
    StatusDetails,
    /// `execution.versionNumber`.
    VersionNumber,
    /// `execution.jobDocument`.
    JobDocument,
    /// `afr_ota`.
    AfrOta,
    /// `afr_ota.protocols`.
    Protocols,
    /// `afr_ota.streamname`.
    StreamName,
    /// `afr_ota.files`.
    Files,
    /// `filepath` of a file.
    FilePath,
    /// `filesize` of a file.
    FileSize,
    /// `fileid` of a file.
    FileId,
    /// `certfile` of a file.
    CertFile,
    /// `update_data_url` of a file.
    UpdateDataUrl,
    /// `auth_scheme` of a file.
    AuthScheme,
    /// The signature of a file, under any of its four keys.
    Signature,
    /// `attr` of a file.
    Attributes,
    /// `fileType` of a file.
    FileType,
    /// `clientToken`.
    ClientToken,
    /// `code` of a refusal.
    Code,
    /// `message` of a refusal.
    Text,
    /// `executionState`.
    ExecutionState,
}

/// What is wrong with a job message or document. The number is the one that goes to the cloud: 0x00 to 0x0f are the C
/// agent's OtaJobParseErr, 0x20 to 0x30 its DocParseErr plus 0x20 (it never sends those itself), 0x40 and up are ours.
/// Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Defect {
    /// A file of 0 bytes; number = its index in `files`.
    ZeroFileSize = 0x03,
    /// Not an `afr_ota` document.
    NotOta = 0x04,
    /// More blocks than a block map holds; number = blocks. The parser knows no block size and never says this: whoever
    /// cuts the file gets it as [`crate::stream::GridError::TooManyBlocks`] and reports it with this number.
    TooManyBlocks = 0x05,
    /// A text is longer than its limit; number = its bytes.
    TooLong = 0x22,
    /// A value of another type than expected.
    WrongType = 0x23,
    /// The signature is not base64, or too long; number = its [`Base64Status`].
    BadSignature = 0x24,
    /// Not a decimal or 0x number.
    BadNumber = 0x25,
    /// A key that stands twice in its object, or a file id that stands twice in the job.
    Duplicate = 0x26,
    /// A member that must be there is missing.
    Missing = 0x27,
    /// Not strict JSON; number = byte where it went wrong.
    BadJson = 0x28,
    /// The message is longer than [`super::DOCUMENT_MAX_BYTES`]; number = its bytes.
    TooLarge = 0x40,
    /// Not UTF-8; number = first byte that is not.
    NotUtf8 = 0x42,
    /// A number is larger than its limit.
    NumberTooLarge = 0x43,
    /// `files` is empty.
    NoFiles = 0x44,
    /// More than [`super::FILES_MAX_COUNT`] files.
    TooManyFiles = 0x45,
    /// A text has a byte that is not allowed there.
    BadText = 0x46,
    /// More than one signature in a file; number = its index in `files`.
    TwoSignatures = 0x47,
    /// The protocol that was chosen needs a member that is missing.
    MissingForProtocol = 0x48,
}

impl Defect {
    /// The error of this defect in a member, without a number.
    #[must_use]
    pub const fn of(self, field: Field) -> ParseError {
        ParseError {
            defect: self,
            field,
            number: 0,
        }
    }
}

/// Why a job message or document was not taken. The peer is at fault, except for the limits, which are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub defect: Defect,
    /// With which member.
    pub field: Field,
    /// How long, how many, where: [`Defect`] says. 0 if there is nothing to say.
    pub number: u32,
}

/// The keys that are looked for: those of [`Field`], then those of [`super::SignatureKind`], then two details of a
/// status. (`Message` and `Signature` have no key; what stands for them is for people.)
pub(super) const KEYS: [&str; 30] = [
    "the message",
    "execution",
    "jobId",
    "status",
    "statusDetails",
    "versionNumber",
    "jobDocument",
    "afr_ota",
    "protocols",
    "streamname",
    "files",
    "filepath",
    "filesize",
    "fileid",
    "certfile",
    "update_data_url",
    "auth_scheme",
    "the signature",
    "attr",
    "fileType",
    "clientToken",
    "code",
    "message",
    "executionState",
    "sig-sha256-ecdsa",
    "sig-sha256-rsa",
    "sig-sha1-rsa",
    "sig-sha1-ecdsa",
    "self_test",
    "updatedBy",
];
/// Place of the first signature in [`KEYS`].
pub(super) const KEY_SIGNATURES: usize = 24;
/// Place of `self_test` in [`KEYS`].
pub(crate) const KEY_SELF_TEST: usize = 28;
/// Place of `updatedBy` in [`KEYS`].
pub(crate) const KEY_UPDATED_BY: usize = 29;

impl Field {
    /// The number, append-only.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The member's key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        KEYS[self as usize]
    }
}

impl ParseError {
    /// Not an `afr_ota` document.
    pub const NOT_OTA: Self = Defect::NotOta.of(Field::Message);

    /// The second number of `0x0000000c: 0x<code>`: the low byte is the [`Defect`], the next one the [`Field`]. The C
    /// agent's own three go out as it sends them, without a field.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self.defect as u32 {
            own @ ..0x20 => own,
            defect => self.field.code() << 8 | defect,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, number, .. } = self;
        let name = field.name();
        match self.defect {
            Defect::ZeroFileSize => write!(f, "file {number} has 0 bytes"),
            Defect::NotOta => f.write_str("not an afr_ota job document"),
            Defect::TooManyBlocks => write!(
                f,
                "a file of {number} blocks, at most {BLOCKS_MAX_COUNT} are allowed"
            ),
            Defect::TooLong => write!(f, "{name} is too long with {number} bytes"),
            Defect::WrongType => write!(f, "{name} has the wrong type"),
            Defect::BadSignature => {
                let status = Base64Status::text(*number as u8);
                write!(f, "{name} is not usable: {status}")
            }
            Defect::BadNumber => write!(f, "{name} is not a number"),
            Defect::Duplicate => write!(f, "{name} stands twice"),
            Defect::Missing => write!(f, "{name} is missing"),
            Defect::BadJson => write!(f, "not JSON at byte {number}"),
            Defect::TooLarge => {
                let most = super::DOCUMENT_MAX_BYTES;
                write!(
                    f,
                    "the message has {number} bytes, at most {most} are allowed"
                )
            }
            Defect::NotUtf8 => write!(f, "not UTF-8 at byte {number}"),
            Defect::NumberTooLarge => write!(f, "{name} is too large"),
            Defect::NoFiles => f.write_str("files is empty"),
            Defect::TooManyFiles => write!(f, "more than {} files", super::FILES_MAX_COUNT),
            Defect::BadText => write!(f, "{name} has a byte not allowed"),
            Defect::TwoSignatures => write!(f, "file {number} has more than one signature"),
            Defect::MissingForProtocol => {
                write!(f, "the protocol needs {name}, which is missing")
            }
        }
    }
}

impl core::error::Error for ParseError {}
