//! Reads stream requests in CBOR and JSON into one form.
//!
//! Only the shape is judged here (types, text, nothing behind the end); ranges are `stream_api`'s.

use minicbor::{Decoder, data::Type};
use serde_json::Value;

/// Members a request may have at most. The protocol knows six; the rest is room for what it may know later.
const MEMBERS_MAX: u64 = 64;

/// The members of a `GetStream` or `DescribeStream` request. Numbers are signed so that a negative one can be refused by
/// the code of its own range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamRequest {
    /// `c`
    pub(super) token: Option<String>,
    /// `s`
    pub(super) version: Option<i64>,
    /// `f`
    pub(super) file: Option<i64>,
    /// `l`
    pub(super) block_size: Option<i64>,
    /// `o`
    pub(super) offset: Option<i64>,
    /// `n`
    pub(super) count: Option<i64>,
    /// `b`
    pub(super) bitmap: Option<Vec<u8>>,
}

/// The request is not what its encoding promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undecodable;

impl From<minicbor::decode::Error> for Undecodable {
    fn from(_: minicbor::decode::Error) -> Self {
        // The service says no more than this either.
        Self
    }
}

/// Reads a CBOR request: one map, of definite or indefinite length, and nothing behind it.
pub(super) fn from_cbor(payload: &[u8]) -> Result<StreamRequest, Undecodable> {
    let mut decoder = Decoder::new(payload);
    let mut request = StreamRequest::default();
    let length = decoder.map()?;
    let mut members = 0;
    loop {
        match length {
            Some(length) if members == length => break,
            Some(_) => {}
            None if decoder.datatype()? == Type::Break => {
                // The break is one byte, and what was read so far lies before it.
                decoder.set_position(decoder.position() + 1);
                break;
            }
            None => {}
        }
        if members == MEMBERS_MAX {
            return Err(Undecodable);
        }
        members += 1;
        member(&mut decoder, &mut request)?;
    }
    if decoder.position() == payload.len() {
        Ok(request)
    } else {
        Err(Undecodable)
    }
}

fn member(decoder: &mut Decoder<'_>, request: &mut StreamRequest) -> Result<(), Undecodable> {
    match decoder.str()? {
        "c" => {
            let token = decoder.str()?;
            once(&mut request.token, token.to_owned())
        }
        "s" => once(&mut request.version, integer(decoder)?),
        "f" => once(&mut request.file, integer(decoder)?),
        "l" => once(&mut request.block_size, integer(decoder)?),
        "o" => once(&mut request.offset, integer(decoder)?),
        "n" => once(&mut request.count, integer(decoder)?),
        "b" => {
            let mut bitmap = Vec::new();
            for part in decoder.bytes_iter()? {
                bitmap.extend_from_slice(part?);
            }
            once(&mut request.bitmap, bitmap)
        }
        _ => Ok(decoder.skip()?),
    }
}

/// A key that stands twice makes the map invalid.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Undecodable> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Undecodable),
    }
}

fn integer(decoder: &mut Decoder<'_>) -> Result<i64, Undecodable> {
    let wide = i128::from(decoder.int()?);
    Ok(clamp(wide))
}

fn clamp(wide: i128) -> i64 {
    match i64::try_from(wide) {
        Ok(number) => number,
        Err(_) if wide < 0 => i64::MIN,
        Err(_) => i64::MAX,
    }
}

/// Reads a JSON request: one object.
pub(super) fn from_json(payload: &[u8]) -> Result<StreamRequest, Undecodable> {
    let Ok(Value::Object(map)) = serde_json::from_slice(payload) else {
        return Err(Undecodable);
    };
    let number = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let wide = number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from));
            wide.map(clamp).map(Some).ok_or(Undecodable)
        }
        Some(_) => Err(Undecodable),
    };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Undecodable),
    };
    Ok(StreamRequest {
        token: text("c")?.map(str::to_owned),
        version: number("s")?,
        file: number("f")?,
        block_size: number("l")?,
        offset: number("o")?,
        count: number("n")?,
        bitmap: text("b")?.map(from_hex).transpose()?,
    })
}

