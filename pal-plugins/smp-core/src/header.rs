//! The eight bytes before each SMP payload, big endian.
//!
//! ```text
//!   0: reserved(3) version(2) op(3) | 1: flags | 2: length of payload | 4: group | 6: sequence | 7: command
//! ```

use alloc::vec::Vec;

/// Length of a header.
pub const HEADER_BYTES: usize = 8;

/// Generation of the protocol. It shows in how errors are told; frames and payloads are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The original one: errors are `{"rc": n}`.
    V1,
    /// Errors of a group are told with their group.
    V2,
}

impl Version {
    /// As it stands in a header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 0,
            Self::V2 => 1,
        }
    }
}

/// Operation of a request; an answer's is one higher.
pub mod op {
    /// Read.
    pub const READ: u8 = 0;
    /// Answer to a read.
    pub const READ_ANSWER: u8 = 1;
    /// Write.
    pub const WRITE: u8 = 2;
    /// Answer to a write.
    pub const WRITE_ANSWER: u8 = 3;
}

/// A header as it stands on the line. What a version or an operation means is looked at later: a server answers also
/// what it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// 0 = [`Version::V1`], 1 = [`Version::V2`]; 2 and 3 are not given out yet.
    pub version: u8,
    /// One of [`op`], or 4 to 7.
    pub op: u8,
    /// Not used yet.
    pub flags: u8,
    /// Bytes after the header.
    pub length: u16,
    /// Group of commands.
    pub group: u16,
    /// The client's counter; an answer repeats it.
    pub sequence: u8,
    /// Command within the group.
    pub id: u8,
}

impl Header {
    /// Reads the first eight bytes of a packet; `None` if there are fewer.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let bytes: [u8; HEADER_BYTES] = packet.get(..HEADER_BYTES)?.try_into().ok()?;
        let [first, flags, l1, l0, g1, g0, sequence, id] = bytes;
        Some(Self {
            version: first >> 3 & 3,
            op: first & 7,
            flags,
            length: u16::from_be_bytes([l1, l0]),
            group: u16::from_be_bytes([g1, g0]),
            sequence,
            id,
        })
    }

    /// As it goes on the line.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [l1, l0] = self.length.to_be_bytes();
        let [g1, g0] = self.group.to_be_bytes();
        let first = (self.version & 3) << 3 | self.op & 7;
        [first, self.flags, l1, l0, g1, g0, self.sequence, self.id]
    }

    /// What the length says is the payload; `None` if the packet is shorter. What follows it is not looked at.
    #[must_use]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        packet.get(HEADER_BYTES..HEADER_BYTES + usize::from(self.length))
    }

    /// Header of the answer to this request: the version at most 1, everything else repeated.
    #[must_use]
    pub const fn answer(self) -> Self {
        Self {
            version: if self.version > 1 { 1 } else { self.version },
            op: (self.op + 1) & 7,
            flags: 0,
            length: 0,
            ..self
        }
    }

    /// Whether this is the answer to `request`.
    #[must_use]
    pub const fn answers(&self, request: &Self) -> bool {
        self.sequence == request.sequence
            && self.group == request.group
            && self.id == request.id
            && self.op == request.op + 1
    }

    /// A packet: this header with the right length, and the payload. A payload of more than 65535 bytes is cut; no
    /// request and no answer of this crate comes near.
    #[must_use]
    pub fn packet(mut self, payload: &[u8]) -> Vec<u8> {
        self.length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let mut packet = Vec::with_capacity(HEADER_BYTES + payload.len());
        packet.extend_from_slice(&self.to_bytes());
        packet.extend_from_slice(payload.get(..self.length.into()).unwrap_or_default());
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::{Header, op};

    #[test]
    fn a_header_goes_both_ways() {
        let bytes = [0x0a, 0, 1, 2, 3, 4, 5, 6];
        let header = Header::parse(&bytes).unwrap();
        assert_eq!((header.version, header.op), (1, op::WRITE));
        assert_eq!((header.length, header.group), (0x102, 0x304));
        assert_eq!((header.sequence, header.id), (5, 6));
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(Header::parse(&bytes[..7]), None);
    }

    #[test]
    fn an_answer_repeats_all_but_the_op_and_a_version_of_the_future() {
        let request = Header::parse(&[0x1a, 0, 0, 0, 0, 1, 9, 1]).unwrap();
        let answer = request.answer();
        assert_eq!(answer.to_bytes(), [0x0b, 0, 0, 0, 0, 1, 9, 1]);
        assert!(answer.answers(&request));
        assert!(
            !Header {
                sequence: 8,
                ..answer
            }
            .answers(&request)
        );
    }

    #[test]
    fn a_payload_shorter_than_its_header_says_is_none() {
        let packet = Header::default().packet(b"abc");
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.payload(&packet), Some(&b"abc"[..]));
        assert_eq!(header.payload(&packet[..10]), None);
    }
}
