//! Streams: blocks, descriptions and refusals, in both encodings.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minicbor::Encoder;
use serde_json::json;

use super::*;

/// Members of a request, as both encodings write them.
#[derive(Clone, Default)]
struct Ask<'a> {
    c: Option<&'a str>,
    s: Option<i64>,
    f: Option<i64>,
    l: Option<i64>,
    o: Option<i64>,
    n: Option<i64>,
    b: Option<&'a [u8]>,
}

impl Ask<'_> {
    fn cbor(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut e = Encoder::new(&mut bytes);
        e.begin_map().unwrap();
        if let Some(c) = self.c {
            e.str("c").unwrap().str(c).unwrap();
        }
        let numbers = [
            ("s", self.s),
            ("f", self.f),
            ("l", self.l),
            ("o", self.o),
            ("n", self.n),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                e.str(key).unwrap().i64(number).unwrap();
            }
        }
        if let Some(b) = self.b {
            e.str("b").unwrap().bytes(b).unwrap();
        }
        e.end().unwrap();
        bytes
    }

    fn json(&self) -> Vec<u8> {
        let mut map = serde_json::Map::new();
        if let Some(c) = self.c {
            map.insert("c".to_owned(), json!(c));
        }
        let numbers = [
            ("s", self.s),
            ("f", self.f),
            ("l", self.l),
            ("o", self.o),
            ("n", self.n),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                map.insert(key.to_owned(), json!(number));
            }
        }
        if let Some(b) = self.b {
            map.insert("b".to_owned(), json!(format!("0x{}", hex(b))));
        }
        serde_json::to_vec(&map).unwrap()
    }

    fn encode(&self, encoding: &str) -> Vec<u8> {
        if encoding == "cbor" {
            self.cbor()
        } else {
            self.json()
        }
    }
}

/// A block as the device sees it.
#[derive(Debug, PartialEq)]
struct Block {
    token: Option<String>,
    file: u64,
    index: u64,
    bytes: Vec<u8>,
}

fn block(message: &Outgoing) -> Block {
    assert_eq!((message.kind, message.qos), (Kind::Block, QoS::AtMostOnce));
    if message.topic.ends_with("/json") {
        let v = body(message);
        Block {
            token: v["c"].as_str().map(str::to_owned),
            file: v["f"].as_u64().unwrap(),
            index: v["i"].as_u64().unwrap(),
            bytes: STANDARD.decode(v["p"].as_str().unwrap()).unwrap(),
        }
    } else {
        let mut block = Block {
            token: None,
            file: u64::MAX,
            index: u64::MAX,
            bytes: Vec::new(),
        };
        let mut length = None;
        let mut d = minicbor::Decoder::new(&message.payload);
        for _ in 0..d.map().unwrap().unwrap() {
            match d.str().unwrap() {
                "c" => block.token = Some(d.str().unwrap().to_owned()),
                "f" => block.file = d.u64().unwrap(),
                "i" => block.index = d.u64().unwrap(),
                "l" => length = Some(d.u64().unwrap()),
                "p" => block.bytes = d.bytes().unwrap().to_vec(),
                other => panic!("member {other}"),
            }
        }
        assert_eq!(length, Some(block.bytes.len() as u64));
        assert_eq!(d.position(), message.payload.len());
        block
    }
}

/// Code, text and token of a refusal; checks that the long and the short names agree.
fn refusal(message: &Outgoing) -> (String, Option<String>) {
    assert_eq!(message.kind, Kind::Reply);
    let mut members = std::collections::BTreeMap::new();
    if message.topic.ends_with("/json") {
        for (key, value) in body(message).as_object().unwrap() {
            members.insert(key.clone(), value.as_str().unwrap().to_owned());
        }
    } else {
        let mut d = minicbor::Decoder::new(&message.payload);
        assert_eq!(
            d.map().unwrap(),
            None,
            "errors are maps of indefinite length"
        );
        while d.datatype().unwrap() != minicbor::data::Type::Break {
            let key = d.str().unwrap().to_owned();
            members.insert(key, d.str().unwrap().to_owned());
        }
        assert_eq!(d.position() + 1, message.payload.len());
    }
    assert_eq!(members["code"], members["o"]);
    assert_eq!(members["message"], members["m"]);
    assert_eq!(members.get("c"), members.get("clientToken"));
    (members["code"].clone(), members.get("c").cloned())
}

fn world(limits: Limits, bytes: &[u8]) -> World {
    let mut world = World::with(limits, &[bytes]);
    world.update("u", bytes);
    world
}

const STREAM: &str = "streams/AFR_OTA-s-u";

