//! Members of objects: each once, each of its type, each within its limit.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::jobs::{NameDefect, NameError};
use crate::json::{self, JsonError, Value};

use super::{DOCUMENT_MAX_BYTES, Field, ParseError};

impl From<JsonError> for ParseError {
    fn from(error: JsonError) -> Self {
        let JsonError { at, too_deep } = error;
        if too_deep {
            Self::TooDeep { at }
        } else {
            Self::BadJson { at }
        }
    }
}

/// Checks a whole message: length, UTF-8, JSON.
pub(crate) fn parse_message(payload: &[u8]) -> Result<Value<'_>, ParseError> {
    check_length(payload.len())?;
    match core::str::from_utf8(payload) {
        Ok(text) => Ok(json::parse(text)?),
        Err(error) => Err(ParseError::NotUtf8 {
            at: error.valid_up_to(),
        }),
    }
}

pub(super) const fn check_length(bytes: usize) -> Result<(), ParseError> {
    if bytes > DOCUMENT_MAX_BYTES {
        Err(ParseError::TooLarge { bytes })
    } else {
        Ok(())
    }
}

/// Walks an object once and hands out the members under these keys, in the order of the keys. All others are passed over.
///
/// One walk for every object there is: reading member by member into typed places makes a copy of the walk for each.
pub(crate) fn collect<'a, const N: usize>(
    object: Value<'a>,
    whole: Field,
    keys: &[(&str, Field); N],
) -> Result<[Option<Value<'a>>; N], ParseError> {
    let mut found = [None; N];
    fill(object, whole, keys, &mut found)?;
    Ok(found)
}

fn fill<'a>(
    object: Value<'a>,
    whole: Field,
    keys: &[(&str, Field)],
    found: &mut [Option<Value<'a>>],
) -> Result<(), ParseError> {
    for (key, value) in object
        .members()
        .ok_or(ParseError::WrongType { field: whole })?
    {
        let slot = keys
            .iter()
            .zip(&mut *found)
            .find(|((name, _), _)| *name == key);
        if let Some(((_, field), slot)) = slot
            && slot.replace(value).is_some()
        {
            return Err(ParseError::Duplicate { field: *field });
        }
    }
    Ok(())
}

/// A member that must be there.
pub(super) fn needed<T>(slot: Option<T>, field: Field) -> Result<T, ParseError> {
    slot.ok_or(ParseError::Missing { field })
}

/// A text.
pub(crate) fn text(value: Value<'_>, field: Field) -> Result<Cow<'_, str>, ParseError> {
    if let Value::Text(text) = value {
        Ok(text.decode())
    } else {
        Err(ParseError::WrongType { field })
    }
}

/// A text of at most `most` bytes without control characters: they would end a path early or forge a line of a log.
/// Empty if it is not there.
pub(super) fn plain_text(
    value: Option<Value<'_>>,
    field: Field,
    most: usize,
) -> Result<String, ParseError> {
    let Some(value) = value else {
        return Ok(String::new());
    };
    let text = text(value, field)?;
    if text.len() > most {
        return Err(ParseError::TooLong {
            field,
            bytes: text.len(),
            most,
        });
    }
    if text.chars().any(char::is_control) {
        return Err(ParseError::BadText { field });
    }
    Ok(text.into_owned())
}

/// A text that is not the name it should be.
pub(super) fn bad_name(error: NameError, field: Field) -> ParseError {
    match error.defect {
        NameDefect::TooLong(bytes) => ParseError::TooLong {
            field,
            bytes,
            most: error.kind.max_bytes(),
        },
        NameDefect::Empty | NameDefect::BadByte(_) => ParseError::BadText { field },
    }
}

/// A number: decimal, or in quotes decimal or hexadecimal after `0x`. A leading zero is refused, for the C agent reads
/// octal then and others do not.
pub(crate) fn number(value: Value<'_>, field: Field) -> Result<u64, ParseError> {
    let quoted;
    let digits = match value {
        Value::Number(digits) => digits,
        Value::Text(text) => {
            quoted = text.decode();
            &*quoted
        }
        Value::Null | Value::Bool(_) | Value::Object(_) | Value::Array(_) => {
            return Err(ParseError::WrongType { field });
        }
    };
    let bytes = digits.as_bytes();
    let (digits, base) = match bytes {
        [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
        [b'0', _, ..] => return Err(ParseError::BadNumber { field }),
        digits => (digits, 10),
    };
    if digits.is_empty() {
        return Err(ParseError::BadNumber { field });
    }
    let mut number = Some(0u64);
    for digit in digits {
        let digit = char::from(*digit)
            .to_digit(base)
            .ok_or(ParseError::BadNumber { field })?;
        let shifted = number.and_then(|number| number.checked_mul(u64::from(base)));
        number = shifted.and_then(|number| number.checked_add(u64::from(digit)));
    }
    number.ok_or(ParseError::NumberTooLarge { field })
}

/// A number of at most 32 bits, 0 if it is not there.
pub(super) fn number_or_0(value: Option<Value<'_>>, field: Field) -> Result<u32, ParseError> {
    value.map_or(Ok(0), |value| number_u32(value, field))
}

/// A number of at most 32 bits.
pub(crate) fn number_u32(value: Value<'_>, field: Field) -> Result<u32, ParseError> {
    u32::try_from(number(value, field)?).map_err(|_| ParseError::NumberTooLarge { field })
}
