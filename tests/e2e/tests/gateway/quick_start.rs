//! The README's quick start, as it is typed: the block behind its marker, run by a shell in an empty folder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::binary::{self, otad_command, workspace};
use support::markdown;
use support::process::{Process, Stream};

/// It may have to compile the agent, and people wait longer between two lines.
const WHOLE: Duration = Duration::from_secs(400);

/// Ends what the script of `otad thing create` has started.
struct Program<'a>(&'a Path);

impl Drop for Program<'_> {
    fn drop(&mut self) {
        if let Ok(id) = fs::read_to_string(self.0) {
            // It may be gone, which is as good.
            let _gone = Command::new("kill").arg(id.trim()).status();
        }
    }
}

#[test]
fn the_quick_start_of_the_readme_works_as_it_is_typed() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let block = markdown::fenced_block(&readme, "quick-start").unwrap();
    let mut script = String::from("set -eu\n");
    for line in block.lines() {
        script.push_str(line);
        script.push('\n');
        // Whoever types looks whether the cloud is up before the next line.
        if line.starts_with("otad cloud ") {
            script.push_str("until [ -S cloud/operator.sock ]; do sleep 0.05; done\n");
        }
    }
    let dir = support::temp_dir("quick-start").unwrap();
    let pid = dir.path().join("pump-1/main.pid");
    let _program = Program(&pid);
    let mut command = Command::new("bash");
    e2e::gateway::copy_environment(&mut otad_command(), &mut command);
    let folder = binary::otad().parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(["-c", &script])
        .env("PATH", format!("{folder}:{path}"))
        .current_dir(dir.path());
    let mut shell = Process::start("quick start", command).unwrap();
    for line in [
        "registered the new thing pump-1",
        "lie in slot-a and are confirmed",
        " on pump-1: SUCCEEDED accepted  v1.1.0",
        "target main (file 0): version 1.1.0, image valid",
    ] {
        let found = shell.wait_line(line, WHOLE);
        assert!(found.is_ok(), "{found:?}");
    }
    assert_eq!(shell.text(Stream::Err), "");
    // The program that runs now is the new one.
    let said = fs::read_to_string(dir.path().join("pump-1/main.out")).unwrap();
    assert_eq!(said.lines().last(), Some("version=1.1.0"));
}
