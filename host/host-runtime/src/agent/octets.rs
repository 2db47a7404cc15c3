//! Bytes in a trace: text where they are text, hexadecimal where not, and runs of one byte by their length.
//!
//! `["t{\"p\":\"", [65, 4096], "t\"}"]`, `["xa26166"]`: pieces in order, each `t` and text, `x` and hexadecimal, or a byte
//! and how often it comes. What is read is bounded: a run says in ten characters what would fill a memory.

use std::cell::Cell;
use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bytes of one value: a snapshot has 256 KiB, an event 128 KiB.
pub(crate) const OCTETS_MAX_BYTES: usize = 512 * 1024;

thread_local! {
    /// What is left of the room for values in this thread; a reader of many sets it.
    static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Read something whose values have at most so many bytes together.
pub(crate) fn within<R>(bytes: usize, read: impl FnOnce() -> R) -> R {
    ROOM.set(bytes);
    let result = read();
    ROOM.set(usize::MAX);
    result
}

/// Equal bytes in a row that are written as a run.
const RUN_MIN: usize = 16;

/// One piece, as it is read.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Run(u8, usize),
    Words(String),
}

/// Write bytes as pieces.
pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut pieces = serializer.serialize_seq(None)?;
    let mut rest = bytes;
    while let Some((words, run)) = next_run(rest) {
        if !words.is_empty() {
            pieces.serialize_element(&Words(words))?;
        }
        if let Some(byte) = run.first() {
            pieces.serialize_element(&(byte, run.len()))?;
        }
        rest = rest.get(words.len() + run.len()..).unwrap_or_default();
    }
    pieces.end()
}

/// Read what [`serialize`] has written.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let pieces = Vec::<Piece>::deserialize(deserializer)?;
    let mut bytes = Vec::new();
    for piece in pieces {
        let room = (OCTETS_MAX_BYTES - bytes.len()).min(ROOM.get());
        let before = bytes.len();
        match piece {
            Piece::Run(byte, count) if count <= room => {
                bytes.resize(bytes.len() + count, byte);
            }
            Piece::Words(words) if words.len() <= room => match words.split_at_checked(1) {
                Some(("t", text)) => bytes.extend_from_slice(text.as_bytes()),
                Some(("x", hex)) => unhex(hex, &mut bytes)
                    .ok_or_else(|| D::Error::custom("bytes that are not hexadecimal"))?,
                _ => {
                    return Err(D::Error::custom(
                        "a piece that is neither text nor hexadecimal",
                    ));
                }
            },
            Piece::Run(..) | Piece::Words(_) => {
                let most = OCTETS_MAX_BYTES;
                return Err(D::Error::custom(format!(
                    "a value of more than {most} bytes, or too many large ones"
                )));
            }
        }
        ROOM.set(ROOM.get() - (bytes.len() - before));
    }
    Ok(bytes)
}

fn unhex(hex: &str, out: &mut Vec<u8>) -> Option<()> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    for [high, low] in pairs {
        let byte = digit(*high)? << 4 | digit(*low)?;
        out.push(u8::try_from(byte).ok()?);
    }
    Some(())
}

/// What lies before the first run, and the run; none of no bytes.
fn next_run(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && let Some(byte) = rest.first()
    {
        let run = run_bytes(rest, *byte);
        if run >= RUN_MIN {
            return Some((bytes.get(..at)?, rest.get(..run)?));
        }
        at += run;
    }
    (!bytes.is_empty()).then_some((bytes, &[]))
}

/// How often a byte comes at the beginning. Many at once, for a block of an image is zeros here.
fn run_bytes(bytes: &[u8], byte: u8) -> usize {
    const AT_ONCE: usize = 64;
    let (pieces, _) = bytes.as_chunks::<AT_ONCE>();
    let equal = |piece: &[u8; AT_ONCE]| piece.iter().fold(true, |all, b| all & (*b == byte));
    let start = pieces.iter().take_while(|piece| equal(piece)).count() * AT_ONCE;
    let rest = bytes.get(start..).unwrap_or_default();
    start + rest.iter().take_while(|other| **other == byte).count()
}

