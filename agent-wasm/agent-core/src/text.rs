//! Text building without the formatting machinery: decimal, hexadecimal and JSON strings pushed onto a `String`.
//!
//! Deliberately tiny: every `format!` with arguments costs the guest a kilobyte, and all that goes on the wire is made
//! of these few pieces.

use alloc::string::String;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The row of that number in a text whose rows each end with a line feed; empty if it has none. A table of texts would
/// cost 8 bytes a row beside them.
pub(crate) fn row(rows: &'static str, at: usize) -> &'static str {
    let mut left = at;
    let mut start = 0;
    for (place, byte) in rows.bytes().enumerate() {
        if byte == b'\n' {
            if left == 0 {
                return rows.get(start..place).unwrap_or("");
            }
            left -= 1;
            start = place + 1;
        }
    }
    ""
}

/// The number of a row in a text whose rows have line feeds between them.
pub(crate) fn place(rows: &str, wanted: &str) -> Option<usize> {
    let mut rows = rows.as_bytes().split(|byte| *byte == b'\n');
    rows.position(|row| row == wanted.as_bytes())
}

/// A text in UTF-8, or how many bytes of one it begins with. Half the code of `core::str::from_utf8`, which is made for speed.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, usize> {
    match bytes.utf8_chunks().next() {
        None => Ok(""),
        Some(chunk) if chunk.invalid().is_empty() => Ok(chunk.valid()),
        Some(chunk) => Err(chunk.valid().len()),
    }
}

/// Pushes a number in decimal. Calls itself 19 times at most: 2^64 - 1 has 20 digits.
pub(crate) fn push_decimal(out: &mut String, value: u64) {
    if value >= 10 {
        push_decimal(out, value / 10);
    }
    out.push(char::from(b'0' + (value % 10) as u8));
}

/// Pushes a number as exactly eight lower-case hexadecimal digits, without a prefix.
pub(crate) fn push_hex8(out: &mut String, value: u32) {
    push_hex(out, value, 8);
}

/// Pushes the last digits of a number, lower-case hexadecimal, without a prefix.
pub(crate) fn push_hex(out: &mut String, value: u32, digits: u32) {
    for shift in (0..digits).rev() {
        let nibble = (value >> (shift * 4)) & 0xf;
        out.push(char::from(HEX[nibble as usize]));
    }
}

/// Pushes a text as the inside of a JSON string: quotes, backslashes and control characters escaped, all else as it is.
pub(crate) fn push_json_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        let escape = match character {
            '"' | '\\' => character,
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\0'..='\x1f' => {
                out.push_str("\\u00");
                out.push(if character < '\x10' { '0' } else { '1' });
                out.push(char::from(HEX[(character as usize) & 0xf]));
                continue;
            }
            plain => {
                out.push(plain);
                continue;
            }
        };
        out.push('\\');
        out.push(escape);
    }
}

/// Reads digits of a base; the error says whether the number is merely too large.
pub(crate) fn read_number(digits: &[u8], base: u32) -> Result<u64, bool> {
    let mut number = 0u64;
    let mut too_large = false;
    for byte in digits {
        let digit = char::from(*byte).to_digit(base).ok_or(false)?;
        let (digit, base) = (u64::from(digit), u64::from(base));
        // Not by `checked_mul`, which on wasm is a multiplication of 128 bits.
        too_large |= number > (u64::MAX - digit) / base;
        number = number.wrapping_mul(base).wrapping_add(digit);
    }
    if digits.is_empty() || too_large {
        Err(too_large)
    } else {
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_from_0_and_a_row_that_is_not_there_is_empty() {
        let rows = "zero\n\ntwo\n";
        let found: [&str; 5] = [0, 1, 2, 3, usize::MAX].map(|at| row(rows, at));
        assert_eq!(found, ["zero", "", "two", "", ""]);
    }

    #[test]
    fn a_row_has_its_place_and_what_is_no_row_has_none() {
        let found =
            ["zero", "two", "tw", "zero\n", ""].map(|wanted| place("zero\none\ntwo", wanted));
        assert_eq!(found, [Some(0), Some(2), None, None, None]);
    }

    fn decimal(value: u64) -> String {
        let mut out = String::new();
        push_decimal(&mut out, value);
        out
    }

    #[test]
    fn decimals_are_written_whole_at_both_ends() {
        for (value, text) in [
            (0, "0"),
            (9, "9"),
            (10, "10"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(decimal(value), text);
        }
    }

    #[test]
    fn hexadecimal_is_always_eight_digits() {
        for (value, text) in [
            (0, "00000000"),
            (0x0102_0003, "01020003"),
            (u32::MAX, "ffffffff"),
        ] {
            let mut out = String::new();
            push_hex8(&mut out, value);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn json_strings_escape_what_json_forbids_and_nothing_else() {
        let mut out = String::new();
        push_json_escaped(&mut out, "a\"b\\c\n\r\t\u{1}\u{1f}/é");
        assert_eq!(out, "a\\\"b\\\\c\\n\\r\\t\\u0001\\u001f/é");
    }
}
