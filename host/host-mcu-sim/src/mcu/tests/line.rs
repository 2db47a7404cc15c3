//! The line and the receiver: sizes, buffers, times, and the byte dumps of real servers.

use smp_core::code::rc;

use super::*;

/// Sends a wire dump and returns the lines that come back.
fn dump(desk: &mut Desk, wire: &[u8]) -> Vec<u8> {
    desk.seen.clear();
    desk.send_bytes(wire);
    desk.next_packet(PATIENCE_NS);
    std::mem::take(&mut desk.seen)
}

#[test]
fn answers_are_those_of_a_real_server_to_the_byte() {
    let mut desk = Desk::new(config_of(Profile::zephyr_3_4()));
    let hello = Request::Echo("hello");
    let wire = console::encode(&hello.encode(Version::V2, 1));
    assert_eq!(
        dump(&mut desk, &wire),
        b"\x06\tABQLAAAKAAABAL9hcmVoZWxsb//0JA==\n"
    );
    let wire = console::encode(&hello.encode(Version::V1, 2));
    assert_eq!(
        dump(&mut desk, &wire),
        b"\x06\tABQDAAAKAAACAL9hcmVoZWxsb/8A1A==\n"
    );
    let wire = console::encode(&Request::Parameters.encode(Version::V2, 5));
    let params = b"\x06\tACMJAAAZAAAFBr9oYnVmX3NpemUZAYBpYnVmX2NvdW50BP8/kQ==\n";
    assert_eq!(dump(&mut desk, &wire), params);
    let unknown = Request::State {
        hash: Some(&[0; 32]),
        confirm: false,
    };
    let wire = console::encode(&unknown.encode(Version::V2, 14));
    assert_eq!(
        dump(&mut desk, &wire),
        b"\x06\tAB0LAAATAAEOAL9jcmV0v2Vncm91cAFicmMI//9c8w==\n"
    );
    let wire = console::encode(&unknown.encode(Version::V1, 15));
    assert_eq!(dump(&mut desk, &wire), b"\x06\tABADAAAGAAEPAL9icmMB/22h\n");
    let wire = console::encode(&RESET.encode(Version::V2, 40));
    assert_eq!(dump(&mut desk, &wire), b"\x06\tAAwLAAACAAAoBb//0tk=\n");
}

#[test]
fn a_packet_at_the_buffers_limit_is_answered_and_one_past_it_is_not() {
    let mut desk = Desk::new(config());
    // Header 8, map 1, key 2, head of a text of 256 and more 3.
    for (length, answered) in [(380 - 14, true), (381 - 14, false)] {
        let text = "x".repeat(length);
        assert_eq!(
            desk.try_ask(&Request::Echo(&text)).is_some(),
            answered,
            "{length}"
        );
    }
}

#[test]
fn a_line_too_long_is_thrown_away_whole() {
    let mut desk = Desk::new(config());
    let wire = console::encode(&Request::Echo(&"y".repeat(100)).encode(Version::V2, 1));
    // The same text in lines of another length: all of it in one, or cut after four characters.
    let text: Vec<u8> = wire
        .split(|byte| *byte == b'\n')
        .flat_map(|line| line.get(2..).unwrap_or_default())
        .copied()
        .collect();
    let long = [b"\x06\t", &text[..], b"\n"].concat();
    assert!(long.len() > 127);
    assert_eq!(dump(&mut desk, &long), b"");
    assert_eq!(desk.mcu.view().received.long_lines, 1);
    let (first, rest) = text.split_at(4);
    let (second, third) = rest.split_at(100);
    let short = [
        b"\x06\t",
        first,
        b"\n\x04\x14",
        second,
        b"\n\x04\x14",
        third,
        b"\n",
    ]
    .concat();
    assert_ne!(dump(&mut desk, &short), b"");
}

#[test]
fn noise_before_a_line_kills_the_line_and_a_lone_newline_saves_it() {
    let mut desk = Desk::new(config());
    let wire = console::encode(&Request::Echo("z").encode(Version::V2, 1));
    assert_eq!(dump(&mut desk, &[b"noise", &wire[..]].concat()), b"");
    assert_ne!(dump(&mut desk, &[b"noise\n", &wire[..]].concat()), b"");
    assert_ne!(dump(&mut desk, &[b"\n", &wire[..]].concat()), b"");
}

#[test]
fn a_burst_finds_no_free_line_buffer_and_a_paced_line_does() {
    let mut config = config();
    config.timing.line_drain_ns = MS;
    let text = "b".repeat(300);
    let mut desk = Desk::new(config.clone());
    assert_eq!(desk.try_ask(&Request::Echo(&text)), None);
    assert!(desk.mcu.view().received.lost_lines > 0);
    config.timing.baud = Some(115_200);
    let mut desk = Desk::new(config);
    assert_eq!(desk.ask(&Request::Echo(&text)), Reply::Echo(text));
}

