//! Messages byte for byte, every way to be wrong, and round trips.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use proptest::prelude::*;

use super::*;

/// Bytes of a hexadecimal text; spaces are ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

#[test]
fn requests_have_exactly_the_c_agents_bytes() {
    let request = |token, file_id, block_size, offset, bitmap, count| {
        encode_get(
            Encoding::Cbor,
            &GetRequest {
                token,
                file_id,
                block_size,
                offset,
                bitmap,
                count,
            },
        )
    };
    let lead = "a6 6163 63726479 6166 00 616c 190400 616f 00";
    let rows = [
        (request("rdy", 0, 1024, 0, &[0x07], 1), format!("{lead} 6162 4107 616e 01")),
        (request("rdy", 0, 1024, 0, &[0x06], 1), format!("{lead} 6162 4106 616e 01")),
        (request("rdy", 0, 1024, 0, &[0x04], 1), format!("{lead} 6162 4104 616e 01")),
        // The C agent's unit test.
        (
            request("ThisIsAClientToken", 1, 4096, 0, &[0xaa; 4], 4),
            "a6 6163 72 54686973497341436c69656e74546f6b656e 6166 01 616c 191000 616f 00 6162 44 aaaaaaaa
             616e 04"
                .to_string(),
        ),
        // The service's example: blocks 20, 21, 24 and 43.
        (
            request("rdy", 0, 4096, 20, &[0x13, 0x00, 0x80], 31),
            "a6 6163 63726479 6166 00 616c 191000 616f 14 6162 43130080 616e 181f".to_string(),
        ),
        // Every length that an integer can have.
        (
            request("", 255, 131_072, 98_304, &[], 512),
            "a6 6163 60 6166 18ff 616c 1a00020000 616f 1a00018000 6162 40 616e 190200".to_string(),
        ),
    ];
    for (request, expected) in rows {
        assert_eq!(request, hex(&expected), "{expected}");
    }
    let long = request("rdy", 0, 256, 0, &[0xff; 12_287], 512);
    assert_eq!(&long[18..24], hex("6162 59 2fff ff"));
    assert_eq!(long.len(), 18 + 2 + 3 + 12_287 + 2 + 3);
}

fn check_data(message: &str) {
    let message = hex(message);
    let expected = DataMessage {
        file_id: 0,
        index: 1,
        size: 4,
        payload: vec![0xde, 0xad, 0xbe, 0xef].into(),
        token: Cow::default(),
    };
    let mut found = decode_data(Encoding::Cbor, &message).unwrap();
    assert!(found.token.is_empty() || &*found.token == b"rdy");
    found.token = Cow::default();
    assert_eq!(found, expected, "{message:02x?}");
}

#[test]
fn block_messages_are_read_in_any_order_and_of_any_form() {
    let rows = [
        "a4 616600 616901 616c04 617044deadbeef",
        "a5 616363726479 616600 616901 616c04 617044deadbeef",
        "a4 617044deadbeef 616c04 616901 616600",
        // An indefinite map, an indefinite payload, an indefinite key.
        "bf 616600 616901 616c04 617044deadbeef ff",
        "bf 616600 616901 616c04 6170 5f 42dead 40 42beef ff ff",
        "a4 7f6166ff 00 616901 616c04 617044deadbeef",
        // Integers longer than they need be.
        "a4 61661800 6169190001 616c1a00000004 617044deadbeef",
        // Strangers: deep, tagged, keys that are no text.
        "a8 6178 82 01 a1 02 9f03ff 616600 616901 616c04 617044deadbeef 05 f6 8101 fb3ff0000000000000 6174 c11a00000000",
        "a5 617a a0 616600 616901 616c04 617044deadbeef",
    ];
    for message in rows {
        check_data(message);
    }
}

#[test]
fn a_payload_in_one_piece_is_not_copied() {
    let message = hex("a4 616600 616901 616c04 617044deadbeef");
    let data = decode_data(Encoding::Cbor, &message).unwrap();
    assert!(matches!(data.payload, Cow::Borrowed(_)));
}

