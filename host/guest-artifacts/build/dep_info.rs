//! Reads the dep-info file that cargo writes beside a library: one make rule with all sources of the crate, of its path
//! dependencies and what they include (the WIT texts too).

/// The prerequisites of the first rule. Spaces in names are escaped by a backslash.
pub(crate) fn sources(dep_info: &str) -> Vec<String> {
    let Some((_, prerequisites)) = dep_info
        .lines()
        .next()
        .and_then(|rule| rule.split_once(": "))
    else {
        return Vec::new();
    };
    let mut sources = vec![String::new()];
    let mut characters = prerequisites.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if characters.peek() == Some(&' ') => {
                characters.next();
                push(&mut sources, ' ');
            }
            ' ' => sources.push(String::new()),
            _ => push(&mut sources, c),
        }
    }
    sources.retain(|source| !source.is_empty());
    sources
}

fn push(sources: &mut [String], c: char) {
    if let Some(last) = sources.last_mut() {
        last.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::sources;

    #[test]
    fn a_rule_names_its_sources() {
        let rows: &[(&str, &[&str])] = &[
            ("", &[]),
            ("/t/a.wasm:\n", &[]),
            ("/t/a.wasm: /s/lib.rs\n", &["/s/lib.rs"]),
            (
                "/t/a.wasm: /s/lib.rs /s/b.rs\n/s/lib.rs:\n",
                &["/s/lib.rs", "/s/b.rs"],
            ),
            (
                "/t/a.wasm: /my\\ code/lib.rs /s/b.rs",
                &["/my code/lib.rs", "/s/b.rs"],
            ),
            ("/t/a.wasm: a\\b  c", &["a\\b", "c"]),
        ];
        for (text, expected) in rows {
            assert_eq!(sources(text), *expected, "{text:?}");
        }
    }
}
