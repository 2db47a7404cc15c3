//! Names of things, jobs and streams: checked once, cheap to copy, safe as a level of a topic and as a file name.
//!
//! Their alphabets are AWS's (no dot, no slash, no wildcard), so a name that exists can neither reach another thing's
//! topics nor leave a directory.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest thing name.
pub const THING_NAME_BYTES_MAX: usize = 128;
/// Longest name of a group.
pub const GROUP_NAME_BYTES_MAX: usize = 128;
/// Longest job id.
pub const JOB_ID_BYTES_MAX: usize = 64;
/// Longest stream id.
pub const STREAM_ID_BYTES_MAX: usize = 128;

/// A name that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} is not valid: 1 to {max} characters of {alphabet}")]
pub struct NameError {
    /// What it should have named.
    pub kind: &'static str,
    /// What was given, shortened.
    pub text: String,
    /// Longest legal name.
    pub max: usize,
    /// Legal characters.
    pub alphabet: &'static str,
}

fn check(
    kind: &'static str,
    text: &str,
    max: usize,
    alphabet: &'static str,
    colon: bool,
) -> Result<(), NameError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || (colon && b == b':');
    if text.is_empty() || text.len() > max || !text.bytes().all(legal) {
        return Err(NameError {
            kind,
            text: text.chars().take(160).collect(),
            max,
            alphabet,
        });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:expr, $alphabet:literal, $colon:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            /// Empty, too long, or a character outside the alphabet.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check($kind, text, $max, $alphabet, $colon)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name!(
    /// A device as AWS IoT names it.
    ThingName, "thing name", THING_NAME_BYTES_MAX, "a-z, A-Z, 0-9, ':', '_' and '-'", true
);
name!(
    /// A group of things.
    GroupName, "group name", GROUP_NAME_BYTES_MAX, "a-z, A-Z, 0-9, ':', '_' and '-'", true
);
name!(
    /// A job.
    JobId, "job id", JOB_ID_BYTES_MAX, "a-z, A-Z, 0-9, '_' and '-'", false
);
name!(
    /// A stream: the files of one update.
    StreamId, "stream id", STREAM_ID_BYTES_MAX, "a-z, A-Z, 0-9, '_' and '-'", false
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_at_its_limit_is_legal_and_one_past_it_is_not() {
        assert!(ThingName::new(&"t".repeat(128)).is_ok());
        assert!(ThingName::new(&"t".repeat(129)).is_err());
        assert!(JobId::new(&"j".repeat(64)).is_ok());
        assert!(JobId::new(&"j".repeat(65)).is_err());
        assert!(StreamId::new(&"s".repeat(128)).is_ok());
        assert!(StreamId::new(&"s".repeat(129)).is_err());
        assert!(ThingName::new("").is_err());
    }

    #[test]
    fn no_name_can_reach_out_of_its_level_or_directory() {
        for text in ["a/b", "+", "#", "..", "a.b", "$next", "a b", "ä", "a\0"] {
            assert!(ThingName::new(text).is_err(), "{text:?}");
            assert!(JobId::new(text).is_err(), "{text:?}");
            assert!(StreamId::new(text).is_err(), "{text:?}");
        }
        assert!(ThingName::new("a:b").is_ok());
        assert!(JobId::new("a:b").is_err());
    }

    #[test]
    fn a_stored_name_is_checked_when_it_is_read() {
        assert!(serde_json::from_str::<ThingName>("\"a/b\"").is_err());
        let name: ThingName = serde_json::from_str("\"gw-1\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"gw-1\"");
    }
}
