//! A strict, borrowing JSON reader that copies nothing, keeps no tree and knows no floating point.
//!
//! [`parse`] checks a whole text by RFC 8259 in one pass and hands out its value; a value is the slice of the text that
//! it stands in, and is walked again when somebody looks inside. What a member means, whether a key may stand twice,
//! and limits other than depth are the caller's business.

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

/// A value whose text was checked, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a>(&'a str);

/// Checks a whole text and returns its one value.
pub(crate) fn parse(text: &str) -> Result<Value<'_>, JsonError> {
    let mut reader = Reader {
        text,
        at: 0,
        too_deep: false,
    };
    reader.white();
    let start = reader.at;
    let good = reader.value(0);
    let value = Value(reader.text.get(start..reader.at).unwrap_or(""));
    if good {
        reader.white();
    }
    if good && reader.at == text.len() {
        Ok(value)
    } else {
        Err(JsonError {
            at: reader.at,
            too_deep: reader.too_deep,
        })
    }
}

impl<'a> Value<'a> {
    /// The value as it stands in the text.
    pub(crate) const fn raw(self) -> &'a str {
        self.0
    }

    /// Its first byte says what it is: `{`, `[`, `"`, a digit or `-`, or the first of `null`, `true` and `false`.
    pub(crate) fn first(self) -> u8 {
        self.0.as_bytes().first().copied().unwrap_or(b'n')
    }

    pub(crate) fn is_null(self) -> bool {
        self.first() == b'n'
    }

    /// The members of an object or the elements of an array, in their order; nothing of anything else.
    pub(crate) fn walk(self) -> Walk<'a> {
        let object = self.first() == b'{';
        let at = if object || self.first() == b'[' {
            1
        } else {
            self.0.len()
        };
        Walk {
            reader: Reader {
                text: self.0,
                at,
                too_deep: false,
            },
            object,
        }
    }

    /// The text of a string with its escapes undone; none if it is something else.
    pub(crate) fn text(self) -> Option<String> {
        let raw = self.0.strip_prefix('"')?;
        let mut out = String::with_capacity(raw.len());
        let mut characters = raw.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => break,
                '\\' => out.push(unescape(&mut characters)),
                other => out.push(other),
            }
        }
        Some(out)
    }

    /// Whether it is this text, however it is escaped.
    fn is_text(self, text: &str) -> bool {
        let plain = self.0.get(1..self.0.len().wrapping_sub(1)) == Some(text);
        plain || (self.0.contains('\\') && self.text().as_deref() == Some(text))
    }
}

/// The character of a checked escape, after its backslash.
fn unescape(rest: &mut Chars<'_>) -> char {
    const ESCAPES: [(char, char); 5] = [
        ('b', '\u{8}'),
        ('f', '\u{c}'),
        ('n', '\n'),
        ('r', '\r'),
        ('t', '\t'),
    ];
    let escaped = rest.next().unwrap_or(char::REPLACEMENT_CHARACTER);
    if escaped == 'u' {
        let mut code = hex4(rest);
        if code & 0xfc00 == 0xd800 {
            // The low half follows, after its own backslash and `u`.
            rest.next();
            rest.next();
            code = 0x1_0000 + ((code & 0x3ff) << 10 | hex4(rest) & 0x3ff);
        }
        return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    ESCAPES
        .iter()
        .find(|(of, _)| *of == escaped)
        .map_or(escaped, |(_, character)| *character)
}

fn hex4(digits: &mut Chars<'_>) -> u32 {
    let mut value = 0;
    for _ in 0..4 {
        let digit = digits.next().and_then(|digit| digit.to_digit(16));
        value = value << 4 | digit.unwrap_or(0);
    }
    value
}

/// Walks an object or an array. Its text was checked, so an error cannot come; it ends the walk if it does.
pub(crate) struct Walk<'a> {
    reader: Reader<'a>,
    object: bool,
}

