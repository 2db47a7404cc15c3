//! Programs of others that interoperability tests need. Where one is missing, the test says so and passes; under
//! `OTAD_REQUIRE_INTEROP=1`, which continuous integration sets after installing them, it fails instead.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{binary, note};

/// Folders that daemons live in and that a user's `PATH` often lacks.
const SYSTEM_FOLDERS: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Finds a program, or says that the test is skipped.
///
/// # Panics
/// Under `OTAD_REQUIRE_INTEROP=1` if it is missing: the test must not pass unseen.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = find(name, &path, SYSTEM_FOLDERS);
    if found.is_none() {
        skip(name);
    }
    found
}

/// Finds a Python that has what `tests/e2e/interop/requirements.txt` lists, or says that the test is skipped: the one
/// that `$OTAD_PYTHON` names, else the virtual environment that `.ci/run` makes in the target folder. Nothing is
/// installed here: tests need no network.
///
/// # Panics
/// Under `OTAD_REQUIRE_INTEROP=1` if it is missing: the test must not pass unseen.
#[must_use]
pub fn python(modules: &[&str]) -> Option<PathBuf> {
    let made = binary::target_folder().join(PYTHON);
    let python = std::env::var_os("OTAD_PYTHON").map_or(made, PathBuf::from);
    let imports = format!("import {}", modules.join(", "));
    let works = Command::new(&python)
        .args(["-c", &imports])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        skip(&format!("a Python with {}", modules.join(" and ")));
    }
    works.then_some(python)
}

/// Where `.ci/run` puts it, below the target folder.
const PYTHON: &str = "interop-python/bin/python";

fn skip(what: &str) {
    let required = std::env::var_os("OTAD_REQUIRE_INTEROP").is_some_and(|value| value == "1");
    assert!(
        !required,
        "{what} is not installed and OTAD_REQUIRE_INTEROP=1 requires it"
    );
    note(&format!("skipped: {what} is not installed"));
}

fn find(name: &str, path: &OsStr, more: &[&str]) -> Option<PathBuf> {
    std::env::split_paths(path)
        .chain(more.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_path_and_a_missing_one_is_not() {
        assert!(find("sh", OsStr::new("/nowhere:/bin:/usr/bin"), &[]).is_some());
        assert!(find("sh", OsStr::new("/nowhere"), &["/bin", "/usr/bin"]).is_some());
        assert_eq!(find("no-such-program", OsStr::new("/bin"), &[]), None);
    }
}
