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

/// Why a job message or document was not taken. The peer is at fault, except for the limits, which are ours.
///
/// [`ParseError::code`] is the second number of `0x0000000c: 0x<code>`: the low byte is the kind, the next one the
/// number of the [`Field`]. Kinds 0x00 to 0x0f are the C agent's OtaJobParseErr, 0x20 to 0x30 its DocParseErr plus
/// 0x20 (it never sends those itself), 0x40 and up are ours. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// 0x03: a file of 0 bytes.
    ZeroFileSize {
        /// Index in `files`.
        file: u32,
    },
    /// 0x04: not an `afr_ota` document.
    NotOta,
    /// 0x05: more blocks than a block map holds. The parser knows no block size and never says this: whoever cuts the
    /// file gets it as [`crate::stream::GridError::TooManyBlocks`] and reports it with this number.
    TooManyBlocks {
        /// That many.
        blocks: u64,
    },
    /// 0x22: a text is longer than its limit.
    TooLong {
        /// Which.
        field: Field,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// 0x23: a value of another type than expected.
    WrongType {
        /// Which.
        field: Field,
    },
    /// 0x24: the signature is not base64, or too long.
    BadSignature {
        /// Index in `files`.
        file: u32,
        /// What base64 says.
        status: Base64Status,
    },
    /// 0x25: not a decimal or 0x number.
    BadNumber {
        /// Which.
        field: Field,
    },
    /// 0x26: a key that stands twice in its object, or a file id that stands twice in the job.
    Duplicate {
        /// Which.
        field: Field,
    },
    /// 0x27: a member that must be there is missing.
    Missing {
        /// Which.
        field: Field,
    },
    /// 0x28: not strict JSON.
    BadJson {
        /// Byte where it went wrong.
        at: usize,
    },
    /// 0x40: the message is longer than [`super::DOCUMENT_MAX_BYTES`].
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// 0x41: nested deeper than 32 levels.
    TooDeep {
        /// Byte where it went too deep.
        at: usize,
    },
    /// 0x42: not UTF-8.
    NotUtf8 {
        /// First byte that is not.
        at: usize,
    },
    /// 0x43: a number larger than its field allows.
    NumberTooLarge {
        /// Which.
        field: Field,
    },
    /// 0x44: `files` is empty.
    NoFiles,
    /// 0x45: more than [`super::FILES_MAX_COUNT`] files.
    TooManyFiles,
    /// 0x46: a text with a byte that is not allowed there.
    BadText {
        /// Which.
        field: Field,
    },
    /// 0x47: a file with more than one signature.
    TwoSignatures {
        /// Index in `files`.
        file: u32,
    },
    /// 0x48: the chosen protocol needs a member that is not there: `streamname` or `update_data_url`.
    MissingForProtocol {
        /// Which.
        field: Field,
    },
}

impl Field {
    /// The number in a code.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Message => 0,
            Self::Execution => 1,
            Self::JobId => 2,
            Self::Status => 3,
            Self::StatusDetails => 4,
            Self::VersionNumber => 5,
            Self::JobDocument => 6,
            Self::AfrOta => 7,
            Self::Protocols => 8,
            Self::StreamName => 9,
            Self::Files => 10,
            Self::FilePath => 11,
            Self::FileSize => 12,
            Self::FileId => 13,
            Self::CertFile => 14,
            Self::UpdateDataUrl => 15,
            Self::AuthScheme => 16,
            Self::Signature => 17,
            Self::Attributes => 18,
            Self::FileType => 19,
            Self::ClientToken => 20,
            Self::Code => 21,
            Self::Text => 22,
            Self::ExecutionState => 23,
        }
    }

    /// The member's key.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "the message",
            Self::Execution => "execution",
            Self::JobId => "jobId",
            Self::Status => "status",
            Self::StatusDetails => "statusDetails",
            Self::VersionNumber => "versionNumber",
            Self::JobDocument => "jobDocument",
            Self::AfrOta => "afr_ota",
            Self::Protocols => "protocols",
            Self::StreamName => "streamname",
            Self::Files => "files",
            Self::FilePath => "filepath",
            Self::FileSize => "filesize",
            Self::FileId => "fileid",
            Self::CertFile => "certfile",
            Self::UpdateDataUrl => "update_data_url",
            Self::AuthScheme => "auth_scheme",
            Self::Signature => "the signature",
            Self::Attributes => "attr",
            Self::FileType => "fileType",
            Self::ClientToken => "clientToken",
            Self::Code => "code",
            Self::Text => "message",
            Self::ExecutionState => "executionState",
        }
    }
}

