//! Console framing: a packet as lines of base64 text, so that it shares a console with log output.
//!
//! ```text
//!   06 09 base64 0a          first line of a packet
//!   04 14 base64 0a          each further one
//!   base64 of: length(2) packet crc16(2)        length = packet + 2
//! ```
//!
//! Nothing is acknowledged and nothing repeated here: what is damaged is dropped, and shows as an answer that is missing.

use alloc::vec::Vec;

use crate::base64;
use crate::crc::crc16;

/// Longest line with marker and line feed: stock receivers have 128 bytes for it and throw a longer one away whole.
pub const LINE_MAX_BYTES: usize = 127;
/// Base64 text of a line: 127 - 2 (marker) - 1 (line feed); a multiple of 4, so only the last line is padded.
pub const TEXT_MAX_BYTES: usize = 124;
/// Largest packet that the length field can tell.
pub const PACKET_MAX_BYTES: usize = 65_533;
/// Length and CRC round the packet.
pub const OVERHEAD_BYTES: usize = 4;

const FIRST: [u8; 2] = [0x06, 0x09];
const NEXT: [u8; 2] = [0x04, 0x14];

/// The lines of a packet. A packet of more than [`PACKET_MAX_BYTES`] cannot be told and gives no bytes.
#[must_use]
pub fn encode(packet: &[u8]) -> Vec<u8> {
    let Ok(length) = u16::try_from(packet.len() + 2) else {
        return Vec::new();
    };
    let mut body = Vec::with_capacity(packet.len() + OVERHEAD_BYTES);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(packet);
    body.extend_from_slice(&crc16(packet).to_be_bytes());
    let mut text = Vec::with_capacity(body.len().div_ceil(3) * 4);
    base64::encode(&body, &mut text);
    let mut wire = Vec::with_capacity(wire_bytes(packet.len()));
    let mut marker = FIRST;
    for line in text.chunks(TEXT_MAX_BYTES) {
        wire.extend_from_slice(&marker);
        wire.extend_from_slice(line);
        wire.push(b'\n');
        marker = NEXT;
    }
    wire
}

/// Bytes on the line for a packet of this length.
#[must_use]
pub const fn wire_bytes(packet: usize) -> usize {
    text_bytes(packet) + lines(packet) * 3
}

/// Lines of a packet on the wire.
#[must_use]
pub const fn lines(packet: usize) -> usize {
    text_bytes(packet).div_ceil(TEXT_MAX_BYTES)
}

const fn text_bytes(packet: usize) -> usize {
    (packet + OVERHEAD_BYTES).div_ceil(3) * 4
}

/// What a line was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Not ours: log output, an empty line, a further line without a first one.
    Other,
    /// A part of a packet, more is to come.
    Part,
    /// The end of a packet, and its CRC is right.
    Packet(Vec<u8>),
    /// The packet it belongs to is lost.
    Dropped(Dropped),
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A line is no base64.
    Text,
    /// Larger than this receiver takes, or too short to hold its CRC.
    Size,
    /// More bytes than its length says.
    Length,
    /// The CRC is wrong.
    Checksum,
}

/// Puts packets together from whole lines. Between two lines of a packet others may come; a first line always starts
/// afresh.
#[derive(Clone, Debug)]
pub struct Lines {
    packet_max: usize,
    body: Vec<u8>,
    under_way: bool,
}

impl Lines {
    /// For packets of at most so many bytes.
    #[must_use]
    pub const fn new(packet_max: usize) -> Self {
        Self {
            packet_max,
            body: Vec::new(),
            under_way: false,
        }
    }

    /// Takes a line, with or without its line feed (and carriage return). The marker has to be its first two bytes.
    /// Lengths of lines are the caller's matter.
    pub fn push_line(&mut self, line: &[u8]) -> Line {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.split_first_chunk::<2>() {
            Some((&FIRST, text)) => {
                self.forget();
                self.under_way = true;
                self.push_text(text)
            }
            Some((&NEXT, text)) if self.under_way => self.push_text(text),
            _ => Line::Other,
        }
    }

    /// Drops what there is of a packet.
    pub fn forget(&mut self) {
        self.body.clear();
        self.under_way = false;
    }

    fn push_text(&mut self, text: &[u8]) -> Line {
        // A packet that has too much text already is not decoded at all: the buffer stays bounded.
        if text.len() / 4 * 3 > self.packet_max + OVERHEAD_BYTES + 2 {
            return self.drop(Dropped::Size);
        }
        if !base64::decode(text, &mut self.body) {
            return self.drop(Dropped::Text);
        }
        let Some((length, rest)) = self.body.split_first_chunk::<2>() else {
            return Line::Part;
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length < 2 || length > self.packet_max + 2 {
            return self.drop(Dropped::Size);
        }
        match rest.len() {
            got if got < length => return Line::Part,
            got if got > length => return self.drop(Dropped::Length),
            _ => {}
        }
        if crc16(rest) != 0 {
            return self.drop(Dropped::Checksum);
        }
        let packet = rest.get(..length - 2).unwrap_or_default().to_vec();
        self.forget();
        Line::Packet(packet)
    }

    fn drop(&mut self, why: Dropped) -> Line {
        self.forget();
        Line::Dropped(why)
    }
}

/// Finds packets in a stream of bytes. More liberal than stock receivers: a marker counts anywhere in a line, for log
/// output without a line feed may stand before it.
#[derive(Clone, Debug)]
pub struct Decoder {
    lines: Lines,
    /// Marker and text of a line; empty outside.
    line: Vec<u8>,
    /// The byte before, which may be the first half of a marker.
    before: u8,
    /// Packets that were dropped so far.
    dropped: u32,
}

impl Decoder {
    /// For packets of at most so many bytes.
    #[must_use]
    pub const fn new(packet_max: usize) -> Self {
        Self {
            lines: Lines::new(packet_max),
            line: Vec::new(),
            before: 0,
            dropped: 0,
        }
    }

