//! What the judges share: the built `otad`, child processes whose lines are awaited and whose cost is read, brokers, a
//! proxy that misbehaves, images from seeds, and Markdown.
//!
//! Nothing here knows WIT, topics or the agent; and nothing sleeps: whatever takes time is awaited at a condition
//! variable with a deadline. It may panic only through the `expect_*` functions that tests call.
//!
//! ```
//! use std::time::Duration;
//!
//! let mut shell = std::process::Command::new("sh");
//! shell.args(["-c", "echo ready; echo done"]);
//! let mut shell = support::process::Process::start("shell", shell)?;
//! shell.wait_line("ready", Duration::from_secs(10))?;
//! assert!(shell.wait_exit(Duration::from_secs(10))?.success());
//! # Ok::<(), support::Error>(())
//! ```

pub mod binary;
pub mod deadline;
pub mod image;
pub mod interop;
pub mod markdown;
pub mod mosquitto;
pub mod mqtt;
pub mod net;
pub mod process;
pub mod proxy;
pub mod usage;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// What may go wrong while a test is being set up or awaited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it did not work.
        source: std::io::Error,
    },
    /// A line did not come in time.
    #[error("{name}: no line with {text:?} within {waited:?}; it said:\n{said}")]
    NoLine {
        /// Which process.
        name: String,
        /// What was awaited.
        text: String,
        /// How long.
        waited: Duration,
        /// The last lines that came instead.
        said: String,
    },
    /// A process ended before it said what was awaited.
    #[error("{name}: ended with {status} before a line with {text:?}; it said:\n{said}")]
    Ended {
        /// Which process.
        name: String,
        /// What was awaited.
        text: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        said: String,
    },
    /// A process did not end in time.
    #[error("{name}: still running after {waited:?}; it said:\n{said}")]
    Running {
        /// Which process.
        name: String,
        /// How long.
        waited: Duration,
        /// Its last lines.
        said: String,
    },
    /// A program could not be built.
    #[error("building {what} ended with {status}:\n{said}")]
    Build {
        /// What was built.
        what: String,
        /// How cargo ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// A program is not where it should be.
    #[error("{path} does not exist; {hint}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A folder of its own that goes away with the value. With `OTAD_KEEP=1` it stays, and its name is printed.
///
/// # Errors
/// The system's folder for temporary files cannot be written.
pub fn temp_dir(label: &str) -> Result<tempfile::TempDir, Error> {
    let mut builder = tempfile::Builder::new();
    let prefix = format!("otad-{label}-");
    builder.prefix(&prefix);
    let keep = std::env::var_os("OTAD_KEEP").is_some();
    builder.disable_cleanup(keep);
    let dir = builder
        .tempdir()
        .map_err(Error::io("making a temporary folder"))?;
    if keep {
        note(&format!("kept: {}", dir.path().display()));
    }
    Ok(dir)
}

/// A line for whoever runs the tests.
#[expect(
    clippy::print_stderr,
    reason = "the judges' way to speak to people; cargo shows it with the test"
)]
pub fn note(text: &str) {
    eprintln!("{text}");
}
