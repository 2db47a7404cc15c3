//! What every manifest must say: folder = crate name, version 0.0.0, the workspace's lints, and no version of its own
//! for anything that it imports (the root manifest is the one place for versions).

use toml::{Table, Value};

use crate::Finding;
use crate::tree::Tree;

/// Finds manifests of crates that break a rule.
#[must_use]
pub fn violations(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folders = tree.crate_folders();
    for folder in folders.iter().filter(|folder| !folder.is_empty()) {
        let path = format!("{folder}/Cargo.toml");
        let mut find = |what: &str| findings.push(Finding::new(path.clone(), what));
        let Some(manifest) = tree.text(&path).and_then(|text| text.parse::<Table>().ok()) else {
            find("is no manifest");
            continue;
        };
        // Folders below a crate's own (fixtures, fuzz targets of their own workspace) are judged as crates too.
        if folder.split('/').count() != 2 {
            find("lies deeper than room/crate; crates are flat");
        }
        let package = |key: &str| manifest.get("package").and_then(|package| package.get(key));
        if package("name").and_then(Value::as_str) != folder.rsplit('/').next() {
            find("has another package name than its folder");
        }
        if !is_inherited(package("version")) {
            find("needs version.workspace = true, which is 0.0.0");
        }
        if package("description")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            find("has no description");
        }
        if !is_inherited(manifest.get("lints")) {
            find("needs [lints] workspace = true");
        }
        for (name, dependency) in dependencies(&manifest) {
            if !is_inherited(Some(dependency)) && dependency.get("path").is_none() {
                find(&format!(
                    "gives {name} a version; versions stand in the root manifest"
                ));
            }
        }
    }
    findings
}

fn is_inherited(value: Option<&Value>) -> bool {
    value
        .and_then(|value| value.get("workspace"))
        .and_then(Value::as_bool)
        == Some(true)
}

/// All dependencies of a manifest, those under `target.<cfg>` too.
fn dependencies(manifest: &Table) -> Vec<(&String, &Value)> {
    const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values);
    let tables = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    tables
        .flat_map(|table| {
            SECTIONS
                .iter()
                .filter_map(|section| table.get(*section).and_then(Value::as_table))
        })
        .flatten()
        .collect()
}

/// Members that are empty for every target but wasm, where no test runs.
pub const WASM_ONLY: &[&str] = &[
    "agent-wasm/agent-guest",
    "agent-wasm/agent-sdk",
    "agent-wasm/agent-simple",
];

const ROOT: &str = "Cargo.toml";

/// Finds a root manifest whose members differ from the folders in the tree, or whose version is not 0.0.0.
#[must_use]
pub fn root_violations(tree: &Tree) -> Vec<Finding> {
    let Some(manifest) = tree.text(ROOT).and_then(|text| text.parse::<Table>().ok()) else {
        return vec![Finding::new(ROOT, "is no manifest")];
    };
    let mut findings = Vec::new();
    let workspace = manifest.get("workspace");
    let version = workspace.and_then(|table| table.get("package")?.get("version")?.as_str());
    if version != Some("0.0.0") {
        findings.push(Finding::new(
            ROOT,
            "has another workspace version than 0.0.0",
        ));
    }
    if manifest.contains_key("package") {
        findings.push(Finding::new(
            ROOT,
            "holds a package; it is a virtual manifest",
        ));
    }
    let list = |key: &str| -> Vec<&str> {
        let list = workspace.and_then(|table| table.get(key)?.as_array());
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    };
    let (members, tested) = (list("members"), list("default-members"));
    for member in &members {
        if !tested.contains(member) && !WASM_ONLY.contains(member) {
            let what = format!("leaves {member} out of default-members, and so of cargo test");
            findings.push(Finding::new(ROOT, what));
        }
    }
    for folder in tree.crate_folders() {
        if !members.contains(&folder) {
            findings.push(Finding::new(
                ROOT,
                format!("does not name the member {folder}"),
            ));
        }
    }
    findings
}

