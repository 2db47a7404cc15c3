//! Base64 as console framing has it: the standard alphabet, padded, one line at a time. No other alphabet, no white space.

use alloc::vec::Vec;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the text of `bytes`, padded to a multiple of 4.
pub(crate) fn encode(bytes: &[u8], text: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) & 0x3f;
            let digit = ALPHABET.get(digit as usize).copied().unwrap_or(b'=');
            // Two digits carry one byte, three carry two.
            text.push(if place <= group.len() { digit } else { b'=' });
        }
    }
}

/// Appends the bytes of `text`; false where it is no padded base64. Bits beyond the last byte are not looked at: servers
/// do not either.
pub(crate) fn decode(text: &[u8], bytes: &mut Vec<u8>) -> bool {
    if !text.len().is_multiple_of(4) {
        return false;
    }
    let padding = text.iter().rev().take_while(|c| **c == b'=').count();
    if padding > 2 {
        return false;
    }
    let digits = text.get(..text.len() - padding).unwrap_or_default();
    for group in digits.chunks(4) {
        let mut word = 0_u32;
        for place in 0..4 {
            let digit = match group.get(place) {
                Some(c) => match value(*c) {
                    Some(digit) => digit,
                    None => return false,
                },
                None => 0,
            };
            word = word << 6 | u32::from(digit);
        }
        let whole = word.to_be_bytes();
        bytes.extend(whole.iter().skip(1).take(group.len().saturating_sub(1)));
    }
    true
}

const fn value(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::{decode, encode};

    #[test]
    fn the_standard_vectors_go_both_ways() {
        let rows: &[(&[u8], &[u8])] = &[
            (b"", b""),
            (b"f", b"Zg=="),
            (b"fo", b"Zm8="),
            (b"foo", b"Zm9v"),
            (b"foob", b"Zm9vYg=="),
            (b"fooba", b"Zm9vYmE="),
            (b"foobar", b"Zm9vYmFy"),
            (&[0xfb, 0xff], b"+/8="),
        ];
        for (bytes, text) in rows {
            let mut written = Vec::new();
            encode(bytes, &mut written);
            assert_eq!(written, *text);
            let mut read = Vec::new();
            assert!(decode(text, &mut read));
            assert_eq!(read, *bytes);
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in [
            &b"Zg="[..],
            b"Z",
            b"====",
            b"Z===",
            b"Zg==Zg==",
            b"Zm 9",
            b"Zm9-",
        ] {
            assert!(!decode(text, &mut Vec::new()), "{text:?}");
        }
    }
}
