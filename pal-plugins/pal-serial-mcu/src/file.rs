//! The staged file as an MCUboot image: what it says about itself, and as the source of an upload.

use pal_sdk::{Failure, code};
use smp_core::client::Source;
use smp_core::mcuboot::{Hasher, Image, ImageError, ImageHeader, ReadAt, flag};

use crate::port::{Lent, Port};
use crate::sub;

/// Bytes of one step of hashing.
const HASH_BYTES: u32 = 4096;
/// Most of them in one call: 64 KiB, some milliseconds.
const HASH_STEPS_MAX: u32 = 16;

/// Reads the staged file.
pub(crate) struct Staged<'a, L> {
    pub(crate) port: &'a Port<L>,
    pub(crate) size: u64,
    pub(crate) hash: Option<Vec<u8>>,
}

impl<L: Lent> ReadAt for Staged<'_, L> {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> bool {
        let Ok(length) = u32::try_from(into.len()) else {
            return false;
        };
        match self.port.lent.read_staged(offset, length) {
            Ok(bytes) if bytes.len() == into.len() => {
                into.copy_from_slice(&bytes);
                true
            }
            _ => false,
        }
    }
}

impl<L: Lent> Source for Staged<'_, L> {
    fn held(&mut self) -> u64 {
        self.port.lent.held()
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> bool {
        self.read_at(offset, into)
    }

    fn hash(&mut self) -> Option<Vec<u8>> {
        if self.hash.is_none() && self.held() >= self.size {
            let size = self.size;
            self.hash = Image::examine(self, size).ok().map(|image| image.hash);
        }
        self.hash.clone()
    }
}

/// Reads the image's header and TLVs: who it is.
///
/// # Errors
/// 0xd3: no image, or a damaged one; 0xdb: not there yet.
pub(crate) fn identify<L: Lent>(port: &Port<L>, size: u64) -> Result<Image, Failure> {
    if port.lent.held() < size {
        return Err(Failure::new(code::NOT_FOUND, 0, "the file is not complete"));
    }
    let mut file = Staged {
        port,
        size,
        hash: None,
    };
    Image::examine(&mut file, size).map_err(bad_image)
}

/// The hash of an encrypted image is that of its bytes before they were: here it could not be told from a damaged one.
///
/// # Errors
/// 0xd3: it is encrypted.
pub(crate) fn check_plain(header: &ImageHeader) -> Result<(), Failure> {
    if header.flags & flag::ENCRYPTED == 0 {
        return Ok(());
    }
    let text = "the image is encrypted, and such images are not taken";
    Err(Failure::new(code::WRONG_PRODUCT, sub::NO_IMAGE, text))
}

/// Identifies the image, compares its hash with its bytes, and its product with what is configured.
///
/// # Errors
/// 0xd3: no image, a damaged one, or one for another product; 0xdb: not there yet.
pub(crate) async fn examine<L: Lent>(port: &Port<L>, size: u64) -> Result<Image, Failure> {
    let image = identify(port, size)?;
    check_plain(&image.header)?;
    let mut file = Staged {
        port,
        size,
        hash: None,
    };
    let mut hasher = Hasher::new(&image);
    let mut steps = 0;
    while hasher.step(&mut file, size).map_err(bad_image)? {
        steps += 1;
        let most = (port.budget_bytes.get() / HASH_BYTES).clamp(1, HASH_STEPS_MAX);
        if steps >= most {
            steps = 0;
            port.breathe().await;
        }
    }
    hasher.check(&image).map_err(bad_image)?;
    let wanted = &port.settings.product;
    if !wanted.is_empty() && product(port, &image, size).as_ref() != Some(wanted) {
        let text = ["the image is not for product `", wanted, "`"].concat();
        return Err(Failure::new(code::WRONG_PRODUCT, sub::OTHER_PRODUCT, &text));
    }
    Ok(image)
}

/// What the image's product TLV says, if the hash covers it.
pub(crate) fn product<L: Lent>(port: &Port<L>, image: &Image, size: u64) -> Option<String> {
    let mut file = Staged {
        port,
        size,
        hash: None,
    };
    let tlv = image.protected(port.settings.product_tlv)?;
    let value = image.value(&mut file, size, tlv).ok()?;
    String::from_utf8(value).ok()
}

pub(crate) fn bad_image(error: ImageError) -> Failure {
    let (main, number) = match error {
        ImageError::Read => (code::NOT_FOUND, 0),
        _ => (code::WRONG_PRODUCT, sub::NO_IMAGE),
    };
    Failure::new(main, number, &error.to_string())
}
