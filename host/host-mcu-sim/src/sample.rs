//! Images to try an MCU with: MCUboot's header and trailer round any body, signed or not. They are valid for a
//! bootloader, and no firmware.

use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{DerSignature, SigningKey};
use smp_core::mcuboot::{HEADER_BYTES, ImageHeader, TLV_MAGIC, Version, sha256, tlv};

use crate::image::{Key, TLV_ECDSA};
use crate::random::Random;

/// An unsigned image of a version such as `1.2.3` or `1.2.3+4`, whose body is that many bytes of noise. A version that is
/// none counts as 0.0.0.
#[must_use]
pub fn image(version: &str, body_bytes: usize) -> Vec<u8> {
    with_body(version, &noise(version, body_bytes))
}

/// An unsigned image with this body.
#[must_use]
pub fn with_body(version: &str, body: &[u8]) -> Vec<u8> {
    let hashed = header_and_body(version, body);
    let digest = sha256(&hashed);
    with_trailer(hashed, &[(tlv::SHA256, &digest)])
}

/// Noise that a version repeats.
#[must_use]
pub fn noise(version: &str, bytes: usize) -> Vec<u8> {
    let seed = version.bytes().fold(7, |seed: u64, byte| {
        seed.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut random = Random::new(seed);
    let words = std::iter::repeat_with(|| random.next().to_le_bytes());
    words.flatten().take(bytes).collect()
}

/// Signs images with ECDSA P-256.
#[derive(Debug, Clone)]
pub struct Signer {
    signing: SigningKey,
}

impl Signer {
    /// The key of a seed: for tests, and secret to nobody.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        loop {
            let mut secret = [0; 32];
            for part in secret.chunks_mut(8) {
                part.copy_from_slice(&random.next().to_le_bytes());
            }
            // All but a vanishing few of the numbers are keys.
            if let Ok(signing) = SigningKey::from_slice(&secret) {
                return Self { signing };
            }
        }
    }

    /// What the bootloader is built with.
    ///
    /// # Panics
    /// Never: a key of our own making can be written.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of(*self.signing.verifying_key()).expect("a P-256 key can be written")
    }

    /// A signed image.
    #[must_use]
    pub fn image(&self, version: &str, body: &[u8]) -> Vec<u8> {
        let hashed = header_and_body(version, body);
        let digest = sha256(&hashed);
        let signature: Option<DerSignature> = self.signing.sign_prehash(&digest).ok();
        let signature = signature.map(|signature| signature.as_bytes().to_vec());
        with_trailer(
            hashed,
            &[
                (tlv::SHA256, &digest),
                (tlv::KEY_HASH, &self.key().hash()),
                (TLV_ECDSA, &signature.unwrap_or_default()),
            ],
        )
    }
}

fn header_and_body(version: &str, body: &[u8]) -> Vec<u8> {
    let version = Version::parse(&version.replace('+', ".")).unwrap_or_default();
    let header = ImageHeader {
        header_size: HEADER_BYTES as u16,
        body_size: u32::try_from(body.len()).unwrap_or(u32::MAX),
        version,
        ..ImageHeader::default()
    };
    [&header.to_bytes(), body].concat()
}

fn with_trailer(mut image: Vec<u8>, entries: &[(u16, &[u8])]) -> Vec<u8> {
    let total: usize = 4 + entries
        .iter()
        .map(|(_, value)| 4 + value.len())
        .sum::<usize>();
    image.extend(TLV_MAGIC.to_le_bytes());
    image.extend(u16::try_from(total).unwrap_or(u16::MAX).to_le_bytes());
    for (kind, value) in entries {
        image.extend(kind.to_le_bytes());
        image.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
        image.extend_from_slice(value);
    }
    image
}