#[test]
fn bytes_take_their_time_both_ways() {
    let mut config = config();
    config.timing = Timing::line(115_200);
    let mut desk = Desk::new(config);
    desk.pass(100 * MS);
    let begin_ns = desk.now_ns;
    desk.ask(&Request::Echo("hi"));
    // 26 bytes there, 34 at most back, and the turnaround.
    let took_us = (desk.now_ns - begin_ns) / 1000;
    assert!((5_500..6_500).contains(&took_us), "{took_us}");
}

#[test]
fn a_window_is_answered_in_order_until_the_buffers_are_full() {
    let mut config = config();
    config.timing.turnaround_ns = 50 * MS;
    let mut desk = Desk::new(config);
    let packets: Vec<Vec<u8>> = (0..5)
        .map(|_| {
            let packet = desk.packet(&Request::Echo("w"));
            console::encode(&packet)
        })
        .collect();
    for packet in &packets {
        desk.send_bytes(packet);
    }
    let mut answered = Vec::new();
    while let Some(packet) = desk.next_packet(500 * MS) {
        answered.push(Header::parse(&packet).unwrap().sequence);
    }
    // Four buffers, one of them for the answer.
    assert_eq!(answered, [1, 2, 3]);
    assert_eq!(desk.mcu.view().received.lost_packets, 2);
}

#[test]
fn a_processor_that_waits_for_its_flash_loses_lines() {
    let mut losses = Vec::new();
    for receives in [true, false] {
        let mut config = config();
        config.timing = Timing::slow_flash(230_400);
        config.timing.receives_while_flashing = receives;
        config.server.erases_progressively = true;
        let mut desk = Desk::new(config);
        desk.pass(100 * MS);
        let file = sample::image(NEW, 4000);
        desk.upload_piece(&file, 0, 256);
        // The first piece of a sector, and behind it what falls into its erasure.
        for offset in (256..2048).step_by(256) {
            let upload = Request::Upload(Upload {
                offset: Some(offset as u64),
                data: Some(&file[offset..offset + 256]),
                ..Upload::default()
            });
            desk.send(&upload);
        }
        while desk.next_packet(500 * MS).is_some() {}
        losses.push(desk.mcu.view().received.lost_lines > 0);
    }
    assert_eq!(losses, [false, true]);
}

#[test]
fn malformed_packets_are_answered_as_real_servers_answer_them() {
    let mut desk = Desk::new(config());
    let ask_raw = |desk: &mut Desk, packet: &[u8]| {
        desk.send_bytes(&console::encode(packet));
        let packet = desk.next_packet(PATIENCE_NS)?;
        let header = Header::parse(&packet)?;
        Reply::decode(&header, header.payload(&packet)?).ok()
    };
    let refused = |code| Some(Reply::Refused(Refusal::generic(code)));
    // A version of the future, an answer for a request, a length that lies, an unknown group, an echo without its text.
    assert_eq!(
        ask_raw(&mut desk, &[0x1a, 0, 0, 1, 0, 0, 1, 0, 0xa0]),
        refused(rc::TOO_NEW)
    );
    assert_eq!(
        ask_raw(&mut desk, &[0x09, 0, 0, 1, 0, 0, 2, 0, 0xa0]),
        refused(rc::INVALID)
    );
    assert_eq!(
        ask_raw(&mut desk, &[0x0a, 0, 0, 9, 0, 0, 3, 0, 0xa0]),
        refused(rc::CORRUPT)
    );
    assert_eq!(
        ask_raw(&mut desk, &[0x08, 0, 0, 1, 0, 77, 4, 0, 0xa0]),
        refused(rc::UNSUPPORTED)
    );
    assert_eq!(
        ask_raw(&mut desk, &[0x0a, 0, 0, 1, 0, 0, 5, 0, 0xa0]),
        refused(rc::UNKNOWN)
    );
    assert_eq!(ask_raw(&mut desk, &[0x0a, 0, 0]), None);
}

#[test]
fn the_banner_comes_at_each_start_and_the_client_reads_past_it() {
    let mut desk = Desk::new(config());
    desk.seen.clear();
    desk.reset();
    assert!(String::from_utf8_lossy(&desk.seen).contains("Starting the simulated bootloader"));
    assert_eq!(desk.list(), "0:1.0.0 AC");
}

#[test]
fn raw_framing_carries_the_same() {
    let mut config = config();
    config.framing = Framing::Raw;
    let mut desk = Desk::new(config);
    let packet = desk.packet(&Request::Echo("raw"));
    desk.send_bytes(&packet);
    let mut answer = Vec::new();
    desk.mcu.transmit(desk.now_ns, &mut answer);
    let header = Header::parse(&answer).unwrap();
    let reply = Reply::decode(&header, header.payload(&answer).unwrap());
    assert_eq!(reply, Ok(Reply::Echo("raw".to_owned())));
}
