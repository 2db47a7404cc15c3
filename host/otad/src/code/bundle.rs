//! Code in one file, with its manifest and the signature of that: what an update job brings.
//!
//! ```text
//! code ‖ manifest ‖ signature ‖ length of the manifest (u32 le) ‖ length of the signature (u32 le) ‖ `OTADCODE`
//! ```
//!
//! The end says where the parts are, so that whoever has the whole file can read the manifest alone. It protects nothing: the
//! signature is over the manifest, and the manifest has the code's digest. Not here: who may sign (`gate.rs`).

use std::ops::Range;

use super::CodeError;
use super::gate::{CODE_MAX_BYTES, SIGNATURE_MAX_BYTES};
use super::manifest::MANIFEST_MAX_BYTES;

/// Ending of a bundle's name.
pub const BUNDLE: &str = "bundle";

const MAGIC: &[u8; 8] = b"OTADCODE";

/// Bytes behind the signature.
pub(crate) const END_BYTES: usize = 4 + 4 + MAGIC.len();

/// Most bytes of a bundle: the largest code, and what vouches for it.
pub(crate) const BUNDLE_MAX_BYTES: u64 =
    CODE_MAX_BYTES + MANIFEST_MAX_BYTES + SIGNATURE_MAX_BYTES + END_BYTES as u64;

/// The three as one.
///
/// # Errors
/// A manifest or a signature that no gate would read, in words.
pub fn bundle(code: &[u8], manifest: &[u8], signature: &[u8]) -> Result<Vec<u8>, String> {
    let length = |what: &str, bytes: &[u8], max: u64| match u32::try_from(bytes.len()) {
        Ok(length) if u64::from(length) <= max => Ok(length.to_le_bytes()),
        _ => Err(format!(
            "the {what} has {} bytes, at most {max}",
            bytes.len()
        )),
    };
    let lengths = [
        length("manifest", manifest, MANIFEST_MAX_BYTES)?,
        length("signature", signature, SIGNATURE_MAX_BYTES)?,
    ];
    Ok([code, manifest, signature, &lengths[0], &lengths[1], MAGIC].concat())
}

/// Where manifest and signature lie in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) manifest: Range<u64>,
    pub(crate) signature: Range<u64>,
}

impl Parts {
    /// By the last bytes of a file of `size` bytes; none for a file that is no bundle.
    ///
    /// # Errors
    /// [`CodeError::Bundle`].
    pub(crate) fn of(end: &[u8], size: u64) -> Result<Option<Self>, CodeError> {
        let Some((lengths, MAGIC)) = end
            .last_chunk::<END_BYTES>()
            .and_then(|end| end.split_last_chunk())
        else {
            return Ok(None);
        };
        let length = |at: usize| {
            let bytes = lengths.get(at..at + 4)?.try_into().ok()?;
            Some(u64::from(u32::from_le_bytes(bytes)))
        };
        let (Some(manifest), Some(signature)) = (length(0), length(4)) else {
            return Ok(None);
        };
        let fits = manifest <= MANIFEST_MAX_BYTES && signature <= SIGNATURE_MAX_BYTES;
        let tail = manifest + signature + END_BYTES as u64;
        match size.checked_sub(tail).filter(|code| fits && *code > 0) {
            Some(code) => Ok(Some(Self {
                manifest: code..code + manifest,
                signature: code + manifest..code + manifest + signature,
            })),
            None => Err(CodeError::Bundle {
                manifest,
                signature,
                size,
            }),
        }
    }
}

/// A file, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// It is no bundle: all of it.
    Plain(Vec<u8>),
    /// Its parts.
    Bundle {
        code: Vec<u8>,
        manifest: Vec<u8>,
        signature: Vec<u8>,
    },
}

/// Take a bundle apart.
///
/// # Errors
/// [`CodeError::Bundle`].
pub(super) fn split(mut file: Vec<u8>) -> Result<Split, CodeError> {
    let Some(parts) = Parts::of(&file, file.len() as u64)? else {
        return Ok(Split::Plain(file));
    };
    // All of them lie within the file, whose length is one of memory.
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(file.len());
    let (manifest, signature) = (at(parts.manifest.start), at(parts.signature.start));
    let mut signature = file.split_off(signature);
    signature.truncate(signature.len().saturating_sub(END_BYTES));
    let manifest = file.split_off(manifest);
    Ok(Split::Bundle {
        code: file,
        manifest,
        signature,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_comes_apart_again() {
        let file = bundle(b"\0asm...", b"name = 1", b"sig").unwrap();
        let parts = Split::Bundle {
            code: b"\0asm...".to_vec(),
            manifest: b"name = 1".to_vec(),
            signature: b"sig".to_vec(),
        };
        assert_eq!(split(file).unwrap(), parts);
    }

    #[test]
    fn a_file_without_the_end_is_no_bundle_and_comes_back() {
        for file in [&b""[..], b"OTADCODE", b"\0asm and more bytes than an end"] {
            let file = file.to_vec();
            assert_eq!(split(file.clone()).unwrap(), Split::Plain(file));
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let end = |manifest: u32, signature: u32| {
            let lengths = [manifest.to_le_bytes(), signature.to_le_bytes()].concat();
            [&b"code"[..], &lengths, MAGIC].concat()
        };
        assert!(split(end(0, 3)).is_ok());
        for (manifest, signature) in [(4, 0), (0, 4), (u32::MAX, u32::MAX), (16_385, 0)] {
            let error = split(end(manifest, signature)).unwrap_err();
            assert!(error.to_string().contains("is damaged"), "{error}");
        }
    }
}
