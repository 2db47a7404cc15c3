//! Reads the trailer that `otad image pack` appends to an image: its last 128 bytes, described in README.md of this
//! crate. It believes nothing that the checksum and the lengths do not bear out.

use pal_sdk::record::crc32c;
use pal_sdk::{ImageInfo, Version};

/// Bytes of a trailer.
pub(crate) const TRAILER_BYTES: u32 = 128;

const MAGIC: [u8; 8] = *b"OTADIMG1";

/// What the last bytes of an image are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trailer {
    /// No trailer: an image of another make.
    None,
    /// One.
    Valid(ImageInfo),
    /// It begins like one; the text says what is wrong with it.
    Broken(&'static str),
}

/// Look at the last [`TRAILER_BYTES`] of an image of `image_size` bytes.
pub(crate) fn parse(bytes: &[u8], image_size: u64) -> Trailer {
    if bytes.first_chunk() != Some(&MAGIC) {
        return Trailer::None;
    }
    match fields(bytes, image_size) {
        Ok(info) => Trailer::Valid(info),
        Err(wrong) => Trailer::Broken(wrong),
    }
}

fn fields(bytes: &[u8], image_size: u64) -> Result<ImageInfo, &'static str> {
    let bytes: &[u8; TRAILER_BYTES as usize] =
        bytes.try_into().map_err(|_| "the trailer is cut off")?;
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or("no checksum")?;
    if crc32c(content) != u32::from_le_bytes(*crc) {
        return Err("the trailer's checksum is wrong");
    }
    if u32_at(bytes, 8) != TRAILER_BYTES {
        return Err("the trailer says another length of itself");
    }
    if u32_at(bytes, 20) != 0 {
        return Err("the trailer has flags that this build does not know");
    }
    let payload = u64::from(u32_at(bytes, 116)) | u64::from(u32_at(bytes, 120)) << 32;
    if payload.checked_add(TRAILER_BYTES.into()) != Some(image_size) {
        return Err("the trailer belongs to an image of another length");
    }
    let product = text(&bytes[24..72]).ok_or("the trailer's product is not text")?;
    text(&bytes[72..116]).ok_or("the trailer's hardware is not text")?;
    Ok(ImageInfo {
        version: Some(Version {
            major: bytes[12],
            minor: bytes[13],
            revision: u16::from_le_bytes([bytes[14], bytes[15]]),
            build: u32_at(bytes, 16),
        }),
        product: (!product.is_empty()).then(|| product.to_owned()),
    })
}

fn u32_at(bytes: &[u8; TRAILER_BYTES as usize], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// NUL-padded UTF-8 without control characters; after the first NUL nothing but NULs.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let (text, padding) = field.split_at(end);
    if padding.iter().any(|b| *b != 0) {
        return None;
    }
    let text = core::str::from_utf8(text).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{TRAILER_BYTES, Trailer, parse};
    use pal_sdk::record::crc32c;
    use pal_sdk::{ImageInfo, Version};

    /// A trailer as `otad image pack` writes it.
    pub(crate) fn pack(version: Version, product: &str, hardware: &str, payload: u64) -> Vec<u8> {
        let mut bytes = vec![0; TRAILER_BYTES as usize];
        bytes[..8].copy_from_slice(b"OTADIMG1");
        bytes[8..12].copy_from_slice(&TRAILER_BYTES.to_le_bytes());
        bytes[12] = version.major;
        bytes[13] = version.minor;
        bytes[14..16].copy_from_slice(&version.revision.to_le_bytes());
        bytes[16..20].copy_from_slice(&version.build.to_le_bytes());
        bytes[24..24 + product.len()].copy_from_slice(product.as_bytes());
        bytes[72..72 + hardware.len()].copy_from_slice(hardware.as_bytes());
        bytes[116..124].copy_from_slice(&payload.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    fn seal(bytes: &mut [u8]) {
        let crc = crc32c(&bytes[..124]);
        bytes[124..].copy_from_slice(&crc.to_le_bytes());
    }

    const VERSION: Version = Version {
        major: 1,
        minor: 2,
        revision: 0x0304,
        build: 0x0506_0708,
    };

    #[test]
    fn a_trailer_reads_as_it_was_packed() {
        let longest = "p".repeat(48);
        for product in ["gateway", "", longest.as_str()] {
            let bytes = pack(VERSION, product, "rev-b", 1000);
            let expected = Trailer::Valid(ImageInfo {
                version: Some(VERSION),
                product: (!product.is_empty()).then(|| product.to_owned()),
            });
            assert_eq!(parse(&bytes, 1128), expected);
        }
    }

    #[test]
    fn a_trailer_that_does_not_bear_itself_out_is_broken() {
        type Change = fn(&mut Vec<u8>);
        let rows: &[(&str, bool, Change)] = &[
            ("checksum", false, |b| b[30] ^= 1),
            ("cut off", false, |b| b.truncate(127)),
            ("length of itself", true, |b| b[8] = 64),
            ("flags", true, |b| b[20] = 1),
            ("another length", true, |b| b[116] ^= 1),
            ("another length", true, |b| b[116..124].fill(0xff)),
            ("product", true, |b| b[24] = 0xff),
            ("product", true, |b| b[70] = b'x'),
            ("product", true, |b| b[24] = b'\n'),
            ("hardware", true, |b| b[72] = 0xff),
        ];
        for (wrong, sealed, change) in rows {
            let mut bytes = pack(VERSION, "gateway", "", 1000);
            change(&mut bytes);
            if *sealed {
                seal(&mut bytes);
            }
            match parse(&bytes, 1128) {
                Trailer::Broken(text) => assert!(text.contains(wrong), "{text}"),
                other => panic!("{wrong}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_bytes_are_no_trailer() {
        assert_eq!(parse(&[], 0), Trailer::None);
        assert_eq!(parse(&[0xff; 128], 128), Trailer::None);
        assert_eq!(parse(b"OTADIMG", 7), Trailer::None);
    }
}
