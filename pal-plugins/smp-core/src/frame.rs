//! The two framings behind one pair of functions; which one a server speaks is chosen when it is built and cannot be
//! probed on a console.

use alloc::vec::Vec;

use crate::{console, raw};

/// How packets lie on the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Lines of base64 with a checksum.
    #[default]
    Console,
    /// As they are.
    Raw,
}

impl Framing {
    /// The bytes that go on the line for a packet.
    #[must_use]
    pub fn encode(self, packet: &[u8]) -> Vec<u8> {
        match self {
            Self::Console => console::encode(packet),
            Self::Raw => packet.to_vec(),
        }
    }

    /// How many they are.
    #[must_use]
    pub const fn wire_bytes(self, packet: usize) -> usize {
        match self {
            Self::Console => console::wire_bytes(packet),
            Self::Raw => packet,
        }
    }

    /// Pieces that a line may lose by themselves, and the packet with each of them.
    #[must_use]
    pub const fn pieces(self, packet: usize) -> usize {
        match self {
            Self::Console => console::lines(packet),
            Self::Raw => 1,
        }
    }

    /// What ends a half line that may stand before a packet: a lone line feed; nothing in raw framing.
    #[must_use]
    pub const fn clearing(self) -> &'static [u8] {
        match self {
            Self::Console => b"\n",
            Self::Raw => b"",
        }
    }
}

/// Finds packets in what arrives.
#[derive(Clone, Debug)]
pub enum Decoder {
    /// Of console framing.
    Console(console::Decoder),
    /// Of raw framing.
    Raw(raw::Decoder),
}

impl Decoder {
    /// For packets of at most so many bytes; larger ones are dropped.
    #[must_use]
    pub const fn new(framing: Framing, packet_max: usize) -> Self {
        match framing {
            Framing::Console => Self::Console(console::Decoder::new(packet_max)),
            Framing::Raw => Self::Raw(raw::Decoder::new(packet_max)),
        }
    }

    /// Takes what has arrived at `now_ms` and hands out the packets that it completes.
    pub fn push(&mut self, now_ms: u64, bytes: &[u8], packets: &mut Vec<Vec<u8>>) {
        match self {
            Self::Console(decoder) => decoder.push(bytes, packets),
            Self::Raw(decoder) => decoder.push(now_ms, bytes, packets),
        }
    }

    /// Forgets what there is of a packet.
    pub fn forget(&mut self) {
        match self {
            Self::Console(decoder) => decoder.forget(),
            Self::Raw(decoder) => decoder.forget(),
        }
    }

    /// What was dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        match self {
            Self::Console(decoder) => decoder.dropped(),
            Self::Raw(decoder) => decoder.dropped(),
        }
    }
}
