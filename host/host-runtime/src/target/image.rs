//! What an image says about itself, read from bytes under its signature, and whether that fits the target.

use super::config::VersionReader;
use super::trailer::{TRAILER_BYTES, Trailer, TrailerError, decode_version};
use crate::types::{Failure, Version, code};

/// Magic of an MCUboot image header, little-endian.
const MCUBOOT_MAGIC: u32 = 0x96f3_b83d;

/// Where `ih_ver` lies in `struct image_header` (mcuboot, boot/bootutil/include/bootutil/image.h): behind magic, load
/// address, header size, protected TLV size, image size and flags, 4 + 4 + 2 + 2 + 4 + 4 bytes.
const MCUBOOT_VERSION_AT: usize = 20;

/// Bytes of a version field.
const VERSION_BYTES: usize = 8;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) version: Option<Version>,
    pub(super) product: Option<String>,
    pub(super) hardware: Option<String>,
}

/// Collects the bytes that a reader needs while the image streams by.
#[derive(Debug)]
pub(super) struct Glance {
    reader: VersionReader,
    /// First byte and bytes wanted, in the file.
    from: u64,
    wanted: usize,
    seen: Vec<u8>,
}

impl Glance {
    /// A glance at an image of `size` bytes.
    pub(super) fn new(reader: &VersionReader, size: u64) -> Self {
        let (from, wanted) = match reader {
            VersionReader::Trailer => (size.saturating_sub(TRAILER_BYTES as u64), TRAILER_BYTES),
            VersionReader::Mcuboot => (0, MCUBOOT_VERSION_AT + VERSION_BYTES),
            VersionReader::Offset(offset) => (*offset, VERSION_BYTES),
            VersionReader::Plugin | VersionReader::None => (0, 0),
        };
        Self {
            reader: reader.clone(),
            from,
            wanted,
            seen: Vec::new(),
        }
    }

    /// First byte and number of those that it is for.
    pub(super) fn wants(&self) -> (u64, usize) {
        (self.from, self.wanted)
    }

    /// The next bytes, which begin at `offset` of the file.
    pub(super) fn update(&mut self, offset: u64, bytes: &[u8]) {
        let next = self.from + self.seen.len() as u64;
        let missing = self.wanted - self.seen.len();
        let end = offset + bytes.len() as u64;
        if missing == 0 || next < offset || next >= end {
            return;
        }
        let start = usize::try_from(next - offset).unwrap_or(bytes.len());
        let n = missing.min(bytes.len() - start);
        self.seen.extend_from_slice(&bytes[start..start + n]);
    }

    /// What the bytes say, for an image of `size` bytes.
    pub(super) fn finish(&self, size: u64) -> Result<Facts, Failure> {
        let refuse = |reason: String| Err(Failure::new(code::WRONG_PRODUCT, 1, reason));
        match &self.reader {
            VersionReader::Trailer => match Trailer::decode(&self.seen, size) {
                Ok(trailer) => Ok(Facts {
                    version: Some(trailer.version),
                    product: Some(trailer.product).filter(|p| !p.is_empty()),
                    hardware: Some(trailer.hardware).filter(|h| !h.is_empty()),
                }),
                Err(TrailerError::None) => refuse(
                    "the image has no otad trailer; add one with `otad image pack`, or set version_from = \"none\""
                        .into(),
                ),
                Err(e) => refuse(e.to_string()),
            },
            VersionReader::Mcuboot => {
                let magic = self.seen.first_chunk().map(|b| u32::from_le_bytes(*b));
                if magic != Some(MCUBOOT_MAGIC) {
                    return refuse("the image does not begin with an MCUboot header".into());
                }
                match self.seen.get(MCUBOOT_VERSION_AT..).and_then(decode_version) {
                    Some(version) => Ok(Facts {
                        version: Some(version),
                        ..Facts::default()
                    }),
                    None => refuse(format!("the image's MCUboot header is cut off at {size} bytes")),
                }
            }
            VersionReader::Offset(offset) => match decode_version(&self.seen) {
                Some(version) => Ok(Facts {
                    version: Some(version),
                    ..Facts::default()
                }),
                None => refuse(format!(
                    "the image of {size} bytes has no version at offset {offset}"
                )),
            },
            VersionReader::Plugin | VersionReader::None => Ok(Facts::default()),
        }
    }
}

/// Whether an image may come to a target that is `product` and `hardware`, where the operator says so.
pub(super) fn check_fit(
    facts: &Facts,
    product: Option<&str>,
    hardware: Option<&str>,
) -> Result<(), Failure> {
    let rows = [
        ("product", product, facts.product.as_deref()),
        ("hardware", hardware, facts.hardware.as_deref()),
    ];
    for (what, wanted, found) in rows {
        let Some(wanted) = wanted else { continue };
        if found != Some(wanted) {
            let found = found.map_or_else(|| "nothing".to_owned(), |f| format!("`{f}`"));
            return Err(Failure::new(
                code::WRONG_PRODUCT,
                0,
                format!("the image is for {what} {found}, the target is `{wanted}`"),
            ));
        }
    }
    Ok(())
}

/// The first `x.y.z` in a program's output, as numbers of a version; more than three numbers are read as four.
pub(super) fn find_version(output: &[u8]) -> Option<Version> {
    let text = String::from_utf8_lossy(output);
    text.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+'))
        .find_map(parse_version)
}