impl<'a> Iterator for Walk<'a> {
    /// Key and value; the key of an element is nothing.
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let reader = &mut self.reader;
        reader.pass(b',');
        let mut key = Value("");
        if self.object {
            key = reader.take_value()?;
            reader.pass(b':');
        }
        Some((key, reader.take_value()?))
    }
}

/// A member of an object, by its key: none, or the value and whether the key stands there again.
pub(crate) fn find<'a>(object: Value<'a>, name: &str) -> Option<(Value<'a>, bool)> {
    let mut found = None;
    for (key, value) in object.walk() {
        if key.is_text(name) {
            found = Some((value, found.is_some()));
        }
    }
    found
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    too_deep: bool,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> u8 {
        // 0 stands nowhere in JSON, so it can mean the end.
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    /// Goes on if this byte is next.
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == byte;
        self.at += usize::from(there);
        there
    }

    fn white(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// In a checked text: white space, and this byte if it is there.
    fn pass(&mut self, byte: u8) {
        self.white();
        self.take(byte);
        self.white();
    }

    /// In a checked text: the value that begins here.
    fn take_value(&mut self) -> Option<Value<'a>> {
        let start = self.at;
        self.value(0)
            .then(|| Value(self.text.get(start..self.at).unwrap_or("")))
    }

    fn value(&mut self, depth: u32) -> bool {
        match self.peek() {
            b'"' => self.string(),
            open @ (b'{' | b'[') => {
                // A bound on the recursion too.
                self.too_deep = depth >= DEPTH_MAX;
                !self.too_deep && self.container(open, depth)
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ => ["null", "true", "false"].into_iter().any(|word| {
                let rest = self.text.as_bytes().get(self.at..).unwrap_or(&[]);
                let there = rest.starts_with(word.as_bytes());
                self.at += if there { word.len() } else { 0 };
                there
            }),
        }
    }

    fn container(&mut self, open: u8, depth: u32) -> bool {
        // In ASCII a closing bracket or brace stands two places behind the opening one.
        let close = open + 2;
        self.at += 1;
        self.white();
        if self.take(close) {
            return true;
        }
        loop {
            if open == b'{' {
                if !self.string() {
                    return false;
                }
                self.white();
                if !self.take(b':') {
                    return false;
                }
                self.white();
            }
            if !self.value(depth + 1) {
                return false;
            }
            self.white();
            if self.take(close) {
                return true;
            }
            if !self.take(b',') {
                return false;
            }
            self.white();
        }
    }

    fn string(&mut self) -> bool {
        if !self.take(b'"') {
            return false;
        }
        loop {
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    if !self.escape() {
                        return false;
                    }
                }
                0..=0x1f => return false,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        true
    }

    fn escape(&mut self) -> bool {
        let escaped = self.text.as_bytes().get(self.at + 1).copied().unwrap_or(0);
        if b"\"\\/bfnrt".contains(&escaped) {
            self.at += 2;
            return true;
        }
        // A high half needs its low one, which stands alone nowhere.
        match self.unit() {
            Some(0xd800..=0xdbff) => matches!(self.unit(), Some(0xdc00..=0xdfff)),
            Some(0xdc00..=0xdfff) | None => false,
            Some(_) => true,
        }
    }

    /// `\uXXXX`.
    fn unit(&mut self) -> Option<u32> {
        if !self.take(b'\\') || !self.take(b'u') {
            return None;
        }
        let mut unit = 0;
        for _ in 0..4 {
            unit = unit << 4 | char::from(self.peek()).to_digit(16)?;
            self.at += 1;
        }
        Some(unit)
    }

    fn number(&mut self) -> bool {
        self.take(b'-');
        if !self.take(b'0') && !self.digits() {
            return false;
        }
        if self.take(b'.') && !self.digits() {
            return false;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            return self.digits();
        }
        true
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at > start
    }
}

#[cfg(test)]
mod tests;
