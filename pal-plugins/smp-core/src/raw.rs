//! Raw framing: packets back to back as they are, each as long as its header says. No checksum and no marker, so a
//! receiver that lost its place finds it again by what cannot be a header, and by silence.

use alloc::vec::Vec;

use crate::header::{HEADER_BYTES, Header};

/// Silence after which a packet that is not whole is given up, in ms: what stock bootloaders wait.
pub const SILENCE_MS: u64 = 3000;

/// Finds packets in a stream of bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    packet_max: usize,
    buffer: Vec<u8>,
    last_ms: u64,
    dropped: u32,
}

impl Decoder {
    /// For packets of at most so many bytes.
    #[must_use]
    pub const fn new(packet_max: usize) -> Self {
        Self {
            packet_max,
            buffer: Vec::new(),
            last_ms: 0,
            dropped: 0,
        }
    }

    /// Takes what has arrived at `now_ms` and hands out the packets that it completes.
    pub fn push(&mut self, now_ms: u64, bytes: &[u8], packets: &mut Vec<Vec<u8>>) {
        if bytes.is_empty() {
            return;
        }
        if now_ms.saturating_sub(self.last_ms) >= SILENCE_MS && !self.buffer.is_empty() {
            self.dropped = self.dropped.saturating_add(1);
            self.buffer.clear();
        }
        self.last_ms = now_ms;
        for byte in bytes {
            self.buffer.push(*byte);
            self.check(packets);
        }
    }

    /// Hands out the packet that the buffer holds, if it does, and skips what cannot be the start of one.
    fn check(&mut self, packets: &mut Vec<Vec<u8>>) {
        while let Some(header) = Header::parse(&self.buffer) {
            let plausible = self.buffer.first().is_some_and(|b| b & 0xe0 == 0)
                && header.flags == 0
                && HEADER_BYTES + usize::from(header.length) <= self.packet_max;
            if plausible {
                if self.buffer.len() == HEADER_BYTES + usize::from(header.length) {
                    packets.push(core::mem::take(&mut self.buffer));
                }
                return;
            }
            self.dropped = self.dropped.saturating_add(1);
            self.buffer.remove(0);
        }
    }

    /// Forgets what there is of a packet.
    pub fn forget(&mut self) {
        self.buffer.clear();
    }

    /// Packets and stray bytes dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::{Decoder, SILENCE_MS};
    use crate::header::Header;

    fn packet(length: usize) -> Vec<u8> {
        Header {
            op: 3,
            version: 1,
            group: 1,
            ..Header::default()
        }
        .packet(&[0xa0].repeat(length))
    }

    #[test]
    fn packets_back_to_back_are_found_at_any_cut() {
        let stream = [packet(1), packet(100), packet(0)].concat();
        for cut in 0..stream.len() {
            let (mut decoder, mut packets) = (Decoder::new(380), Vec::new());
            decoder.push(0, &stream[..cut], &mut packets);
            decoder.push(1, &stream[cut..], &mut packets);
            assert_eq!(packets, [packet(1), packet(100), packet(0)]);
        }
    }

    #[test]
    fn silence_gives_up_what_is_not_whole() {
        let (mut decoder, mut packets) = (Decoder::new(380), Vec::new());
        decoder.push(0, &packet(50)[..20], &mut packets);
        decoder.push(SILENCE_MS, &packet(1), &mut packets);
        assert_eq!(packets, [packet(1)]);
        assert_eq!(decoder.dropped(), 1);
    }

    #[test]
    fn a_boot_banner_is_skipped() {
        let (mut decoder, mut packets) = (Decoder::new(380), Vec::new());
        decoder.push(
            0,
            b"*** Booting Zephyr OS ***\xff\xff\xff\xff\xff\xff\xff\xff",
            &mut packets,
        );
        decoder.push(1, &packet(3), &mut packets);
        assert_eq!(packets, [packet(3)]);
    }
}
