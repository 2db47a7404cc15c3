//! The messages of a file stream in CBOR and in JSON.
//!
//! Maps and strings of definite and indefinite length are read; what is not known is skipped.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::base64;
use crate::cbor::{self, CborError, Major, Reader};
use crate::code::StreamErr;
use crate::document::number;
use crate::jobs::{Encoding, shown};
use crate::json;
use crate::text::{push_decimal, push_hex, utf8};

use super::BLOCK_SIZE_MAX;

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
    /// `c`: the request's token, as it came; empty if there is none, or no text.
    pub token: Cow<'a, [u8]>,
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
    /// The request's token, at most 256 bytes; empty if there is none.
    pub token: String,
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

/// A member that is looked for in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// `f` of a block.
    FileId,
    /// `i` of a block.
    Index,
    /// `l` of a block.
    Size,
    /// `p` of a block.
    Payload,
    /// `o` of a refusal.
    Code,
    /// `m` of a refusal.
    Message,
    /// `c` of a block or a refusal.
    Token,
    /// `code` of a refusal.
    LongCode,
    /// `message` of a refusal.
    LongMessage,
    /// `clientToken` of a refusal.
    LongToken,
}

impl Member {
    const ALL: [Self; 10] = [
        Self::FileId,
        Self::Index,
        Self::Size,
        Self::Payload,
        Self::Code,
        Self::Message,
        Self::Token,
        Self::LongCode,
        Self::LongMessage,
        Self::LongToken,
    ];

    /// How many of them have a key of one byte; those come first.
    const SHORT: usize = Self::Token as usize + 1;

    /// Its key.
    #[must_use]
    pub const fn key(self) -> &'static str {
        KEYS[self as usize]
    }

    /// The same, for the table.
    const fn named(self) -> &'static str {
        match self {
            Self::FileId => "f",
            Self::Index => "i",
            Self::Size => "l",
            Self::Payload => "p",
            Self::Code => "o",
            Self::Message => "m",
            Self::Token => "c",
            Self::LongCode => "code",
            Self::LongMessage => "message",
            Self::LongToken => "clientToken",
        }
    }
}

/// In the order of the members.
const KEYS: [&str; Member::ALL.len()] = {
    let mut keys = [""; Member::ALL.len()];
    let mut at = 0;
    while at < keys.len() {
        let member = Member::ALL[at];
        assert!(member as usize == at, "the list is in the members' order");
        keys[at] = member.named();
        at += 1;
    }
    keys
};

const SHORT_KEYS: &[u8] = &{
    let mut keys = [0; Member::SHORT];
    let mut at = 0;
    while at < KEYS.len() {
        let key = KEYS[at].as_bytes();
        assert!(
            (key.len() == 1) == (at < keys.len()),
            "short ones come first"
        );
        if at < keys.len() {
            keys[at] = key[0];
        }
        at += 1;
    }
    keys
};

/// Members, a bit for each.
type Members = u32;

const fn members(list: &[Member]) -> Members {
    let mut bits = 0;
    let mut at = 0;
    while at < list.len() {
        bits |= 1 << list[at] as u32;
        at += 1;
    }
    bits
}

const MUST_OF_BLOCK: Members =
    members(&[Member::FileId, Member::Index, Member::Size, Member::Payload]);
const OF_BLOCK: Members = MUST_OF_BLOCK | members(&[Member::Token]);
/// By short and by long names. Both may be there.
const OF_REFUSAL: Members = members(&[
    Member::Code,
    Member::Message,
    Member::Token,
    Member::LongCode,
    Member::LongMessage,
    Member::LongToken,
]);

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
    WrongType(Member),
    /// A member stands twice.
    Duplicate(Member),
    /// A member is missing.
    Missing(Member),
}

impl From<CborError> for DecodeError {
    fn from(_: CborError) -> Self {
        Self::Malformed
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, what) = match self {
            Self::Malformed => ("the message", "cannot be decoded"),
            Self::TrailingBytes => ("the message", "is followed by something"),
            Self::NotAMap => ("the message", "is not a map"),
            Self::WrongType(member) => (member.key(), "has the wrong type"),
            Self::Duplicate(member) => (member.key(), "stands twice"),
            Self::Missing(member) => (member.key(), "is missing"),
        };
        write!(f, "{key} {what}")
    }
}

impl core::error::Error for DecodeError {}

