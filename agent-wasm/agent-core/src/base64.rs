//! Base64 as the C agent reads the signature of a job document, with its seven ways to refuse.
//!
//! Line ends are ignored anywhere, spaces are allowed only at the end, padding may be missing but not too long.

use alloc::vec::Vec;

use crate::code::Base64Status;

/// Most `=` in an input.
const PADDING_MAX: usize = 2;

/// The alphabet, by value.
pub(crate) const SYMBOLS: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Decodes 1 to `most` bytes.
pub(crate) fn decode(input: &[u8], most: usize) -> Result<Vec<u8>, Base64Status> {
    let mut out = Vec::new();
    // Bits that have come and belong to no whole byte yet.
    let (mut bits, mut count) = (0u32, 0);
    let (mut padding, mut spaces) = (0, false);
    for byte in input {
        match *byte {
            b'\r' | b'\n' => {}
            b' ' => spaces = true,
            _ if spaces => return Err(Base64Status::InvalidSymbolOrdering),
            b'=' => {
                padding += 1;
                if padding > PADDING_MAX {
                    return Err(Base64Status::InvalidPaddingSymbol);
                }
            }
            symbol => {
                let value = value_of(symbol).ok_or(Base64Status::InvalidSymbol)?;
                if padding > 0 {
                    return Err(Base64Status::InvalidSymbolOrdering);
                }
                bits = bits << 6 | value;
                count += 6;
                if count >= 8 {
                    count -= 8;
                    if out.len() == most {
                        return Err(Base64Status::InvalidBufferSize);
                    }
                    out.push((bits >> count) as u8);
                    bits &= (1 << count) - 1;
                }
            }
        }
    }
    // Six bits that are left are a symbol alone; base64 of nothing is no data either.
    if count == 6 || out.is_empty() {
        return Err(Base64Status::InvalidInputSize);
    }
    if bits != 0 {
        return Err(Base64Status::NonZeroPadding);
    }
    Ok(out)
}

/// Not by a search in [`SYMBOLS`]: a block of a JSON stream has 170,000 of them.
fn value_of(symbol: u8) -> Option<u32> {
    let value = match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

/// Encodes, with padding.
#[cfg(test)]
pub(crate) fn encode(bytes: &[u8]) -> alloc::string::String {
    let mut text = alloc::string::String::new();
    for group in bytes.chunks(3) {
        let mut bits = 0u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let symbol = SYMBOLS[(bits >> (18 - at * 6) & 63) as usize];
            text.push(if at > group.len() {
                '='
            } else {
                char::from(symbol)
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use Base64Status::{
        InvalidBufferSize, InvalidInputSize, InvalidPaddingSymbol, InvalidSymbol,
        InvalidSymbolOrdering, NonZeroPadding,
    };

    #[test]
    fn good_inputs_of_the_c_agents_tests_decode() {
        let rows: [(&str, &[u8]); 15] = [
            ("Rk9PQg==", b"FOOB"),
            ("Rk9PQkE=", b"FOOBA"),
            ("Rk9PQkFS", b"FOOBAR"),
            ("Rk9PQg", b"FOOB"),
            ("Rk9PQkE", b"FOOBA"),
            ("\nZm\n9v\n", b"foo"),
            ("\r\nRk9P\r\nQkE=\r\n", b"FOOBA"),
            ("Rk9PQkFS ", b"FOOBAR"),
            ("Rk9PQg==  ", b"FOOB"),
            ("Rk9PQg== \n ", b"FOOB"),
            ("dHk=", b"ty"),
            ("dHJ5", b"try"),
            ("dGVzdA==", b"test"),
            ("Rk9PQg=", b"FOOB"),
            ("+/+/", &[0xfb, 0xff, 0xbf]),
        ];
        for (input, expected) in rows {
            assert_eq!(
                decode(input.as_bytes(), 64).as_deref(),
                Ok(expected),
                "{input:?}"
            );
        }
    }

    #[test]
    fn bad_inputs_of_the_c_agents_tests_are_refused_with_its_reason() {
        let rows = [
            ("Zg===", InvalidPaddingSymbol),
            ("Rk9PQkE===", InvalidPaddingSymbol),
            ("Rk9PQkFS===", InvalidPaddingSymbol),
            ("===", InvalidPaddingSymbol),
            ("TWG=", NonZeroPadding),
            ("Tf==", NonZeroPadding),
            ("dHJ", NonZeroPadding),
            (" Rk9PQkFS", InvalidSymbolOrdering),
            ("Rk9P QkFS", InvalidSymbolOrdering),
            ("Rk9PQg ==", InvalidSymbolOrdering),
            (" \n=", InvalidSymbolOrdering),
            (" A", InvalidSymbolOrdering),
            ("=A", InvalidSymbolOrdering),
            ("=Rk9PQkFS", InvalidSymbolOrdering),
            ("Rk9P=QkFS", InvalidSymbolOrdering),
            ("", InvalidInputSize),
            ("R", InvalidInputSize),
            ("Rk9PC==", InvalidInputSize),
            ("-----BEGIN CERTIFICATE-----", InvalidSymbol),
        ];
        for (input, status) in rows {
            assert_eq!(decode(input.as_bytes(), 64), Err(status), "{input:?}");
        }
    }

    #[test]
    fn every_other_byte_is_no_symbol() {
        for byte in 0..=u8::MAX {
            let known = value_of(byte).is_some() || b"=\r\n ".contains(&byte);
            if !known {
                assert_eq!(
                    decode(&[byte, b'A', b'A', b'A'], 64),
                    Err(InvalidSymbol),
                    "{byte:#x}"
                );
            }
        }
    }

    #[test]
    fn output_may_be_as_long_as_the_limit_and_not_one_byte_longer() {
        assert_eq!(decode(b"Rk9PQkFSQkFa", 9).as_deref(), Ok(&b"FOOBARBAZ"[..]));
        assert_eq!(decode(b"Rk9PQkFSQkFa", 8), Err(InvalidBufferSize));
        assert_eq!(decode(b"Rk9PQkE=", 4), Err(InvalidBufferSize));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(input in any::<Vec<u8>>(), most in 0usize..64) {
            if let Ok(out) = decode(&input, most) {
                prop_assert!(out.len() <= most);
            }
        }

        #[test]
        fn what_was_encoded_comes_back(bytes in prop::collection::vec(any::<u8>(), 1..100)) {
            let text = encode(&bytes);
            prop_assert_eq!(decode(text.as_bytes(), bytes.len()), Ok(bytes));
        }
    }
}
