//! A strict, borrowing JSON reader that copies nothing, keeps no tree and knows no floating point.
//!
//! [`parse`] checks a whole text by RFC 8259 in one pass without recursion and hands out its value; objects and arrays
//! stay slices that are walked again when somebody looks inside. Numbers stay text. What a member means, whether a key
//! may stand twice, and limits other than depth are the caller's business.

use alloc::borrow::Cow;
use alloc::string::String;
use core::str::Chars;

/// Most levels of arrays and objects in each other. A job document uses six; the rest is for strangers' members.
pub(crate) const DEPTH_MAX: u32 = 32;

/// Why a text is not JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonError {
    /// Byte in the text.
    pub(crate) at: usize,
    /// It may be JSON, but nests deeper than [`DEPTH_MAX`].
    pub(crate) too_deep: bool,
}

/// A value whose text was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(&'a str),
    /// The number's text.
    Number(&'a str),
    /// A string.
    Text(Text<'a>),
    /// The object's text with its braces.
    Object(&'a str),
    /// The array's text with its brackets.
    Array(&'a str),
}

/// A checked string with its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    quoted: &'a str,
}

/// Checks a whole text and returns its one value.
pub(crate) fn parse(text: &str) -> Result<Value<'_>, JsonError> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value()?;
    reader.white();
    if reader.at < text.len() {
        Err(reader.error())
    } else {
        Ok(value)
    }
}

impl<'a> Value<'a> {
    /// The members of an object in their order; none if it is something else.
    pub(crate) fn members(self) -> Option<Members<'a>> {
        if let Self::Object(text) = self {
            // Past the opening brace.
            Some(Members {
                reader: Reader { text, at: 1 },
            })
        } else {
            None
        }
    }

    /// The elements of an array in their order; none if it is something else.
    pub(crate) fn elements(self) -> Option<Elements<'a>> {
        if let Self::Array(text) = self {
            Some(Elements {
                reader: Reader { text, at: 1 },
            })
        } else {
            None
        }
    }

    /// The value as it stands in the text.
    pub(crate) fn raw(self) -> &'a str {
        match self {
            Self::Null => "null",
            Self::Bool(raw) | Self::Number(raw) | Self::Object(raw) | Self::Array(raw) => raw,
            Self::Text(text) => text.quoted,
        }
    }
}

impl<'a> Text<'a> {
    /// The text with its escapes undone; borrowed where there are none.
    pub(crate) fn decode(self) -> Cow<'a, str> {
        let raw = self.quoted.get(1..self.quoted.len() - 1).unwrap_or("");
        if !raw.bytes().any(|byte| byte == b'\\') {
            return Cow::Borrowed(raw);
        }
        let mut out = String::with_capacity(raw.len());
        let mut characters = raw.chars();
        while let Some(character) = characters.next() {
            let escaped = character == '\\';
            out.push(if escaped {
                unescape(&mut characters)
            } else {
                character
            });
        }
        Cow::Owned(out)
    }
}

/// The character of a checked escape, after its backslash.
fn unescape(rest: &mut Chars<'_>) -> char {
    match rest.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => {
            let mut code = hex4(rest);
            if (0xd800..0xdc00).contains(&code) {
                // The low half follows, after its own backslash and `u`.
                let (_, _) = (rest.next(), rest.next());
                code = 0x1_0000 + ((code & 0x3ff) << 10 | hex4(rest) & 0x3ff);
            }
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        other => other.unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

fn hex4(digits: &mut Chars<'_>) -> u32 {
    let mut value = 0;
    for _ in 0..4 {
        let digit = digits.next().and_then(|digit| digit.to_digit(16));
        value = value << 4 | digit.unwrap_or(0);
    }
    value
}

/// Walks an object. Its text was checked, so an error cannot come; it ends the walk if it does.
pub(crate) struct Members<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.separator();
        let key = self.reader.string().ok()?;
        self.reader.white();
        self.reader.take(b':').ok()?;
        let value = self.reader.value().ok()?;
        Some((key.decode(), value))
    }
}

/// Walks an array, as [`Members`] does an object.
pub(crate) struct Elements<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.reader.separator();
        self.reader.value().ok()
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn error(&self) -> JsonError {
        JsonError {
            at: self.at,
            too_deep: false,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.error());
        }
        self.at += 1;
        Ok(())
    }

    fn white(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// What stands between two members of a checked container.
    fn separator(&mut self) {
        self.white();
        if self.peek() == Some(b',') {
            self.at += 1;
            self.white();
        }
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or("")
    }

    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        self.white();
        let start = self.at;
        let first = self.peek();
        match first {
            Some(b'"') => return Ok(Value::Text(self.string()?)),
            Some(b'{' | b'[') => self.container()?,
            _ => return self.scalar(),
        }
        let text = self.since(start);
        Ok(if first == Some(b'{') {
            Value::Object(text)
        } else {
            Value::Array(text)
        })
    }

    /// Anything but a container or a string.
    fn scalar(&mut self) -> Result<Value<'a>, JsonError> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool("true")),
            Some(b'f') => self.word("false", Value::Bool("false")),
            _ => Err(self.error()),
        }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or(&[]);
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.error());
        }
        self.at += word.len();
        Ok(value)
    }

    /// Checks an array or an object with all that is in it. Which of the two each open level is, is one bit of a word:
    /// no recursion, so no stack that a stranger's brackets could use up.
    fn container(&mut self) -> Result<(), JsonError> {
        let mut objects = 0u64;
        let mut depth = 0;
        loop {
            // Here a value begins.
            self.white();
            let opened = match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == DEPTH_MAX {
                        return Err(JsonError {
                            at: self.at,
                            too_deep: true,
                        });
                    }
                    self.at += 1;
                    depth += 1;
                    objects = objects << 1 | u64::from(open == b'{');
                    self.white();
                    true
                }
                Some(b'"') => {
                    self.string()?;
                    false
                }
                _ => {
                    self.scalar()?;
                    false
                }
            };
            // An empty container has no first value.
            let mut begun = opened;
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                self.white();
                if self.peek() == Some(if object { b'}' } else { b']' }) {
                    self.at += 1;
                    depth -= 1;
                    objects >>= 1;
                    begun = false;
                    continue;
                }
                if !begun {
                    self.take(b',')?;
                    self.white();
                }
                if object {
                    self.string()?;
                    self.white();
                    self.take(b':')?;
                }
                break;
            }
        }
    }

    fn string(&mut self) -> Result<Text<'a>, JsonError> {
        let start = self.at;
        self.take(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) | None => return Err(self.error()),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        Ok(Text {
            quoted: self.since(start),
        })
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let escaped = self.text.as_bytes().get(self.at + 1).copied();
        match escaped {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => self.escape_unicode(),
            _ => Err(self.error()),
        }
    }

    fn escape_unicode(&mut self) -> Result<(), JsonError> {
        let unit = self.unit()?;
        match unit {
            // A high half needs its low one, which stands alone nowhere.
            0xd800..=0xdbff => match self.unit() {
                Ok(0xdc00..=0xdfff) => Ok(()),
                _ => Err(self.error()),
            },
            0xdc00..=0xdfff => Err(self.error()),
            _ => Ok(()),
        }
    }

    /// `\uXXXX`.
    fn unit(&mut self) -> Result<u32, JsonError> {
        self.take(b'\\')?;
        self.take(b'u')?;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit << 4 | digit.ok_or_else(|| self.error())?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Value::Number(self.since(start)))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.error());
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
