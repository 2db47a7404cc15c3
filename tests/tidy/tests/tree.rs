//! The rules of this crate, held against the real tree.

use std::process::Command;

use tidy::promise::{self, Evidence};
use tidy::tree::{self, Tree};
use tidy::{Finding, edges, features, lines, manifest, outside, readme, source};

fn real_tree() -> Tree {
    Tree::read(&tree::top()).expect("the tree can be read")
}

fn check(findings: &[Finding]) {
    assert!(findings.is_empty(), "{}", lines(findings));
}

/// What cargo says about the real workspace, without a network.
fn cargo(arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(tree::top());
    let answer = command.output().expect("cargo runs");
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "{said}");
    answer.stdout
}

const METADATA: &[&str] = &[
    "metadata",
    "--no-deps",
    "--offline",
    "--format-version",
    "1",
];

/// The README's first command is `cargo run -- demo`. Cargo asks which program is meant as soon as a second package of
/// the default members has one, unless exactly one package names its own.
#[test]
fn the_program_that_cargo_runs_is_otad_whatever_programs_the_tests_have() {
    let said: serde_json::Value = serde_json::from_slice(&cargo(METADATA)).unwrap();
    let named: Vec<_> = said["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| package["default_run"].as_str())
        .collect();
    assert_eq!(named, ["otad"]);
}

#[test]
fn nobody_imports_what_the_table_does_not_allow() {
    let crates = edges::parse_metadata(&cargo(METADATA)).unwrap();
    assert!(crates.len() >= 15, "only {} crates were seen", crates.len());
    check(&edges::violations(&crates));
}

#[test]
fn what_comes_from_outside_is_allowed_to() {
    let tree = real_tree();
    let rules = outside::Rules::parse(tree.text(outside::RULES).unwrap()).unwrap();
    let answer = String::from_utf8(cargo(outside::TREE_ARGUMENTS)).unwrap();
    assert!(answer.lines().count() > 100, "{answer}");
    check(&outside::violations(&rules, &answer));
    check(&outside::foreign_sources(&rules, tree.text("Cargo.lock").unwrap()).unwrap());
}

#[test]
fn what_is_slow_to_compile_is_compiled_once_for_tests_and_program() {
    let answer = |kinds: &[&str]| {
        let arguments = [features::ARGUMENTS, kinds].concat();
        String::from_utf8(cargo(&arguments)).unwrap()
    };
    let (program, tests) = (answer(features::IN_PROGRAM), answer(features::IN_TESTS));
    check(&features::differences(&program, &tests).unwrap());
    // Nor may the profile tell them apart: a level that is not said depends on who else uses the crate.
    let root: toml::Table = real_tree().text("Cargo.toml").unwrap().parse().unwrap();
    let dev = &root["profile"]["dev"];
    assert_eq!(dev["build-override"].get("debug"), dev.get("debug"));
    assert!(dev.get("debug").is_some());
}

#[test]
fn the_top_level_holds_only_the_fixed_names_and_files_of_tools() {
    check(&tree::strange_names(&real_tree()));
}

#[test]
fn the_seven_fixed_names_exist() {
    let tree = real_tree();
    for (name, _) in tree::TOP_LEVEL
        .iter()
        .filter(|(_, reason)| reason.starts_with("fixed"))
    {
        let below = format!("{name}/");
        assert!(
            tree.files()
                .any(|(path, _)| path == *name || path.starts_with(&below)),
            "{name}"
        );
    }
}

#[test]
fn no_file_is_too_big() {
    check(&tree::big_files(&real_tree()));
}

#[test]
fn every_manifest_inherits_from_the_root() {
    let tree = real_tree();
    check(&manifest::violations(&tree));
    check(&manifest::root_violations(&tree));
    check(&manifest::profile_violations(&tree));
}

#[test]
fn every_source_says_what_it_is() {
    check(&source::headers(&real_tree()));
}

#[test]
fn no_file_says_a_banned_word_or_names_a_machine() {
    check(&source::words(&real_tree()));
}

/// What it is there to show: how little an agent needs besides the public parts.
#[test]
fn the_simple_orchestrator_has_at_most_150_lines_of_its_own() {
    let tree = real_tree();
    let own = tree
        .files()
        .filter(|(path, _)| path.starts_with("agent-wasm/agent-simple/src/"));
    let count: usize = own
        .filter_map(|(path, _)| tree.text(path))
        .flat_map(str::lines)
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count();
    assert!((50..=150).contains(&count), "{count} lines");
}

#[test]
fn pure_crates_say_so_to_the_compiler() {
    check(&source::impure(&real_tree()));
}

#[test]
fn no_source_includes_a_file_of_another_room() {
    check(&source::hidden_edges(&real_tree()));
}

#[test]
fn the_licence_is_there() {
    let tree = real_tree();
    let text = tree.text("LICENSE").unwrap();
    assert!(text.contains("Apache License") && text.contains("Version 2.0"));
}

#[test]
fn the_readme_marks_its_commands_and_names_every_folder() {
    let tree = real_tree();
    let text = tree.text(readme::README).unwrap();
    check(&readme::commands(text));
    check(&readme::navigating(text, &tree));
}

#[test]
fn every_promise_is_bound_to_something_that_exists() {
    let tree = real_tree();
    let text = tree.text(promise::PROMISES).unwrap();
    check(&promise::promises(text, &Evidence::collect(&tree)));
}

#[test]
fn every_measured_fault_of_the_c_agent_is_bound_to_something_that_exists() {
    let tree = real_tree();
    let text = tree.text(promise::MEASURED).unwrap();
    check(&promise::measured(text, &Evidence::collect(&tree)));
}

#[test]
fn every_upstream_test_is_bound_to_something_that_exists() {
    let tree = real_tree();
    let text = tree.text(promise::UPSTREAM).unwrap();
    check(&promise::upstream(text, &Evidence::collect(&tree)));
}

#[test]
fn the_tables_of_hostile_plugins_are_whole_and_name_tests_that_exist() {
    let tree = real_tree();
    let text = tree.text(promise::HOSTILE).unwrap();
    check(&promise::hostile(text, &Evidence::collect(&tree)));
}

#[test]
fn the_porting_guide_maps_every_function_of_a_freertos_pal() {
    const FUNCTIONS: [&str; 8] = [
        "otaPal_CreateFileForRx",
        "otaPal_WriteBlock",
        "otaPal_CloseFile",
        "otaPal_Abort",
        "otaPal_ActivateNewImage",
        "otaPal_ResetDevice",
        "otaPal_SetPlatformImageState",
        "otaPal_GetPlatformImageState",
    ];
    let tree = real_tree();
    let guide = tree.text("pal-plugins/pal-sdk/PORTING.md").unwrap();
    let rows = support::markdown::rows(guide);
    for function in FUNCTIONS {
        let row = rows
            .iter()
            .find(|(_, cells)| cells[0] == format!("`{function}`"));
        let (_, cells) = row.unwrap_or_else(|| panic!("{function} has no row"));
        assert!(
            cells[1].contains("`Plugin::"),
            "{function} has no counterpart: {cells:?}"
        );
    }
}

/// A recipe that copies the workspace's values goes on copying them.
#[test]
fn the_recipe_for_an_agent_outside_has_the_versions_and_the_profile_of_this_workspace() {
    let root = tree::top();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let table = |text: &str| text.parse::<toml::Table>().unwrap();
    let readme = read("agent-wasm/agent-sdk/README.md");
    let recipe = readme.split("```toml\n").nth(1);
    let recipe = table(recipe.and_then(|rest| rest.split("```").next()).unwrap());
    let ours = table(&read("Cargo.toml"));
    assert_eq!(recipe["profile"]["guest"], ours["profile"]["guest"]);
    assert_eq!(
        recipe["package"]["edition"],
        ours["workspace"]["package"]["edition"]
    );
    let simple = table(&read("agent-wasm/agent-simple/Cargo.toml"));
    assert_eq!(recipe["lib"]["crate-type"], simple["lib"]["crate-type"]);
    let target = |table: &toml::Table| table["target"].as_table().unwrap().clone();
    let (recipe, simple) = (target(&recipe), target(&simple));
    let names = |target: &toml::Table| -> Vec<(String, Vec<String>)> {
        let row = |(cfg, what): (&String, &toml::Value)| {
            let crates = what["dependencies"].as_table().unwrap();
            (cfg.clone(), crates.keys().cloned().collect())
        };
        target.iter().map(row).collect()
    };
    assert_eq!(names(&recipe), names(&simple));
    let wit_bindgen = recipe.values().next().unwrap()["dependencies"]["wit-bindgen"].clone();
    assert_eq!(
        wit_bindgen,
        ours["workspace"]["dependencies"]["wit-bindgen"]
    );
}
