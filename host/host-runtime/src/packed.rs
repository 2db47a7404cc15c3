//! What is seldom looked at, in few bytes: one piece of memory, in which small numbers and short texts are small.
//!
//! Not here: anything that is written to a medium.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A packed value.
pub(crate) struct Packed<T> {
    bytes: Box<[u8]>,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            of: PhantomData,
        }
    }
}

impl<T: Serialize + DeserializeOwned> Packed<T> {
    /// None for a value that cannot be packed: one of no fixed shape.
    pub(crate) fn new(value: &T) -> Option<Self> {
        let bytes = postcard::to_allocvec(value).ok()?;
        Some(Self {
            bytes: bytes.into(),
            of: PhantomData,
        })
    }

    pub(crate) fn open(&self) -> Option<T> {
        postcard::from_bytes(&self.bytes).ok()
    }
}