/// Writes a request.
#[must_use]
pub fn encode_get(encoding: Encoding, request: &GetRequest<'_>) -> Vec<u8> {
    match encoding {
        Encoding::Cbor => get_map(request),
        Encoding::Json => get_object(request),
    }
}

/// A map of exactly `c`, `f`, `l`, `o`, `b`, `n` in this order, integers as short as they can be, as the C agent does.
fn get_map(request: &GetRequest<'_>) -> Vec<u8> {
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

/// The bitmap is a text of `0x` and two digits a byte. The token is of characters that JSON takes as they are.
fn get_object(request: &GetRequest<'_>) -> Vec<u8> {
    let mut out = String::from("{\"c\":\"");
    out.push_str(request.token);
    for (key, value) in [
        ("\",\"f\":", request.file_id),
        (",\"l\":", request.block_size),
        (",\"o\":", request.offset),
        (",\"n\":", request.count),
    ] {
        out.push_str(key);
        push_decimal(&mut out, value.into());
    }
    out.push_str(",\"b\":\"0x");
    for byte in request.bitmap {
        push_hex(&mut out, u32::from(*byte), 2);
    }
    out.push_str("\"}");
    out.into_bytes()
}

/// Reads a block message. In JSON its payload is base64, and a number may stand in quotes, as in a job document.
///
/// # Errors
/// [`DecodeError`]; drop the message.
pub fn decode_data(encoding: Encoding, message: &[u8]) -> Result<DataMessage<'_>, DecodeError> {
    let mut data = DataMessage {
        file_id: 0,
        index: 0,
        size: 0,
        payload: Cow::Borrowed(&[]),
        token: Cow::Borrowed(&[]),
    };
    let seen = match encoding {
        Encoding::Cbor => read_data(message, &mut data)?,
        Encoding::Json => read_data_object(message, &mut data)?,
    };
    let missing = (MUST_OF_BLOCK & !seen.bits).trailing_zeros();
    match Member::ALL.get(missing as usize) {
        Some(member) => Err(DecodeError::Missing(*member)),
        None => Ok(data),
    }
}

// Apart from its caller, like the two below: each way out of that would drop what has been read.
fn read_data<'m>(message: &'m [u8], data: &mut DataMessage<'m>) -> Result<Seen, DecodeError> {
    let mut map = Map::open(message, OF_BLOCK)?;
    while let Some(member) = map.next_member()? {
        if member == Member::Payload {
            map.expect(member, Major::Bytes)?;
            data.payload = map.reader.bytes()?;
        } else if member != Member::Token {
            map.expect(member, Major::Unsigned)?;
            data.keep(member, map.reader.unsigned()?);
        } else if map.reader.peek() == Some(Major::Text) {
            data.token = map.reader.string(Major::Text)?;
        } else {
            // The C agent looks at no token, whatever it is.
            map.reader.skip()?;
        }
    }
    Ok(map.seen)
}

fn read_data_object<'m>(
    message: &'m [u8],
    data: &mut DataMessage<'m>,
) -> Result<Seen, DecodeError> {
    walk_object(message, OF_BLOCK, |member, value| {
        let wrong = DecodeError::WrongType(member);
        if member == Member::Payload {
            let text = value.text().ok_or(wrong)?;
            let bytes = base64::decode(text.as_bytes(), BLOCK_SIZE_MAX as usize);
            data.payload = Cow::Owned(bytes.map_err(|_| wrong)?);
        } else if member == Member::Token {
            data.token = Cow::Owned(value.text().unwrap_or_default().into_bytes());
        } else {
            let number = number(value).map_err(|_| wrong)?;
            data.keep(member, number);
        }
        Ok(())
    })
}

impl DataMessage<'_> {
    fn keep(&mut self, member: Member, number: u64) {
        if member == Member::FileId {
            self.file_id = number;
        } else if member == Member::Index {
            self.index = number;
        } else {
            self.size = number;
        }
    }
}

/// Reads a refusal, with short or long member names; the short ones count.
///
/// # Errors
/// [`DecodeError`]; drop the message.
pub fn decode_rejected(encoding: Encoding, message: &[u8]) -> Result<Rejection, DecodeError> {
    let mut rejection = Rejection {
        code: StreamErr::Unknown,
        code_text: String::new(),
        message: String::new(),
        token: String::new(),
    };
    let seen = match encoding {
        Encoding::Cbor => read_map(message, &mut rejection)?,
        Encoding::Json => read_object(message, &mut rejection)?,
    };
    if !seen.has(Member::Code) && !seen.has(Member::LongCode) {
        return Err(DecodeError::Missing(Member::Code));
    }
    if let Some(code) = StreamErr::from_name(&rejection.code_text) {
        rejection.code = code;
    }
    Ok(rejection)
}

