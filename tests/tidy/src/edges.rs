//! Who may import whom, as a table, and the check of `cargo metadata`'s answer against it.
//!
//! Rooms meet as bytes through `wit/`: a Cargo edge that crosses rooms needs a row in [`CROSSINGS`], and a row in
//! [`RULES`] like any other edge. It looks at workspace crates only; what may come from outside is `deny.toml`'s matter.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Finding};

/// What one crate may import from this workspace.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Its name, which is its folder's.
    pub name: &'static str,
    /// The room it lies in.
    pub room: &'static str,
    /// What it may import.
    pub imports: &'static [&'static str],
    /// What its own tests may import besides.
    pub in_tests: &'static [&'static str],
}

/// The room whose crates may import anything and which nobody else imports.
pub const JUDGES: &str = "tests";

const fn rule(
    room: &'static str,
    name: &'static str,
    imports: &'static [&'static str],
    in_tests: &'static [&'static str],
) -> Rule {
    Rule {
        name,
        room,
        imports,
        in_tests,
    }
}

/// The table. A crate that stands here and not in the tree is not built yet; the opposite is a finding.
pub const RULES: &[Rule] = &[
    rule("agent-wasm", "agent-core", &[], &[]),
    rule("agent-wasm", "agent-guest", &["agent-core"], &[]),
    rule("agent-wasm", "agent-sdk", &["agent-core"], &[]),
    rule(
        "agent-wasm",
        "agent-simple",
        &["agent-core", "agent-sdk"],
        &[],
    ),
    rule("pal-plugins", "pal-sdk", &[], &[]),
    rule("pal-plugins", "pal-flash-file", &["pal-sdk"], &[]),
    rule("pal-plugins", "pal-template", &["pal-sdk"], &[]),
    rule("pal-plugins", "smp-core", &[], &[]),
    rule(
        "pal-plugins",
        "pal-serial-mcu",
        &["pal-sdk", "smp-core"],
        &[],
    ),
    rule("host", "host-crypto", &[], &[]),
    rule("host", "guest-artifacts", &[], &[]),
    rule(
        "host",
        "host-runtime",
        &["host-crypto"],
        &["guest-artifacts"],
    ),
    rule("host", "host-mqtt", &["host-runtime"], &["host-cloud"]),
    rule("host", "host-http", &["host-runtime"], &["host-cloud"]),
    rule("host", "host-cloud", &["host-crypto"], &[]),
    rule(
        "host",
        "host-sandbox",
        &[
            "agent-core",
            "smp-core",
            "host-runtime",
            "host-crypto",
            "host-cloud",
            "host-mcu-sim",
            "guest-artifacts",
        ],
        &[],
    ),
    rule("host", "host-mcu-sim", &["smp-core"], &[]),
    rule(
        "host",
        "otad",
        &[
            "host-runtime",
            "host-crypto",
            "host-mqtt",
            "host-http",
            "host-cloud",
            "host-sandbox",
            "host-mcu-sim",
            "guest-artifacts",
            "smp-core",
        ],
        &[],
    ),
];

/// The only edges that may cross rooms, importer first. Both leaves are `no_std` and do no I/O.
pub const CROSSINGS: &[(&str, &str)] = &[
    ("host-sandbox", "agent-core"),
    ("host-sandbox", "smp-core"),
    ("host-mcu-sim", "smp-core"),
    ("otad", "smp-core"),
];

/// One workspace crate as cargo sees it.
#[derive(Debug, Clone)]
pub struct Crate {
    /// Package name.
    pub name: String,
    /// Its folder from the top, such as `host/otad`.
    pub folder: String,
    /// Package version.
    pub version: String,
    /// What it imports from the workspace.
    pub imports: Vec<Import>,
}

impl Crate {
    fn room(&self) -> &str {
        self.folder.split('/').next().unwrap_or_default()
    }
}

/// One edge to another workspace crate.
#[derive(Debug, Clone)]
pub struct Import {
    /// Folder of the imported crate from the top.
    pub folder: String,
    /// Whether only tests, examples and benches see it.
    pub in_tests_only: bool,
}

