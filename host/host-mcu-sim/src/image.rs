//! An image in a slot, as the bootloader and the server see it: smp-core's header and hash, and the signature, which only a
//! bootloader checks.

use std::fmt;

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{DerSignature, VerifyingKey};
use p256::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use sha2::{Digest as _, Sha256};
use smp_core::mcuboot::{self, Version, flag, tlv};

use crate::Error;
use crate::config::{Behaviour, MS};

/// MCUboot's type of an ECDSA signature.
pub(crate) const TLV_ECDSA: u16 = 0x22;

/// How long a body that begins with `mcu-sim:crash` runs before its watchdog barks.
const CRASH_AFTER_NS: u64 = 500 * MS;

/// What a slot's bytes hold.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    bytes: &'a [u8],
    parsed: mcuboot::Image,
}

impl<'a> Image<'a> {
    /// Finds the image that begins at the first byte: it has a header, and a trailer with a hash. Whether the hash is
    /// right is another question.
    pub(crate) fn find(slot: &'a [u8]) -> Option<Self> {
        let parsed = mcuboot::Image::examine(&mut &*slot, slot.len() as u64).ok()?;
        Some(Self {
            bytes: slot,
            parsed,
        })
    }

    pub(crate) const fn version(&self) -> Version {
        self.parsed.header.version
    }

    pub(crate) fn hash(&self) -> &[u8] {
        &self.parsed.hash
    }

    /// Bytes from the beginning of the slot to the end of the trailer.
    pub(crate) const fn end(&self) -> u64 {
        self.parsed.size
    }

    pub(crate) const fn is_bootable(&self) -> bool {
        self.parsed.header.flags & flag::NON_BOOTABLE == 0
    }

    /// Whether the hash is the bytes', and with a key the signature the key's.
    pub(crate) fn is_valid(&self, key: Option<&Key>) -> bool {
        let size = self.bytes.len() as u64;
        if self.parsed.check_hash(&mut &*self.bytes, size).is_err() {
            return false;
        }
        let Some(key) = key else {
            return true;
        };
        let signature = self.entry(TLV_ECDSA);
        let signature = signature.and_then(|bytes| DerSignature::from_bytes(bytes).ok());
        self.entry(tlv::KEY_HASH) == Some(&key.hash[..])
            && signature.is_some_and(|signature| {
                key.verifying
                    .verify_prehash(self.hash(), &signature)
                    .is_ok()
            })
    }

    fn entry(&self, kind: u16) -> Option<&'a [u8]> {
        let found = self.parsed.tlvs.iter().find(|tlv| tlv.kind == kind)?;
        let begin = usize::try_from(found.offset).ok()?;
        self.bytes.get(begin..begin + usize::from(found.length))
    }

    /// What the body says it does.
    pub(crate) fn own_behaviour(&self) -> Behaviour {
        let begin = usize::from(self.parsed.header.header_size);
        let body = self.bytes.get(begin..).unwrap_or_default();
        let says = |word: &str| body.starts_with(word.as_bytes());
        if says("mcu-sim:silent") {
            Behaviour::Silent
        } else if says("mcu-sim:crash") {
            Behaviour::Crashes {
                after_ns: CRASH_AFTER_NS,
            }
        } else if says("mcu-sim:confirm") {
            Behaviour::ConfirmsItself
        } else {
            Behaviour::Serves
        }
    }
}

/// A key that a bootloader was built with: ECDSA P-256.
#[derive(Debug, Clone)]
pub struct Key {
    verifying: VerifyingKey,
    hash: [u8; 32],
}

impl Key {
    /// Reads a public key in PEM, as `imgtool getpub -e pem` writes it.
    ///
    /// # Errors
    /// Text that is no such key.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let bad = |error: &dyn fmt::Display| Error::Key(error.to_string());
        let verifying = VerifyingKey::from_public_key_pem(text).map_err(|error| bad(&error))?;
        Self::of(verifying)
    }

    pub(crate) fn of(verifying: VerifyingKey) -> Result<Self, Error> {
        let der = verifying
            .to_public_key_der()
            .map_err(|error| Error::Key(error.to_string()))?;
        Ok(Self {
            verifying,
            hash: Sha256::digest(der.as_bytes()).into(),
        })
    }

    /// What images name it by.
    pub(crate) const fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn an_image_is_found_and_its_hash_holds() {
        let bytes = sample::image("1.2.3+4", 1000);
        let image = Image::find(&bytes).unwrap();
        assert_eq!(image.version().to_string(), "1.2.3.4");
        assert_eq!(image.end(), bytes.len() as u64);
        assert!(image.is_valid(None));
        let mut damaged = bytes.clone();
        damaged[500] ^= 1;
        assert!(!Image::find(&damaged).unwrap().is_valid(None));
    }

    #[test]
    fn a_signature_holds_for_its_key_only() {
        let (signer, other) = (sample::Signer::of_seed(1), sample::Signer::of_seed(2));
        let bytes = signer.image("1.0.0", &[1; 100]);
        let image = Image::find(&bytes).unwrap();
        assert!(image.is_valid(Some(&signer.key())));
        assert!(!image.is_valid(Some(&other.key())));
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(!Image::find(&damaged).unwrap().is_valid(Some(&signer.key())));
        assert!(Image::find(&damaged).unwrap().is_valid(None));
        let unsigned = sample::image("1.0.0", 100);
        assert!(
            !Image::find(&unsigned)
                .unwrap()
                .is_valid(Some(&signer.key()))
        );
    }
}
