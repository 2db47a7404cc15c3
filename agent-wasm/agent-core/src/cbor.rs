//! CBOR (RFC 8949), as much as file streams and saved state need: unsigned integers, texts, byte strings, arrays, maps,
//! in definite and indefinite length. Everything else can be skipped, nothing else can be written.
//!
//! Our own, because of the size of the guest: with the library's decoder the stream messages alone cost 12 KiB of
//! code, with this one 3 (README of the crate). Tests hold it against the library.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::text::utf8;

/// Most levels of arrays, maps and tags in an item that is skipped.
pub(crate) const SKIP_DEPTH_MAX: u32 = 16;

/// What an item is (RFC 8949 section 3.1), the top three bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Major {
    /// An unsigned integer.
    Unsigned,
    /// A negative integer.
    Negative,
    /// A byte string.
    Bytes,
    /// A text.
    Text,
    /// An array.
    Array,
    /// A map.
    Map,
    /// A tag.
    Tag,
    /// A simple value, a floating-point number, or a break.
    Other,
}

/// An item that is not CBOR, cut short, nested deeper than [`SKIP_DEPTH_MAX`], or of another type than wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CborError;

/// How many items of an array or pairs of a map are left; none = until a break.
pub(crate) struct Left(Option<u64>);

impl Left {
    /// That many, if it was said at the head.
    pub(crate) const fn count(&self) -> Option<u64> {
        self.0
    }
}

/// Reads items one after the other.
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    /// Begins at the first byte.
    pub(crate) const fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    /// Whether nothing is left.
    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that are left.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What the next item is.
    pub(crate) fn peek(&self) -> Option<Major> {
        self.bytes.first().map(|first| major_of(*first))
    }

    /// An unsigned integer.
    pub(crate) fn unsigned(&mut self) -> Result<u64, CborError> {
        self.head(Major::Unsigned)?.ok_or(CborError)
    }

    /// A byte string, borrowed if it comes in one piece.
    pub(crate) fn bytes(&mut self) -> Result<Cow<'b, [u8]>, CborError> {
        self.string(Major::Bytes)
    }

    /// A text.
    pub(crate) fn text(&mut self) -> Result<String, CborError> {
        let bytes = self.string(Major::Text)?;
        utf8(&bytes).map(String::from).map_err(|_| CborError)
    }

    /// Enters an array or a map.
    pub(crate) fn enter(&mut self, major: Major) -> Result<Left, CborError> {
        self.head(major).map(Left)
    }

    /// Whether what was entered has another item or pair; leaves it if not.
    pub(crate) fn more(&mut self, left: &mut Left) -> bool {
        match &mut left.0 {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => !self.take_break(),
        }
    }

    /// Passes over one item with all that is in it.
    pub(crate) fn skip(&mut self) -> Result<(), CborError> {
        self.skip_to(SKIP_DEPTH_MAX)
    }

    fn skip_to(&mut self, depth: u32) -> Result<(), CborError> {
        let major = self.peek().ok_or(CborError)?;
        let items = match major {
            Major::Bytes | Major::Text => return self.string(major).map(drop),
            // A break is no item.
            Major::Unsigned | Major::Negative | Major::Other => {
                return self.head(major)?.map(drop).ok_or(CborError);
            }
            Major::Array | Major::Tag => 1,
            Major::Map => 2,
        };
        let mut left = self.enter(major)?;
        if major == Major::Tag {
            left = Left(Some(1));
        }
        while self.more(&mut left) {
            let deeper = depth.checked_sub(1).ok_or(CborError)?;
            for _ in 0..items {
                self.skip_to(deeper)?;
            }
        }
        Ok(())
    }

    /// A byte string or a text.
    pub(crate) fn string(&mut self, major: Major) -> Result<Cow<'b, [u8]>, CborError> {
        if let Some(length) = self.head(major)? {
            return self.take(length).map(Cow::Borrowed);
        }
        let mut whole = Vec::new();
        while !self.take_break() {
            // A piece has a length and the type of the whole.
            let length = self.head(major)?.ok_or(CborError)?;
            whole.extend_from_slice(self.take(length)?);
        }
        Ok(Cow::Owned(whole))
    }

    fn take_break(&mut self) -> bool {
        let rest = self.bytes.strip_prefix(&[BREAK]);
        self.bytes = rest.unwrap_or(self.bytes);
        rest.is_some()
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], CborError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(CborError)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// The first part of an item of this type. Where the number counts what follows, none means: until a break.
    fn head(&mut self, major: Major) -> Result<Option<u64>, CborError> {
        let first = self.take(1)?.first().copied().unwrap_or(BREAK);
        if major_of(first) != major {
            return Err(CborError);
        }
        match first & 0x1f {
            small @ 0..=23 => Ok(Some(small.into())),
            length @ 24..=27 => {
                let mut value = 0;
                for byte in self.take(1 << (length - 24))? {
                    value = value << 8 | u64::from(*byte);
                }
                Ok(Some(value))
            }
            // Integers and tags have no indefinite length, three lengths are reserved.
            31 if !matches!(major, Major::Unsigned | Major::Negative | Major::Tag) => Ok(None),
            _ => Err(CborError),
        }
    }
}

const BREAK: u8 = 0xff;

