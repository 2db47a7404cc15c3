//! The tables that bind what was promised to what shows it: `tests/promises.md` (a row for each promise of the documents
//! that the project was created from), `tests/measured.md` (the faults of the C agent that this one must not have) and
//! `tests/upstream.md` (the unit tests of the C libraries). And `tests/hostile.md`, whose rows the tests read themselves.
//!
//! It checks that no row is missing, that every named test, case, scenario or phase exists, and that nothing waits for
//! an issue that is done. Whether a test shows what its row says is for readers.

use std::collections::BTreeMap;

use support::markdown;

use crate::Finding;
use crate::tree::Tree;

/// Table of promises.
pub const PROMISES: &str = "tests/promises.md";
/// Table of faults.
pub const MEASURED: &str = "tests/measured.md";
/// Table of upstream tests.
pub const UPSTREAM: &str = "tests/upstream.md";

/// Tables of hostile plugins.
pub const HOSTILE: &str = "tests/hostile.md";

/// Fewest rows of those tables: as many as there are, so that one that goes is missed.
pub const HOSTILE_MIN: usize = 106;

/// Series of promise ids and how many each has; they run from 01 without a gap.
pub const SERIES: &[(&str, u32)] = &[
    ("S000", 65),
    ("S001", 64),
    ("S002", 29),
    ("S003", 18),
    ("S004", 32),
];

/// Faults that were measured, numbered from 01, and one that shares the number of its neighbour.
pub const FAULTS: u32 = 24;
const FAULT_BETWEEN: &str = "C-14b";

/// Upstream suites and how many tests each has: 390 in all.
pub const SUITES: &[(&str, u32)] = &[
    ("ota", 150),
    ("ota_cbor", 5),
    ("ota_base64", 17),
    ("ota_os_posix", 7),
    ("ota_pal_posix", 41),
    ("jobs", 47),
    ("job_parser", 27),
    ("ota_job_handler", 9),
    ("downloader", 40),
    ("downloader_cbor", 34),
    ("downloader_base64", 13),
];

/// Issues that are planned; a row may be open for one of them.
pub const PLANNED_ISSUES: std::ops::RangeInclusive<u32> = 2..=9;

/// Issues that are done: no row may wait for one of them any longer.
pub const DONE_ISSUES: &[u32] = &[2, 3, 4, 5, 6, 7];

/// What the last cell of a row may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// A test function of a crate: `` `crate::function` ``.
    Test {
        /// Crate, which is its folder's name.
        krate: String,
        /// Function.
        function: String,
    },
    /// A scenario of the demo: `` `demo NAME` ``.
    Demo(String),
    /// A case of the conformance scripts: `` `case NAME` ``.
    Case(String),
    /// A phase of `.ci/run`: `` `ci NAME` ``.
    Phase(String),
    /// Not yet, and why: `open: issue N, …`.
    Open(u32),
    /// Never, and why: `none: …`.
    Never(String),
}

/// Reads the bindings of a cell: items with `; ` between them.
///
/// # Errors
/// The item that is none.
pub fn parse_bindings(cell: &str) -> Result<Vec<Binding>, String> {
    cell.split("; ")
        .map(|item| parse_binding(item.trim()).ok_or_else(|| item.to_owned()))
        .collect()
}

fn parse_binding(item: &str) -> Option<Binding> {
    if let Some(rest) = item.strip_prefix("open: issue ") {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        return Some(Binding::Open(digits.parse().ok()?));
    }
    if let Some(reason) = item.strip_prefix("none: ") {
        return (reason.len() >= 8).then(|| Binding::Never(reason.to_owned()));
    }
    let name = item.strip_prefix('`')?.strip_suffix('`')?;
    if let Some(name) = name.strip_prefix("demo ") {
        return Some(Binding::Demo(name.to_owned()));
    }
    if let Some(name) = name.strip_prefix("case ") {
        return Some(Binding::Case(name.to_owned()));
    }
    if let Some(name) = name.strip_prefix("ci ") {
        return Some(Binding::Phase(name.to_owned()));
    }
    let (krate, function) = name.split_once("::")?;
    let is_word = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    (is_word(krate) && is_word(function)).then(|| Binding::Test {
        krate: krate.to_owned(),
        function: function.to_owned(),
    })
}

