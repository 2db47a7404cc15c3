//! Where the bytes of an image come from.
//!
//! The service names images by digest and reads ranges of them; whether they lie in a directory or in memory is the
//! port's business.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 of an image, as 64 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(Box<str>);

impl ImageId {
    /// From the digest itself.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(hex(digest).into())
    }

    /// Digests bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&Sha256::digest(bytes).into())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Bytes as lower-case hex digits.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

impl TryFrom<String> for ImageId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(legal) {
            Ok(Self(text.into()))
        } else {
            Err(format!(
                "image id {:?} is not 64 lower-case hex digits",
                text.chars().take(80).collect::<String>()
            ))
        }
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a range of an image cannot be had. Each has its own code on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The store may not read it (`Unauthorized`).
    #[error("the image store may not read image {0}")]
    Denied(ImageId),
    /// It is not what it was when the stream was made (`ETagMismatch`).
    #[error("image {0} is missing or shorter than when the stream was made")]
    Changed(ImageId),
    /// Anything else (`InternalError`).
    #[error("cannot read image {image}: {reason}")]
    Failed {
        /// Which.
        image: ImageId,
        /// Why.
        reason: String,
    },
}

/// Reads images. Calls are short: a block or a few.
pub trait ImageSource: Send + Sync {
    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// When the whole of `out` cannot be filled.
    fn read_at(&self, image: &ImageId, offset: u64, out: &mut [u8]) -> Result<(), ImageError>;
}

/// Images in memory, for simulations and tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryImages(BTreeMap<ImageId, Bytes>);

impl MemoryImages {
    /// Takes an image in and names it.
    pub fn insert(&mut self, bytes: impl Into<Bytes>) -> ImageId {
        let bytes = bytes.into();
        let id = ImageId::of(&bytes);
        self.0.insert(id.clone(), bytes);
        id
    }
}

impl ImageSource for MemoryImages {
    fn read_at(&self, image: &ImageId, offset: u64, out: &mut [u8]) -> Result<(), ImageError> {
        let changed = || ImageError::Changed(image.clone());
        let bytes = self.0.get(image).ok_or_else(changed)?;
        let start = usize::try_from(offset).map_err(|_| changed())?;
        let end = start.checked_add(out.len()).ok_or_else(changed)?;
        out.copy_from_slice(bytes.get(start..end).ok_or_else(changed)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_id_is_64_hex_digits_and_nothing_else() {
        let id = ImageId::of(b"abc");
        assert_eq!(
            id.as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(ImageId::try_from(id.to_string()).is_ok());
        for bad in ["", "../../etc/passwd", &"A".repeat(64), &"a".repeat(65)] {
            assert!(ImageId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_beyond_the_end_is_a_changed_image_and_not_a_panic() {
        let mut images = MemoryImages::default();
        let id = images.insert(&b"0123456789"[..]);
        let mut out = [0; 4];
        images.read_at(&id, 6, &mut out).unwrap();
        assert_eq!(&out, b"6789");
        for offset in [7, 10, u64::MAX] {
            assert_eq!(
                images.read_at(&id, offset, &mut out),
                Err(ImageError::Changed(id.clone()))
            );
        }
    }
}