/// Bytes that are no run.
struct Words<'b>(&'b [u8]);

impl Serialize for Words<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        /// Bytes that are spelled at once.
        const AT_ONCE: usize = 32;
        if let Ok(text) = std::str::from_utf8(self.0)
            && !text.chars().any(|c| c.is_control() && c != '\n')
        {
            f.write_str("t")?;
            return f.write_str(text);
        }
        f.write_str("x")?;
        for part in self.0.chunks(AT_ONCE) {
            let mut hex = [0; 2 * AT_ONCE];
            let (pairs, _) = hex.as_chunks_mut::<2>();
            for (pair, byte) in pairs.iter_mut().zip(part) {
                *pair = [byte >> 4, byte & 0xf].map(|digit| DIGITS[usize::from(digit)]);
            }
            let hex = hex.get(..2 * part.len()).unwrap_or_default();
            f.write_str(std::str::from_utf8(hex).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

/// A saved state with its number.
pub(crate) mod blob {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::types::Blob;

    #[derive(Serialize, Deserialize)]
    struct Twin<'b> {
        schema: u32,
        #[serde(with = "super::cow")]
        bytes: std::borrow::Cow<'b, [u8]>,
    }

    pub(crate) fn serialize<S: Serializer>(blob: &Blob, serializer: S) -> Result<S::Ok, S::Error> {
        let twin = Twin {
            schema: blob.schema,
            bytes: blob.bytes.as_slice().into(),
        };
        twin.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Blob, D::Error> {
        let twin = Twin::deserialize(deserializer)?;
        Ok(Blob {
            schema: twin.schema,
            bytes: twin.bytes.into_owned(),
        })
    }
}

mod cow {
    use std::borrow::Cow;

    use serde::{Deserializer, Serializer};

    #[expect(clippy::ptr_arg, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        bytes: &Cow<'_, [u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::serialize(bytes, serializer)
    }

    pub(super) fn deserialize<'de, 'b, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'b, [u8]>, D::Error> {
        super::deserialize(deserializer).map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Value(#[serde(with = "super")] Vec<u8>);

    fn text(bytes: &[u8]) -> String {
        serde_json::to_string(&Value(bytes.to_vec())).unwrap_or_default()
    }

    #[test]
    fn bytes_are_read_back_as_they_are_written() {
        let mut mixed = b"\xa3\x61f\x00\x61p\x59\x10\x00".to_vec();
        mixed.extend_from_slice(&[0; 4096]);
        mixed.extend_from_slice("{\"k\":\"ä\"}".as_bytes());
        for bytes in [
            &b""[..],
            b"plain",
            &[0xff; 40],
            &mixed,
            b"\x01\x02",
            &[7; 15],
        ] {
            let line = text(bytes);
            let read = serde_json::from_str::<Value>(&line).map(|value| value.0);
            assert_eq!(read.ok().as_deref(), Some(bytes), "{line}");
            assert!(line.len() < 120, "{line}");
        }
        assert_eq!(text(b"plain"), r#"["tplain"]"#);
        assert_eq!(text(b"\xff\x00"), r#"["xff00"]"#);
    }

    #[test]
    fn what_would_fill_the_memory_or_is_no_value_is_refused() {
        for line in [
            "[[0,99999999999]]",
            "[[0,524288],[0,1]]",
            r#"["x0"]"#,
            r#"["xzz"]"#,
            r#"["q"]"#,
            r#"[""]"#,
            "7",
        ] {
            assert!(serde_json::from_str::<Value>(line).is_err(), "{line}");
        }
        let whole = "[[0,524288]]";
        assert!(serde_json::from_str::<Value>(whole).is_ok());
        let two = within(600_000, || {
            let read = || serde_json::from_str::<Value>(whole).is_ok();
            (read(), read())
        });
        assert_eq!(two, (true, false));
    }
}