/// Everything in the tree that a row may name.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Test functions by crate.
    tests: BTreeMap<String, Vec<String>>,
    demos: Vec<String>,
    cases: Vec<String>,
    phases: Vec<String>,
}

impl Evidence {
    /// Collects it from the tree.
    #[must_use]
    pub fn collect(tree: &Tree) -> Self {
        let mut evidence = Self::default();
        for (path, text) in tree.sources() {
            let Some(krate) = path.split('/').nth(1) else {
                continue;
            };
            let tests = evidence.tests.entry(krate.to_owned()).or_default();
            tests.extend(test_functions(text));
            tests.extend(macro_tests(text));
            if path.starts_with("host/otad/src/demo") {
                evidence.demos.extend(quoted(text));
            }
        }
        for (path, text) in tree.texts() {
            if path.starts_with("host/host-sandbox/cases/") {
                evidence.cases.extend(
                    text.lines()
                        .filter_map(|line| line.strip_prefix("case "))
                        .map(str::to_owned),
                );
            }
            if path == ".ci/run" {
                evidence.phases.extend(
                    text.lines()
                        .filter_map(|line| line.trim().strip_prefix("phase "))
                        .map(first_word),
                );
            }
        }
        evidence
    }

    fn lacks(&self, binding: &Binding) -> Option<String> {
        let missing = match binding {
            Binding::Test { krate, function } => !self
                .tests
                .get(krate)
                .is_some_and(|tests| tests.contains(function)),
            Binding::Demo(name) => !self.demos.contains(name),
            Binding::Case(name) => !self.cases.contains(name),
            Binding::Phase(name) => !self.phases.contains(name),
            Binding::Open(_) | Binding::Never(_) => false,
        };
        missing.then(|| format!("names {binding:?}, which does not exist"))
    }
}

/// Names of the functions that carry a test attribute.
fn test_functions(text: &str) -> Vec<String> {
    let mut functions = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line
            .strip_prefix("async fn ")
            .or_else(|| line.strip_prefix("fn "))
        {
            if std::mem::take(&mut is_test) {
                functions.extend(rest.split('(').next().map(str::to_owned));
            }
        } else if !line.starts_with("#[") && !line.starts_with("//") && !line.is_empty() {
            // Inside proptest! the attribute stands right above the function too.
            is_test = false;
        }
    }
    functions
}

/// Names of the functions that a macro of the same file makes: `rows!(name, …` where `macro_rules! rows` says `#[test]`.
fn macro_tests(text: &str) -> Vec<String> {
    let mut functions = Vec::new();
    for definition in text.split("macro_rules! ").skip(1) {
        let name = definition.split_whitespace().next().unwrap_or_default();
        let body = definition.split("\n}").next().unwrap_or_default();
        if body.contains("#[test]") {
            let start = format!("{name}!(");
            let calls = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix(&start));
            functions.extend(calls.filter_map(|rest| Some(rest.split_once(',')?.0.to_owned())));
        }
    }
    functions
}

fn quoted(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines()
        .flat_map(|line| line.split('"').skip(1).step_by(2))
        .map(str::to_owned)
}

