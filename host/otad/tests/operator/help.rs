//! The help of `otad update create` as a golden text, and what it must say of every option.

use std::path::Path;

use crate::{done, golden, otad};

#[test]
fn the_help_of_update_create_explains_every_option_its_default_and_what_is_required() {
    let help = done(&otad(Path::new("/"), &["update", "create", "--help"]));
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    golden("update-create-help.txt", &format!("{}\n", lines.join("\n")));
    assert!(help.contains("Required: whom it is for"));
    let mut options = 0;
    let (list, _) = help.split_once("Required: ").unwrap();
    let mut lines = list.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("      --") {
            options += 1;
            let about = lines.peek().unwrap().trim();
            assert!(about.len() > 10, "{line} is not explained: {about}");
        }
    }
    assert!(options > 25, "{options}");
}

/// Every verb that does something, by the groups that the help itself lists.
fn verbs(of: &[&str]) -> Vec<Vec<String>> {
    let help = done(&otad(Path::new("/"), &[of, &["--help"]].concat()));
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return vec![of.iter().map(|word| (*word).to_owned()).collect()];
    };
    let (list, _) = list.split_once("\n\n").unwrap();
    // What is broken into a second line is indented further.
    let names = list
        .lines()
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .flat_map(|name| verbs(&[of, &[name]].concat()))
        .collect()
}

#[test]
fn the_help_of_every_verb_says_what_it_is_for_and_gives_an_example() {
    let all = verbs(&[]);
    assert!(all.len() > 40, "{all:?}");
    for verb in all {
        let mut words: Vec<&str> = verb.iter().map(String::as_str).collect();
        let name = words.join(" ");
        words.push("--help");
        let help = done(&otad(Path::new("/"), &words));
        let about = help.lines().next().unwrap_or_default();
        assert!(about.len() > 10, "{name}: {about}");
        assert!(
            help.contains(&format!("  otad {name}"))
                || help.contains(&format!("=/usr/bin/otad {name}")),
            "{name} has no example of itself:\n{help}"
        );
    }
}
