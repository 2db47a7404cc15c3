//! What no source may lack or say: a header on every file, and the words of unfinished, hidden or machine-bound work.
//!
//! It reads lines, not syntax: cheap, and enough for rules that are about words. The words are put together from two
//! halves here, so that this file does not find itself.

use crate::Finding;
use crate::tree::Tree;

/// A word that must not occur.
struct Ban {
    word: &'static str,
    reason: &'static str,
    applies: fn(path: &str) -> bool,
}

fn everywhere(_: &str) -> bool {
    true
}

fn in_sources(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Test code: the judges' room, `tests` folders and files of a crate. Unit tests at the end of a source file are seen
/// by [`sleeping_tests`].
fn in_tests(path: &str) -> bool {
    in_sources(path)
        && (path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs"))
}

const SLEEP: &str = concat!("thread::", "sleep");

const BANS: &[Ban] = &[
    Ban {
        word: concat!("to", "do!("),
        reason: "unfinished",
        applies: in_sources,
    },
    Ban {
        word: concat!("unimpl", "emented!("),
        reason: "unfinished",
        applies: in_sources,
    },
    Ban {
        word: concat!("#[ig", "nore"),
        reason: "a test runs or does not exist",
        applies: in_sources,
    },
    Ban {
        word: concat!("should", "_panic"),
        reason: "assert on an error value instead",
        applies: in_sources,
    },
    Ban {
        word: concat!("db", "g!("),
        reason: "left over from debugging",
        applies: in_sources,
    },
    Ban {
        word: concat!("FIX", "ME"),
        reason: "unfinished",
        applies: everywhere,
    },
    Ban {
        word: concat!("TO", "DO"),
        reason: "unfinished; make it an issue",
        applies: everywhere,
    },
    Ban {
        word: SLEEP,
        reason: "a test waits for an event with a deadline, never for time",
        applies: in_tests,
    },
    Ban {
        word: concat!("static", " mut "),
        reason: "shared state without an owner",
        applies: in_sources,
    },
];

/// Folders that exist on a developer's machine only. Found where they begin a path.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
];

/// Files that a tool writes, whose words are not ours.
fn is_generated(path: &str) -> bool {
    path == "Cargo.lock" || path == "LICENSE"
}

/// Finds banned words, tabs in sources, trailing blanks and paths of one machine.
#[must_use]
pub fn words(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| !is_generated(path)) {
        for (number, line) in text.lines().enumerate() {
            let at = || format!("{path}:{}", number + 1);
            for ban in BANS
                .iter()
                .filter(|ban| (ban.applies)(path) && line.contains(ban.word))
            {
                findings.push(Finding::new(
                    at(),
                    format!("says {}: {}", ban.word, ban.reason),
                ));
            }
            if line.contains('\t') {
                findings.push(Finding::new(at(), "holds a tab"));
            }
            if line.ends_with(' ') {
                findings.push(Finding::new(at(), "ends with a blank"));
            }
            if let Some(found) = machine_path(line) {
                findings.push(Finding::new(
                    at(),
                    format!("names {found}, a path of one machine"),
                ));
            }
        }
        findings.extend(sleeping_tests(path, text));
    }
    findings
}

fn machine_path(text: &str) -> Option<&'static str> {
    let begins = |before: Option<char>| {
        before.is_none_or(|c| !(c.is_ascii_alphanumeric() || "_.-~}/".contains(c)))
    };
    MACHINE_PATHS.iter().copied().find(|path| {
        text.match_indices(path)
            .any(|(index, _)| begins(text[..index].chars().next_back()))
    })
}

/// Whether bytes of an artefact hold a path of one machine. There any byte may stand before it.
#[must_use]
pub fn machine_path_in_bytes(bytes: &[u8]) -> Option<&'static str> {
    MACHINE_PATHS.iter().copied().find(|path| {
        bytes
            .windows(path.len())
            .any(|window| window == path.as_bytes())
    })
}

/// Finds sleeps in the unit tests at the end of a source file.
fn sleeping_tests(path: &str, text: &str) -> Vec<Finding> {
    if !in_sources(path) || in_tests(path) {
        return Vec::new();
    }
    text.lines()
        .enumerate()
        .skip_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| line.contains(SLEEP))
        .map(|(number, _)| Finding::new(format!("{path}:{}", number + 1), "sleeps in a test"))
        .collect()
}

/// Finds sources that do not begin with `//!`, or with a page that they include as their documentation. Inner
/// attributes may stand before it.
#[must_use]
pub fn headers(tree: &Tree) -> Vec<Finding> {
    tree.sources()
        .filter(|(_, text)| !has_header(text))
        .map(|(path, _)| {
            Finding::new(
                format!("{path}:1"),
                "does not begin with //! and what the file is",
            )
        })
        .collect()
}

fn has_header(text: &str) -> bool {
    for line in text.lines().filter(|line| !line.is_empty()) {
        if line.starts_with("#![doc = include_str!(") {
            return true;
        }
        if !line.starts_with("#![") {
            return line.starts_with("//! ") && line.len() >= HEADER_BYTES_MIN;
        }
    }
    false
}

/// Shorter than this no header says anything: the marker and two words.
const HEADER_BYTES_MIN: usize = 12;

/// Crates that are pure: no std, no unsafe code. Those that are not built yet are skipped.
pub const PURE_CRATES: &[&str] = &["agent-wasm/agent-core", "pal-plugins/smp-core"];

