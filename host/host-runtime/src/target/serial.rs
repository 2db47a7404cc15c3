//! Bytes in JSON records, as hexadecimal text.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// The bytes of a hexadecimal text.
fn parse(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |b: u8| {
        let digit = char::from(b).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let mut bytes = Vec::with_capacity(pairs.len());
    for [high, low] in pairs {
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    Some(bytes)
}

/// A SHA-256.
pub(crate) mod hex32 {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bytes: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&host_crypto::hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| D::Error::custom("not 64 hexadecimal digits"))
    }
}

/// What may be missing, and is shared where it is not.
pub(crate) mod shared {
    use std::sync::Arc;

    use serde::Serialize;

    use super::*;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        shared: &Option<Arc<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        shared.as_deref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<T>>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(Arc::new))
    }
}

/// Any bytes. A list of numbers is read, too: what earlier builds wrote.
pub(crate) mod hex {
    use super::*;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Digits(String),
        Numbers(Vec<u8>),
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&host_crypto::hex(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Digits(text) => {
                parse(&text).ok_or_else(|| D::Error::custom("not hexadecimal digits"))
            }
            Written::Numbers(bytes) => Ok(bytes),
        }
    }
}
