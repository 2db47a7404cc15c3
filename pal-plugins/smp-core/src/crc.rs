//! CRC-16/XMODEM: polynomial 0x1021, start 0, nothing reflected, no final xor. The checksum of console framing.

/// Checksum of `bytes`. That of a packet followed by its own checksum is 0.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::crc16;

    #[test]
    fn the_check_value_is_right_and_a_packet_with_its_crc_gives_zero() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b"123456789\x31\xc3"), 0);
    }
}
