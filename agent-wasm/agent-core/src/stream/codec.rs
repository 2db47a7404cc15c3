//! The CBOR messages of a file stream, and the refusals in CBOR and JSON.
//!
//! Maps and strings of definite and indefinite length are read; what is not known is skipped.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::cbor::{self, CborError, Major, Reader};
use crate::code::StreamErr;
use crate::document::{ParseError, parse_message};
use crate::jobs::{Encoding, shown};
use crate::json;

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
    /// Why, as the service wrote it, at most 256 bytes.
    pub code_text: String,
    /// For people, at most 256 bytes.
    pub message: String,
    /// The request's token, at most 256 bytes.
    pub token: Option<String>,
}

impl Rejection {
    /// Whether the same request may be answered later: the service was busy or unwell, or says something unknown.
    /// Everything else stays as it is, however often it is asked.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self.code {
            StreamErr::InternalError | StreamErr::RequestThrottled | StreamErr::Unknown => true,
            StreamErr::InvalidTopic
            | StreamErr::InvalidJson
            | StreamErr::InvalidCbor
            | StreamErr::InvalidRequest
            | StreamErr::Unauthorized
            | StreamErr::BlockSizeOutOfBounds
            | StreamErr::OffsetOutOfBounds
            | StreamErr::BlockCountLimitExceeded
            | StreamErr::BlockBitmapLimitExceeded
            | StreamErr::ResourceNotFound
            | StreamErr::VersionMismatch
            | StreamErr::EtagMismatch => false,
        }
    }
}

/// Why a message is not what its topic says. The peer is at fault; the message is dropped, the job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Not CBOR (or JSON), or cut short, or a member that is not known nests deeper than 16 levels.
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
        let (key, what) = match self {
            Self::Malformed => ("the message", "cannot be decoded"),
            Self::TrailingBytes => ("the message", "is followed by something"),
            Self::NotAMap => ("the message", "is not a map"),
            Self::WrongType(key) => (*key, "has the wrong type"),
            Self::Duplicate(key) => (*key, "stands twice"),
            Self::Missing(key) => (*key, "is missing"),
        };
        write!(f, "{key} {what}")
    }
}

impl core::error::Error for DecodeError {}

/// Writes a request: a map of exactly `c`, `f`, `l`, `o`, `b`, `n` in this order, integers as short as they can be, as
/// the C agent does.
#[must_use]
pub fn encode_get(request: &GetRequest<'_>) -> Vec<u8> {
    // 6 keys of 2 bytes, 4 integers of at most 5, heads, and the texts.
    let mut out = Vec::with_capacity(48 + request.token.len() + request.bitmap.len());
    cbor::push_map(&mut out, 6);
    cbor::push_text(&mut out, "c");
    cbor::push_text(&mut out, request.token);
    push_number(&mut out, "f", request.file_id);
    push_number(&mut out, "l", request.block_size);
    push_number(&mut out, "o", request.offset);
    cbor::push_text(&mut out, "b");
    cbor::push_bytes(&mut out, request.bitmap);
    push_number(&mut out, "n", request.count);
    out
}

fn push_number(out: &mut Vec<u8>, key: &str, value: u32) {
    cbor::push_text(out, key);
    cbor::push_unsigned(out, u64::from(value));
}

/// Reads a block message.
///
/// # Errors
/// [`DecodeError`]; drop the message.
pub fn decode_data(message: &[u8]) -> Result<DataMessage<'_>, DecodeError> {
    const NUMBERS: [&str; 3] = ["f", "i", "l"];
    let mut numbers = [None; NUMBERS.len()];
    let mut payload = None;
    let mut map = Map::open(message)?;
    while let Some(key) = map.next_key()? {
        if let Some(at) = NUMBERS.iter().position(|name| *name == key) {
            let name = NUMBERS[at];
            let number = map.reader.unsigned().map_err(|error| wrong(error, name))?;
            put(&mut numbers[at], number, name)?;
        } else if key == "p" {
            put(
                &mut payload,
                map.reader.bytes().map_err(|error| wrong(error, "p"))?,
                "p",
            )?;
        } else {
            map.reader.skip().map_err(malformed)?;
        }
    }
    map.close()?;
    let [file_id, index, size] = numbers;
    Ok(DataMessage {
        file_id: file_id.ok_or(DecodeError::Missing("f"))?,
        index: index.ok_or(DecodeError::Missing("i"))?,
        size: size.ok_or(DecodeError::Missing("l"))?,
        payload: payload.ok_or(DecodeError::Missing("p"))?,
    })
}