/// Reads the answer of `cargo metadata --no-deps --format-version 1`.
///
/// # Errors
/// An answer that is not JSON or lacks a member.
pub fn parse_metadata(answer: &[u8]) -> Result<Vec<Crate>, Error> {
    let shape = |detail: &str| Error::Shape {
        what: "cargo metadata".to_owned(),
        detail: detail.to_owned(),
    };
    let answer: Value =
        serde_json::from_slice(answer).map_err(|error| shape(&error.to_string()))?;
    let top = answer["workspace_root"]
        .as_str()
        .ok_or_else(|| shape("no workspace_root"))?;
    let packages = answer["packages"]
        .as_array()
        .ok_or_else(|| shape("no packages"))?;
    packages
        .iter()
        .map(|package| parse_package(package, top).ok_or_else(|| shape("a package lacks a member")))
        .collect()
}

fn parse_package(package: &Value, top: &str) -> Option<Crate> {
    let manifest = Path::new(package["manifest_path"].as_str()?);
    let mut imports = Vec::new();
    for dependency in package["dependencies"].as_array()? {
        // A dependency without a path comes from a registry.
        let Some(path) = dependency["path"].as_str() else {
            continue;
        };
        imports.push(Import {
            folder: below(Path::new(path), top)?,
            in_tests_only: dependency["kind"] == "dev",
        });
    }
    Some(Crate {
        name: package["name"].as_str()?.to_owned(),
        folder: below(manifest.parent()?, top)?,
        version: package["version"].as_str()?.to_owned(),
        imports,
    })
}

fn below(path: &Path, top: &str) -> Option<String> {
    Some(path.strip_prefix(top).ok()?.to_string_lossy().into_owned())
}

/// Finds edges that the table does not allow, and crates that it does not know.
#[must_use]
pub fn violations(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for importer in crates {
        for import in &importer.imports {
            let Some(imported) = crates.iter().find(|other| other.folder == import.folder) else {
                let what = format!(
                    "imports {}, which is no member of the workspace",
                    import.folder
                );
                findings.push(Finding::new(&importer.name, what));
                continue;
            };
            findings.extend(refusal(importer, imported, import.in_tests_only));
        }
        if importer.room() != JUDGES && rule_of(importer).is_none() {
            let what = format!(
                "lies in {} and has no row in tidy's table of imports",
                importer.folder
            );
            findings.push(Finding::new(&importer.name, what));
        }
    }
    findings
}

fn rule_of(importer: &Crate) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| rule.name == importer.name && rule.room == importer.room())
}