#[test]
fn a_whole_file_comes_back_in_both_encodings_at_odd_and_even_block_sizes() {
    let bytes = image(300_000);
    for encoding in ["cbor", "json"] {
        for size in [256_i64, 1000, 4096, 65_536, 131_072] {
            let mut world = world(Limits::Aws, &bytes);
            let total = bytes.len().div_ceil(size as usize);
            let mut bitmap = vec![0u8; total.div_ceil(8)];
            (0..total).for_each(|i| bitmap[i / 8] |= 1 << (i % 8));
            let mut file = vec![0; bytes.len()];
            let mut rounds = 0;
            while bitmap.iter().any(|b| *b != 0) {
                let ask = Ask {
                    c: Some("rdy"),
                    f: Some(0),
                    l: Some(size),
                    o: Some(0),
                    b: Some(&bitmap),
                    n: Some(98_304),
                    ..Ask::default()
                };
                let out = world.ask_raw(&format!("{STREAM}/get/{encoding}"), &ask.encode(encoding));
                let payload: usize = out.iter().map(|m| block(m).bytes.len()).sum();
                assert!(payload <= 128 * 1024, "128 KiB a request");
                for message in &out {
                    assert_eq!(level(message), format!("{STREAM}/data/{encoding}"));
                    let block = block(message);
                    assert_eq!(block.token.as_deref(), Some("rdy"));
                    assert_eq!(block.file, 0);
                    let at = block.index as usize;
                    assert_ne!(
                        bitmap[at / 8] >> (at % 8) & 1,
                        0,
                        "block {at} was asked for"
                    );
                    bitmap[at / 8] &= !(1 << (at % 8));
                    let start = at * size as usize;
                    file[start..start + block.bytes.len()].copy_from_slice(&block.bytes);
                }
                rounds += 1;
                assert!(rounds <= total);
            }
            assert!(file == bytes, "{encoding} {size}");
        }
    }
}

#[test]
fn the_lowest_wanted_blocks_come_first_and_the_last_one_is_short() {
    let bytes = image(2500);
    let mut world = world(Limits::Aws, &bytes);
    // The three requests recorded from the C agent.
    for (bitmap, index, length) in [(7, 0, 1024), (6, 1, 1024), (4, 2, 452)] {
        let ask = Ask {
            c: Some("rdy"),
            f: Some(0),
            l: Some(1024),
            o: Some(0),
            b: Some(&[bitmap]),
            n: Some(1),
            ..Ask::default()
        };
        let out = world.ask_raw(&format!("{STREAM}/get/cbor"), &ask.cbor());
        assert_eq!(out.len(), 1);
        let block = block(&out[0]);
        assert_eq!((block.index, block.bytes.len()), (index, length));
    }
    let counters = world.service.counters()[&thing("gw")];
    assert_eq!(counters.stream_requests, 3);
    assert_eq!((counters.blocks, counters.block_bytes), (3, 2500));
}

#[test]
fn the_streams_library_with_its_constant_bitmap_gets_block_after_block() {
    let bytes = image(10_000);
    let mut world = world(Limits::Aws, &bytes);
    for index in 0..3 {
        let ask = Ask {
            c: Some("rdy"),
            f: Some(0),
            l: Some(4096),
            o: Some(index),
            b: Some(b"MQ=="),
            n: Some(1),
            ..Ask::default()
        };
        let out = world.ask_raw(&format!("{STREAM}/get/cbor"), &ask.cbor());
        assert_eq!(out.len(), 1);
        assert_eq!(block(&out[0]).index, index as u64);
    }
}

