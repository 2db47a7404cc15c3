//! What comes from outside: banned crates, licences and sources, as `deny.toml` lists them.
//!
//! cargo-deny reads the same file and knows more; this is the part that every test run can afford, over what `cargo
//! tree` says is really built (the lock file also lists what optional features of others would bring). Advisories need
//! a database from the network and are not looked at.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::{Error, Finding};

/// Where the rules stand.
pub const RULES: &str = "deny.toml";

/// What `cargo tree` must be asked, so that [`violations`] can read its answer.
pub const TREE_ARGUMENTS: &[&str] = &[
    "tree",
    "--offline",
    "--workspace",
    "--prefix",
    "none",
    "--format",
    "{p}|{l}",
    "-e",
    "normal,build,dev",
];

/// The rules that are checked here.
#[derive(Debug)]
pub struct Rules {
    bans: Vec<(String, String)>,
    licences: BTreeSet<String>,
    registries: BTreeSet<String>,
}

impl Rules {
    /// Reads `deny.toml`.
    ///
    /// # Errors
    /// It is no TOML, or a ban has no reason.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let shape = |detail: String| Error::Shape {
            what: RULES.to_owned(),
            detail,
        };
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| shape(error.to_string()))?;
        let strings = |section: &str, key: &str| -> BTreeSet<String> {
            let list = table
                .get(section)
                .and_then(|table| table.get(key)?.as_array());
            list.into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let mut bans = Vec::new();
        let list = table
            .get("bans")
            .and_then(|table| table.get("deny")?.as_array());
        for ban in list.into_iter().flatten() {
            let text = |key: &str| {
                ban.get(key)
                    .and_then(Value::as_str)
                    .filter(|text| !text.is_empty())
            };
            let (Some(name), Some(reason)) = (text("crate"), text("reason")) else {
                return Err(shape(format!("a ban needs crate and reason: {ban}")));
            };
            bans.push((name.to_owned(), reason.to_owned()));
        }
        Ok(Self {
            bans,
            licences: strings("licenses", "allow"),
            registries: strings("sources", "allow-registry"),
        })
    }
}

/// Finds crates in `cargo tree`'s answer that are banned or under a licence that is not allowed.
#[must_use]
pub fn violations(rules: &Rules, answer: &str) -> Vec<Finding> {
    let lines: BTreeSet<&str> = answer
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    let mut findings = Vec::new();
    for line in lines {
        let Some((package, licence)) = line.split_once('|') else {
            continue;
        };
        let name = package.split(' ').next().unwrap_or_default();
        if let Some((_, reason)) = rules.bans.iter().find(|(ban, _)| ban == name) {
            findings.push(Finding::new(package, format!("is banned: {reason}")));
        }
        if !is_allowed(licence, &rules.licences) {
            findings.push(Finding::new(
                package,
                format!("is under {licence:?}, which {RULES} does not allow"),
            ));
        }
    }
    findings
}

/// Finds packages of a lock file that come from anywhere but an allowed registry or the workspace.
///
/// # Errors
/// It is no lock file.
pub fn foreign_sources(rules: &Rules, lock: &str) -> Result<Vec<Finding>, Error> {
    let shape = |detail: String| Error::Shape {
        what: "Cargo.lock".to_owned(),
        detail,
    };
    let table: Table = lock
        .parse()
        .map_err(|error: toml::de::Error| shape(error.to_string()))?;
    let packages = table
        .get("package")
        .and_then(Value::as_array)
        .ok_or_else(|| shape("no packages".to_owned()))?;
    let mut findings = Vec::new();
    for package in packages {
        let text = |key: &str| package.get(key).and_then(Value::as_str);
        let Some(source) = text("source") else {
            continue;
        };
        let registry = source
            .strip_prefix("registry+")
            .or_else(|| source.strip_prefix("sparse+"));
        if !registry.is_some_and(|registry| rules.registries.contains(registry)) {
            findings.push(Finding::new(
                text("name").unwrap_or("?"),
                format!("comes from {source}"),
            ));
        }
    }
    Ok(findings)
}

/// Whether an SPDX expression can be met with the allowed licences. The old `A/B` means `A OR B`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = either(&mut words, allowed);
    met && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.next() else {
        return false;
    };
    if word == "(" {
        let met = either(words, allowed);
        return met & words.next_if_eq(&")").is_some();
    }
    if words.next_if_eq(&"WITH").is_some() {
        return words
            .next()
            .is_some_and(|exception| allowed.contains(&format!("{word} WITH {exception}")));
    }
    allowed.contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[licenses]\nallow = [\"MIT\", \"ISC\", \"Apache-2.0 WITH LLVM-exception\"]\n\
                        [sources]\nallow-registry = [\"https://r\"]\n\
                        [bans]\ndeny = [{ crate = \"ring\", reason = \"one provider\" }]\n";

    #[test]
    fn licences_are_judged_by_their_expression() {
        let rules = Rules::parse(DENY).unwrap();
        for (expression, is_met) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("MIT AND (GPL-3.0 OR ISC)", true),
            ("(MIT OR GPL-3.0) AND GPL-3.0", false),
            ("GPL-3.0 OR MIT AND ISC", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT WITH LLVM-exception", false),
            ("(MIT", false),
            ("", false),
        ] {
            assert_eq!(
                is_allowed(expression, &rules.licences),
                is_met,
                "{expression}"
            );
        }
    }

    #[test]
    fn a_banned_crate_and_a_strange_licence_are_found_once() {
        let answer = "ring v0.17.14|MIT\na v1.0.0|MIT\nring v0.17.14|MIT (*)\nb v1.0.0|GPL-3.0\n";
        let found: Vec<String> = violations(&Rules::parse(DENY).unwrap(), answer)
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [
            "b v1.0.0: is under \"GPL-3.0\", which deny.toml does not allow",
            "ring v0.17.14: is banned: one provider",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_package_from_elsewhere_is_found() {
        let lock = "[[package]]\nname = \"own\"\n[[package]]\nname = \"a\"\nsource = \"registry+https://r\"\n\
                    [[package]]\nname = \"b\"\nsource = \"git+https://g\"\n";
        let found = foreign_sources(&Rules::parse(DENY).unwrap(), lock).unwrap();
        assert_eq!(found, [Finding::new("b", "comes from git+https://g")]);
    }

    #[test]
    fn a_ban_without_a_reason_is_an_error() {
        assert!(Rules::parse("[bans]\ndeny = [{ crate = \"ring\" }]\n").is_err());
    }
}