#[test]
fn every_defect_of_a_block_message_has_its_error() {
    use DecodeError::*;
    let rows = [
        ("", Malformed),
        ("80", NotAMap),
        ("84 616600 616901", NotAMap),
        ("00", NotAMap),
        ("a4", Malformed),
        ("a4 616600 616901 616c04 617044deadbe", Malformed),
        ("bf 616600 616901 616c04 617044deadbeef", Malformed),
        ("bbffffffffffffffff 616600", Malformed),
        ("a4 616600 616901 616c04 617044deadbeef 00", TrailingBytes),
        ("a3 616901 616c04 617044deadbeef", Missing(Member::FileId)),
        ("a3 616600 616c04 617044deadbeef", Missing(Member::Index)),
        ("a3 616600 616901 617044deadbeef", Missing(Member::Size)),
        ("a3 616600 616901 616c04", Missing(Member::Payload)),
        (
            "a4 61666130 616901 616c04 617044deadbeef",
            WrongType(Member::FileId),
        ),
        (
            "a4 616600 616920 616c04 617044deadbeef",
            WrongType(Member::Index),
        ),
        (
            "a4 616600 616901 616cfa40800000 617044deadbeef",
            WrongType(Member::Size),
        ),
        (
            "a4 616600 616901 616c04 617064deadbeef",
            WrongType(Member::Payload),
        ),
        (
            "a5 616600 616600 616901 616c04 617044deadbeef",
            Duplicate(Member::FileId),
        ),
        (
            "a5 616600 616901 616901 616c04 617044deadbeef",
            Duplicate(Member::Index),
        ),
        (
            "a5 616600 616901 616c04 616c04 617044deadbeef",
            Duplicate(Member::Size),
        ),
        (
            "a5 616600 616901 616c04 617044deadbeef 617040",
            Duplicate(Member::Payload),
        ),
        // A key that is not UTF-8, a break where none may be, a reserved length.
        ("a1 61ff 00", Malformed),
        ("a1 6178 ff", Malformed),
        ("a1 ff", Malformed),
        ("a1 6178 1c", Malformed),
        ("a1 6178 5f 6161 ff", Malformed),
    ];
    for (message, error) in rows {
        assert_eq!(
            decode_data(Encoding::Cbor, &hex(message)),
            Err(error),
            "{message}"
        );
    }
}

#[test]
fn strangers_are_skipped_down_to_a_depth_and_not_one_level_deeper() {
    let message = |levels: usize| {
        let nested = "81".repeat(levels) + "00";
        hex(&format!(
            "a5 6178 {nested} 616600 616901 616c04 617044deadbeef"
        ))
    };
    assert!(decode_data(Encoding::Cbor, &message(16)).is_ok());
    assert_eq!(
        decode_data(Encoding::Cbor, &message(17)),
        Err(DecodeError::Malformed)
    );
    for open in ["81", "9f", "a100", "bf00", "c1"] {
        let hostile = hex(&format!("a1 6178 {}", open.repeat(130_000)));
        assert_eq!(
            decode_data(Encoding::Cbor, &hostile),
            Err(DecodeError::Malformed)
        );
    }
}

fn cbor_text(text: &str) -> String {
    let bytes: Vec<String> = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let head = if text.len() < 24 {
        format!("{:02x}", 0x60 + text.len())
    } else {
        format!("78{:02x}", text.len())
    };
    head + &bytes.concat()
}

