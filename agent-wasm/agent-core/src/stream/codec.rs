//! The CBOR messages of a file stream, and the refusals in CBOR and JSON.
//!
//! Maps and strings of definite and indefinite length are read; what is not known is skipped.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use minicbor::Decoder;
use minicbor::data::Type;

use crate::code::StreamErr;
use crate::document::{ParseError, parse_message};
use crate::jobs::{Encoding, shown};
use crate::json::Value;

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
    push_head(&mut out, MAP, 6);
    push_text(&mut out, "c");
    push_text(&mut out, request.token);
    for (key, value) in [
        ("f", request.file_id),
        ("l", request.block_size),
        ("o", request.offset),
    ] {
        push_text(&mut out, key);
        push_head(&mut out, UNSIGNED, u64::from(value));
    }
    push_text(&mut out, "b");
    push_head(&mut out, BYTES, request.bitmap.len() as u64);
    out.extend_from_slice(request.bitmap);
    push_text(&mut out, "n");
    push_head(&mut out, UNSIGNED, u64::from(request.count));
    out
}

// Major types of RFC 8949 section 3.1, in their place in the first byte.
const UNSIGNED: u8 = 0x00;
const BYTES: u8 = 0x40;
const TEXT: u8 = 0x60;
const MAP: u8 = 0xa0;

/// Pushes a head. By hand, for a writer that cannot fail: the library's returns errors that would have to be thrown
/// away.
fn push_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let (info, used) = match value {
        0..=23 => {
            out.push(major | bytes[7]);
            return;
        }
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major | info);
    out.extend_from_slice(&bytes[8 - used..]);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    push_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads a block message.
///
/// # Errors
/// [`DecodeError`]; drop the message.
pub fn decode_data(message: &[u8]) -> Result<DataMessage<'_>, DecodeError> {
    let (mut file_id, mut index, mut size, mut payload) = (None, None, None, None);
    walk_map(message, |key, decoder| match key {
        "f" => put(&mut file_id, unsigned(decoder, "f")?, "f"),
        "i" => put(&mut index, unsigned(decoder, "i")?, "i"),
        "l" => put(&mut size, unsigned(decoder, "l")?, "l"),
        "p" => put(&mut payload, bytes(decoder, "p")?, "p"),
        _ => skip(decoder, SKIP_DEPTH_MAX),
    })?;
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
    let mut parts = Refusal::default();
    match encoding {
        Encoding::Cbor => walk_map(message, |key, decoder| match parts.slot(key) {
            Some((slot, name)) => put(slot, shown(&text(decoder, name)?), name),
            None => skip(decoder, SKIP_DEPTH_MAX),
        })?,
        Encoding::Json => parts.read_json(message)?,
    }
    let Refusal { short, long } = parts;
    let [code, text, token] = short;
    let [long_code, long_text, long_token] = long;
    let code_text = code.or(long_code).ok_or(DecodeError::Missing("o"))?;
    let known = StreamErr::ALL.iter().find(|code| code.name() == code_text);
    Ok(Rejection {
        code: known.copied().unwrap_or(StreamErr::Unknown),
        code_text,
        message: text.or(long_text).unwrap_or_default(),
        token: token.or(long_token),
    })
}

/// The members of a refusal by their short and their long names: code, text, token.
#[derive(Default)]
struct Refusal {
    short: [Option<String>; 3],
    long: [Option<String>; 3],
}

impl Refusal {
    fn slot(&mut self, key: &str) -> Option<(&mut Option<String>, &'static str)> {
        const SHORT: [&str; 3] = ["o", "m", "c"];
        const LONG: [&str; 3] = ["code", "message", "clientToken"];
        if let Some(at) = SHORT.iter().position(|name| *name == key) {
            Some((&mut self.short[at], SHORT[at]))
        } else {
            let at = LONG.iter().position(|name| *name == key)?;
            Some((&mut self.long[at], LONG[at]))
        }
    }

    fn read_json(&mut self, message: &[u8]) -> Result<(), DecodeError> {
        let value = parse_message(message).map_err(|_: ParseError| DecodeError::Malformed)?;
        for (key, value) in value.members().ok_or(DecodeError::NotAMap)? {
            let Some((slot, name)) = self.slot(&key) else {
                continue;
            };
            let Value::Text(text) = value else {
                return Err(DecodeError::WrongType(name));
            };
            put(slot, shown(&text.decode()), name)?;
        }
        Ok(())
    }
}

/// Most levels of arrays and maps in a member that is skipped; no member that is known has any.
const SKIP_DEPTH_MAX: u32 = 16;

