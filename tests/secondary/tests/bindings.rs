//! Every test that the README names for a trouble or a trap is there.

use std::path::Path;

#[test]
fn every_row_of_the_readme_names_a_test_that_exists() {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = room.ancestors().nth(2).unwrap();
    let text = std::fs::read_to_string(room.join("README.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let mut bound = 0;
    for row in rows.filter(|row| !row.contains("| --- |") && !row.contains("shown by |")) {
        let named: Vec<_> = row
            .split('`')
            .filter_map(|word| word.split_once(".rs::"))
            .collect();
        assert!(!named.is_empty(), "no test: {row}");
        for (file, name) in named {
            let source = std::fs::read_to_string(root.join(format!("{file}.rs")));
            let found = source.is_ok_and(|source| source.contains(&format!("fn {name}()")));
            assert!(found, "{file}.rs has no test {name}");
            bound += 1;
        }
    }
    assert!(bound > 50, "{bound}");
}
