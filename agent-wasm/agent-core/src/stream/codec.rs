//! The CBOR messages of a file stream, and the refusals in CBOR and JSON.
//!
//! Maps and strings of definite and indefinite length are read; what is not known is skipped.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::code::StreamErr;
use crate::jobs::Encoding;

/// A request for blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetRequest<'a> {
    /// Client token, echoed by the service.
    pub token: &'a str,
    /// File in the stream.
    pub file_id: u32,
    /// Bytes in a block, also of the last.
    pub block_size: u32,
    /// Added to every index of the bitmap.
    pub offset: u32,
    /// Blocks wanted.
    pub bitmap: &'a [u8],
    /// At most so many blocks.
    pub count: u32,
}

/// A block message, syntax only. [`super::Downloader`] judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataMessage<'a> {
    /// `f`.
    pub file_id: u64,
    /// `i`.
    pub index: u64,
    /// `l`.
    pub size: u64,
    /// `p`.
    pub payload: Cow<'a, [u8]>,
}

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why, as a number of ours.
    pub code: StreamErr,
    /// Why, as the service wrote it, at most 64 bytes.
    pub code_text: String,
    /// For people, at most 256 bytes.
    pub message: String,
    /// The request's token, at most 64 bytes.
    pub token: Option<String>,
}

/// Why a message is not what its topic says. The peer is at fault; the message is dropped, the job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not CBOR (or JSON), or cut short.
    Malformed,
    /// Something follows the message.
    TrailingBytes,
    /// Not a map.
    NotAMap,
    /// A member of the wrong type, or negative.
    WrongType(&'static str),
    /// A member stands twice.
    Duplicate(&'static str),
    /// A member is missing.
    Missing(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the message cannot be decoded"),
            Self::TrailingBytes => f.write_str("something follows the message"),
            Self::NotAMap => f.write_str("the message is not a map"),
            Self::WrongType(key) => write!(f, "{key} has the wrong type"),
            Self::Duplicate(key) => write!(f, "{key} stands twice"),
            Self::Missing(key) => write!(f, "{key} is missing"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Writes a request: a map of exactly `c`, `f`, `l`, `o`, `b`, `n` in this order, as the C agent does.
#[must_use]
pub fn encode_get(request: &GetRequest<'_>) -> Vec<u8> {
    let _ = request;
    unimplemented!()
}

/// Reads a block message.
///
/// # Errors
/// [`DecodeError`]; drop the message.
pub fn decode_data(message: &[u8]) -> Result<DataMessage<'_>, DecodeError> {
    let _ = message;
    unimplemented!()
}

/// Reads a refusal, with short or long member names.
///
/// # Errors
/// [`DecodeError`]; drop the message.
pub fn decode_rejected(encoding: Encoding, message: &[u8]) -> Result<Rejection, DecodeError> {
    let _ = (encoding, message);
    unimplemented!()
}