const fn major_of(first: u8) -> Major {
    match first >> 5 {
        0 => Major::Unsigned,
        1 => Major::Negative,
        2 => Major::Bytes,
        3 => Major::Text,
        4 => Major::Array,
        5 => Major::Map,
        6 => Major::Tag,
        _ => Major::Other,
    }
}

/// Pushes an unsigned integer, as short as it can be.
pub(crate) fn push_unsigned(out: &mut Vec<u8>, value: u64) {
    push_head(out, 0, value);
}

/// Pushes a byte string.
pub(crate) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_head(out, 2, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Pushes a text.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_head(out, 3, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Pushes the head of an array; so many items must follow.
pub(crate) fn push_array(out: &mut Vec<u8>, items: u64) {
    push_head(out, 4, items);
}

/// Pushes the head of a map; so many pairs must follow.
pub(crate) fn push_map(out: &mut Vec<u8>, pairs: u64) {
    push_head(out, 5, pairs);
}

fn push_head(out: &mut Vec<u8>, major: u8, value: u64) {
    // Most are as small as that.
    let (info, bytes) = if value < 24 {
        (value as u8, 0)
    } else {
        let more_than = |max: u64| u8::from(value > max);
        let power = more_than(0xff) + more_than(0xffff) + more_than(0xffff_ffff);
        (24 + power, 1 << power)
    };
    out.push(major << 5 | info);
    for at in (0..bytes).rev() {
        out.push((value >> (at * 8)) as u8);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skips(bytes: &[u8]) -> bool {
        let mut reader = Reader::new(bytes);
        reader.skip().is_ok() && reader.is_empty()
    }

    #[test]
    fn items_of_every_kind_are_skipped_whole() {
        let rows: [&[u8]; 16] = [
            &[0x17],
            &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0x38, 0xff],
            &[0x41, 0x00],
            &[0x5f, 0x41, 0x00, 0x40, 0xff],
            &[0x61, b'a'],
            &[0x7f, 0xff],
            &[0x82, 0x01, 0x02],
            &[0x9f, 0x01, 0x80, 0xff],
            &[0xa1, 0x01, 0xa0],
            &[0xbf, 0x61, b'a', 0xf6, 0xff],
            &[0xc1, 0x1a, 0, 0, 0, 0],
            &[0xf4],
            &[0xf8, 0x20],
            &[0xf9, 0, 0],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for bytes in rows {
            assert!(skips(bytes), "{bytes:02x?}");
            for cut in 0..bytes.len() {
                assert!(!skips(&bytes[..cut]), "{:02x?}", &bytes[..cut]);
            }
        }
    }

    #[test]
    fn what_is_no_item_is_not_skipped() {
        let rows: [&[u8]; 9] = [
            &[0xff],
            &[0x1c],
            &[0x1f],
            &[0x3f],
            &[0xdf, 0x00],
            &[0x5f, 0x61, b'a', 0xff],
            &[0x5f, 0x5f, 0xff, 0xff],
            &[0x81, 0xff],
            &[0xbf, 0x01, 0xff],
        ];
        for bytes in rows {
            assert!(!skips(bytes), "{bytes:02x?}");
        }
    }

    #[test]
    fn nesting_is_skipped_down_to_its_limit_and_not_one_level_deeper() {
        for open in [0x81, 0x9f, 0xc1] {
            let nest = |levels: usize| {
                let mut bytes = alloc::vec![open; levels];
                bytes.push(0);
                if open == 0x9f {
                    bytes.extend(alloc::vec![BREAK; levels]);
                }
                bytes
            };
            let most = SKIP_DEPTH_MAX as usize;
            assert!(skips(&nest(most)) && !skips(&nest(most + 1)) && !skips(&nest(100_000)));
        }
    }

    proptest! {
        #[test]
        fn it_reads_integers_and_strings_as_the_library_does(bytes in any::<Vec<u8>>(), lead: u8) {
            // A likely first byte, so that not every row is refused at once.
            let bytes = [&[lead & 0x78][..], &bytes].concat();
            let mut library = minicbor::Decoder::new(&bytes);
            prop_assert_eq!(Reader::new(&bytes).unsigned().ok(), library.u64().ok());
            let mut library = minicbor::Decoder::new(&bytes);
            let parts: Option<Vec<&[u8]>> =
                library.bytes_iter().ok().and_then(|parts| parts.collect::<Result<_, _>>().ok());
            let whole = parts.map(|parts| parts.concat());
            prop_assert_eq!(Reader::new(&bytes).bytes().ok().map(Cow::into_owned), whole);
            let mut library = minicbor::Decoder::new(&bytes);
            if let Ok(text) = library.str() {
                let read = Reader::new(&bytes).text();
                prop_assert_eq!(read.as_deref(), Ok(text));
            }
        }

        #[test]
        fn it_writes_as_the_library_does(number: u64, bytes: Vec<u8>, text: String) {
            let mut out = Vec::new();
            push_map(&mut out, 1);
            push_unsigned(&mut out, number);
            push_bytes(&mut out, &bytes);
            push_text(&mut out, &text);
            let mut library = minicbor::Encoder::new(Vec::new());
            library.map(1).unwrap().u64(number).unwrap().bytes(&bytes).unwrap().str(&text).unwrap();
            prop_assert_eq!(out, library.into_writer());
        }

        #[test]
        fn any_bytes_are_skipped_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            if reader.skip().is_ok() {
                prop_assert!(reader.bytes.len() < bytes.len());
            }
        }
    }
}
