//! The otad image trailer: version, product and hardware at the end of an image, under its signature.
//!
//! 128 bytes, little-endian, appended, so that a program stays executable:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 8 | `OTADIMG1` |
//! | 8 | 4 | length of the trailer, 128 |
//! | 12 | 8 | version: major u8, minor u8, revision u16, build u32 |
//! | 20 | 4 | flags, 0 |
//! | 24 | 48 | product, UTF-8, padded with NUL |
//! | 72 | 44 | hardware, UTF-8, padded with NUL |
//! | 116 | 8 | bytes of the image before the trailer |
//! | 124 | 4 | CRC-32C of the 124 bytes above |
//!
//! The CRC is against truncation and mistakes; against malice there is the signature.

use crate::types::Version;

/// Bytes of a trailer.
pub const TRAILER_BYTES: usize = 128;

const MAGIC: &[u8; 8] = b"OTADIMG1";
const LENGTH_AT: usize = 8;
const VERSION_AT: usize = 12;
const FLAGS_AT: usize = 20;
const PRODUCT_AT: usize = 24;
const HARDWARE_AT: usize = 72;
const PAYLOAD_AT: usize = 116;
const CRC_AT: usize = 124;

/// Most bytes of a product name.
pub const PRODUCT_MAX_BYTES: usize = HARDWARE_AT - PRODUCT_AT;

/// Most bytes of a hardware name.
pub const HARDWARE_MAX_BYTES: usize = PAYLOAD_AT - HARDWARE_AT;

/// What an image says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Its version.
    pub version: Version,
    /// The product it is for, may be empty.
    pub product: String,
    /// The hardware it is for, may be empty.
    pub hardware: String,
    /// Bytes before the trailer.
    pub payload_bytes: u64,
}

/// Why a trailer cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailerError {
    /// The image ends with something else.
    #[error("the image has no otad trailer; add one with `otad image pack`")]
    None,
    /// It begins like a trailer and is none.
    #[error("the image trailer is damaged: {0}")]
    Damaged(String),
    /// It says something that this build does not know.
    #[error(
        "the image trailer has {what} {found}, this build knows {known}; it was made by a newer otad"
    )]
    Newer {
        /// What is unknown.
        what: &'static str,
        /// What it is.
        found: u32,
        /// What it may be.
        known: u32,
    },
    /// A name that does not fit.
    #[error("{what} `{name}` has {} bytes, at most {max} without control characters fit", name.len())]
    Name {
        /// `product` or `hardware`.
        what: &'static str,
        /// The name.
        name: String,
        /// The limit.
        max: usize,
    },
}

impl Trailer {
    /// The bytes to append to an image of `payload_bytes`.
    ///
    /// # Errors
    /// [`TrailerError::Name`].
    pub fn encode(&self) -> Result<[u8; TRAILER_BYTES], TrailerError> {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..LENGTH_AT].copy_from_slice(MAGIC);
        put(&mut bytes, LENGTH_AT, &128u32.to_le_bytes());
        put(&mut bytes, VERSION_AT, &encode_version(self.version));
        put_name(
            &mut bytes[PRODUCT_AT..HARDWARE_AT],
            "product",
            &self.product,
        )?;
        put_name(
            &mut bytes[HARDWARE_AT..PAYLOAD_AT],
            "hardware",
            &self.hardware,
        )?;
        put(&mut bytes, PAYLOAD_AT, &self.payload_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        Ok(bytes)
    }

    /// Read the trailer from the last bytes of an image of `image_bytes` in all; `tail` may be longer than a trailer.
    ///
    /// # Errors
    /// [`TrailerError`].
    pub fn decode(tail: &[u8], image_bytes: u64) -> Result<Self, TrailerError> {
        let bytes: &[u8; TRAILER_BYTES] = tail.last_chunk().ok_or(TrailerError::None)?;
        if bytes[..LENGTH_AT] != *MAGIC {
            return Err(TrailerError::None);
        }
        let damaged = |what: &str| TrailerError::Damaged(what.to_owned());
        if crc32c::crc32c(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Err(damaged("its checksum does not fit"));
        }
        known("length", u32_at(bytes, LENGTH_AT), 128)?;
        known("flags", u32_at(bytes, FLAGS_AT), 0)?;
        let mut payload = [0; 8];
        payload.copy_from_slice(&bytes[PAYLOAD_AT..CRC_AT]);
        let payload_bytes = u64::from_le_bytes(payload);
        if payload_bytes.checked_add(TRAILER_BYTES as u64) != Some(image_bytes) {
            return Err(TrailerError::Damaged(format!(
                "it is for {payload_bytes} bytes, and the image has {image_bytes} with it"
            )));
        }
        Ok(Self {
            version: decode_version(&bytes[VERSION_AT..FLAGS_AT])
                .ok_or_else(|| damaged("it has no version"))?,
            product: name(&bytes[PRODUCT_AT..HARDWARE_AT])
                .ok_or_else(|| damaged("its product is not a padded name"))?,
            hardware: name(&bytes[HARDWARE_AT..PAYLOAD_AT])
                .ok_or_else(|| damaged("its hardware is not a padded name"))?,
            payload_bytes,
        })
    }
}

