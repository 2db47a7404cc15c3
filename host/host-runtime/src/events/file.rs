//! The event log on the medium: a record an event ([`frames`]), its document beside the rest.

use super::{DOCUMENT_MAX_BYTES, StoredEvent};
use crate::agent::ApplicationEvent;
use crate::frames::{self, Found};

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
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    let mut body = length.to_le_bytes().to_vec();
    body.extend_from_slice(&head);
    body.extend_from_slice(&stored.event.document);
    frames::put(&body, bytes);
}

/// All events that can be read.
pub(super) fn decode(bytes: &[u8]) -> Found<StoredEvent> {
    let body_max = 4 + HEAD_MAX_BYTES + DOCUMENT_MAX_BYTES;
    frames::read(bytes, MAGIC, body_max, decode_one)
}

fn decode_one(body: &[u8]) -> Option<StoredEvent> {
    let (head_length, body) = frames::word(body)?;
    let (head, document) = body.split_at_checked(usize::try_from(head_length).ok()?)?;
    let mut stored: StoredEvent = serde_json::from_slice(head).ok()?;
    stored.event.document = document.to_vec();
    Some(stored)
}
