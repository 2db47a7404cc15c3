//! Members of objects: each once, each of its type, each within its limit.
//!
//! The first defect is kept and reading goes on with a harmless value: that is a good deal less code than a way out of
//! every line, and nothing that was read counts once there is a defect.

use alloc::string::String;

use crate::jobs::{NameDefect, NameError};
use crate::json::{self, Value};

use super::{DOCUMENT_MAX_BYTES, Field, ParseError};

/// Checks a whole message: length, UTF-8, JSON.
pub(crate) fn parse_message(payload: &[u8]) -> Result<Value<'_>, ParseError> {
    match core::str::from_utf8(payload) {
        _ if payload.len() > DOCUMENT_MAX_BYTES => Err(ParseError::TooLarge {
            bytes: payload.len(),
        }),
        Ok(text) => parse_text(text),
        Err(error) => Err(ParseError::NotUtf8 {
            at: error.valid_up_to(),
        }),
    }
}

pub(super) fn parse_text(text: &str) -> Result<Value<'_>, ParseError> {
    if text.len() > DOCUMENT_MAX_BYTES {
        return Err(ParseError::TooLarge { bytes: text.len() });
    }
    json::parse(text).map_err(|error| {
        if error.too_deep {
            ParseError::TooDeep { at: error.at }
        } else {
            ParseError::BadJson { at: error.at }
        }
    })
}

/// Reads members and keeps the first defect.
#[derive(Default)]
pub(crate) struct Check {
    defect: Option<ParseError>,
}

impl Check {
    /// What was read, unless there was a defect.
    pub(crate) fn finish<T>(self, read: T) -> Result<T, ParseError> {
        match self.defect {
            None => Ok(read),
            Some(defect) => Err(defect),
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.defect.is_none()
    }

    pub(crate) fn fail(&mut self, defect: ParseError) {
        if self.defect.is_none() {
            self.defect = Some(defect);
        }
    }

    /// A value of the wrong type.
    pub(crate) fn type_of(&mut self, value: Value<'_>, first: u8, field: Field) {
        if value.first() != first {
            self.fail(ParseError::WrongType { field });
        }
    }

    /// A member that may be there.
    pub(crate) fn find<'a>(&mut self, of: Value<'a>, key: &str, field: Field) -> Option<Value<'a>> {
        let (value, twice) = json::find(of, key)?;
        if twice {
            self.fail(ParseError::Duplicate { field });
        }
        Some(value)
    }

    /// A member that must be there.
    pub(crate) fn need<'a>(&mut self, of: Value<'a>, key: &str, field: Field) -> Option<Value<'a>> {
        let value = self.find(of, key, field);
        if value.is_none() {
            self.fail(ParseError::Missing { field });
        }
        value
    }

    /// A text, empty if it is not there.
    pub(crate) fn text(&mut self, value: Option<Value<'_>>, field: Field) -> String {
        let Some(value) = value else {
            return String::new();
        };
        value.text().unwrap_or_else(|| {
            self.fail(ParseError::WrongType { field });
            String::new()
        })
    }

    /// A text of at most `most` bytes without control characters: they would end a path early or forge a line of a
    /// log. Empty if it is not there.
    pub(super) fn plain_text(
        &mut self,
        of: Value<'_>,
        key: &str,
        field: Field,
        most: usize,
    ) -> String {
        let value = self.find(of, key, field);
        let text = self.text(value, field);
        if text.len() > most {
            self.fail(ParseError::TooLong {
                field,
                bytes: text.len(),
                most,
            });
        } else if text.chars().any(char::is_control) {
            self.fail(ParseError::BadText { field });
        }
        text
    }

    /// A text that is not the name it should be.
    pub(super) fn bad_name(&mut self, error: NameError, field: Field) {
        self.fail(match error.defect {
            NameDefect::TooLong(bytes) => ParseError::TooLong {
                field,
                bytes,
                most: error.kind.max_bytes(),
            },
            NameDefect::Empty | NameDefect::BadByte(_) => ParseError::BadText { field },
        });
    }

    /// A number of at most `most`, 0 if it is not there.
    pub(crate) fn number(&mut self, value: Option<Value<'_>>, field: Field, most: u64) -> u64 {
        let Some(value) = value else { return 0 };
        match number(value, field) {
            Ok(number) if number <= most => return number,
            Ok(_) => self.fail(ParseError::NumberTooLarge { field }),
            Err(defect) => self.fail(defect),
        }
        0
    }
}

/// A number: decimal, or in quotes decimal or hexadecimal after `0x`. A leading zero is refused, for the C agent reads
/// octal then and others do not.
pub(crate) fn number(value: Value<'_>, field: Field) -> Result<u64, ParseError> {
    let text = match value.first() {
        b'"' => value.text().unwrap_or_default(),
        b'-' | b'0'..=b'9' => String::from(value.raw()),
        _ => return Err(ParseError::WrongType { field }),
    };
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', _, ..] => (&[] as &[u8], 10),
        digits => (digits, 10),
    };
    let mut number = Some(0u64);
    let mut good = !digits.is_empty();
    for digit in digits {
        let digit = char::from(*digit).to_digit(base);
        good &= digit.is_some();
        number = number.and_then(|number| {
            number
                .checked_mul(base.into())?
                .checked_add(digit.unwrap_or(0).into())
        });
    }
    match number {
        Some(number) if good => Ok(number),
        None if good => Err(ParseError::NumberTooLarge { field }),
        _ => Err(ParseError::BadNumber { field }),
    }
}
