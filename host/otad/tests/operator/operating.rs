//! The commands of `OPERATING.md`, run as they stand there.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

const HEADINGS: [&str; 9] = [
    "Things",
    "Credentials",
    "Signing certificates",
    "Provisioning",
    "Jobs",
    "Secondary MCUs",
    "Replacing a part",
    "Plugins from files",
    "Service",
];

#[test]
fn the_operators_page_has_its_parts_and_every_command_of_it_works() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("OPERATING.md");
    let page = fs::read_to_string(page).unwrap();
    let headings: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    assert_eq!(headings, HEADINGS);
    for part in page.split("\n## ").skip(1) {
        assert!(part.contains("```sh\n"), "{part}");
    }
    if Command::new("openssl").arg("version").output().is_err() {
        let required = std::env::var_os("OTAD_REQUIRE_INTEROP").is_some_and(|v| v == "1");
        assert!(
            !required,
            "openssl is not installed and OTAD_REQUIRE_INTEROP=1 requires it"
        );
        return;
    }
    let mut script = String::from("set -euxo pipefail\ntrap 'kill $(jobs -p)' EXIT\n");
    for block in page.split("```sh\n").skip(1) {
        let block = block.split_once("```").unwrap().0;
        // Writing to a String cannot fail.
        let _ = write!(script, "{block}");
    }
    let dir = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_otad")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(dir.path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTAD_") {
            bash.env_remove(name);
        }
    }
    bash.env("PATH", format!("{}:{path}", program.display()));
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("Mismatch (signature)"), "{out}");
}
