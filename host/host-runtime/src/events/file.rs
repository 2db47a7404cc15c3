//! The event log on the medium: a magic number, then records of length, CRC-32C and body.

use super::{DOCUMENT_MAX_BYTES, StoredEvent};
use crate::agent::ApplicationEvent;

/// First bytes of the file; another layout gets another number.
const MAGIC: &[u8; 8] = b"OTADEVT1";

/// Length and checksum of a record.
const FRAME_BYTES: usize = 8;

/// Everything of an event but its document: two names of 64 bytes, a failure of 256 (six times that when every
/// character is escaped), numbers.
const HEAD_MAX_BYTES: usize = 4096;

/// Bytes that an event takes, near enough for a bound.
pub(super) fn size(event: &StoredEvent) -> usize {
    FRAME_BYTES + 256 + event.event.document.len()
}

/// A whole file.
pub(super) fn encode_all<'a>(events: impl Iterator<Item = &'a StoredEvent>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    events.for_each(|event| encode_one(event, &mut bytes));
    bytes
}

/// Records to append.
pub(super) fn encode<'a>(events: impl Iterator<Item = &'a StoredEvent>) -> Vec<u8> {
    let mut bytes = Vec::new();
    events.for_each(|event| encode_one(event, &mut bytes));
    bytes
}

fn encode_one(stored: &StoredEvent, bytes: &mut Vec<u8>) {
    // The document goes beside the text: it may be any bytes.
    let head = StoredEvent {
        at_s: stored.at_s,
        event: ApplicationEvent {
            document: Vec::new(),
            ..stored.event.clone()
        },
    };
    // Nothing in it can fail to serialize; an empty head would be skipped as damage by the reader.
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let word = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut body = word(head.len()).to_vec();
    body.extend_from_slice(&head);
    body.extend_from_slice(&stored.event.document);
    bytes.extend_from_slice(&word(body.len()));
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
}

/// All events up to the first damage, and whether there was none.
pub(super) fn decode(bytes: &[u8]) -> (Vec<StoredEvent>, bool) {
    let mut events = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return (events, false);
    };
    while !rest.is_empty() {
        let Some((event, after)) = decode_one(rest) else {
            return (events, false);
        };
        events.push(event);
        rest = after;
    }
    (events, true)
}

fn decode_one(bytes: &[u8]) -> Option<(StoredEvent, &[u8])> {
    let (length, rest) = word(bytes)?;
    let (crc, rest) = word(rest)?;
    let length = usize::try_from(length).ok()?;
    if length > 4 + HEAD_MAX_BYTES + DOCUMENT_MAX_BYTES {
        return None;
    }
    let (body, rest) = rest.split_at_checked(length)?;
    if crc32c::crc32c(body) != crc {
        return None;
    }
    let (head_length, body) = word(body)?;
    let (head, document) = body.split_at_checked(usize::try_from(head_length).ok()?)?;
    let mut stored: StoredEvent = serde_json::from_slice(head).ok()?;
    stored.event.document = document.to_vec();
    Some((stored, rest))
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}
