//! agent-core judged from outside, as it is compiled into this process: every case of the sandbox, line by line.
//!
//! The cases are data of `host-sandbox` (`cases/agent/`), where `otad check` holds any component against them as far as the
//! contract binds it. Here the shipped agent must do exactly what they say: `OTAD_BLESS=1` writes what happened into the
//! files; read the difference before you commit it.
//!
//! ```
//! let names = conformance::files().into_iter().flat_map(|file| file.cases);
//! assert!(names.count() > 100);
//! ```

use std::fs;
use std::path::PathBuf;

use host_sandbox::check::script::{self, File};

/// Where the case files lie.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../host/host-sandbox/cases/agent")
}

/// All case files, as they lie in the tree now.
///
/// # Panics
/// One cannot be read or is no script: the test that asked cannot go on.
#[must_use]
pub fn files() -> Vec<File> {
    let entries = fs::read_dir(folder()).expect("the folder exists");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    let parse = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path).expect("a case file can be read");
        script::parse(&name, &text).unwrap_or_else(|error| panic!("{error}"))
    };
    paths.iter().map(parse).collect()
}
