//! MCUboot images: good ones, cut ones, lying ones.

use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha384, Sha512};

use super::{HEADER_BYTES, Image, ImageError, ImageHeader, Reader, Version, sha256, tlv};

/// An image with a body of `body` bytes, a product in a protected TLV, a hash and something like a signature.
pub(crate) fn image(body: usize, version: Version, product: &[u8]) -> Vec<u8> {
    let header = ImageHeader {
        header_size: 0x200,
        body_size: body as u32,
        protected_size: 8 + product.len() as u16,
        version,
        ..ImageHeader::default()
    };
    let mut file = header.to_bytes().to_vec();
    file.resize(0x200, 0);
    file.extend((0..body).map(|i| (i * 31) as u8));
    file.extend([0x08, 0x69]);
    file.extend((8 + product.len() as u16).to_le_bytes());
    put(&mut file, 0xa0, product);
    let hash = sha256(&file);
    file.extend([0x07, 0x69]);
    file.extend((4_u16 + 36 + 74).to_le_bytes());
    put(&mut file, tlv::SHA256, &hash);
    put(&mut file, 0x22, &[0x30; 70]);
    file
}

fn put(file: &mut Vec<u8>, kind: u16, value: &[u8]) {
    file.extend(kind.to_le_bytes());
    file.extend((value.len() as u16).to_le_bytes());
    file.extend(value);
}

const VERSION: Version = Version {
    major: 1,
    minor: 2,
    revision: 3,
    build: 4,
};

fn examine(file: &[u8]) -> Result<Image, ImageError> {
    Image::examine(&mut &file[..], file.len() as u64)
}

#[test]
fn an_image_tells_its_version_hash_and_product() {
    let mut file = image(5000, VERSION, b"pump");
    let size = file.len() as u64;
    file.extend([0xff; 100]);
    let found = examine(&file).unwrap();
    assert_eq!(found.header.version, VERSION);
    assert_eq!(found.size, size);
    assert!(found.is_signed());
    let product = *found.protected(0xa0).unwrap();
    let value = found.value(&mut &file[..], size, &product).unwrap();
    assert_eq!(value, b"pump");
    found.check_hash(&mut &file[..], size).unwrap();
    let mut reads = 0;
    let mut reader = Reader(|at: u64, into: &mut [u8]| {
        reads += 1;
        into.copy_from_slice(&file[at as usize..at as usize + into.len()]);
        true
    });
    found.check_hash(&mut reader, size).unwrap();
    assert_eq!(reads, 2);
}

#[test]
fn an_image_may_be_known_by_a_longer_hash() {
    let header = ImageHeader {
        header_size: 0x200,
        body_size: 5000,
        version: VERSION,
        ..ImageHeader::default()
    };
    let mut body = header.to_bytes().to_vec();
    body.resize(0x200 + 5000, 0x5a);
    for (kind, hash) in [
        (tlv::SHA384, Sha384::digest(&body).to_vec()),
        (tlv::SHA512, Sha512::digest(&body).to_vec()),
    ] {
        let mut file = body.clone();
        file.extend([0x07, 0x69]);
        file.extend((8 + hash.len() as u16).to_le_bytes());
        put(&mut file, kind, &hash);
        let size = file.len() as u64;
        let found = examine(&file).unwrap();
        assert_eq!(found.hash, hash);
        found.check_hash(&mut &file[..], size).unwrap();
        file[1000] ^= 1;
        let wrong = found.check_hash(&mut &file[..], size);
        assert_eq!(wrong, Err(ImageError::WrongHash), "{kind:#x}");
    }
}

#[test]
fn the_header_of_a_signed_sample_reads_as_its_tool_wrote_it() {
    let bytes = [
        0x3d, 0xb8, 0xf3, 0x96, 0, 0, 0, 0, 0, 2, 0, 0, 0x84, 0xa6, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let header = ImageHeader::parse(&bytes).unwrap();
    assert_eq!((header.header_size, header.body_size), (0x200, 0xa684));
    assert_eq!(header.tlv_offset(), 0xa884);
    assert_eq!(
        header.version,
        Version {
            major: 2,
            ..Version::default()
        }
    );
    assert_eq!(header.to_bytes(), bytes);
}

#[test]
fn a_changed_byte_under_the_hash_is_found() {
    let file = image(300, VERSION, b"pump");
    let found = examine(&file).unwrap();
    let hashed = found.header.hashed_size() as usize;
    for at in (HEADER_BYTES..hashed).step_by(7) {
        let mut bad = file.clone();
        bad[at] ^= 1;
        let wrong = found.check_hash(&mut &bad[..], bad.len() as u64);
        assert_eq!(wrong, Err(ImageError::WrongHash), "{at}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = image(300, VERSION, b"pump");
    for length in 0..file.len() {
        assert!(examine(&file[..length]).is_err(), "{length}");
    }
}

#[test]
fn headers_and_tlvs_that_lie_are_refused() {
    let good = image(300, VERSION, b"pump");
    let at = 0x200 + 300;
    let rows: &[(usize, &[u8], ImageError)] = &[
        (0, &[0], ImageError::NoImage),
        (8, &[31, 0], ImageError::Header),
        (12, &[0xff; 4], ImageError::Truncated),
        (10, &[0, 0], ImageError::Tlvs),
        (at, &[0], ImageError::Tlvs),
        (at + 2, &[3, 0], ImageError::Tlvs),
        (at + 6, &[200], ImageError::Tlvs),
        (at + 12 + 2, &[0xff, 0xff], ImageError::Truncated),
        (at + 12 + 4, &[0x30], ImageError::Hash),
        (at + 12 + 40, &[0x10], ImageError::Hash),
    ];
    for (offset, bytes, error) in rows {
        let mut bad = good.clone();
        bad[*offset..offset + bytes.len()].copy_from_slice(bytes);
        assert_eq!(examine(&bad), Err(*error), "{offset}");
    }
}

#[test]
fn too_many_tlvs_are_refused_before_they_are_kept() {
    let mut file = image(10, VERSION, b"");
    file.truncate(0x200 + 10 + 8);
    let total = 4 + 4 * (super::TLVS_MAX as u16 + 1);
    file.extend([0x07, 0x69]);
    file.extend(total.to_le_bytes());
    file.extend(vec![0x99; usize::from(total)]);
    let entries = file.len() - usize::from(total);
    for entry in file[entries..].chunks_mut(4) {
        entry.copy_from_slice(&[0x99, 0, 0, 0][..entry.len()]);
    }
    assert_eq!(examine(&file), Err(ImageError::TooManyTlvs));
}

#[test]
fn versions_read_as_servers_print_them() {
    let rows = [
        ("1.2.3", Some((1, 2, 3, 0))),
        ("1.2.3.4", Some((1, 2, 3, 4))),
        (
            "255.255.65535.4294967295",
            Some((255, 255, 65535, u32::MAX)),
        ),
        ("256.0.0", None),
        ("1.2", None),
        ("1.2.3.4.5", None),
        ("", None),
        ("255.255.655354294967295", None),
    ];
    for (text, expected) in rows {
        let found = Version::parse(text).map(|v| (v.major, v.minor, v.revision, v.build));
        assert_eq!(found, expected, "{text}");
    }
    assert_eq!(alloc::format!("{VERSION}"), "1.2.3.4");
}
