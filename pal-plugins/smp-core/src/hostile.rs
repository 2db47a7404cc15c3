//! Bytes that nobody should send: every decoder takes them without a panic, within its bounds, and finds the next good
//! packet.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::client::{Client, ClientConfig, Order};
use crate::frame::{Decoder, Framing};
use crate::header::{Header, Version, op};
use crate::mcuboot::Image;
use crate::reply::{Dialect, ImageState, Reply};
use crate::request::{Request, Upload};

const PACKET_MAX: usize = 380;

fn good(sequence: u8) -> Vec<u8> {
    Request::Upload(Upload {
        offset: Some(704),
        data: Some(&[0x55; 200]),
        ..Upload::default()
    })
    .encode(Version::V2, sequence)
}

fn answer() -> Vec<u8> {
    let image = ImageState {
        version: "1.2.3".into(),
        hash: vec![3; 32],
        active: true,
        ..ImageState::default()
    };
    let request = Header {
        op: op::READ,
        group: 1,
        ..Header::default()
    };
    Reply::Images(vec![image.clone(), image]).encode(&request, &Dialect::default())
}

/// Reads whatever it is as everything it could be.
fn read_all(packet: &[u8]) {
    let Some(header) = Header::parse(packet) else {
        return;
    };
    let payload = header.payload(packet).unwrap_or_default();
    for op in [op::READ, op::READ_ANSWER, op::WRITE, op::WRITE_ANSWER] {
        for group in [0, 1] {
            for id in 0..9 {
                let header = Header {
                    op,
                    group,
                    id,
                    ..header
                };
                // Whether it can be read is not the point: that nothing panics is.
                drop(Request::decode(&header, payload));
                if let Ok(Reply::Images(images)) = Reply::decode(&header, payload) {
                    assert!(images.len() <= crate::reply::IMAGES_MAX);
                    assert!(
                        images
                            .iter()
                            .all(|i| i.hash.len() <= crate::reply::HASH_MAX_BYTES)
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_frame_is_never_taken_for_another_and_the_next_one_is_found(
        at in 0_usize..400, flip in 1_u8..=255, cut in 0_usize..400,
    ) {
        let mut wire = Framing::Console.encode(&good(1));
        let at = at % wire.len();
        wire[at] ^= flip;
        let mut packets = Vec::new();
        let mut decoder = Decoder::new(Framing::Console, PACKET_MAX);
        let cut = cut % wire.len();
        decoder.push(0, &wire[..cut], &mut packets);
        decoder.push(0, &wire[cut..], &mut packets);
        decoder.push(0, b"\n", &mut packets);
        decoder.push(0, &Framing::Console.encode(&good(2)), &mut packets);
        prop_assert!(packets.iter().all(|p| *p == good(1) || *p == good(2)));
        prop_assert_eq!(packets.last(), Some(&good(2)));
    }

    #[test]
    fn random_bytes_on_the_line_leave_every_framing_alive(
        noise in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let mut packets = Vec::new();
        let mut console = Decoder::new(Framing::Console, PACKET_MAX);
        console.push(0, &noise, &mut packets);
        console.push(0, b"\n", &mut packets);
        console.push(0, &Framing::Console.encode(&good(2)), &mut packets);
        prop_assert_eq!(packets.last(), Some(&good(2)));
        let mut raw = Decoder::new(Framing::Raw, PACKET_MAX);
        raw.push(0, &noise, &mut packets);
        raw.push(crate::raw::SILENCE_MS, &good(3), &mut packets);
        prop_assert_eq!(packets.last(), Some(&good(3)));
        prop_assert!(packets.iter().all(|p| p.len() <= PACKET_MAX));
    }

    #[test]
    fn mutated_packets_never_panic(
        requests in any::<bool>(), at in 0_usize..400, bytes in proptest::collection::vec(any::<u8>(), 1..8),
        keep in 0_usize..400,
    ) {
        let mut packet = if requests { good(1) } else { answer() };
        let at = at % packet.len();
        for (place, byte) in packet[at..].iter_mut().zip(&bytes) {
            *place = *byte;
        }
        read_all(&packet);
        packet.truncate(keep);
        read_all(&packet);
    }

    #[test]
    fn random_payloads_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_all(&Header::default().packet(&payload));
    }

    #[test]
    fn random_images_never_panic(
        mut file in proptest::collection::vec(any::<u8>(), 0..3000), magic in any::<bool>(),
    ) {
        if magic && file.len() > 16 {
            file[..4].copy_from_slice(&crate::mcuboot::MAGIC.to_le_bytes());
            file[8..16].copy_from_slice(&[32, 0, 0, 0, 64, 0, 0, 0]);
        }
        let size = file.len() as u64;
        if let Ok(image) = Image::examine(&mut &file[..], size) {
            prop_assert!(image.size <= size);
            prop_assert!(image.check_hash(&mut &file[..], size) != Err(crate::mcuboot::ImageError::NoImage));
        }
    }

    #[test]
    fn a_client_survives_whatever_arrives(
        arrivals in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..20),
    ) {
        let mut client = Client::new(ClientConfig { framing: Framing::Raw, baud: 0, window_max: 2 });
        client.begin(0, Order::Probe);
        let mut now = 0;
        for bytes in arrivals {
            client.receive(now, &bytes);
            drop(client.poll(now, &mut ()));
            now = client.deadline().unwrap_or(now + 1);
        }
    }
}
