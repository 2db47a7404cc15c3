//! What is slow to compile is compiled once: `cargo test` and `cargo run` must ask for it with the same features.
//!
//! Features of tests (dev-dependencies) are added up only where tests are built. Where one reaches wasmtime, or anything
//! that wasmtime stands on, a fresh clone compiles all of it once for the tests and once more for the program. It looks
//! at `cargo tree`'s answers for the whole workspace; builds of single packages (`-p`) are the developer's own choice.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Error, Finding};

/// What takes minutes to compile.
pub const SLOW: &str = "wasmtime";

/// What `cargo tree` is asked for a program, and with [`IN_TESTS`] for tests.
pub const ARGUMENTS: &[&str] = &[
    "tree",
    "--offline",
    "--prefix",
    "depth",
    "--format",
    "|{p}|{f}",
];

/// Kinds of dependencies that count for a program.
pub const IN_PROGRAM: &[&str] = &["-e", "normal,build"];

/// Kinds of dependencies that count for tests.
pub const IN_TESTS: &[&str] = &["-e", "normal,build,dev"];

/// A package and its features, as cargo writes them.
type Unit = (String, String);

/// Finds what [`SLOW`] stands on with other features in tests than in the program.
///
/// # Errors
/// An answer has another shape, or does not name [`SLOW`].
pub fn differences(in_program: &str, in_tests: &str) -> Result<Vec<Finding>, Error> {
    let (program, tests) = (below(in_program)?, below(in_tests)?);
    let side = |units: &BTreeSet<Unit>, others: &BTreeSet<Unit>, command: &str| {
        let only = units.difference(others);
        let finding = |(package, features): &Unit| {
            let what = format!(
                "`{command}` alone builds it with features {features:?}, so {SLOW} is compiled twice: have a test's crate \
                 ask for the same as an ordinary dependency, or do without"
            );
            Finding::new(package.clone(), what)
        };
        only.map(finding).collect::<Vec<_>>()
    };
    let mut findings = side(&program, &tests, "cargo run");
    findings.extend(side(&tests, &program, "cargo test"));
    findings.sort();
    Ok(findings)
}

/// [`SLOW`] and everything below it.
fn below(answer: &str) -> Result<BTreeSet<Unit>, Error> {
    let mut edges: BTreeMap<Unit, BTreeSet<Unit>> = BTreeMap::new();
    let mut path: Vec<Unit> = Vec::new();
    for line in answer.lines().filter(|line| !line.is_empty()) {
        let shape = || Error::Shape {
            what: "the answer of `cargo tree`".to_owned(),
            detail: line.to_owned(),
        };
        let mut cells = line.split('|');
        let (Some(depth), Some(package), Some(features)) =
            (cells.next(), cells.next(), cells.next())
        else {
            return Err(shape());
        };
        let depth: usize = depth.parse().map_err(|_| shape())?;
        // A unit seen before has its mark behind the features, and no children here.
        let features = features.trim_end_matches(" (*)");
        let unit = (package.to_owned(), features.to_owned());
        path.truncate(depth);
        if let Some(parent) = path.last() {
            edges
                .entry(parent.clone())
                .or_default()
                .insert(unit.clone());
        }
        edges.entry(unit.clone()).or_default();
        path.push(unit);
    }
    let is_slow = |unit: &&Unit| unit.0.split(' ').next() == Some(SLOW);
    let mut todo: Vec<Unit> = edges.keys().filter(is_slow).cloned().collect();
    if todo.is_empty() {
        return Err(Error::Shape {
            what: "the answer of `cargo tree`".to_owned(),
            detail: format!("{SLOW} is not in it"),
        });
    }
    let mut seen = BTreeSet::new();
    while let Some(unit) = todo.pop() {
        if let Some(children) = edges.get(&unit)
            && seen.insert(unit)
        {
            todo.extend(children.iter().cloned());
        }
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "0|otad v0.0.0|\n1|wasmtime v48.0.0|std\n2|wasmparser v0.254.0|std\n3|semver v1.0.0|\n\
                           1|tokio v1.0.0|net\n\n0|tidy v0.0.0|\n1|wasmtime v48.0.0|std (*)\n";

    #[test]
    fn the_same_features_below_are_no_finding_whatever_is_beside() {
        let tests = PROGRAM.replace("|net", "|net,test-util");
        assert_eq!(differences(PROGRAM, &tests).unwrap(), []);
    }

    #[test]
    fn a_feature_that_only_tests_ask_for_is_found_on_both_sides() {
        let tests = PROGRAM.replace("semver v1.0.0|", "semver v1.0.0|std");
        let found = differences(PROGRAM, &tests).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|finding| finding.at == "semver v1.0.0"));
        assert!(found[0].what.starts_with("`cargo run`"), "{found:?}");
        assert!(found[1].what.contains("\"std\""), "{found:?}");
    }

    #[test]
    fn an_answer_that_does_not_speak_of_it_is_an_error() {
        for answer in ["", "0|otad v0.0.0|\n", "otad\n", "x|otad|\n"] {
            assert!(differences(PROGRAM, answer).is_err(), "{answer}");
        }
    }
}
