//! The programs of the demo: an application as an image, and the scripts that stand in for a service manager.
//!
//! The application is a shell script padded to the size of an image. It prints its version and its health, and stays.
//! Everything that the demo says about a running version is what such a program printed.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::restart_script;

/// How a version of the application behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Starts, says that it is well, stays.
    Good,
    /// Starts, says that it is sick, stays.
    Sick,
    /// Ends at once with an error.
    Broken,
}

/// The application: a program of exactly `size` bytes.
pub(super) fn application(version: &str, behaviour: Behaviour, size: usize) -> Vec<u8> {
    let body = match behaviour {
        Behaviour::Good => format!("echo \"version={version} health=good\"\nexec sleep 2147483\n"),
        Behaviour::Sick => format!("echo \"version={version} health=sick\"\nexec sleep 2147483\n"),
        Behaviour::Broken => "echo 'library not found' >&2\nexit 127\n".to_owned(),
    };
    let mut text = format!("#!/bin/sh\n# The demo's application, version {version}.\n{body}");
    pad(&mut text, size);
    text.into_bytes()
}

/// Comment lines that no two blocks have in common: a block in the wrong place would not go unnoticed.
fn pad(text: &mut String, size: usize) {
    let mut line = 0u64;
    while text.len() < size {
        // SplitMix64's mixing of a counter: looks random, is the same every time.
        line += 1;
        let mut mixed = line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 27;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# {line:08x} {mixed:016x} {:016x}",
            mixed.rotate_left(17)
        );
    }
    text.truncate(size.saturating_sub(1));
    text.push('\n');
}

/// Prints the version that the running program printed. Arguments: target.
const VERSION: &str = r#"#!/bin/sh
dir=$(dirname "$0")
kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null || exit 1
sed -n 's/^version=\([^ ]*\).*/\1/p' "$dir/$1.out"
"#;

/// Exits 0 if the running program says that it is well. Arguments: target.
const HEALTH: &str = r#"#!/bin/sh
dir=$(dirname "$0")
kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null || exit 1
grep -q 'health=good' "$dir/$1.out"
"#;

/// The check of a target that is not well.
const SICK: &str = "#!/bin/sh\necho 'the pressure does not rise' >&2\nexit 1\n";

/// Write the scripts into the demo's directory.
pub(super) fn write_scripts(dir: &Path, otad: &Path) -> io::Result<()> {
    restart_script::write(dir, otad)?;
    restart_script::write_executable(dir, "version.sh", VERSION)?;
    restart_script::write_executable(dir, "sick.sh", SICK)?;
    restart_script::write_executable(dir, "health.sh", HEALTH)
}

/// The version that the program of a target printed last.
pub(super) fn printed_version(dir: &Path, target: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join(format!("{target}.out"))).ok()?;
    let line = text
        .lines()
        .rev()
        .find_map(|l| l.strip_prefix("version="))?;
    Some(line.split_whitespace().next()?.to_owned())
}

/// The program of a target, if it runs.
pub(super) fn running(dir: &Path, target: &str) -> Option<Pid> {
    started(dir, target).filter(|pid| lives(*pid))
}

/// Whether a program has not ended yet.
pub(super) fn lives(program: Pid) -> bool {
    test_kill_process(program).is_ok()
}

/// End what the restart script started.
pub(super) fn stop(dir: &Path, target: &str) {
    if let Some(pid) = started(dir, target) {
        // It may be gone already, which is as good.
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// What the restart script started last.
fn started(dir: &Path, target: &str) -> Option<Pid> {
    let text = fs::read_to_string(dir.join(format!("{target}.pid"))).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_application_has_its_size_and_says_its_version() {
        for size in [10_446, 2 << 20] {
            let bytes = application("1.1.0", Behaviour::Broken, size);
            assert_eq!(bytes.len(), size);
            let blocks: Vec<_> = bytes.chunks(4096).collect();
            assert!(blocks.windows(2).all(|w| w[0] != w[1]));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app");
        let bytes = application("1.1.0", Behaviour::Broken, 8192);
        fs::write(&path, bytes).unwrap();
        let status = Command::new("sh").arg(&path).status().unwrap();
        assert_eq!(status.code(), Some(127));
    }

    #[test]
    fn the_version_is_what_the_program_printed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(printed_version(dir.path(), "main"), None);
        fs::write(dir.path().join("main.out"), "version=1.0.0 health=good\n").unwrap();
        assert_eq!(printed_version(dir.path(), "main").unwrap(), "1.0.0");
    }

    #[test]
    fn a_program_that_has_ended_does_not_run_whatever_it_printed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(running(dir.path(), "main"), None);
        fs::write(dir.path().join("main.out"), "version=1.0.0 health=good\n").unwrap();
        let mut program = Command::new("sleep").arg("2147483").spawn().unwrap();
        let pid = Pid::from_child(&program);
        fs::write(dir.path().join("main.pid"), format!("{}\n", program.id())).unwrap();
        assert_eq!(running(dir.path(), "main"), Some(pid));
        stop(dir.path(), "main");
        program.wait().unwrap();
        assert_eq!(running(dir.path(), "main"), None);
        assert_eq!(printed_version(dir.path(), "main").unwrap(), "1.0.0");
    }
}