#[test]
fn refusals_are_read_with_short_and_long_names_in_both_encodings() {
    let pair = |key: &str, value: &str| cbor_text(key) + &cbor_text(value);
    // As the field has shown it: an indefinite map with both names.
    let recorded = String::from("bf")
        + &pair("code", "InvalidCbor")
        + &pair("o", "InvalidCbor")
        + &pair("message", "Invalid CBOR message")
        + &pair("m", "Invalid CBOR message")
        + "ff";
    let short = format!("a2{}{}", pair("o", "ResourceNotFound"), pair("c", "rdy"));
    let long = format!(
        "a2{}{}",
        pair("code", "VersionMismatch"),
        pair("clientToken", "rdy")
    );
    let strange = format!("a2{}6178820102", pair("o", "BrandNew"));
    let refusal = |code, code_text: &str, message: &str, token: Option<&str>| Rejection {
        code,
        code_text: code_text.to_string(),
        message: message.to_string(),
        token: token.unwrap_or_default().to_string(),
    };
    let rows = [
        (
            recorded,
            refusal(
                StreamErr::InvalidCbor,
                "InvalidCbor",
                "Invalid CBOR message",
                None,
            ),
        ),
        (
            short,
            refusal(
                StreamErr::ResourceNotFound,
                "ResourceNotFound",
                "",
                Some("rdy"),
            ),
        ),
        (
            long,
            refusal(
                StreamErr::VersionMismatch,
                "VersionMismatch",
                "",
                Some("rdy"),
            ),
        ),
        (strange, refusal(StreamErr::Unknown, "BrandNew", "", None)),
    ];
    for (message, expected) in rows {
        assert_eq!(
            decode_rejected(Encoding::Cbor, &hex(&message)),
            Ok(expected),
            "{message}"
        );
    }

    let text = "The data requested is out of the range of data available.";
    let recorded = format!(
        r#"{{"clientToken":"rdy","c":"rdy","code":"InvalidRequest","o":"InvalidRequest","message":"{text}","m":"{text}"}}"#
    );
    let expected = refusal(
        StreamErr::InvalidRequest,
        "InvalidRequest",
        text,
        Some("rdy"),
    );
    assert_eq!(
        decode_rejected(Encoding::Json, recorded.as_bytes()),
        Ok(expected)
    );
    let expected = refusal(StreamErr::EtagMismatch, "ETagMismatch", "", None);
    let short = br#"{"o":"ETagMismatch","x":[1]}"#;
    assert_eq!(decode_rejected(Encoding::Json, short), Ok(expected));
}