fn parse_version(word: &str) -> Option<Version> {
    let word = word.trim_matches(['.', '+']);
    let (numbers, build) = match word.split_once('+') {
        Some((numbers, build)) => (numbers, Some(build)),
        None => (word, None),
    };
    let mut parts = numbers.split('.');
    let version = Version {
        major: parts.next()?.parse().ok()?,
        minor: parts.next()?.parse().ok()?,
        revision: parts.next()?.parse().ok()?,
        build: match build.or_else(|| parts.next()) {
            Some(build) => build.parse().ok()?,
            None => 0,
        },
    };
    Some(version).filter(|_| parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::trailer::encode_version;

    const VERSION: Version = Version {
        major: 1,
        minor: 2,
        revision: 300,
        build: 70_000,
    };

    /// Read `image` in pieces of `step` bytes.
    fn glance(reader: &VersionReader, image: &[u8], step: usize) -> Result<Facts, Failure> {
        let mut glance = Glance::new(reader, image.len() as u64);
        for (n, piece) in image.chunks(step).enumerate() {
            glance.update((n * step) as u64, piece);
        }
        glance.finish(image.len() as u64)
    }

    fn with_trailer(product: &str) -> Vec<u8> {
        let mut image = vec![7; 1000];
        let trailer = Trailer {
            version: VERSION,
            product: product.into(),
            hardware: String::new(),
            payload_bytes: 1000,
        };
        image.extend(trailer.encode().unwrap());
        image
    }

    #[test]
    fn a_trailer_is_read_however_the_image_is_cut() {
        let image = with_trailer("gateway");
        for step in [1, 3, 127, 128, 129, 1000, 4096] {
            let facts = glance(&VersionReader::Trailer, &image, step).unwrap();
            assert_eq!(
                facts,
                Facts {
                    version: Some(VERSION),
                    product: Some("gateway".into()),
                    hardware: None
                }
            );
        }
    }

    #[test]
    fn an_mcuboot_header_is_read_at_the_start() {
        let mut image = vec![0; 64];
        image[..4].copy_from_slice(&[0x3d, 0xb8, 0xf3, 0x96]);
        image[20..28].copy_from_slice(&encode_version(VERSION));
        for step in [1, 21, 64] {
            let facts = glance(&VersionReader::Mcuboot, &image, step).unwrap();
            assert_eq!(facts.version, Some(VERSION));
        }
        image[0] = 0;
        assert!(glance(&VersionReader::Mcuboot, &image, 64).is_err());
        assert!(glance(&VersionReader::Mcuboot, &[0x3d, 0xb8, 0xf3, 0x96], 64).is_err());
    }

    #[test]
    fn a_fixed_offset_is_read_and_one_beyond_the_end_refused() {
        let mut image = vec![0; 100];
        image[92..].copy_from_slice(&encode_version(VERSION));
        let facts = glance(&VersionReader::Offset(92), &image, 7).unwrap();
        assert_eq!(facts.version, Some(VERSION));
        for offset in [93, 100, u64::MAX] {
            assert!(
                glance(&VersionReader::Offset(offset), &image, 7).is_err(),
                "{offset}"
            );
        }
    }

    #[test]
    fn an_image_without_the_configured_trailer_is_refused_with_a_way_out() {
        let refused = glance(&VersionReader::Trailer, b"x", 1).unwrap_err();
        assert_eq!((refused.main, refused.sub), (code::WRONG_PRODUCT, 1));
        assert!(refused.detail.contains("otad image pack"));
        assert_eq!(glance(&VersionReader::None, b"x", 1), Ok(Facts::default()));
    }

    #[test]
    fn product_and_hardware_must_fit_where_the_operator_names_them() {
        let facts = Facts {
            version: None,
            product: Some("gateway".into()),
            hardware: Some("rev-b".into()),
        };
        assert_eq!(check_fit(&facts, None, None), Ok(()));
        assert_eq!(check_fit(&facts, Some("gateway"), Some("rev-b")), Ok(()));
        for (product, hardware) in [(Some("gate"), None), (Some("gateway"), Some("rev-a"))] {
            let refused = check_fit(&facts, product, hardware).unwrap_err();
            assert_eq!(refused.main, code::WRONG_PRODUCT);
        }
        let silent = check_fit(&Facts::default(), Some("gateway"), None).unwrap_err();
        assert!(silent.detail.contains("nothing"), "{silent}");
    }

    #[test]
    fn a_version_is_found_in_what_a_program_prints() {
        let version = |major, minor, revision, build| {
            Some(Version {
                major,
                minor,
                revision,
                build,
            })
        };
        for (output, expected) in [
            ("1.2.3", version(1, 2, 3, 0)),
            ("app v1.2.3\n", version(1, 2, 3, 0)),
            (
                "app 2024, version 10.0.65535+9.\n",
                version(10, 0, 65535, 9),
            ),
            ("1.2.3.4", version(1, 2, 3, 4)),
            ("This is 1.2.3.", version(1, 2, 3, 0)),
            ("address 1.2.3.4.5 version 3.2.1", version(3, 2, 1, 0)),
            ("256.0.0 then 1.0.0", version(1, 0, 0, 0)),
            ("1.2", None),
            ("", None),
            ("...", None),
            ("\u{fffd}", None),
        ] {
            assert_eq!(find_version(output.as_bytes()), expected, "{output:?}");
        }
    }
}
