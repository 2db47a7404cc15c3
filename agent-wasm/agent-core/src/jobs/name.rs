//! The three names that stand in topics. A name that was made is legal; nothing else checks them again.

use alloc::string::String;
use core::fmt;

/// Which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A thing.
    Thing,
    /// A job.
    Job,
    /// A stream.
    Stream,
}

impl NameKind {
    /// Most bytes, as the service allows: 128 for things and streams, 64 for jobs.
    #[must_use]
    pub const fn max_bytes(self) -> usize {
        match self {
            Self::Thing | Self::Stream => 128,
            Self::Job => 64,
        }
    }

    const fn allows(self, byte: u8) -> bool {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => true,
            b':' => matches!(self, Self::Thing),
            _ => false,
        }
    }

    /// Checks a name.
    pub(super) fn check(self, text: &str) -> Result<(), NameError> {
        let defect = if text.is_empty() {
            NameDefect::Empty
        } else if text.len() > self.max_bytes() {
            NameDefect::TooLong(text.len())
        } else if let Some(at) = text.bytes().position(|byte| !self.allows(byte)) {
            NameDefect::BadByte(at)
        } else {
            return Ok(());
        };
        Err(NameError { kind: self, defect })
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Thing => "thing name",
            Self::Job => "job id",
            Self::Stream => "stream id",
        }
    }
}

/// What is wrong with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameDefect {
    /// It has no bytes.
    Empty,
    /// It has so many bytes.
    TooLong(usize),
    /// The byte at this index is not allowed.
    BadByte(usize),
}

/// A text that is not a legal name. The caller's or the peer's fault, whoever gave the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError {
    /// Which name.
    pub kind: NameKind,
    /// What is wrong.
    pub defect: NameDefect,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = self.kind.noun();
        match self.defect {
            NameDefect::Empty => write!(f, "the {noun} is empty"),
            NameDefect::TooLong(bytes) => {
                let most = self.kind.max_bytes();
                write!(
                    f,
                    "the {noun} has {bytes} bytes, at most {most} are allowed"
                )
            }
            NameDefect::BadByte(at) => write!(
                f,
                "byte {at} of the {noun} is none of the letters, digits and marks allowed"
            ),
        }
    }
}

impl core::error::Error for NameError {}

macro_rules! name {
    ($(#[$meta:meta])* $name:ident, $kind:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks and keeps a name.
            ///
            /// # Errors
            /// [`NameError`] if the text is empty, too long or has a byte that the service does not allow.
            pub fn new(text: &str) -> Result<Self, NameError> {
                NameKind::$kind.check(text)?;
                Ok(Self(String::from(text)))
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
    };
}

name! {
    /// The name of a thing: 1 to 128 of `[a-zA-Z0-9:_-]`.
    ThingName, Thing
}
name! {
    /// The id of a job: 1 to 64 of `[a-zA-Z0-9_-]`.
    JobId, Job
}
name! {
    /// The id of a stream: 1 to 128 of `[a-zA-Z0-9_-]`.
    StreamId, Stream
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn defect(kind: NameKind, text: &str) -> Option<NameDefect> {
        kind.check(text).err().map(|error| error.defect)
    }

    #[test]
    fn names_are_legal_up_to_their_limit_and_not_one_byte_past_it() {
        for kind in [NameKind::Thing, NameKind::Job, NameKind::Stream] {
            let most = kind.max_bytes();
            assert_eq!(defect(kind, ""), Some(NameDefect::Empty));
            assert_eq!(defect(kind, &"a".repeat(most)), None);
            assert_eq!(
                defect(kind, &"a".repeat(most + 1)),
                Some(NameDefect::TooLong(most + 1))
            );
        }
    }

    #[test]
    fn every_ascii_byte_is_judged_as_the_service_does() {
        for byte in 0u8..=0x7f {
            let text = char::from(byte).to_string();
            let common = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            assert_eq!(defect(NameKind::Job, &text).is_none(), common, "{byte:#x}");
            assert_eq!(
                defect(NameKind::Stream, &text).is_none(),
                common,
                "{byte:#x}"
            );
            let thing = common || byte == b':';
            assert_eq!(defect(NameKind::Thing, &text).is_none(), thing, "{byte:#x}");
        }
        assert_eq!(defect(NameKind::Thing, "aé"), Some(NameDefect::BadByte(1)));
    }

    #[test]
    fn a_refusal_names_what_was_wrong() {
        let error = JobId::new(&"j".repeat(73)).map_err(|error| error.to_string());
        assert_eq!(
            error,
            Err("the job id has 73 bytes, at most 64 are allowed".to_string())
        );
    }
}
