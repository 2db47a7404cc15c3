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
