//! SHA-256 over a stream. aws-lc picks the CPU's instructions by itself; where there are none for SHA-256, its assembler
//! takes half the time of portable code.

use aws_lc_rs::digest::{Context, SHA256};

/// A running SHA-256.
#[derive(Clone)]
pub struct Hasher {
    inner: Context,
    size: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            inner: Context::new(&SHA256),
            size: 0,
        }
    }
}

impl Hasher {
    /// Take the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Bytes so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What was hashed.
    #[must_use]
    pub fn finish(self) -> Hashed {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.inner.finish().as_ref());
        Hashed {
            sha256,
            size: self.size,
        }
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Digest and size of bytes that this process has hashed; made only by [`Hasher::finish`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    sha256: [u8; 32],
    size: u64,
}

impl Hashed {
    /// The SHA-256.
    #[must_use]
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// How many bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl std::fmt::Debug for Hashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hashed({}, {} bytes)", hex(&self.sha256), self.size)
    }
}

/// Lower-case hexadecimal, for digests in records and messages.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut text = String::with_capacity(bytes.len() * 2);
    text.extend(digits.map(digit));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_how_the_bytes_were_cut() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let mut whole = Hasher::default();
        whole.update(&bytes);
        for step in [1, 7, 63, 64, 65, 4096] {
            let mut cut = Hasher::default();
            for piece in bytes.chunks(step) {
                cut.update(piece);
            }
            assert_eq!(cut.finish(), whole.clone().finish(), "step {step}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_standard() {
        // FIPS 180-2, appendix B.1.
        let mut hasher = Hasher::default();
        hasher.update(b"abc");
        let hashed = hasher.finish();
        assert_eq!(
            hex(hashed.sha256()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(hashed.size(), 3);
    }
}
