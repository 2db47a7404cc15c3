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

/// Fills a member that was not there before.
pub(crate) fn put<T>(slot: &mut Option<T>, value: T, field: Field) -> Result<(), ParseError> {
    if slot.is_some() {
        return Err(ParseError::Duplicate { field });
    }
    *slot = Some(value);
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
pub(super) fn plain_text(
    value: Value<'_>,
    field: Field,
    most: usize,
) -> Result<String, ParseError> {
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
    let (digits, base) = match digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    let octal = base == 10 && digits.len() > 1 && digits.starts_with('0');
    if digits.is_empty() || octal || !digits.chars().all(|digit| digit.is_digit(base)) {
        return Err(ParseError::BadNumber { field });
    }
    let mut number = 0u64;
    for digit in digits.chars() {
        let digit = digit.to_digit(base).unwrap_or(0);
        number = number
            .checked_mul(u64::from(base))
            .and_then(|number| number.checked_add(u64::from(digit)))
            .ok_or(ParseError::NumberTooLarge { field })?;
    }
    Ok(number)
}

/// A number of at most 32 bits.
pub(crate) fn number_u32(value: Value<'_>, field: Field) -> Result<u32, ParseError> {
    u32::try_from(number(value, field)?).map_err(|_| ParseError::NumberTooLarge { field })
}