/// What a configuration file of a user's may say of `release`, and what the guests are built with.
const GUEST_PROFILE: &[&str] = &[
    "opt-level",
    "lto",
    "codegen-units",
    "panic",
    "strip",
    "debug",
    "debug-assertions",
    "overflow-checks",
    "incremental",
    "rpath",
];

/// Finds keys that the profile of the guests leaves to the one that it inherits from: the guests are the same bytes anywhere.
#[must_use]
pub fn profile_violations(tree: &Tree) -> Vec<Finding> {
    let root = tree.text(ROOT).and_then(|text| text.parse::<Table>().ok());
    let profile = root
        .as_ref()
        .and_then(|root| root.get("profile")?.get("guest"));
    let missing = GUEST_PROFILE
        .iter()
        .filter(|key| profile.and_then(|profile| profile.get(**key)).is_none());
    let finding = |key: &&str| {
        let what = format!("leaves {key} of profile `guest` to a user's configuration");
        Finding::new(ROOT, what)
    };
    missing.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\ndescription = \"x\"\nversion.workspace = true\n\
                        [lints]\nworkspace = true\n[dependencies]\nb.workspace = true\nc = { path = \"../c\" }\n";

    fn check(path: &str, manifest: &str, expected: &[&str]) {
        let tree = Tree::from_pairs([(path, manifest)]);
        let found: Vec<String> = violations(&tree)
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        assert_eq!(found, expected, "{manifest}");
    }

    #[test]
    fn a_manifest_that_inherits_everything_passes() {
        check("host/a/Cargo.toml", GOOD, &[]);
    }

    #[test]
    fn each_departure_is_found() {
        let rows = [
            (
                "name = \"a\"",
                "name = \"b\"",
                "has another package name than its folder",
            ),
            (
                "version.workspace = true",
                "version = \"1.0.0\"",
                "needs version.workspace = true, which is 0.0.0",
            ),
            ("description = \"x\"", "", "has no description"),
            (
                "[lints]\nworkspace = true",
                "",
                "needs [lints] workspace = true",
            ),
            (
                "b.workspace = true",
                "b = \"1\"",
                "gives b a version; versions stand in the root manifest",
            ),
            (
                "[dependencies]",
                "[target.'cfg(unix)'.dev-dependencies]\nd = { version = \"1\" }\n[dependencies]",
                "gives d a version; versions stand in the root manifest",
            ),
        ];
        for (good, bad, expected) in rows {
            assert!(GOOD.contains(good), "{good}");
            check("host/a/Cargo.toml", &GOOD.replace(good, bad), &[expected]);
        }
    }

    #[test]
    fn a_crate_inside_a_crate_is_found() {
        check(
            "host/x/a/Cargo.toml",
            GOOD,
            &["lies deeper than room/crate; crates are flat"],
        );
    }

    #[test]
    fn a_key_that_the_profile_of_the_guests_leaves_open_is_found() {
        let keys: String = GUEST_PROFILE
            .iter()
            .map(|key| format!("{key} = 1\n"))
            .collect();
        let found = |keys: &str| {
            let root = format!("[profile.release]\nrpath = 1\n[profile.guest]\n{keys}");
            let found = profile_violations(&Tree::from_pairs([(ROOT, &*root)]));
            found
                .into_iter()
                .map(|finding| finding.what)
                .collect::<Vec<_>>()
        };
        assert!(found(&keys).is_empty());
        assert_eq!(
            found(&keys.replace("rpath = 1\n", "")),
            ["leaves rpath of profile `guest` to a user's configuration"]
        );
    }

    #[test]
    fn a_member_that_the_root_or_its_tests_forget_is_found() {
        let root = "[workspace]\nmembers = [\"host/a\", \"host/c\"]\ndefault-members = [\"host/a\"]\n\
                    [workspace.package]\nversion = \"0.0.0\"\n";
        let tree = Tree::from_pairs([
            ("Cargo.toml", root),
            ("host/a/Cargo.toml", ""),
            ("host/b/Cargo.toml", ""),
        ]);
        let found: Vec<String> = root_violations(&tree)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "Cargo.toml: leaves host/c out of default-members, and so of cargo test",
                "Cargo.toml: does not name the member host/b",
            ]
        );
    }
}
