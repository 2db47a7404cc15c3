//! How a verb of `otad` ends: the documented exit codes, each with a name that `--json` prints.
//!
//! The numbers are part of the interface: append, never reuse. 0 to 6 follow what operators know from other updaters,
//! 64 and 78 are those of `sysexits.h`. Not here: what a job's outcome is; `update.rs` maps it to one of these.

use std::process::ExitCode;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed for good.
    Failed,
    /// Nothing to do, or nothing of that name.
    Nothing,
    /// Did not work now; the same command may work later.
    Retry,
    /// From `otad run`: its own software is to be restarted; start me again.
    RestartPending,
    /// Refused by a policy: version, approval, product.
    Refused,
    /// Verification failed.
    Unverified,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong.
    Config,
}

/// One line of the table: code, name, meaning.
type Row = (Exit, u8, &'static str, &'static str);

/// The whole table, in the order of the codes.
pub const TABLE: [Row; 9] = [
    (Exit::Done, 0, "done", "done"),
    (Exit::Failed, 1, "failed", "failed for good"),
    (
        Exit::Nothing,
        2,
        "nothing",
        "nothing to do, or nothing of that name",
    ),
    (
        Exit::Retry,
        3,
        "retry",
        "did not work now, the same command may work later",
    ),
    (
        Exit::RestartPending,
        4,
        "restart-pending",
        "from `otad run`: its own software is to be restarted, start it again through `otad launch`",
    ),
    (
        Exit::Refused,
        5,
        "refused",
        "refused by a policy (version, approval, product)",
    ),
    (Exit::Unverified, 6, "unverified", "verification failed"),
    (Exit::Usage, 64, "usage", "the command line is wrong"),
    (Exit::Config, 78, "config", "the configuration is wrong"),
];

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        self.row().1
    }

    /// Its name, as `--json` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static Row {
        // Every variant has its row: the test below counts them.
        &TABLE[self as usize]
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table for `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (_, code, name, meaning) in TABLE {
        text.push_str(&format!("  {code:>2}  {name:<16} {meaning}\n"));
    }
    text
}

/// A failed verb: what to print, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    /// Exit code.
    pub exit: Exit,
    /// Worded error; the chain is in it already.
    pub text: String,
}

impl Failed {
    /// A failure with this code and text.
    #[must_use]
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self {
            exit,
            text: text.into(),
        }
    }

    /// A failure whose text is the whole chain of `error`, after `what`.
    #[must_use]
    pub fn chain(exit: Exit, what: &str, error: &dyn std::error::Error) -> Self {
        Self::new(exit, format!("{what}: {}", chain(error)))
    }
}

/// An error with its sources, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}

/// How a verb ends.
pub type Verb = Result<Exit, Failed>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_the_row_of_its_own() {
        for (exit, code, name, _) in TABLE {
            assert_eq!((exit.code(), exit.name()), (code, name));
        }
        assert_eq!(TABLE.len(), Exit::Config as usize + 1);
    }

    #[test]
    fn codes_are_frozen() {
        // Do not change the test: scripts depend on these numbers.
        let codes: Vec<_> = TABLE.iter().map(|r| (r.1, r.2)).collect();
        assert_eq!(
            codes,
            [
                (0, "done"),
                (1, "failed"),
                (2, "nothing"),
                (3, "retry"),
                (4, "restart-pending"),
                (5, "refused"),
                (6, "unverified"),
                (64, "usage"),
                (78, "config")
            ]
        );
    }
}
