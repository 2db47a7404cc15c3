//! What must hold about the tree itself: who imports whom, what lies where, what no source may say, and that every
//! promise is bound to a test that exists.
//!
//! Every rule is a function from data (a tree in memory, `cargo metadata`'s answer, a Markdown table) to findings, so
//! that each is shown a planted violation in its own unit tests; `tests/tree.rs` gives them the real tree. Rules about
//! the meaning of code belong to clippy and to the crates' own tests.
//!
//! ```
//! let tree = tidy::tree::Tree::from_pairs([("host/x/src/lib.rs", "fn main() {}\n")]);
//! let findings = tidy::source::headers(&tree);
//! assert_eq!(findings[0].at, "host/x/src/lib.rs:1");
//! ```

pub mod edges;
pub mod features;
pub mod manifest;
pub mod outside;
pub mod promise;
pub mod readme;
pub mod source;
pub mod tree;

use std::fmt;

/// Why the tree could not be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("reading {path}")]
    Io {
        /// Which one.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A table or an answer has another shape than expected.
    #[error("{what} has an unexpected shape: {detail}")]
    Shape {
        /// Which one.
        what: String,
        /// What was missing or wrong.
        detail: String,
    },
}

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File with line, or crate.
    pub at: String,
    /// What is wrong there and what to do.
    pub what: String,
}

impl Finding {
    /// Makes one.
    #[must_use]
    pub fn new(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            at: at.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// The findings as lines, for a test's message.
#[must_use]
pub fn lines(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| format!("\n  {finding}"))
        .collect()
}
