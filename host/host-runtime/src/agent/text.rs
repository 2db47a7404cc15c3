//! Text from a guest: cut, one line, without control characters.

/// Most bytes that the log shows of why a guest broke: the chain and the innermost functions of a trap.
pub(crate) const FAULT_MAX_BYTES: usize = 1024;

/// Most bytes of what it said last: behind the name of a plugin and the words of its trap, some 120 bytes, it stands in what a
/// failure may say ([`DETAIL_MAX_BYTES`](crate::types::DETAIL_MAX_BYTES)).
pub(crate) const WORDS_MAX_BYTES: usize = 128;

/// `text` as one line of at most `max` bytes, cut at a character: line breaks and tabs, with the spaces round them, are one
/// space, other control characters are replaced.
pub fn clean(text: &str, max: usize) -> String {
    if text.len() <= max && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(max));
    let mut is_broken = false;
    for c in text.chars() {
        is_broken |= matches!(c, '\n' | '\r' | '\t');
        if is_broken && matches!(c, ' ' | '\n' | '\r' | '\t') {
            continue;
        }
        let space = std::mem::take(&mut is_broken) && !out.is_empty() && !out.ends_with(' ');
        // Also the separators that end a line in some viewers, and marks that turn the direction of the rest.
        let hidden = c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let c = if hidden { '\u{fffd}' } else { c };
        if out.len() + usize::from(space) + c.len_utf8() > max {
            break;
        }
        if space {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn text_is_cut_at_a_character_and_loses_its_control_characters() {
        let rows = [
            ("plain", 10, "plain"),
            ("a\x07b\x1b[0m", 100, "a\u{fffd}b\u{fffd}[0m"),
            ("ää", 3, "ä"),
            ("a\u{202e}b", 100, "a\u{fffd}b"),
            ("abc", 0, ""),
            ("\x1b", 2, ""),
            ("a:\n    0: b\r\n\t1: c\n", 100, "a: 0: b 1: c"),
            ("\na \n\n b", 100, "a b"),
            ("a  b", 100, "a  b"),
            ("a\nb", 2, "a"),
            ("ab\nc", 2, "ab"),
            ("\n", 2, ""),
        ];
        for (text, max, wanted) in rows {
            assert_eq!(clean(text, max), wanted, "{text:?} to {max}");
        }
    }
}
