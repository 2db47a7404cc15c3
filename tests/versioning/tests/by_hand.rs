//! The values that the agent's component lifts and lowers by its own declarations (`agent-guest/src/contract.rs`) are the
//! contract's: same names, same types, same order, same numbers. The compiler holds them against agent-core's types, and
//! wit-component the signatures; the order of fields and cases is nobody else's to notice.

use std::fs;

use versioning::contract::Package;

/// One `record!`, `variant!` or `several!`: its name, and what stands in its braces, entry by entry.
struct Declaration {
    name: String,
    entries: Vec<String>,
}

/// Everything that the macros of a text declare.
fn declarations(text: &str) -> Vec<Declaration> {
    let mut found = Vec::new();
    for start in ["record! {", "variant! {", "several! {"] {
        for part in text.split(start).skip(1) {
            let (name, rest) = part.split_once('{').expect("a name, then a brace");
            // How it is used stands before its name.
            let name = name.split_once(']').map_or(name, |(_, name)| name);
            let entries = entries(body(rest));
            found.push(Declaration {
                name: kebab(name.trim()),
                entries,
            });
        }
    }
    found
}

/// Up to the brace that ends it.
fn body(text: &str) -> &str {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return &text[..at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("no end: {text}")
}

/// What stands between the outer commas.
fn entries(text: &str) -> Vec<String> {
    let mut entries = vec![String::new()];
    let mut depth = 0;
    for character in text.chars() {
        match character {
            '{' | '(' | '<' | '[' => depth += 1,
            '}' | ')' | '>' | ']' => depth -= 1,
            ',' if depth == 0 => {
                entries.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(entry) = entries.last_mut() {
            entry.push(character);
        }
    }
    let words = |entry: String| entry.split_whitespace().collect::<Vec<_>>().join(" ");
    entries
        .into_iter()
        .map(words)
        .filter(|entry| !entry.is_empty())
        .collect()
}

/// `now_ms` and `TargetState` as the contract spells them.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for character in name.chars() {
        if character.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.extend(character.to_lowercase());
    }
    out.replace('_', "-")
}

/// A Rust type as the contract spells it.
fn type_name(rust: &str) -> String {
    let rust = rust.trim();
    let list = between(rust, "Vec<", '>').or_else(|| between(rust, "&'static [", ']'));
    if let Some(of) = list {
        format!("list<{}>", type_name(of))
    } else if let Some(of) = between(rust, "Option<", '>') {
        format!("option<{}>", type_name(of))
    } else if let Some(of) = between(rust, "(", ')') {
        let types: Vec<String> = entries(of).iter().map(|of| type_name(of)).collect();
        format!("tuple<{}>", types.join(", "))
    } else if rust == "&'static str" {
        "string".to_owned()
    } else {
        kebab(rust)
    }
}

fn between<'t>(text: &'t str, start: &str, end: char) -> Option<&'t str> {
    text.strip_prefix(start)?.strip_suffix(end)
}

/// `name: Type` as name and type.
fn field(entry: &str) -> (String, String) {
    let (name, of) = entry.split_once(':').expect("a field has a type");
    (kebab(name.trim()), type_name(of))
}

/// Whether the case of a variant is the contract's: `0 Name`, `0 Name(Type)`, `0 Name { field: Type, .. }`, where the
/// fields are those of a record, of a tuple, or the one value, or `[0 Name { field: Type, .. }]` where the case is
/// called `names` and carries a list of such records.
fn is_case(package: &Package, number: usize, entry: &str, line: &str) -> bool {
    let item = between(entry, "[", ']');
    let Some(entry) = (item.unwrap_or(entry)).strip_prefix(&format!("{number} ")) else {
        return false;
    };
    let (name, payload) = match line.split_once('(') {
        Some((name, payload)) => (name, payload.strip_suffix(')').unwrap_or(payload)),
        None => return kebab(entry) == line,
    };
    if let Some((rust, of)) = entry.split_once('(').filter(|_| !entry.contains('{')) {
        let of = of.strip_suffix(')').unwrap_or(of);
        return kebab(rust) == name && type_name(of) == payload;
    }
    let Some((rust, fields)) = entry.split_once('{') else {
        return false;
    };
    let fields: Vec<(String, String)> = entries(body(fields))
        .iter()
        .map(|entry| field(entry))
        .collect();
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, of)| format!("{name}: {of}"))
        .collect();
    if item.is_some() {
        let of = between(payload, "list<", '>').and_then(|of| package.members(of));
        return format!("{}s", kebab(rust.trim())) == name && of == Some(lines);
    }
    let types: Vec<String> = fields.into_iter().map(|(_, of)| of).collect();
    kebab(rust.trim()) == name
        && (package.members(payload) == Some(lines)
            || payload == format!("tuple<{}>", types.join(", "))
            || [payload] == *types)
}

#[test]
fn what_the_guest_lifts_and_lowers_by_hand_is_declared_as_in_the_contract() {
    let package = Package::read(&versioning::wit().join("agent")).expect("the package parses");
    let path = versioning::wit().join("../agent-wasm/agent-guest/src/contract.rs");
    let text = fs::read_to_string(&path).expect("the guest's declarations");
    let declarations = declarations(&text);
    for name in [
        "start-info",
        "event",
        "turn",
        "started",
        "application-event",
    ] {
        assert!(declarations.iter().any(|of| of.name == name), "{name}");
    }
    for Declaration { name, entries } in declarations {
        let members = package
            .members(&name)
            .unwrap_or_else(|| panic!("the contract has no {name}"));
        assert_eq!(entries.len(), members.len(), "{name}");
        for (number, (entry, line)) in entries.iter().zip(&members).enumerate() {
            let same = if entry.starts_with(|first: char| first.is_ascii_digit() || first == '[') {
                is_case(&package, number, entry, line)
            } else {
                let (field, of) = field(entry);
                format!("{field}: {of}") == *line
            };
            assert!(same, "{name}: {entry} is not {line}");
        }
    }
}