#[test]
fn every_code_of_a_refusal_has_its_causes_in_both_encodings() {
    let bytes = image(2500);
    let mut world = world(Limits::Aws, &bytes);
    let good = Ask {
        c: Some("t"),
        f: Some(0),
        l: Some(1024),
        o: Some(0),
        n: Some(1),
        b: Some(&[7]),
        ..Ask::default()
    };
    let long = "t".repeat(65);
    let long_bitmap = vec![1u8; 12_288];
    #[rustfmt::skip]
    let rows: Vec<(&str, Ask<'_>, &str)> = vec![
        ("token of 65 bytes", Ask { c: Some(&long), ..good.clone() }, "InvalidRequest"),
        ("no file", Ask { f: None, ..good.clone() }, "InvalidRequest"),
        ("file 256", Ask { f: Some(256), ..good.clone() }, "InvalidRequest"),
        ("file -1", Ask { f: Some(-1), ..good.clone() }, "InvalidRequest"),
        ("file 1", Ask { f: Some(1), ..good.clone() }, "ResourceNotFound"),
        ("no size", Ask { l: None, ..good.clone() }, "InvalidRequest"),
        ("size 255", Ask { l: Some(255), ..good.clone() }, "BlockSizeOutOfBounds"),
        ("size 131073", Ask { l: Some(131_073), ..good.clone() }, "BlockSizeOutOfBounds"),
        ("size -1", Ask { l: Some(-1), ..good.clone() }, "BlockSizeOutOfBounds"),
        ("size max", Ask { l: Some(i64::MAX), ..good.clone() }, "BlockSizeOutOfBounds"),
        ("offset 98305", Ask { o: Some(98_305), ..good.clone() }, "OffsetOutOfBounds"),
        ("offset -1", Ask { o: Some(-1), ..good.clone() }, "OffsetOutOfBounds"),
        ("count 98305", Ask { n: Some(98_305), ..good.clone() }, "BlockCountLimitExceeded"),
        ("count -1", Ask { n: Some(-1), ..good.clone() }, "BlockCountLimitExceeded"),
        ("bitmap 12288", Ask { b: Some(&long_bitmap), ..good.clone() }, "BlockBitmapLimitExceeded"),
        ("version 2", Ask { s: Some(2), ..good.clone() }, "VersionMismatch"),
        ("no valid bit", Ask { b: Some(&[0xf8]), ..good.clone() }, "InvalidRequest"),
        ("behind the end", Ask { o: Some(3), b: None, ..good.clone() }, "InvalidRequest"),
        ("no count, no bitmap, small file", Ask { n: None, b: None, ..good.clone() }, "InvalidRequest"),
    ];
    for encoding in ["cbor", "json"] {
        for (what, ask, code) in &rows {
            let out = world.ask_raw(&format!("{STREAM}/get/{encoding}"), &ask.encode(encoding));
            assert_eq!(
                levels(&out),
                [format!("{STREAM}/rejected/{encoding}")],
                "{what}"
            );
            let token = ask.c.filter(|c| c.len() <= 64).map(str::to_owned);
            assert_eq!(
                refusal(&out[0]),
                (code.to_string(), token),
                "{what} {encoding}"
            );
        }
        // At the limit it works, or asks for nothing, but is not out of bounds.
        #[rustfmt::skip]
        let legal = [
            Ask { l: Some(256), ..good.clone() },
            Ask { l: Some(131_072), b: Some(&[1]), ..good.clone() },
            Ask { n: Some(98_304), ..good.clone() },
            Ask { b: Some(&long_bitmap[1..]), ..good.clone() },
            Ask { s: Some(1), ..good.clone() },
        ];
        for ask in legal {
            let out = world.ask_raw(&format!("{STREAM}/get/{encoding}"), &ask.encode(encoding));
            assert_eq!(level(&out[0]), format!("{STREAM}/data/{encoding}"));
        }
        let far = Ask {
            o: Some(98_304),
            ..good.clone()
        };
        let out = world.ask_raw(&format!("{STREAM}/get/{encoding}"), &far.encode(encoding));
        assert_eq!(refusal(&out[0]).0, "InvalidRequest");
    }
}

#[test]
fn garbage_is_refused_by_the_code_of_its_encoding() {
    let mut world = world(Limits::Aws, &image(2500));
    let rows = [("cbor", "InvalidCbor"), ("json", "InvalidJson")];
    for (encoding, code) in rows {
        for verb in ["get", "describe"] {
            for garbage in [&b"\xff"[..], b"", b"{", b"\xa1\x61\x62\x61\x30"] {
                let out = world.ask_raw(&format!("{STREAM}/{verb}/{encoding}"), garbage);
                assert_eq!(refusal(&out[0]), (code.to_owned(), None));
            }
        }
    }
}

#[test]
fn topics_that_name_no_request_or_no_stream_are_refused() {
    let mut world = world(Limits::Aws, &image(2500));
    let ask = Ask {
        f: Some(0),
        l: Some(1024),
        n: Some(1),
        ..Ask::default()
    };
    let rows = [
        ("streams/AFR_OTA-s-u/put/cbor", "InvalidTopic"),
        ("streams/AFR_OTA-s-u/data/cbor", "InvalidTopic"),
        ("streams/a.b/get/cbor", "InvalidTopic"),
        ("streams//get/cbor", "InvalidTopic"),
        ("streams/none/get/cbor", "ResourceNotFound"),
        ("streams/none/describe/cbor", "ResourceNotFound"),
    ];
    for (rest, code) in rows {
        let out = world.ask_raw(rest, &ask.cbor());
        assert_eq!(refusal(&out[0]).0, code, "{rest}");
    }
    let long = format!("streams/{}/get/cbor", "s".repeat(129));
    assert_eq!(world.ask_raw(&long, &ask.cbor()), []);
}

