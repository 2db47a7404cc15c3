//! A strict, borrowing JSON reader that copies nothing, keeps no tree and knows no floating point.
//!
//! [`parse`] checks a whole text by RFC 8259 in one pass and hands out its value; a value is the slice of the text that
//! it stands in, and is walked again when somebody looks inside. Nothing recurses, so levels have no limit of their own:
//! a document that nests deep must not hide the job id that stands beside it. What a member means, whether a key may
//! stand twice, and how long a text may be are the caller's business.

use alloc::string::String;
use alloc::vec::Vec;

/// A text that is not JSON: the byte where it went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonError(pub(crate) usize);

/// A value whose text was checked, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a>(&'a str);

/// Checks a whole text and returns its one value.
pub(crate) fn parse(text: &str) -> Result<Value<'_>, JsonError> {
    let mut reader = Reader::new(text);
    reader.white();
    let value = reader.take_value();
    if value.is_some() {
        reader.white();
    }
    match value {
        Some(value) if reader.at == text.len() => Ok(value),
        _ => Err(JsonError(reader.at)),
    }
}

impl<'a> Value<'a> {
    /// What stands for an array that is not there.
    pub(crate) const NOTHING: Self = Self("[]");

    /// The value as it stands in the text.
    pub(crate) const fn raw(self) -> &'a str {
        self.0
    }

    /// Its first byte says what it is: `{`, `[`, `"`, a digit or `-`, or the first of `null`, `true` and `false`.
    pub(crate) fn first(self) -> u8 {
        Reader::new(self.0).peek()
    }

    pub(crate) fn is_null(self) -> bool {
        self.first() == b'n'
    }

    /// The members of an object or the elements of an array, in their order; nothing of anything else.
    pub(crate) fn walk(self) -> Walk<'a> {
        let mut reader = Reader::new(self.0);
        let object = reader.take(b'{');
        if !object && !reader.take(b'[') {
            reader.at = self.0.len();
        }
        Walk { reader, object }
    }

    /// The text of a string with its escapes undone; none if it is something else.
    pub(crate) fn text(self) -> Option<String> {
        let mut reader = Reader::new(self.0);
        if !reader.take(b'"') {
            return None;
        }
        let mut out = String::new();
        loop {
            let start = reader.at;
            reader.plain();
            out.push_str(reader.since(start));
            if reader.peek() != b'\\' {
                return Some(out);
            }
            out.push(reader.escape()?);
        }
    }
}

/// Walks an object or an array. Its text was checked, so only the end of each value is looked for; that is what keeps
/// many looks into a large message cheap.
pub(crate) struct Walk<'a> {
    reader: Reader<'a>,
    object: bool,
}

impl<'a> Iterator for Walk<'a> {
    /// Key and value; the key of an element is the element.
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let reader = &mut self.reader;
        reader.pass(b',');
        let key = reader.known_value()?;
        if !self.object {
            return Some((key, key));
        }
        reader.pass(b':');
        Some((key, reader.known_value()?))
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

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

    /// What was read from there on.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or("")
    }

    fn white(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// White space, and this byte if it is there.
    fn pass(&mut self, byte: u8) -> bool {
        self.white();
        let there = self.take(byte);
        self.white();
        there
    }

    /// The value that begins here.
    fn take_value(&mut self) -> Option<Value<'a>> {
        let start = self.at;
        self.value().then(|| Value(self.since(start)))
    }

    /// The value that begins here, in a text that was checked; none where a container or the text ends.
    fn known_value(&mut self) -> Option<Value<'a>> {
        let start = self.at;
        let mut open = 0_u32;
        loop {
            match self.peek() {
                b'"' => self.known_string(),
                b'{' | b'[' => open += 1,
                b'}' | b']' if open > 0 => open -= 1,
                0 => break,
                b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' if open == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        (self.at > start).then(|| Value(self.since(start)))
    }

    /// From the quote that opens a string to the one that closes it.
    fn known_string(&mut self) {
        self.at += 1;
        loop {
            self.plain();
            if self.peek() != b'\\' {
                return;
            }
            self.at += 2;
        }
    }

    fn value(&mut self) -> bool {
        // What closes each container that is open: at most a byte for each of the text.
        let mut open = Vec::new();
        loop {
            let first = self.peek();
            // Behind a value comes a comma before the next one; not where a container begins.
            let mut comma = true;
            if matches!(first, b'{' | b'[') {
                // In ASCII a closing bracket or brace stands two places behind the opening one.
                open.push(first + 2);
                self.at += 1;
                comma = false;
            } else if !self.scalar(first) {
                return false;
            }
            while let Some(&close) = open.last() {
                self.white();
                if !self.take(close) {
                    if comma && !self.pass(b',') || close == b'}' && !self.key() {
                        return false;
                    }
                    break;
                }
                open.pop();
                comma = true;
            }
            if open.is_empty() {
                return true;
            }
        }
    }

    fn key(&mut self) -> bool {
        self.string() && self.pass(b':')
    }

    /// A value that holds no other.
    fn scalar(&mut self, first: u8) -> bool {
        match first {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            _ => ["null", "true", "false"].into_iter().any(|word| {
                let rest = self.text.as_bytes().get(self.at..).unwrap_or(&[]);
                let there = rest.starts_with(word.as_bytes());
                self.at += if there { word.len() } else { 0 };
                there
            }),
        }
    }

    fn string(&mut self) -> bool {
        if !self.take(b'"') {
            return false;
        }
        loop {
            self.plain();
            if self.peek() != b'\\' {
                return self.take(b'"');
            }
            if self.escape().is_none() {
                return false;
            }
        }
    }

    /// Up to what cannot stand in a string as it is: a quote, a backslash, a control character, the end.
    fn plain(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or(&[]);
        let special = |byte: &u8| matches!(byte, 0..=0x1f | b'"' | b'\\');
        self.at += rest.iter().position(special).unwrap_or(rest.len());
    }

    /// The character of an escape; none if it is none.
    fn escape(&mut self) -> Option<char> {
        let mut unit = self.unit()?;
        if unit & 0xfc00 == 0xd800 {
            // A high half needs its low one.
            let low = self.unit()?;
            if low & 0xfc00 != 0xdc00 {
                return None;
            }
            unit = 0x1_0000 + ((unit & 0x3ff) << 10 | low & 0x3ff);
        }
        // A low half that stands alone is no character.
        char::from_u32(unit)
    }

    /// A backslash and what follows it: one unit of UTF-16.
    fn unit(&mut self) -> Option<u32> {
        if !self.take(b'\\') {
            return None;
        }
        let escape = self.peek();
        let unit = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => 0,
            _ => return None,
        };
        self.at += 1;
        if escape != b'u' {
            return Some(unit.into());
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