#[test]
fn every_code_of_the_service_is_known() {
    for code in StreamErr::ALL {
        let message = format!(r#"{{"o":"{}"}}"#, code.name());
        let rejection = decode_rejected(Encoding::Json, message.as_bytes()).unwrap();
        assert_eq!(rejection.code, *code);
        let passes = [
            StreamErr::Unknown,
            StreamErr::InternalError,
            StreamErr::RequestThrottled,
        ];
        assert_eq!(rejection.may_pass(), passes.contains(code), "{code:?}");
    }
}

#[test]
fn every_defect_of_a_refusal_has_its_error() {
    use DecodeError::*;
    let rows = [
        (Encoding::Cbor, hex("a0"), Missing(Member::Code)),
        (Encoding::Cbor, hex("81 00"), NotAMap),
        (Encoding::Cbor, hex("a1 616f 00"), WrongType(Member::Code)),
        (
            Encoding::Cbor,
            hex("a1 64636f6465 40"),
            WrongType(Member::LongCode),
        ),
        (
            Encoding::Cbor,
            hex("a2 616f6161 616f6161"),
            Duplicate(Member::Code),
        ),
        (Encoding::Cbor, hex("a1 616f6161 00"), TrailingBytes),
        (Encoding::Cbor, hex("a1 616f61"), Malformed),
        (Encoding::Json, b"".to_vec(), Malformed),
        (Encoding::Json, b"{}".to_vec(), Missing(Member::Code)),
        (Encoding::Json, b"[]".to_vec(), NotAMap),
        (
            Encoding::Json,
            br#"{"m":1}"#.to_vec(),
            WrongType(Member::Message),
        ),
        (
            Encoding::Json,
            br#"{"c":"","c":""}"#.to_vec(),
            Duplicate(Member::Token),
        ),
        (Encoding::Json, br#"{"o":"x"}}"#.to_vec(), Malformed),
        (Encoding::Json, b"{\"o\":\"\xff\"}".to_vec(), Malformed),
    ];
    for (encoding, message, error) in rows {
        assert_eq!(
            decode_rejected(encoding, &message),
            Err(error),
            "{message:02x?}"
        );
    }
    assert_eq!(Missing(Member::Payload).to_string(), "p is missing");
    assert_eq!(
        TrailingBytes.to_string(),
        "the message is followed by something"
    );
}

/// A block message made by the library.
fn encode_data(file_id: u64, index: u64, size: u64, payload: &[u8], indefinite: bool) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    if indefinite {
        encoder.begin_map().unwrap();
    } else {
        encoder.map(4).unwrap();
    }
    encoder.str("f").unwrap().u64(file_id).unwrap();
    encoder.str("i").unwrap().u64(index).unwrap();
    encoder.str("l").unwrap().u64(size).unwrap();
    encoder.str("p").unwrap();
    if indefinite {
        encoder.begin_bytes().unwrap();
        for part in payload.chunks(7) {
            encoder.bytes(part).unwrap();
        }
        encoder.end().unwrap().end().unwrap();
    } else {
        encoder.bytes(payload).unwrap();
    }
    encoder.into_writer()
}

#[test]
fn a_json_request_is_written_as_the_service_documents_it() {
    let request = GetRequest {
        token: "rdy",
        file_id: 1,
        block_size: 4096,
        offset: 20,
        bitmap: &[0x13, 0x00, 0x80],
        count: 4,
    };
    let text = r#"{"c":"rdy","f":1,"l":4096,"o":20,"n":4,"b":"0x130080"}"#;
    assert_eq!(encode_get(Encoding::Json, &request), text.as_bytes());
}

#[test]
fn block_messages_in_json_are_read_in_any_order_and_refused_for_each_defect() {
    let good = DataMessage {
        file_id: 0,
        index: 1,
        size: 4,
        payload: vec![0xde, 0xad, 0xbe, 0xef].into(),
        token: b"rdy7".into(),
    };
    for text in [
        r#"{"c":"rdy7","f":0,"l":4,"i":1,"p":"3q2+7w=="}"#,
        r#" { "p" : "3q2+7w" , "i":1, "l":4, "x":[{}], "f":0, "c":"rdy\u0037" } "#,
        r#"{"c":"rdy7","f":"0","l":"4","i":"1","p":"3q2+7w=="}"#,
    ] {
        assert_eq!(
            decode_data(Encoding::Json, text.as_bytes()),
            Ok(good.clone()),
            "{text}"
        );
    }
    use DecodeError::*;
    for (text, error) in [
        ("", Malformed),
        ("[]", NotAMap),
        (r#"{"f":0,"l":4,"i":1}"#, Missing(Member::Payload)),
        (r#"{"l":4,"i":1,"p":"AA=="}"#, Missing(Member::FileId)),
        (r#"{"f":0,"l":4,"p":"AA=="}"#, Missing(Member::Index)),
        (r#"{"f":0,"i":1,"p":"AA=="}"#, Missing(Member::Size)),
        (
            r#"{"f":0,"f":0,"l":4,"i":1,"p":"AA=="}"#,
            Duplicate(Member::FileId),
        ),
        (r#"{"f":0,"l":4,"i":1,"p":"A"}"#, WrongType(Member::Payload)),
        (
            r#"{"f":0,"l":4,"i":1,"p":"not-encoded"}"#,
            WrongType(Member::Payload),
        ),
        (r#"{"f":0,"l":4,"i":1,"p":7}"#, WrongType(Member::Payload)),
    ] {
        assert_eq!(
            decode_data(Encoding::Json, text.as_bytes()),
            Err(error),
            "{text}"
        );
    }
    let bad = [
        "-1",
        "\"-1\"",
        "1.5",
        "1e2",
        "\"x\"",
        "\"\"",
        "\"01\"",
        "null",
        "[1]",
        "18446744073709551616",
        "\"18446744073709551616\"",
    ];
    for number in bad {
        for (key, member) in [
            ("f", Member::FileId),
            ("i", Member::Index),
            ("l", Member::Size),
        ] {
            let good = r#"{"f":7,"i":7,"l":7,"p":"AA=="}"#;
            let text = good.replace(&format!("\"{key}\":7"), &format!("\"{key}\":{number}"));
            assert_eq!(
                decode_data(Encoding::Json, text.as_bytes()),
                Err(WrongType(member)),
                "{text}"
            );
        }
    }
    // A token that is none is nobody's.
    let text = r#"{"c":7,"f":0,"l":4,"i":1,"p":"3q2+7w=="}"#;
    assert_eq!(
        &*decode_data(Encoding::Json, text.as_bytes()).unwrap().token,
        b""
    );
}

#[test]
fn the_token_of_a_block_is_read_whatever_it_is() {
    for (member, token) in [("6163 63726479", "rdy"), ("6163 05", ""), ("6163 40", "")] {
        let message = hex(&format!("a5 {member} 616600 616901 616c04 617044deadbeef"));
        let read = decode_data(Encoding::Cbor, &message).unwrap().token;
        assert_eq!(&*read, token.as_bytes());
    }
}

proptest! {
    #[test]
    fn what_the_library_writes_is_read(
        file_id in any::<u64>(),
        index in any::<u64>(),
        size in any::<u64>(),
        payload in any::<Vec<u8>>(),
        indefinite in any::<bool>(),
    ) {
        let message = encode_data(file_id, index, size, &payload, indefinite);
        let expected = DataMessage { file_id, index, size, payload: payload.into(), token: Cow::default() };
        prop_assert_eq!(decode_data(Encoding::Cbor, &message), Ok(expected));
    }

    #[test]
    fn what_is_written_is_read_by_the_library(
        token in "[a-z]{0,64}",
        numbers in any::<[u32; 4]>(),
        bitmap in any::<Vec<u8>>(),
    ) {
        let [file_id, block_size, offset, count] = numbers;
        let request = GetRequest { token: &token, file_id, block_size, offset, bitmap: &bitmap, count };
        let message = encode_get(Encoding::Cbor, &request);
        let mut decoder = minicbor::Decoder::new(&message);
        prop_assert_eq!(decoder.map().unwrap(), Some(6));
        prop_assert_eq!((decoder.str().unwrap(), decoder.str().unwrap()), ("c", &*token));
        for (key, value) in [("f", file_id), ("l", block_size), ("o", offset)] {
            prop_assert_eq!((decoder.str().unwrap(), decoder.u32().unwrap()), (key, value));
        }
        prop_assert_eq!((decoder.str().unwrap(), decoder.bytes().unwrap()), ("b", &*bitmap));
        prop_assert_eq!((decoder.str().unwrap(), decoder.u32().unwrap()), ("n", count));
        prop_assert_eq!(decoder.position(), message.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        prop_assert!(decode_data(Encoding::Cbor, &bytes).is_err());
        let mut map = vec![0xbf];
        map.extend(&bytes);
        prop_assert!(decode_data(Encoding::Cbor, &map).is_err());
        for encoding in [Encoding::Cbor, Encoding::Json] {
            prop_assert!(decode_rejected(encoding, &bytes).is_err());
        }
    }

    #[test]
    fn a_block_message_with_some_bytes_changed_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        indefinite in any::<bool>(),
    ) {
        let mut message = encode_data(0, 1, 64, &[7; 64], indefinite);
        for (index, byte) in changes {
            *index.get_mut(&mut message) = byte;
        }
        if let Ok(data) = decode_data(Encoding::Cbor, &message) {
            prop_assert!(data.payload.len() <= message.len());
        }
    }
}