/// Eight bytes: major, minor, revision, build. MCUboot's order, and the fixed-offset reader's.
pub(super) fn decode_version(bytes: &[u8]) -> Option<Version> {
    let [major, minor, r0, r1, b0, b1, b2, b3] = *bytes.first_chunk()?;
    Some(Version {
        major,
        minor,
        revision: u16::from_le_bytes([r0, r1]),
        build: u32::from_le_bytes([b0, b1, b2, b3]),
    })
}

pub(super) fn encode_version(version: Version) -> [u8; 8] {
    let [r0, r1] = version.revision.to_le_bytes();
    let [b0, b1, b2, b3] = version.build.to_le_bytes();
    [version.major, version.minor, r0, r1, b0, b1, b2, b3]
}

fn known(what: &'static str, found: u32, known: u32) -> Result<(), TrailerError> {
    if found == known {
        return Ok(());
    }
    Err(TrailerError::Newer { what, found, known })
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn put_name(field: &mut [u8], what: &'static str, name: &str) -> Result<(), TrailerError> {
    if name.len() > field.len() || name.chars().any(char::is_control) {
        return Err(TrailerError::Name {
            what,
            name: name.escape_debug().to_string(),
            max: field.len(),
        });
    }
    put(field, 0, name.as_bytes());
    Ok(())
}

/// A padded name; `None` if it is no text, has control characters, or anything but NUL in its padding.
fn name(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    if field[end..].iter().any(|b| *b != 0) {
        return None;
    }
    let name = std::str::from_utf8(&field[..end]).ok()?;
    if name.chars().any(char::is_control) {
        return None;
    }
    Some(name.to_owned())
}

fn u32_at(bytes: &[u8; TRAILER_BYTES], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer() -> Trailer {
        Trailer {
            version: Version {
                major: 1,
                minor: 2,
                revision: 0x0304,
                build: 0x0506_0708,
            },
            product: "gateway".into(),
            hardware: "rev-b".into(),
            payload_bytes: 1000,
        }
    }

    /// A trailer with its bytes changed and its checksum made good again.
    fn changed(change: impl FnOnce(&mut [u8; TRAILER_BYTES])) -> [u8; TRAILER_BYTES] {
        let mut bytes = trailer().encode().unwrap();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = trailer().encode().unwrap();
        assert_eq!(
            &bytes[..24],
            b"OTADIMG1\x80\0\0\0\x01\x02\x04\x03\x08\x07\x06\x05\0\0\0\0"
        );
        assert_eq!(&bytes[24..32], b"gateway\0");
        assert_eq!(&bytes[72..78], b"rev-b\0");
        assert_eq!(&bytes[116..124], &1000u64.to_le_bytes());
        assert_eq!(bytes[124..], crc32c::crc32c(&bytes[..124]).to_le_bytes());
    }

    #[test]
    fn what_was_written_is_read_also_at_the_limit_of_the_names() {
        let full = Trailer {
            product: "p".repeat(PRODUCT_MAX_BYTES),
            hardware: "h".repeat(HARDWARE_MAX_BYTES),
            ..trailer()
        };
        for trailer in [trailer(), full] {
            let bytes = trailer.encode().unwrap();
            assert_eq!(Trailer::decode(&bytes, 1128), Ok(trailer));
        }
    }

    #[test]
    fn one_byte_over_the_limit_of_a_name_is_refused() {
        for (product, hardware) in [
            ("p".repeat(49), String::new()),
            (String::new(), "h".repeat(45)),
        ] {
            let long = Trailer {
                product,
                hardware,
                ..trailer()
            };
            assert!(matches!(long.encode(), Err(TrailerError::Name { .. })));
        }
        let control = Trailer {
            product: "a\nb".into(),
            ..trailer()
        };
        assert!(matches!(control.encode(), Err(TrailerError::Name { .. })));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = trailer().encode().unwrap();
        for bit in 0..TRAILER_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Trailer::decode(&bytes, 1128).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_image_without_trailer_has_none() {
        for image in [&b""[..], b"x", &[0xff; 127], &[0; 128], &[0xff; 4096]] {
            assert_eq!(
                Trailer::decode(image, image.len() as u64),
                Err(TrailerError::None)
            );
        }
    }

    #[test]
    fn a_well_formed_lie_is_refused() {
        let rows: [(&str, [u8; TRAILER_BYTES], u64); 6] = [
            ("another size", changed(|_| {}), 1129),
            (
                "a size that overflows",
                changed(|b| b[116..124].fill(0xff)),
                1128,
            ),
            ("text after the padding", changed(|b| b[60] = b'x'), 1128),
            ("no UTF-8", changed(|b| b[24] = 0xff), 1128),
            ("a newer length", changed(|b| b[8] = 200), 1128),
            ("an unknown flag", changed(|b| b[20] = 1), 1128),
        ];
        for (name, bytes, size) in rows {
            let refused = Trailer::decode(&bytes, size).unwrap_err();
            assert!(refused != TrailerError::None, "{name}");
        }
    }
}