/// The first reason against one edge.
fn refusal(importer: &Crate, imported: &Crate, in_tests_only: bool) -> Option<Finding> {
    if importer.room() == JUDGES {
        return None;
    }
    let refuse = |reason: &str| {
        Some(Finding::new(
            &importer.name,
            format!("must not import {}: {reason}", imported.name),
        ))
    };
    if imported.room() == JUDGES {
        return refuse("nothing imports the judges");
    }
    let pair = (importer.name.as_str(), imported.name.as_str());
    if importer.room() != imported.room() && !CROSSINGS.contains(&pair) {
        return refuse("rooms meet as bytes through wit/");
    }
    let name = imported.name.as_str();
    match rule_of(importer) {
        Some(rule) if rule.imports.contains(&name) => None,
        Some(rule) if in_tests_only && rule.in_tests.contains(&name) => None,
        _ => refuse("no row of tidy's table of imports allows it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(folder: &str, imports: &[(&str, bool)]) -> Crate {
        Crate {
            name: folder.rsplit('/').next().unwrap().to_owned(),
            folder: folder.to_owned(),
            version: "0.0.0".to_owned(),
            imports: imports
                .iter()
                .map(|(folder, in_tests_only)| Import {
                    folder: (*folder).to_owned(),
                    in_tests_only: *in_tests_only,
                })
                .collect(),
        }
    }

    fn check(crates: &[Crate], expected: &[&str]) {
        let found: Vec<String> = violations(crates).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_edges_that_the_design_names_pass() {
        check(
            &[
                member("agent-wasm/agent-core", &[]),
                member(
                    "agent-wasm/agent-guest",
                    &[("agent-wasm/agent-core", false)],
                ),
                member("host/host-sandbox", &[("agent-wasm/agent-core", false)]),
                member("host/host-runtime", &[("host/guest-artifacts", true)]),
                member("host/guest-artifacts", &[]),
                member(
                    "tests/e2e",
                    &[
                        ("host/host-runtime", false),
                        ("agent-wasm/agent-core", true),
                    ],
                ),
            ],
            &[],
        );
    }

    #[test]
    fn an_edge_between_rooms_is_found() {
        check(
            &[
                member("agent-wasm/agent-core", &[]),
                member("host/host-runtime", &[("agent-wasm/agent-core", false)]),
            ],
            &["host-runtime: must not import agent-core: rooms meet as bytes through wit/"],
        );
    }

    #[test]
    fn an_edge_between_rooms_is_found_in_tests_too() {
        check(
            &[
                member("pal-plugins/pal-sdk", &[]),
                member("agent-wasm/agent-core", &[("pal-plugins/pal-sdk", true)]),
            ],
            &["agent-core: must not import pal-sdk: rooms meet as bytes through wit/"],
        );
    }

    #[test]
    fn the_runtime_that_imports_an_adapter_is_found() {
        check(
            &[
                member("host/host-mqtt", &[]),
                member("host/host-runtime", &[("host/host-mqtt", false)]),
            ],
            &[
                "host-runtime: must not import host-mqtt: no row of tidy's table of imports allows it",
            ],
        );
    }

    #[test]
    fn what_only_tests_may_import_is_found_in_the_crate_itself() {
        check(
            &[
                member("host/guest-artifacts", &[]),
                member("host/host-runtime", &[("host/guest-artifacts", false)]),
            ],
            &[
                "host-runtime: must not import guest-artifacts: no row of tidy's table of imports allows it",
            ],
        );
    }

    #[test]
    fn a_leaf_with_a_sibling_is_found() {
        check(
            &[
                member("host/host-crypto", &[("host/host-runtime", false)]),
                member("host/host-runtime", &[]),
            ],
            &[
                "host-crypto: must not import host-runtime: no row of tidy's table of imports allows it",
            ],
        );
    }

    #[test]
    fn a_judge_that_is_imported_is_found() {
        check(
            &[
                member("tests/support", &[]),
                member("host/otad", &[("tests/support", true)]),
            ],
            &["otad: must not import support: nothing imports the judges"],
        );
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_found() {
        check(
            &[
                member("host/host-magic", &[]),
                member("pal-plugins/otad", &[]),
            ],
            &[
                "host-magic: lies in host/host-magic and has no row in tidy's table of imports",
                "otad: lies in pal-plugins/otad and has no row in tidy's table of imports",
            ],
        );
    }

    #[test]
    fn the_table_crosses_rooms_only_where_the_crossings_say_so() {
        let room_of = |name: &str| {
            RULES
                .iter()
                .find(|rule| rule.name == name)
                .map(|rule| rule.room)
        };
        for rule in RULES {
            for import in rule.imports.iter().chain(rule.in_tests) {
                let room =
                    room_of(import).unwrap_or_else(|| panic!("{import} has no row of its own"));
                assert!(
                    room == rule.room || CROSSINGS.contains(&(rule.name, import)),
                    "the row of {} allows {import} in room {room}",
                    rule.name
                );
            }
        }
    }

    #[test]
    fn metadata_is_read_with_folders_and_kinds() {
        let answer = br#"{"workspace_root": "/tree", "packages": [
            {"name": "otad", "version": "0.0.0", "manifest_path": "/tree/host/otad/Cargo.toml", "dependencies": [
                {"name": "clap", "kind": null},
                {"name": "host-runtime", "kind": null, "path": "/tree/host/host-runtime"},
                {"name": "support", "kind": "dev", "path": "/tree/tests/support"}]}]}"#;
        let crates = parse_metadata(answer).unwrap();
        assert_eq!(crates[0].folder, "host/otad");
        let imports: Vec<_> = crates[0]
            .imports
            .iter()
            .map(|import| (import.folder.as_str(), import.in_tests_only))
            .collect();
        assert_eq!(
            imports,
            [("host/host-runtime", false), ("tests/support", true)]
        );
    }

    #[test]
    fn metadata_without_packages_is_an_error() {
        assert!(parse_metadata(b"{}").is_err());
        assert!(parse_metadata(b"not json").is_err());
    }
}