#[test]
fn another_things_stream_does_not_exist() {
    let mut world = world(Limits::Aws, &image(2500));
    let ask = Ask {
        f: Some(0),
        l: Some(1024),
        n: Some(1),
        ..Ask::default()
    };
    for verb in ["get", "describe"] {
        let topic = format!("$aws/things/other/{STREAM}/{verb}/cbor");
        let out = world
            .service
            .handle(NOW_MS, &thing("other"), &topic, &ask.cbor());
        assert_eq!(refusal(&out[0]).0, "ResourceNotFound");
    }
}

#[test]
fn a_description_names_every_file_with_its_size() {
    let (a, b) = (image(2500), image(10_446));
    let mut world = World::with(Limits::Aws, &[&a, &b]);
    let update = update("u", &[(0, &a), (17, &b)]);
    world.service.create_update(NOW_MS, update).unwrap();
    let out = world.ask_raw(&format!("{STREAM}/describe/json"), br#"{"c":"d1"}"#);
    assert_eq!(levels(&out), [format!("{STREAM}/description/json")]);
    assert_eq!(
        String::from_utf8(out[0].payload.to_vec()).unwrap(),
        r#"{"c":"d1","s":1,"d":"a test","r":[{"f":0,"z":2500},{"f":17,"z":10446}]}"#
    );
    let out = world.ask_raw(&format!("{STREAM}/describe/cbor"), &[0xa0]);
    assert_eq!(
        hex(&out[0].payload),
        "a361730161646661207465737461728 2a2616600617a1909c4a2616611617a1928ce".replace(' ', "")
    );
    // Each file is served under its own id.
    for (id, bytes) in [(0, &a), (17, &b)] {
        let ask = Ask {
            f: Some(id),
            l: Some(4096),
            n: Some(1),
            ..Ask::default()
        };
        let out = world.ask_raw(&format!("{STREAM}/get/cbor"), &ask.cbor());
        let first = block(&out[0]);
        assert_eq!(first.bytes, bytes[..bytes.len().min(4096)]);
        assert_eq!(first.token, None);
    }
}

#[test]
fn an_image_that_cannot_be_read_says_why() {
    struct Broken;
    impl ImageSource for Broken {
        fn read_at(&self, image: &ImageId, offset: u64, out: &mut [u8]) -> Result<(), ImageError> {
            let image = image.clone();
            match offset / 1024 {
                0 => {
                    out.fill(1);
                    Ok(())
                }
                1 => Err(ImageError::Denied(image)),
                2 => Err(ImageError::Changed(image)),
                _ => Err(ImageError::Failed {
                    image,
                    reason: "i/o error".to_owned(),
                }),
            }
        }
    }
    let bytes = image(4096);
    let mut world = World::new();
    world.service = Service::new(Limits::Aws, std::sync::Arc::new(Broken));
    world.service.create_thing(NOW_MS, thing("gw")).unwrap();
    world.update("u", &bytes);
    let rows = [
        (0b0010, "Unauthorized"),
        (0b0100, "ETagMismatch"),
        (0b1000, "InternalError"),
        // No block of a request is sent when one of them cannot be.
        (0b0011, "Unauthorized"),
    ];
    for (bitmap, code) in rows {
        let ask = Ask {
            f: Some(0),
            l: Some(1024),
            n: Some(8),
            b: Some(&[bitmap]),
            ..Ask::default()
        };
        let out = world.ask_raw(&format!("{STREAM}/get/cbor"), &ask.cbor());
        assert_eq!(levels(&out), [format!("{STREAM}/rejected/cbor")]);
        assert_eq!(refusal(&out[0]).0, code);
    }
    assert_eq!(world.service.counters()[&thing("gw")].blocks, 0);
}

#[test]
fn without_limits_a_file_beyond_the_reach_of_aws_is_served_to_its_last_block() {
    // 25 MiB + 1 in blocks of 256 bytes: block 102,400 lies behind AWS's last one.
    let mut bytes = vec![7; 25 * 1024 * 1024];
    bytes.push(9);
    let mut world = world(Limits::None, &bytes);
    let ask = Ask {
        f: Some(0),
        l: Some(256),
        o: Some(102_399),
        n: Some(512),
        ..Ask::default()
    };
    let out = world.ask_raw(&format!("{STREAM}/get/cbor"), &ask.cbor());
    assert_eq!(out.len(), 2);
    assert_eq!(block(&out[1]).bytes, bytes[25 * 1024 * 1024..]);
}