/// Finds pure crates that do not say so to the compiler, or that bring std back outside their tests.
#[must_use]
pub fn impure(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in PURE_CRATES {
        let path = format!("{folder}/src/lib.rs");
        let Some(text) = tree.text(&path) else {
            if tree.text(&format!("{folder}/Cargo.toml")).is_some() {
                findings.push(Finding::new(path, "is missing"));
            }
            continue;
        };
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            if !text.lines().any(|line| line.trim() == attribute) {
                findings.push(Finding::new(path.clone(), format!("lacks {attribute}")));
            }
        }
        let inside = format!("{folder}/src/");
        for (path, text) in tree.sources().filter(|(path, _)| path.starts_with(&inside)) {
            findings.extend(std_outside_tests(path, text));
        }
    }
    findings
}

fn std_outside_tests(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("extern crate std") && before != "#[cfg(test)]" {
            findings.push(Finding::new(
                format!("{path}:{}", number + 1),
                "brings std into a pure crate",
            ));
        }
        before = line;
    }
    findings
}

/// Finds sources outside the judges' room that include a file of another room: edges that Cargo does not see.
#[must_use]
pub fn hidden_edges(tree: &Tree) -> Vec<Finding> {
    const WAYS: &[&str] = &["#[path", "include!(", "include_str!(", "include_bytes!("];
    const ROOMS: &[&str] = &["agent-wasm/", "pal-plugins/", "host/", "tests/"];
    let mut findings = Vec::new();
    for (path, text) in tree
        .sources()
        .filter(|(path, _)| !path.starts_with("tests/"))
    {
        let own = path.split_inclusive('/').next().unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            let foreign = |room: &&&str| **room != own && line.contains(&format!("../{room}"));
            let Some(room) = ROOMS.iter().find(foreign) else {
                continue;
            };
            if WAYS.iter().any(|way| line.contains(way)) {
                let what = format!("includes a file of {room}, an edge that Cargo does not see");
                findings.push(Finding::new(format!("{path}:{}", number + 1), what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.at.as_str()).collect()
    }

    #[test]
    fn every_banned_word_is_found_where_it_applies() {
        for ban in BANS {
            let text = format!("//! A file about words.\n{} x\n", ban.word);
            let tree = Tree::from_pairs([("tests/a/tests/b.rs", text.as_str())]);
            assert_eq!(
                found(&words(&tree)),
                ["tests/a/tests/b.rs:2"],
                "{}",
                ban.word
            );
        }
    }

    #[test]
    fn a_sleep_is_found_in_unit_tests_and_allowed_in_a_daemon() {
        let daemon = format!("//! x\nstd::{SLEEP}(d);\n");
        let tested = format!("//! x\n#[cfg(test)]\nmod tests {{\nstd::{SLEEP}(d);\n}}\n");
        let tree = Tree::from_pairs([
            ("host/a/src/lib.rs", daemon.as_str()),
            ("host/a/src/b.rs", tested.as_str()),
        ]);
        assert_eq!(found(&words(&tree)), ["host/a/src/b.rs:4"]);
    }

    #[test]
    fn tabs_and_trailing_blanks_are_found() {
        let tree = Tree::from_pairs([("wit/a.wit", "ok\n\tx\ny \n")]);
        assert_eq!(found(&words(&tree)), ["wit/a.wit:2", "wit/a.wit:3"]);
    }

    #[test]
    fn a_path_of_one_machine_is_found_at_its_beginning_only() {
        let path = MACHINE_PATHS[0];
        for (text, is_found) in [
            (format!("cd {path}main"), true),
            (format!("\"{path}main\""), true),
            (format!("host{path}main"), false),
            (format!("..{path}main"), false),
        ] {
            assert_eq!(machine_path(&text).is_some(), is_found, "{text}");
        }
        assert_eq!(
            machine_path_in_bytes(format!("\0x{path}y").as_bytes()),
            Some(path)
        );
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        let tree = Tree::from_pairs([
            (
                "host/a/src/good.rs",
                "#![no_std]\n\n//! What this file is.\n",
            ),
            (
                "host/a/src/page.rs",
                "#![doc = include_str!(\"../README.md\")]\nmod x;\n",
            ),
            ("host/a/src/none.rs", "use std::fmt;\n"),
            ("host/a/src/short.rs", "//! x\n"),
            ("host/a/src/empty.rs", ""),
        ]);
        let bad = [
            "host/a/src/empty.rs:1",
            "host/a/src/none.rs:1",
            "host/a/src/short.rs:1",
        ];
        assert_eq!(found(&headers(&tree)), bad);
    }

    #[test]
    fn a_pure_crate_that_lets_std_in_is_found() {
        let lib = "#![no_std]\n#![forbid(unsafe_code)]\n#[cfg(test)]\nextern crate std;\n";
        let manifest = ("agent-wasm/agent-core/Cargo.toml", "");
        let tree = Tree::from_pairs([manifest, ("agent-wasm/agent-core/src/lib.rs", lib)]);
        assert_eq!(impure(&tree), []);

        let tree = Tree::from_pairs([
            manifest,
            ("agent-wasm/agent-core/src/lib.rs", "extern crate std;\n"),
        ]);
        assert_eq!(impure(&tree).len(), 3);
        assert_eq!(impure(&Tree::from_pairs([manifest])).len(), 1);
    }

    #[test]
    fn an_include_across_rooms_is_found() {
        let own = "#[path = \"../../host/x.rs\"] include_str!(\"../../../wit/README.md\")";
        let other = "include_bytes!(\"../../../pal-plugins/x\")";
        let tree = Tree::from_pairs([("host/a/src/lib.rs", own), ("host/a/src/b.rs", other)]);
        assert_eq!(found(&hidden_edges(&tree)), ["host/a/src/b.rs:1"]);
    }
}