type CborError = minicbor::decode::Error;

fn malformed(_: CborError) -> DecodeError {
    DecodeError::Malformed
}

fn put<T>(slot: &mut Option<T>, value: T, key: &'static str) -> Result<(), DecodeError> {
    if slot.is_some() {
        return Err(DecodeError::Duplicate(key));
    }
    *slot = Some(value);
    Ok(())
}

/// Walks the one map that a message is.
fn walk_map<'b>(
    message: &'b [u8],
    mut member: impl FnMut(&str, &mut Decoder<'b>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut decoder = Decoder::new(message);
    let kind = decoder.datatype().map_err(malformed)?;
    if !matches!(kind, Type::Map | Type::MapIndef) {
        return Err(DecodeError::NotAMap);
    }
    let mut left = decoder.map().map_err(malformed)?;
    while more(&mut decoder, &mut left)? {
        let kind = decoder.datatype().map_err(malformed)?;
        if matches!(kind, Type::String | Type::StringIndef) {
            let key = text(&mut decoder, "the key")?;
            member(&key, &mut decoder)?;
        } else {
            // A key that is no text is nobody's that we know.
            skip(&mut decoder, SKIP_DEPTH_MAX)?;
            skip(&mut decoder, SKIP_DEPTH_MAX)?;
        }
    }
    if decoder.position() < message.len() {
        Err(DecodeError::TrailingBytes)
    } else {
        Ok(())
    }
}

/// Whether a container has another item: counted down, or until its break, which is taken.
fn more(decoder: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, DecodeError> {
    if let Some(left) = left {
        let some = *left > 0;
        *left = left.saturating_sub(1);
        return Ok(some);
    }
    if decoder.datatype().map_err(malformed)? != Type::Break {
        return Ok(true);
    }
    decoder.set_position(decoder.position() + 1);
    Ok(false)
}

/// Distinguishes an item of another type from one that is none.
fn wrong_type(error: &CborError, key: &'static str) -> DecodeError {
    if error.is_type_mismatch() {
        DecodeError::WrongType(key)
    } else {
        DecodeError::Malformed
    }
}

fn unsigned(decoder: &mut Decoder<'_>, key: &'static str) -> Result<u64, DecodeError> {
    decoder.u64().map_err(|error| wrong_type(&error, key))
}

fn bytes<'b>(decoder: &mut Decoder<'b>, key: &'static str) -> Result<Cow<'b, [u8]>, DecodeError> {
    let mut whole = Cow::Borrowed(&[][..]);
    for part in decoder
        .bytes_iter()
        .map_err(|error| wrong_type(&error, key))?
    {
        join(&mut whole, part.map_err(malformed)?);
    }
    Ok(whole)
}

fn join<'b>(whole: &mut Cow<'b, [u8]>, part: &'b [u8]) {
    if whole.is_empty() {
        *whole = Cow::Borrowed(part);
    } else {
        whole.to_mut().extend_from_slice(part);
    }
}

fn text<'b>(decoder: &mut Decoder<'b>, key: &'static str) -> Result<Cow<'b, str>, DecodeError> {
    let mut whole = Cow::Borrowed("");
    for part in decoder
        .str_iter()
        .map_err(|error| wrong_type(&error, key))?
    {
        whole += part.map_err(malformed)?;
    }
    Ok(whole)
}

/// Passes over one item with all that is in it. Ours, because the library's remembers every open level on the heap.
fn skip(decoder: &mut Decoder<'_>, depth: u32) -> Result<(), DecodeError> {
    let kind = decoder.datatype().map_err(malformed)?;
    let deeper = depth.checked_sub(1).ok_or(DecodeError::Malformed);
    if matches!(kind, Type::Array | Type::ArrayIndef) {
        let mut left = decoder.array().map_err(malformed)?;
        while more(decoder, &mut left)? {
            skip(decoder, deeper?)?;
        }
        Ok(())
    } else if matches!(kind, Type::Map | Type::MapIndef) {
        let mut left = decoder.map().map_err(malformed)?;
        while more(decoder, &mut left)? {
            skip(decoder, deeper?)?;
            skip(decoder, deeper?)?;
        }
        Ok(())
    } else if kind == Type::Tag {
        decoder.tag().map_err(malformed)?;
        skip(decoder, deeper?)
    } else if kind == Type::Break {
        Err(DecodeError::Malformed)
    } else {
        decoder.skip().map_err(malformed)
    }
}

#[cfg(test)]
mod tests;