fn read_map(message: &[u8], rejection: &mut Rejection) -> Result<Seen, DecodeError> {
    let mut map = Map::open(message, OF_REFUSAL)?;
    while let Some(member) = map.next_member()? {
        map.expect(member, Major::Text)?;
        rejection.keep(member, &map.reader.text()?);
    }
    Ok(map.seen)
}

fn read_object(message: &[u8], rejection: &mut Rejection) -> Result<Seen, DecodeError> {
    walk_object(message, OF_REFUSAL, |member, value| {
        let text = value.text().ok_or(DecodeError::WrongType(member))?;
        rejection.keep(member, &text);
        Ok(())
    })
}

/// Shows the members of a JSON object that are looked for.
fn walk_object(
    message: &[u8],
    members: Members,
    mut show: impl FnMut(Member, json::Value<'_>) -> Result<(), DecodeError>,
) -> Result<Seen, DecodeError> {
    let text = utf8(message).map_err(|_| CborError)?;
    let object = json::parse(text).map_err(|_| CborError)?;
    if object.first() != b'{' {
        return Err(DecodeError::NotAMap);
    }
    let mut seen = Seen::new(members);
    for (key, value) in object.walk() {
        if let Some(member) = seen.see(key.text().unwrap_or_default().as_bytes())? {
            show(member, value)?;
        }
    }
    Ok(seen)
}

impl Rejection {
    /// Keeps a text; that of a long name only if there is no other.
    #[inline(never)]
    fn keep(&mut self, member: Member, text: &str) {
        let place = if matches!(member, Member::Code | Member::LongCode) {
            &mut self.code_text
        } else if matches!(member, Member::Message | Member::LongMessage) {
            &mut self.message
        } else {
            &mut self.token
        };
        if member < Member::LongCode || place.is_empty() {
            *place = shown(text);
        }
    }
}

/// The members of a message that are looked for, and which were seen.
struct Seen {
    wanted: Members,
    bits: Members,
}

impl Seen {
    const fn new(wanted: Members) -> Self {
        Self { wanted, bits: 0 }
    }

    const fn has(&self, member: Member) -> bool {
        self.bits >> member as u32 & 1 != 0
    }

    /// Notes a key; the member if it is looked for.
    fn see(&mut self, key: &[u8]) -> Result<Option<Member>, DecodeError> {
        let place = match key {
            [byte] => SHORT_KEYS.iter().position(|short| short == byte),
            _ => KEYS.iter().position(|long| long.as_bytes() == key),
        };
        let Some(member) = place.and_then(|place| Member::ALL.get(place).copied()) else {
            return Ok(None);
        };
        let bit = 1 << member as u32;
        if self.wanted & bit == 0 {
            return Ok(None);
        }
        if self.bits & bit != 0 {
            return Err(DecodeError::Duplicate(member));
        }
        self.bits |= bit;
        Ok(Some(member))
    }
}

/// The one map that a message is.
struct Map<'b> {
    reader: Reader<'b>,
    left: cbor::Left,
    seen: Seen,
}

impl<'b> Map<'b> {
    fn open(message: &'b [u8], members: Members) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        if reader.peek().is_some_and(|major| major != Major::Map) {
            return Err(DecodeError::NotAMap);
        }
        Ok(Self {
            left: reader.enter(Major::Map)?,
            reader,
            seen: Seen::new(members),
        })
    }

    /// The next member that is looked for; its value comes next in the reader. Others are skipped; one whose key is no
    /// text is nobody's that we know.
    fn next_member(&mut self) -> Result<Option<Member>, DecodeError> {
        while self.reader.more(&mut self.left) {
            if self.reader.peek() == Some(Major::Text) {
                let key = self.reader.string(Major::Text)?;
                let member = self.seen.see(&key)?;
                if member.is_some() {
                    return Ok(member);
                }
                utf8(&key).map_err(|_| CborError)?;
            } else {
                self.reader.skip()?;
            }
            self.reader.skip()?;
        }
        if self.reader.is_empty() {
            Ok(None)
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    fn expect(&self, member: Member, major: Major) -> Result<(), DecodeError> {
        match self.reader.peek() {
            Some(found) if found != major => Err(DecodeError::WrongType(member)),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