    /// Takes what has arrived and hands out the packets that it completes.
    pub fn push(&mut self, bytes: &[u8], packets: &mut Vec<Vec<u8>>) {
        for byte in bytes {
            let marker = [self.before, *byte];
            self.before = *byte;
            if marker == FIRST || marker == NEXT {
                self.line.clear();
                self.line.extend_from_slice(&marker);
            } else if *byte == b'\n' {
                self.end_line(packets);
            } else if !self.line.is_empty() {
                self.line.push(*byte);
                // No line of a packet that is taken can be longer: all of it in one line.
                if self.line.len() > 8 + (self.lines.packet_max + OVERHEAD_BYTES).div_ceil(3) * 4 {
                    self.line.clear();
                    self.lines.forget();
                    self.dropped = self.dropped.saturating_add(1);
                }
            }
        }
    }

    fn end_line(&mut self, packets: &mut Vec<Vec<u8>>) {
        if self.line.is_empty() {
            return;
        }
        match self.lines.push_line(&self.line) {
            Line::Packet(packet) => packets.push(packet),
            Line::Dropped(_) => self.dropped = self.dropped.saturating_add(1),
            Line::Other | Line::Part => {}
        }
        self.line.clear();
    }

    /// Forgets what there is of a packet.
    pub fn forget(&mut self) {
        self.lines.forget();
        self.line.clear();
        self.before = 0;
    }

    /// Packets dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::{Decoder, Dropped, LINE_MAX_BYTES, Line, Lines, encode, wire_bytes};

    fn packet(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + length) as u8).collect()
    }

    fn decoded(wire: &[u8], packet_max: usize) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        Decoder::new(packet_max).push(wire, &mut packets);
        packets
    }

    #[test]
    fn every_length_survives_and_no_line_is_too_long() {
        for length in 0..600 {
            let sent = packet(length);
            let wire = encode(&sent);
            assert_eq!(wire.len(), wire_bytes(length));
            assert!(
                wire.split_inclusive(|b| *b == b'\n')
                    .all(|l| l.len() <= LINE_MAX_BYTES)
            );
            assert_eq!(decoded(&wire, 600), [sent], "{length}");
        }
    }

    #[test]
    fn a_packet_at_the_limit_is_taken_and_one_past_it_is_not() {
        assert_eq!(decoded(&encode(&packet(380)), 380).len(), 1);
        assert_eq!(decoded(&encode(&packet(381)), 380).len(), 0);
        assert!(encode(&packet(65_534)).is_empty());
    }

    #[test]
    fn log_lines_between_the_lines_of_a_packet_do_not_hurt() {
        let wire = encode(&packet(200));
        let mut noisy = b"[00:00:01] boot\n".to_vec();
        for line in wire.split_inclusive(|b| *b == b'\n') {
            noisy.extend_from_slice(line);
            noisy.extend_from_slice(b"<inf> app: tick\r\n\n");
        }
        assert_eq!(decoded(&noisy, 380), [packet(200)]);
    }

    #[test]
    fn a_marker_counts_behind_noise_without_a_line_feed_here_but_not_for_stock_receivers() {
        let mut wire = b"noise".to_vec();
        wire.extend_from_slice(&encode(&packet(20)));
        assert_eq!(decoded(&wire, 380), [packet(20)]);
        assert_eq!(Lines::new(380).push_line(&wire), Line::Other);
    }

    #[test]
    fn a_first_line_discards_a_packet_under_way_and_a_stray_further_line_is_ignored() {
        let wire = encode(&packet(200));
        let lines: Vec<_> = wire.split_inclusive(|b| *b == b'\n').collect();
        let other = encode(&packet(10));
        let mixed = [lines[1], lines[0], &other, lines[2]].concat();
        assert_eq!(decoded(&mixed, 380), [packet(10)]);
    }

    #[test]
    fn damage_drops_the_packet_and_the_next_one_is_whole() {
        let mut lines = Lines::new(380);
        let wire = encode(&packet(20));
        let mut bad = wire.clone();
        bad[5] = if bad[5] == b'A' { b'B' } else { b'A' };
        assert!(matches!(lines.push_line(&bad), Line::Dropped(_)));
        let mut text = wire.clone();
        text[6] = b'*';
        assert_eq!(lines.push_line(&text), Line::Dropped(Dropped::Text));
        assert_eq!(lines.push_line(&wire), Line::Packet(packet(20)));
    }

    #[test]
    fn a_length_that_lies_is_dropped() {
        let mut lines = Lines::new(380);
        let mut line = vec![6, 9];
        crate::base64::encode(&[0, 3, 1, 2, 3, 4, 5, 6, 7], &mut line);
        assert_eq!(lines.push_line(&line), Line::Dropped(Dropped::Length));
        let mut line = vec![6, 9];
        crate::base64::encode(&[0, 1, 1], &mut line);
        assert_eq!(lines.push_line(&line), Line::Dropped(Dropped::Size));
        assert_eq!(lines.push_line(b"\x06\tAA=="), Line::Part);
    }

    #[test]
    fn endless_text_is_bounded() {
        let mut decoder = Decoder::new(64);
        let mut packets = Vec::new();
        decoder.push(b"\x06\t", &mut packets);
        for _ in 0..1000 {
            decoder.push(&[b'A'; 100], &mut packets);
            assert!(decoder.line.len() < 200);
        }
        decoder.push(b"\n", &mut packets);
        decoder.push(&encode(&packet(30)), &mut packets);
        assert_eq!(packets, [packet(30)]);
    }
}