impl ParseError {
    /// The second number of `0x0000000c: 0x<code>`.
    #[must_use]
    pub const fn code(self) -> u32 {
        let (kind, field) = match self {
            // The C agent's own three go out as it sends them, without a field.
            Self::ZeroFileSize { .. } => return 0x03,
            Self::NotOta => return 0x04,
            Self::TooManyBlocks { .. } => return 0x05,
            Self::TooLong { field, .. } => (0x22, field),
            Self::WrongType { field } => (0x23, field),
            Self::BadSignature { .. } => (0x24, Field::Signature),
            Self::BadNumber { field } => (0x25, field),
            Self::Duplicate { field } => (0x26, field),
            Self::Missing { field } => (0x27, field),
            Self::BadJson { .. } => (0x28, Field::Message),
            Self::TooLarge { .. } => (0x40, Field::Message),
            Self::TooDeep { .. } => (0x41, Field::Message),
            Self::NotUtf8 { .. } => (0x42, Field::Message),
            Self::NumberTooLarge { field } => (0x43, field),
            Self::NoFiles => (0x44, Field::Files),
            Self::TooManyFiles => (0x45, Field::Files),
            Self::BadText { field } => (0x46, field),
            Self::TwoSignatures { .. } => (0x47, Field::Signature),
            Self::MissingForProtocol { field } => (0x48, field),
        };
        field.code() << 8 | kind
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroFileSize { file } => write!(f, "file {file} has 0 bytes"),
            Self::NotOta => f.write_str("not an afr_ota job document"),
            Self::TooManyBlocks { blocks } => {
                write!(
                    f,
                    "a file of {blocks} blocks, at most {BLOCKS_MAX_COUNT} are allowed"
                )
            }
            Self::TooLong { field, bytes, most } => {
                write!(
                    f,
                    "{} has {bytes} bytes, at most {most} are allowed",
                    field.name()
                )
            }
            Self::WrongType { field } => write!(f, "{} has the wrong type", field.name()),
            Self::BadSignature { file, status } => {
                write!(
                    f,
                    "the signature of file {file} is not usable: {}",
                    status.name()
                )
            }
            Self::BadNumber { field } => write!(f, "{} is not a number", field.name()),
            Self::Duplicate { field } => write!(f, "{} stands twice", field.name()),
            Self::Missing { field } => write!(f, "{} is missing", field.name()),
            Self::BadJson { at } => write!(f, "not JSON at byte {at}"),
            Self::TooLarge { bytes } => {
                let most = super::DOCUMENT_MAX_BYTES;
                write!(
                    f,
                    "the message has {bytes} bytes, at most {most} are allowed"
                )
            }
            Self::TooDeep { at } => write!(f, "nested too deep at byte {at}"),
            Self::NotUtf8 { at } => write!(f, "not UTF-8 at byte {at}"),
            Self::NumberTooLarge { field } => write!(f, "{} is too large", field.name()),
            Self::NoFiles => f.write_str("files is empty"),
            Self::TooManyFiles => {
                write!(f, "more than {} files", super::FILES_MAX_COUNT)
            }
            Self::BadText { field } => write!(f, "{} has a byte not allowed", field.name()),
            Self::TwoSignatures { file } => write!(f, "file {file} has more than one signature"),
            Self::MissingForProtocol { field } => {
                write!(f, "the protocol needs {}, which is missing", field.name())
            }
        }
    }
}

impl core::error::Error for ParseError {}
