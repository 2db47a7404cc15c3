//! What the README must say: a sentence for each folder under "Navigating", and the marked blocks and tables that
//! other tests and `.ci/run` take out of it.

use support::markdown;

use crate::Finding;
use crate::tree::Tree;

/// Where it lies.
pub const README: &str = "README.md";

/// Markers that must have a fenced block of one command below them.
pub const COMMANDS: &[&str] = &["demo-command", "test-command"];

/// Folders below a room that hold no crate and need their sentence too.
pub const FOLDERS: &[&str] = &[
    "wit/agent",
    "wit/pal",
    "wit/native",
    "wit/frozen",
    "pal-plugins/freertos-pal",
];

/// Finds commands that are not marked or are more than one line.
#[must_use]
pub fn commands(readme: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for marker in COMMANDS {
        let lines = markdown::fenced_block(readme, marker).map_or(0, |block| block.lines().count());
        if lines != 1 {
            findings.push(Finding::new(
                README,
                format!("needs one command in a block below <!-- {marker} -->, has {lines}"),
            ));
        }
    }
    findings
}

/// Finds rooms and crates that "Navigating" does not mention, and mentioned folders that do not exist.
#[must_use]
pub fn navigating(readme: &str, tree: &Tree) -> Vec<Finding> {
    let Some(section) = markdown::section(readme, "Navigating") else {
        return vec![Finding::new(README, "has no section Navigating")];
    };
    let mentioned: Vec<&str> = section
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| name.trim_end_matches('/'))
        .collect();
    let mut findings = Vec::new();
    let rooms = tree
        .files()
        .filter_map(|(path, _)| path.split_once('/'))
        .map(|(room, _)| room);
    let mut folders: Vec<&str> = rooms.filter(|room| !room.starts_with('.')).collect();
    folders.dedup();
    folders.extend(
        tree.crate_folders()
            .into_iter()
            .filter(|folder| !folder.is_empty()),
    );
    folders.extend(FOLDERS);
    for folder in &folders {
        let name = folder.rsplit('/').next().unwrap_or_default();
        if !mentioned.contains(folder) && !mentioned.contains(&name) {
            findings.push(Finding::new(
                README,
                format!("Navigating has no sentence for `{folder}/`"),
            ));
        }
    }
    for name in section.lines().filter_map(first_cell) {
        let exists = tree
            .files()
            .any(|(path, _)| path.contains(&format!("{name}/")));
        if !exists {
            findings.push(Finding::new(
                README,
                format!("Navigating speaks of `{name}/`, which does not exist"),
            ));
        }
    }
    findings
}

/// The folder that a line of the section is about: `` | `host/otad/` | … `` or `` - `host/otad/`: … ``.
fn first_cell(line: &str) -> Option<&str> {
    let line = line.trim().strip_prefix(['|', '-'])?.trim_start();
    line.strip_prefix('`')?.split('`').next()?.strip_suffix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_two_lines_or_none_is_found() {
        let good = "<!-- demo-command -->\n```sh\na\n```\n<!-- test-command -->\n```sh\nb\n```\n";
        assert_eq!(commands(good), []);
        assert_eq!(commands(&good.replace("b\n", "b\nc\n")).len(), 1);
        assert_eq!(commands("").len(), 2);
    }

    #[test]
    fn a_folder_without_a_sentence_and_a_sentence_without_a_folder_are_found() {
        let tree = Tree::from_pairs([("host/otad/Cargo.toml", ""), ("wit/README.md", "")]);
        let good = "## Navigating\n- `wit/`: x, with `agent/`, `pal/`, `native/` and `frozen/`\n- `host/`: y\n- `otad/`: z, and `freertos-pal/`\n";
        assert_eq!(navigating(good, &tree), []);
        let bad = good.replace("`otad/`", "`host/other/`");
        let found: Vec<String> = navigating(&bad, &tree)
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        assert_eq!(
            found,
            [
                "Navigating has no sentence for `host/otad/`",
                "Navigating speaks of `host/other/`, which does not exist"
            ]
        );
        assert_eq!(navigating("# x\n", &tree).len(), 1);
    }
}
