//! A file that lies in memory as a whole: what tools and tests upload. A file that still grows is the caller's own
//! [`Source`].

use alloc::vec::Vec;

use super::{Plan, Source};
use crate::mcuboot::{Image, sha256};

/// A file that is there from the beginning.
#[derive(Clone, Debug)]
pub struct Whole<'a> {
    bytes: &'a [u8],
    hash: Option<Vec<u8>>,
}

impl<'a> Whole<'a> {
    /// The file with these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let image = Image::examine(&mut &*bytes, bytes.len() as u64);
        Self {
            bytes,
            hash: image.ok().map(|image| image.hash),
        }
    }

    /// How it is uploaded: named by its digest, into the slot that the server chooses.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan {
            size: self.bytes.len() as u64,
            name: sha256(self.bytes).to_vec(),
            name_is_digest: true,
            image: None,
            repeat_image: false,
            listed_image: 0,
        }
    }
}

impl Source for Whole<'_> {
    fn held(&mut self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> bool {
        crate::mcuboot::ReadAt::read_at(&mut &*self.bytes, offset, into)
    }

    fn hash(&mut self) -> Option<Vec<u8>> {
        self.hash.clone()
    }
}
