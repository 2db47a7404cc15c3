//! Members of objects: each once, each of its type, each within its limit.
//!
//! An object is walked once, whatever is looked for in it. The first defect is kept and reading goes on with a harmless
//! value: that is a good deal less code than a way out of every line, and nothing that was read counts once there is a
//! defect.

use alloc::string::String;

use crate::jobs::{NameDefect, NameError};
use crate::json::{self, JsonError, Value, Walk};
use crate::text::{read_number, utf8};

use super::error::KEYS;
use super::{DOCUMENT_MAX_BYTES, Defect, Field, ParseError};

/// Keeps the first defect.
#[derive(Default)]
pub(crate) struct Check {
    defect: Option<ParseError>,
}

impl Check {
    /// Checks a whole message: UTF-8, length, JSON.
    pub(crate) fn message<'a>(&mut self, payload: &'a [u8]) -> Option<Value<'a>> {
        match utf8(payload) {
            Ok(text) => self.parse(text),
            Err(good) => {
                self.fail(Defect::NotUtf8, Field::Message, good);
                None
            }
        }
    }

    /// Checks a whole text: length, JSON.
    pub(super) fn parse<'a>(&mut self, text: &'a str) -> Option<Value<'a>> {
        let (defect, number) = if text.len() > DOCUMENT_MAX_BYTES {
            (Defect::TooLarge, text.len())
        } else {
            match json::parse(text) {
                Ok(value) => return Some(value),
                Err(JsonError(at)) => (Defect::BadJson, at),
            }
        };
        self.fail(defect, Field::Message, number);
        None
    }

    /// What was read, unless there was a defect.
    pub(crate) fn finish<T>(self, read: T) -> Result<T, ParseError> {
        match self.defect {
            None => Ok(read),
            Some(defect) => Err(defect),
        }
    }

    pub(crate) const fn is_good(&self) -> bool {
        self.defect.is_none()
    }

    /// Notes a defect, unless there was one before. The number is the one that [`Defect`] names.
    // Inlined, it would be a quarter of the parser.
    #[inline(never)]
    pub(crate) fn fail(&mut self, defect: Defect, field: Field, number: usize) {
        if self.is_good() {
            self.defect = Some(ParseError {
                defect,
                field,
                number: number as u32,
            });
        }
    }

    /// The members of an object that must be one if it is there.
    pub(crate) fn object<'c, 'a>(
        &'c mut self,
        of: Option<Value<'a>>,
        field: Field,
    ) -> Members<'c, 'a> {
        if let Some(value) = of {
            self.type_of(value, b'{', field);
        }
        self.members(of)
    }

    /// The members of an object; none of anything else.
    pub(super) fn members<'c, 'a>(&'c mut self, of: Option<Value<'a>>) -> Members<'c, 'a> {
        let mut members = Members {
            values: [None; KEYS.len()],
            twice: 0,
            any: false,
            check: self,
        };
        let object = of.filter(|value| value.first() == b'{');
        for (key, value) in object.unwrap_or(Value::NOTHING).walk() {
            members.any = true;
            let key = key.text().unwrap_or_default();
            for (at, name) in KEYS.iter().enumerate() {
                if *name == key {
                    let found = members.values[at].replace(value);
                    members.twice |= u32::from(found.is_some()) << at;
                }
            }
        }
        members
    }

    /// A value of the wrong type.
    fn type_of(&mut self, value: Value<'_>, first: u8, field: Field) {
        if value.first() != first {
            self.fail(Defect::WrongType, field, 0);
        }
    }

    /// The elements of an array; none if there is no value.
    pub(super) fn array<'a>(&mut self, value: Option<Value<'a>>, field: Field) -> Walk<'a> {
        let value = value.unwrap_or(Value::NOTHING);
        self.type_of(value, b'[', field);
        value.walk()
    }

    /// A text, empty if it is not there.
    pub(super) fn text(&mut self, value: Option<Value<'_>>, field: Field) -> String {
        let Some(value) = value else {
            return String::new();
        };
        self.type_of(value, b'"', field);
        value.text().unwrap_or_default()
    }

    /// A name, none if it is not one.
    pub(super) fn name<N>(&mut self, name: Result<N, NameError>, field: Field) -> Option<N> {
        match name {
            Ok(name) => Some(name),
            Err(error) => {
                let (defect, bytes) = match error.defect {
                    NameDefect::TooLong(bytes) => (Defect::TooLong, bytes),
                    NameDefect::Empty | NameDefect::BadByte(_) => (Defect::BadText, 0),
                };
                self.fail(defect, field, bytes);
                None
            }
        }
    }
}

/// The members of one object that somebody may look for, by their places in [`KEYS`].
pub(crate) struct Members<'c, 'a> {
    values: [Option<Value<'a>>; KEYS.len()],
    /// A bit for each that stands twice.
    twice: u32,
    /// Whether there is any member at all.
    pub(super) any: bool,
    pub(crate) check: &'c mut Check,
}

impl<'a> Members<'_, 'a> {
    /// A member that may be there, by its place in [`KEYS`].
    pub(crate) fn at(&mut self, at: usize, field: Field) -> Option<Value<'a>> {
        if self.twice >> at & 1 != 0 {
            self.check.fail(Defect::Duplicate, field, 0);
        }
        self.values.get(at).copied().flatten()
    }

    /// A member that may be there.
    pub(crate) fn find(&mut self, field: Field) -> Option<Value<'a>> {
        self.at(field as usize, field)
    }

    /// A member that must be there.
    pub(super) fn need(&mut self, field: Field) -> Option<Value<'a>> {
        let value = self.find(field);
        if value.is_none() {
            self.check.fail(Defect::Missing, field, 0);
        }
        value
    }

    /// A text, empty if it is not there.
    pub(crate) fn text(&mut self, field: Field) -> String {
        let value = self.find(field);
        self.check.text(value, field)
    }

    /// A text of at most `most` bytes without control characters: they would end a path early or forge a line of a
    /// log. Empty if it is not there.
    pub(super) fn plain_text(&mut self, field: Field, most: usize) -> String {
        let text = self.text(field);
        if text.len() > most {
            self.check.fail(Defect::TooLong, field, text.len());
        } else if text.chars().any(char::is_control) {
            self.check.fail(Defect::BadText, field, 0);
        }
        text
    }

    /// A number of at most `most`, 0 if it is not there.
    pub(crate) fn number(&mut self, field: Field, most: u64) -> u64 {
        let Some(value) = self.find(field) else {
            return 0;
        };
        match number(value) {
            Ok(number) if number <= most => return number,
            Ok(_) => self.check.fail(Defect::NumberTooLarge, field, 0),
            Err(defect) => self.check.fail(defect, field, 0),
        }
        0
    }
}

/// A number: decimal, or in quotes decimal or hexadecimal after `0x`. A leading zero is refused, for the C agent reads
/// octal then and others do not.
pub(crate) fn number(value: Value<'_>) -> Result<u64, Defect> {
    let text = match value.first() {
        b'"' => value.text().unwrap_or_default(),
        b'-' | b'0'..=b'9' => String::from(value.raw()),
        _ => return Err(Defect::WrongType),
    };
    let number = match text.as_bytes() {
        [b'0', b'x' | b'X', digits @ ..] => read_number(digits, 16),
        // No digits, so no number.
        [b'0', _, ..] => read_number(&[], 10),
        digits => read_number(digits, 10),
    };
    number.map_err(|too_large| {
        if too_large {
            Defect::NumberTooLarge
        } else {
            Defect::BadNumber
        }
    })
}