/// Reads a refusal, with short or long member names.
///
/// # Errors
/// [`DecodeError`]; drop the message.
pub fn decode_rejected(encoding: Encoding, message: &[u8]) -> Result<Rejection, DecodeError> {
    let mut members = [const { None }; REFUSAL.len()];
    match encoding {
        Encoding::Cbor => read_refusal_cbor(message, &mut members)?,
        Encoding::Json => read_refusal_json(message, &mut members)?,
    }
    let [code, text, token, long_code, long_text, long_token] = members;
    let code_text = code.or(long_code).ok_or(DecodeError::Missing("o"))?;
    let known = StreamErr::ALL.iter().find(|code| code.name() == code_text);
    Ok(Rejection {
        code: known.copied().unwrap_or(StreamErr::Unknown),
        code_text,
        message: text.or(long_text).unwrap_or_default(),
        token: token.or(long_token),
    })
}

/// The members of a refusal, by their short and by their long names. Both may be there.
const REFUSAL: [&str; 6] = ["o", "m", "c", "code", "message", "clientToken"];

fn read_refusal_cbor(message: &[u8], out: &mut [Option<String>; 6]) -> Result<(), DecodeError> {
    let mut map = Map::open(message)?;
    while let Some(key) = map.next_key()? {
        if let Some(at) = REFUSAL.iter().position(|name| *name == key) {
            let name = REFUSAL[at];
            let text = map.reader.text().map_err(|error| wrong(error, name))?;
            put(&mut out[at], shown(&text), name)?;
        } else {
            map.reader.skip().map_err(malformed)?;
        }
    }
    map.close()
}

fn read_refusal_json(message: &[u8], out: &mut [Option<String>; 6]) -> Result<(), DecodeError> {
    let value = parse_message(message).map_err(|_: ParseError| DecodeError::Malformed)?;
    if value.first() != b'{' {
        return Err(DecodeError::NotAMap);
    }
    for (at, name) in REFUSAL.into_iter().enumerate() {
        let Some((value, twice)) = json::find(value, name) else {
            continue;
        };
        let text = value.text().ok_or(DecodeError::WrongType(name))?;
        out[at] = Some(shown(&text));
        if twice {
            return Err(DecodeError::Duplicate(name));
        }
    }
    Ok(())
}

const fn malformed(_: CborError) -> DecodeError {
    DecodeError::Malformed
}

const fn wrong(error: CborError, key: &'static str) -> DecodeError {
    match error {
        CborError::WrongType => DecodeError::WrongType(key),
        CborError::Malformed => DecodeError::Malformed,
    }
}

fn put<T>(slot: &mut Option<T>, value: T, key: &'static str) -> Result<(), DecodeError> {
    if slot.is_some() {
        return Err(DecodeError::Duplicate(key));
    }
    *slot = Some(value);
    Ok(())
}

/// The one map that a message is.
struct Map<'b> {
    reader: Reader<'b>,
    left: cbor::Left,
}

impl<'b> Map<'b> {
    fn open(message: &'b [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        match reader.enter(Major::Map) {
            Ok(left) => Ok(Self { reader, left }),
            Err(CborError::WrongType) => Err(DecodeError::NotAMap),
            Err(CborError::Malformed) => Err(DecodeError::Malformed),
        }
    }

    /// The key of the next member; its value comes next in the reader. A member whose key is no text is nobody's that
    /// we know.
    fn next_key(&mut self) -> Result<Option<Cow<'b, str>>, DecodeError> {
        while self.reader.more(&mut self.left) {
            if self.reader.peek() == Some(Major::Text) {
                return self.reader.text().map(Some).map_err(malformed);
            }
            self.reader.skip().map_err(malformed)?;
            self.reader.skip().map_err(malformed)?;
        }
        Ok(None)
    }

    fn close(self) -> Result<(), DecodeError> {
        if self.reader.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }
}

#[cfg(test)]
mod tests;
