//! agent-core judged from outside, as it is compiled into this process: every case of the sandbox, line by line. And builds
//! with a bug, each of which a case finds.
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
use std::num::NonZeroUsize;
use std::path::PathBuf;

use host_runtime::ports::clock::SystemClock;
use host_sandbox::check::script::{self, Case, File};
use host_sandbox::check::verdict::Verdict;
use host_sandbox::check::{Options, Subject, run};

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

/// The first of these cases that finds something in a build, and what. Each is played by itself: a build that breaks in one
/// is asked the next one all the same.
#[must_use]
pub fn first_finding(subject: &Subject, cases: &[Case]) -> Option<String> {
    let options = Options {
        jobs: NonZeroUsize::MIN,
        exact: true,
    };
    cases.iter().find_map(|case| {
        let cases = std::slice::from_ref(case);
        let report = run(subject, cases, options, &SystemClock::new(), |_| {});
        let judged = report.cases.first()?;
        match &judged.verdict {
            Verdict::Failed(finding) => Some(format!("{}: {}", judged.name, finding.what)),
            Verdict::Broken(why) => Some(format!("{}: {why}", judged.name)),
            Verdict::Passed | Verdict::Skipped(_) => None,
        }
    })
}