/// `"0x130080"` is the bytes 13 00 80.
fn from_hex(text: &str) -> Result<Vec<u8>, Undecodable> {
    let digits = text.strip_prefix("0x").ok_or(Undecodable)?.as_bytes();
    if digits.len() % 2 != 0 {
        return Err(Undecodable);
    }
    let digit = |b: u8| match char::from(b).to_digit(16) {
        // A hexadecimal digit is below 16.
        Some(d) => Ok(d as u8),
        None => Err(Undecodable),
    };
    digits
        .chunks_exact(2)
        .map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        from_hex(&format!("0x{}", hex.replace(' ', ""))).unwrap()
    }

    #[test]
    fn the_request_of_the_c_agent_is_read() {
        let recorded = bytes("a6 6163 63726479 6166 00 616c 190400 616f 00 6162 4107 616e 01");
        assert_eq!(
            from_cbor(&recorded),
            Ok(StreamRequest {
                token: Some("rdy".to_owned()),
                version: None,
                file: Some(0),
                block_size: Some(1024),
                offset: Some(0),
                count: Some(1),
                bitmap: Some(vec![7]),
            })
        );
    }

    #[test]
    fn the_upstream_unit_test_vector_is_read() {
        let vector = bytes(
            "a6 6163 72 5468697349734143 6c69656e74546f6b656e 6166 01 616c 191000 616f 00 \
             6162 44 aaaaaaaa 616e 05",
        );
        let request = from_cbor(&vector).unwrap();
        assert_eq!(request.token.as_deref(), Some("ThisIsAClientToken"));
        assert_eq!(request.block_size, Some(4096));
        assert_eq!(request.bitmap, Some(vec![0xaa; 4]));
        assert_eq!(request.count, Some(5));
    }

    #[test]
    fn a_map_of_indefinite_length_and_unknown_members_are_read() {
        // {_ "f": 3, "x": [1, {"y": null}], "b": (_ h'01', h'02')}
        let indefinite = bytes("bf 6166 03 6178 82 01 a1 6179 f6 6162 5f 4101 4102 ff ff");
        let request = from_cbor(&indefinite).unwrap();
        assert_eq!(request.file, Some(3));
        assert_eq!(request.bitmap, Some(vec![1, 2]));
    }

    #[test]
    fn what_is_not_one_map_with_the_right_types_is_undecodable() {
        let rows = [
            "",
            "80",                         // an array
            "a1 6166",                    // cut
            "a1 6166 6130",               // f as text
            "a1 6162 6130",               // b as text
            "a1 6163 01",                 // c as number
            "a2 6166 01 6166 02",         // f twice
            "a1 01 02",                   // a key that is no text
            "a0 00",                      // something behind the map
            "bf 6166 01",                 // no break
            "a1 6166 f97e00",             // f as float
            "bb ffffffffffffffff",        // length beyond everything
            "a1 6162 5bffffffffffffffff", // bytes beyond everything
        ];
        for row in rows {
            assert_eq!(from_cbor(&bytes(row)), Err(Undecodable), "{row}");
        }
        let rows = [
            "",
            "[]",
            "{",
            "{\"f\":\"0\"}",
            "{\"f\":1.5}",
            "{\"c\":1}",
            "{\"b\":\"07\"}",
            "{\"b\":\"0x7\"}",
            "{\"b\":\"0xg0\"}",
            "{\"b\":\"0xé\"}",
            "\u{feff}{}",
        ];
        for row in rows {
            assert_eq!(from_json(row.as_bytes()), Err(Undecodable), "{row}");
        }
    }

    #[test]
    fn the_json_request_of_the_streams_library_is_read() {
        let request = from_json(br#"{"s": 1,"f": 0,"l": 4096,"o": 7,"n": 1}"#).unwrap();
        assert_eq!(request.version, Some(1));
        assert_eq!(request.offset, Some(7));
        assert_eq!(request.bitmap, None);
        let request = from_json(br#"{"f":0,"l":256,"o":20,"b":"0x130080"}"#).unwrap();
        assert_eq!(request.bitmap, Some(vec![0x13, 0, 0x80]));
    }

    #[test]
    fn numbers_out_of_every_range_stay_out_of_range() {
        let request = from_json(br#"{"f":-1,"l":18446744073709551615}"#).unwrap();
        assert_eq!(
            (request.file, request.block_size),
            (Some(-1), Some(i64::MAX))
        );
        let request = from_cbor(&bytes("a2 6166 20 616c 3bffffffffffffffff")).unwrap();
        assert_eq!(
            (request.file, request.block_size),
            (Some(-1), Some(i64::MIN))
        );
    }
}
