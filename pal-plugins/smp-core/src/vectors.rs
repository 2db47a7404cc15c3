//! Packets of other implementations, byte for byte: requests as a Python client writes them, answers as real servers
//! wrote them.

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use crate::code::{Refusal, image_rc, rc};
use crate::frame::{Decoder, Framing};
use crate::header::{Header, Version};
use crate::reply::{Dialect, ErrorStyle, ImageState, Parameters, Reply, SlotSize};
use crate::request::{Request, Upload};

fn packet(wire: &[u8]) -> (Header, Vec<u8>) {
    let mut packets = Vec::new();
    Decoder::new(Framing::Console, 4096).push(0, wire, &mut packets);
    assert_eq!(packets.len(), 1, "{wire:?}");
    let header = Header::parse(&packets[0]).unwrap();
    (header, header.payload(&packets[0]).unwrap().to_vec())
}

#[test]
fn requests_are_those_of_an_independent_client() {
    let hash: Vec<u8> = (0..32).collect();
    let first: Vec<u8> = (0..64).collect();
    let next: Vec<u8> = (64..80).collect();
    let sha = [
        0x2d, 0x71, 0x16, 0x42, 0xb7, 0x26, 0xb0, 0x44, 0x01, 0x62, 0x7c, 0xa9, 0xfb, 0xac, 0x32,
        0xf5, 0xc8, 0x53, 0x0f, 0xb1, 0x90, 0x3c, 0xc4, 0xdb, 0x02, 0x25, 0x87, 0x17, 0x92, 0x1a,
        0x48, 0x81,
    ];
    let reset = |force, boot_mode| Request::Reset { force, boot_mode };
    let upload_first = Upload {
        offset: Some(0),
        data: Some(&first),
        size: Some(1000),
        sha: Some(&sha),
        image: Some(0),
        upgrade: false,
    };
    let upload_next = Upload {
        offset: Some(64),
        data: Some(&next),
        ..Upload::default()
    };
    let (v1, v2) = (Version::V1, Version::V2);
    let rows: &[(Request<'_>, Version, u8, &[u8])] = &[
        (Request::Echo("hi"), v2, 0, b"\x06\tABAKAAAGAAAAAKFhZGJoaeJ8\n"),
        (Request::Echo("hi"), v1, 0, b"\x06\tABACAAAGAAAAAKFhZGJoaQkX\n"),
        (Request::Parameters, v2, 1, b"\x06\tAAsIAAABAAABBqBEIw==\n"),
        (reset(false, None), v2, 2, b"\x06\tAAsKAAABAAACBaCORw==\n"),
        (reset(true, None), v2, 2, b"\x06\tABIKAAAIAAACBaFlZm9yY2UB33M=\n"),
        (
            reset(false, Some(1)), v2, 2,
            b"\x06\tABYKAAAMAAACBaFpYm9vdF9tb2RlAbA+\n",
        ),
        (Request::Images, v2, 3, b"\x06\tAAsIAAABAAEDAKD2UQ==\n"),
        (
            Request::State { hash: Some(&hash), confirm: false }, v2, 4,
            b"\x06\tADIKAAAoAAEEAKFkaGFzaFggAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh/IDQ==\n",
        ),
        (
            Request::State { hash: None, confirm: true }, v2, 5,
            b"\x06\tABQKAAAKAAEFAKFnY29uZmlybfVyXQ==\n",
        ),
        (
            Request::Upload(upload_first), v2, 6,
            b"\x06\tAIsKAACBAAEGAaVjbGVuGQPoY29mZgBjc2hhWCAtcRZCtyawRAFifKn7rDL1yFMPsZA8xNsCJYcXkhpIgWRkYXRhWEAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcY\n\x04\x14GRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/ZWltYWdlAKNN\n",
        ),
        (
            Request::Upload(upload_next), v2, 7,
            b"\x06\tACcKAAAdAAEHAaJjb2ZmGEBkZGF0YVBAQUJDREVGR0hJSktMTU5PR8E=\n",
        ),
        (Request::Erase(Some(1)), v2, 8, b"\x06\tABEKAAAHAAEIBaFkc2xvdAHOVg==\n"),
        (
            Request::Bootloader(Some("mode")), v2, 9,
            b"\x06\tABYIAAAMAAAJCKFlcXVlcnlkbW9kZb60\n",
        ),
    ];
    for (request, version, sequence, wire) in rows {
        let written = Framing::Console.encode(&request.encode(*version, *sequence));
        assert_eq!(written, *wire, "{request:?}");
        let (header, payload) = packet(wire);
        assert_eq!(header.version, version.number());
        assert_eq!(header.sequence, *sequence);
        assert_eq!(Request::decode(&header, &payload).as_ref(), Ok(request));
    }
}

fn listed() -> Vec<ImageState> {
    vec![ImageState {
        slot: 0,
        version: "1.0.0".to_string(),
        hash: vec![
            0xda, 0x88, 0xa0, 0xbc, 0xfd, 0xa8, 0x02, 0x89, 0xb3, 0x3d, 0x6a, 0x17, 0x16, 0xc0,
            0x96, 0xfc, 0xa7, 0x3d, 0x04, 0x45, 0xae, 0x88, 0xfd, 0xa9, 0xce, 0x9a, 0xcb, 0xb5,
            0xdc, 0xae, 0x69, 0xe5,
        ],
        bootable: true,
        confirmed: true,
        active: true,
        ..ImageState::default()
    }]
}

#[test]
fn answers_are_those_of_real_servers() {
    let ret = Dialect {
        errors: ErrorStyle::Ret,
        ..Dialect::default()
    };
    let err = Dialect::default();
    let slots = [(0, None), (1, Some(0))].map(|(slot, upload_image)| SlotSize {
        slot,
        size: 0x80000,
        upload_image,
        ..SlotSize::default()
    });
    let offset = |offset| Reply::Upload {
        offset,
        matches: None,
    };
    let refused = |refusal| Reply::Refused(refusal);
    let hash_not_found = Refusal::image(image_rc::HASH_NOT_FOUND);
    let rows: &[(&[u8], Dialect, Reply)] = &[
        (b"\x06\tABQLAAAKAAABAL9hcmVoZWxsb//0JA==\n", ret, Reply::Echo("hello".to_string())),
        (b"\x06\tABQDAAAKAAACAL9hcmVoZWxsb/8A1A==\n", ret, Reply::Echo("hello".to_string())),
        (
            b"\x06\tACMJAAAZAAAFBr9oYnVmX3NpemUZAYBpYnVmX2NvdW50BP8/kQ==\n", ret,
            Reply::Parameters(Parameters { buf_size: 384, buf_count: 4 }),
        ),
        (
            b"\x06\tAJAJAACGAAELAL9maW1hZ2Vzn79kc2xvdABndmVyc2lvbmUxLjAuMGRoYXNoWCDaiKC8/agCibM9ahcWwJb8pz0ERa6I/anOmsu13K5p5Whib290YWJsZfVncGVu\n\x04\x14ZGluZ/RpY29uZmlybWVk9WZhY3RpdmX1aXBlcm1hbmVudPT//2tzcGxpdFN0YXR1cwD/abs=\n",
            ret, Reply::Images(listed()),
        ),
        (b"\x06\tABILAAAIAAEcAb9jb2ZmGGT/uMI=\n", ret, offset(100)),
        (b"\x06\tAB0LAAATAAEOAL9jcmV0v2Vncm91cAFicmMI//9c8w==\n", ret, refused(hash_not_found)),
        (
            b"\x06\tAB4LAAAUAAETAb9jZXJyv2Vncm91cAFicmMYHv//YLY=\n", err,
            refused(Refusal::image(image_rc::TOO_LARGE)),
        ),
        (b"\x06\tABADAAAGAAEPAL9icmMB/22h\n", ret, refused(Refusal::generic(rc::UNKNOWN))),
        (b"\x06\tABAJAAAGAE0KAL9icmMI/2jn\n", ret, refused(Refusal::generic(rc::UNSUPPORTED))),
        (b"\x06\tAAwLAAACAAAoBb//0tk=\n", ret, Reply::Nothing),
        (
            b"\x06\tAFsJAABRAAENBr9maW1hZ2Vzn79laW1hZ2UAZXNsb3Rzn79kc2xvdABkc2l6ZRoACAAA/79kc2xvdAFkc2l6ZRoACAAAb3VwbG9hZF9pbWFnZV9pZAD//////2mS\n",
            err, Reply::Slots(slots.to_vec()),
        ),
    ];
    for (wire, dialect, reply) in rows {
        let (header, payload) = packet(wire);
        assert_eq!(
            Reply::decode(&header, &payload).as_ref(),
            Ok(reply),
            "{reply:?}"
        );
        let request = Header {
            op: header.op - 1,
            ..header
        };
        let written = reply.encode(&request, dialect);
        assert_eq!(Framing::Console.encode(&written), *wire, "{reply:?}");
    }
}

#[test]
fn an_error_of_a_group_is_generic_to_version_one() {
    let (request, _) = packet(b"\x06\tABADAAAGAAEPAL9icmMB/22h\n");
    let request = Header {
        op: request.op - 1,
        ..request
    };
    let reply = Reply::Refused(Refusal::image(image_rc::HASH_NOT_FOUND));
    let written = Framing::Console.encode(&reply.encode(&request, &Dialect::default()));
    assert_eq!(written, b"\x06\tABADAAAGAAEPAL9icmMB/22h\n");
}

#[test]
fn recovery_repeats_rc_zero() {
    let bytes = [
        0x03, 0, 0, 0x0d, 0, 1, 7, 1, 0xbf, 0x62, 0x72, 0x63, 0, 0x63, 0x6f, 0x66, 0x66, 0x19, 1,
        0xf4, 0xff,
    ];
    let header = Header::parse(&bytes).unwrap();
    let reply = Reply::Upload {
        offset: 500,
        matches: None,
    };
    assert_eq!(Reply::decode(&header, &bytes[8..]), Ok(reply.clone()));
    let recovery = Dialect {
        errors: ErrorStyle::Generic,
        legacy_rc: true,
        ..Dialect::default()
    };
    let request = Header { op: 2, ..header };
    assert_eq!(reply.encode(&request, &recovery), bytes);
}

#[test]
fn success_in_the_shape_of_an_error_is_success() {
    let header = Header {
        op: 3,
        group: 9,
        ..Header::default()
    };
    // The shell's number under `ret`, rc 0, an err map with rc 0.
    for payload in [
        &b"\xa1\x63ret\x05"[..],
        b"\xa1\x62rc\x00",
        b"\xa1\x63err\xa1\x62rc\x00",
    ] {
        assert!(matches!(
            Reply::decode(&header, payload),
            Ok(Reply::Other(_))
        ));
    }
}

#[test]
fn an_empty_slot_of_an_old_recovery_is_seen_as_empty() {
    let empty = ImageState {
        version: "255.255.655354294967295".to_string(),
        ..ImageState::default()
    };
    assert!(empty.is_empty_slot());
    assert!(!listed()[0].is_empty_slot());
}
