//! Block requests and block messages as bytes, by a CBOR library that is not the agent's; hex.

use std::fmt::Write as _;

/// Members of a block request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlockRequest {
    /// `c`: token.
    pub token: String,
    /// `f`: file id.
    pub file: u64,
    /// `l`: block size.
    pub block_size: u64,
    /// `o`: offset in blocks.
    pub offset: u64,
    /// `b`: bitmap.
    pub bitmap: Vec<u8>,
    /// `n`: most blocks.
    pub count: u64,
}

impl BlockRequest {
    /// Decodes a payload; none = it is no block request.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let mut decoder = minicbor::Decoder::new(payload);
        let mut request = Self::default();
        for _ in 0..decoder.map().ok()?? {
            match decoder.str().ok()? {
                "c" => request.token = decoder.str().ok()?.to_owned(),
                "f" => request.file = decoder.u64().ok()?,
                "l" => request.block_size = decoder.u64().ok()?,
                "o" => request.offset = decoder.u64().ok()?,
                "b" => request.bitmap = decoder.bytes().ok()?.to_vec(),
                "n" => request.count = decoder.u64().ok()?,
                _ => return None,
            }
        }
        (decoder.position() == payload.len()).then_some(request)
    }

    /// Indices of the blocks that a service sends for it.
    #[must_use]
    pub fn wanted(&self) -> Vec<u64> {
        let bits = self.bitmap.len() as u64 * 8;
        let is_set = |bit: &u64| self.bitmap[(bit / 8) as usize] & (1 << (bit % 8)) != 0;
        (0..bits)
            .filter(is_set)
            .map(|bit| self.offset.saturating_add(bit))
            .take(usize::try_from(self.count).unwrap_or(usize::MAX))
            .collect()
    }
}

/// A block message as the service sends it.
#[must_use]
pub fn block_message(file: u64, index: u64, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut bytes);
    let encoded = encoder
        .map(4)
        .and_then(|encoder| encoder.str("f")?.u64(file))
        .and_then(|encoder| encoder.str("i")?.u64(index))
        .and_then(|encoder| encoder.str("l")?.u64(length))
        .and_then(|encoder| encoder.str("p")?.bytes(payload))
        .map(|_| ());
    debug_assert!(encoded.is_ok(), "writing to a vector cannot fail");
    bytes
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The opposite of [`hex`]; none = it is no hex.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| {
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_request_is_decoded_and_knows_its_blocks() {
        // The example of the service's documentation: blocks 20, 21, 24 and 43 behind offset 20.
        let bytes = unhex(
            "a6616363726479616600616c190400616f1461624313008061 6e03"
                .replace(' ', "")
                .as_str(),
        )
        .unwrap();
        let request = BlockRequest::decode(&bytes).unwrap();
        assert_eq!(
            (request.token.as_str(), request.block_size, request.offset),
            ("rdy", 1024, 20)
        );
        assert_eq!(request.wanted(), [20, 21, 24]);
        assert_eq!(BlockRequest::decode(&bytes[..20]), None);
    }

    #[test]
    fn hex_is_written_and_read() {
        assert_eq!(hex(&[0, 0xa5]), "00a5");
        assert_eq!(unhex("00a5"), Some(vec![0, 0xa5]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("0g"), None);
    }
}