fn first_word(text: &str) -> String {
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Finds missing, doubled and unknown promise rows, and rows that are bound to nothing.
#[must_use]
pub fn promises(text: &str, evidence: &Evidence) -> Vec<Finding> {
    let ids = SERIES
        .iter()
        .flat_map(|(series, count)| (1..=*count).map(move |n| format!("{series}-{n:02}")));
    rows_of(PROMISES, ids, text, evidence)
}

/// The same for the faults of the C agent.
#[must_use]
pub fn measured(text: &str, evidence: &Evidence) -> Vec<Finding> {
    let ids = (1..=FAULTS).map(|n| format!("C-{n:02}"));
    let ids = ids.chain([FAULT_BETWEEN.to_owned()]);
    rows_of(MEASURED, ids, text, evidence)
}

/// Holds a table of three columns against the ids that it must have.
fn rows_of(
    path: &str,
    ids: impl Iterator<Item = String>,
    text: &str,
    evidence: &Evidence,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (line, cells) in markdown::rows(text) {
        let at = format!("{path}:{line}");
        let [id, _, shown] = cells.as_slice() else {
            findings.push(Finding::new(at, "needs three cells: id, what, shown by"));
            continue;
        };
        if let Some(first) = seen.insert(id.clone(), line) {
            findings.push(Finding::new(
                at.clone(),
                format!("repeats {id} of line {first}"),
            ));
        }
        findings.extend(bound(&at, shown, evidence));
    }
    for id in ids {
        if seen.remove(&id).is_none() {
            findings.push(Finding::new(path, format!("has no row {id}")));
        }
    }
    let unknown = |(id, line)| Finding::new(format!("{path}:{line}"), format!("knows no {id}"));
    findings.extend(seen.into_iter().map(unknown));
    findings
}

/// Finds suites whose rows do not add up, and rows that are bound to nothing.
#[must_use]
pub fn upstream(text: &str, evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (line, cells) in markdown::rows(text) {
        let at = format!("{UPSTREAM}:{line}");
        let [suite, test, count, shown] = cells.as_slice() else {
            findings.push(Finding::new(
                at,
                "needs four cells: suite, test, count, here",
            ));
            continue;
        };
        match count.parse::<u32>() {
            Ok(count) => *counts.entry(suite.clone()).or_default() += count,
            Err(_) => findings.push(Finding::new(at.clone(), format!("{count} is no number"))),
        }
        if let Some(first) = seen.insert((suite.clone(), test.clone()), line) {
            findings.push(Finding::new(
                at.clone(),
                format!("repeats {test} of line {first}"),
            ));
        }
        findings.extend(bound(&at, shown, evidence));
    }
    for (suite, expected) in SUITES {
        let found = counts.remove(*suite).unwrap_or_default();
        if found != *expected {
            findings.push(Finding::new(
                UPSTREAM,
                format!("has {found} tests of {suite}, expected {expected}"),
            ));
        }
    }
    findings.extend(
        counts
            .into_keys()
            .map(|suite| Finding::new(UPSTREAM, format!("{suite} is no upstream suite"))),
    );
    findings
}

/// Finds tests that are named among the hostile plugins and do not exist, and tables that say too little: the tests read the rows
/// themselves.
#[must_use]
pub fn hostile(text: &str, evidence: &Evidence) -> Vec<Finding> {
    let code = text.split('`').skip(1).step_by(2);
    let tests = code.filter_map(|name| parse_binding(&format!("`{name}`")));
    let mut findings: Vec<Finding> = tests
        .filter_map(|test| evidence.lacks(&test))
        .map(|what| Finding::new(HOSTILE, what))
        .collect();
    let rows = markdown::rows(text);
    if rows.len() < HOSTILE_MIN {
        let what = format!("has {} rows, expected {HOSTILE_MIN}", rows.len());
        findings.push(Finding::new(HOSTILE, what));
    }
    for (line, cells) in rows {
        if cells
            .iter()
            .any(|cell| cell.is_empty() || cell.contains('?'))
        {
            findings.push(Finding::new(
                format!("{HOSTILE}:{line}"),
                "has a cell without an answer",
            ));
        }
    }
    findings
}

fn bound(at: &str, shown: &str, evidence: &Evidence) -> Vec<Finding> {
    let bindings = match parse_bindings(shown) {
        Ok(bindings) => bindings,
        Err(item) => return vec![Finding::new(at, format!("{item:?} is no binding"))],
    };
    let mut findings = Vec::new();
    for binding in &bindings {
        if let Binding::Open(issue) = binding {
            if DONE_ISSUES.contains(issue) {
                findings.push(Finding::new(
                    at,
                    format!("waits for issue {issue}, which is done"),
                ));
            } else if !PLANNED_ISSUES.contains(issue) {
                findings.push(Finding::new(
                    at,
                    format!("waits for issue {issue}, which is not planned"),
                ));
            }
        }
        findings.extend(evidence.lacks(binding).map(|what| Finding::new(at, what)));
    }
    findings
}

/// How many rows of a table are bound to something that runs, still open, and without counterpart for ever.
#[must_use]
pub fn tally(text: &str) -> (usize, usize, usize) {
    let (mut shown, mut open, mut never) = (0, 0, 0);
    for (_, cells) in markdown::rows(text) {
        let bindings = cells
            .last()
            .and_then(|cell| parse_bindings(cell).ok())
            .unwrap_or_default();
        if bindings
            .iter()
            .any(|binding| matches!(binding, Binding::Open(_)))
        {
            open += 1;
        } else if bindings
            .iter()
            .all(|binding| matches!(binding, Binding::Never(_)))
        {
            never += 1;
        } else {
            shown += 1;
        }
    }
    (shown, open, never)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence::collect(&Tree::from_pairs([
            (
                "tests/e2e/tests/a.rs",
                "//! x\n#[test]\nfn it_works() {}\nfn helper() {}\n",
            ),
            (
                "agent-wasm/agent-core/src/a.rs",
                "#[cfg(test)]\n    #[tokio::test(start_paused = true)]\n    async fn later() {}\n",
            ),
            (
                "tests/tidy/src/b.rs",
                "macro_rules! row {\n    ($n:ident) => {\n #[test]\nfn $n() {}\n };\n}\nrow!(made, 1);\nother!(no, 1);\n",
            ),
            (
                "host/otad/src/demo/scenario.rs",
                "const NAMES: &[&str] = &[\"lossy\"];\n",
            ),
            (
                "host/host-sandbox/cases/agent/jobs.txt",
                "case a-job\n> x\n",
            ),
            (".ci/run", "phase tests cargo test\n"),
        ]))
    }

    #[test]
    fn every_kind_of_binding_is_read() {
        let cell = "`e2e::it_works`; `tidy::made`; `demo lossy`; `case a-job`; `ci tests`; open: issue 7, on serial lines; none: no such thing";
        let bindings = parse_bindings(cell).unwrap();
        assert_eq!(bindings.len(), 7);
        assert_eq!(bindings[5], Binding::Open(7));
        for binding in &bindings {
            assert_eq!(evidence().lacks(binding), None);
        }
        for bad in [
            "",
            "x",
            "`x`",
            "open: soon",
            "none: ",
            "`e2e::`",
            "`e2e::a b`",
        ] {
            assert!(parse_bindings(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_found() {
        for bad in [
            "e2e::helper",
            "e2e::later",
            "tidy::no",
            "otad::it_works",
            "demo perfect",
            "case b-job",
            "ci sleep",
        ] {
            let binding = parse_bindings(&format!("`{bad}`")).unwrap().remove(0);
            assert!(evidence().lacks(&binding).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_missing_a_doubled_and_an_unknown_promise_are_found() {
        let mut text = String::from("| id | promise | shown by |\n| --- | --- | --- |\n");
        for (series, count) in SERIES {
            for n in 1..=*count {
                text += &format!("| {series}-{n:02} | x | `e2e::it_works` |\n");
            }
        }
        assert_eq!(promises(&text, &evidence()), []);
        let text = text.replace("| S002-07 |", "| S002-08 |") + "| S005-01 | x | open: issue 1 |\n";
        let found: Vec<String> = promises(&text, &evidence())
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        let expected = [
            "repeats S002-08 of line 138",
            "waits for issue 1, which is not planned",
            "has no row S002-07",
            "knows no S005-01",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_missing_fault_of_the_c_agent_is_found() {
        let row = |id: &str| format!("| {id} | x | `case a-job` |\n");
        let mut text: String = (1..=FAULTS).map(|n| row(&format!("C-{n:02}"))).collect();
        text += &row("C-14b");
        assert_eq!(measured(&text, &evidence()), []);
        let found = measured(&text.replace("C-14b", "C-14c"), &evidence());
        let found: Vec<&str> = found.iter().map(|finding| &*finding.what).collect();
        assert_eq!(found, ["has no row C-14b", "knows no C-14c"]);
    }

    #[test]
    fn a_suite_that_does_not_add_up_is_found() {
        let head = "| suite | test | count | here |\n| --- | --- | --- | --- |\n";
        let rows: String = SUITES
            .iter()
            .map(|(suite, n)| format!("| {suite} | all | {n} | none: for a test |\n"))
            .collect();
        assert_eq!(upstream(&format!("{head}{rows}"), &evidence()), []);
        let rows = rows.replace("| ota_cbor | all | 5 |", "| ota_cbor | all | 4 |")
            + "| other | all | 1 | `case a-job` |\n";
        let found: Vec<String> = upstream(&format!("{head}{rows}"), &evidence())
            .into_iter()
            .map(|f| f.what)
            .collect();
        assert_eq!(
            found,
            [
                "has 4 tests of ota_cbor, expected 5",
                "other is no upstream suite"
            ]
        );
    }

    #[test]
    fn the_upstream_suites_are_390_tests() {
        assert_eq!(SUITES.iter().map(|(_, count)| count).sum::<u32>(), 390);
    }
}
