//! Everything that is wrong with a command line, told in one go, before anything is created.

use std::fmt::Write as _;

use crate::exit::{Exit, Failed};

/// Everything that is wrong, collected before anything is created.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<(Exit, String)>);

/// Whose exit code counts when several things are wrong: first what no repetition mends.
const ORDER: [Exit; 6] = [
    Exit::Usage,
    Exit::Unverified,
    Exit::Refused,
    Exit::Failed,
    Exit::Nothing,
    Exit::Retry,
];

impl Problems {
    pub(super) fn usage(&mut self, text: impl Into<String>) {
        self.add(Exit::Usage, text);
    }

    pub(super) fn add(&mut self, exit: Exit, text: impl Into<String>) {
        self.0.push((exit, text.into()));
    }

    pub(super) fn take<T>(&mut self, result: Result<T, Failed>) -> Option<T> {
        result
            .map_err(|failed| self.add(failed.exit, failed.text))
            .ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing is wrong, or one failure that names everything.
    pub(super) fn into_result(self) -> Result<(), Failed> {
        let exit = ORDER
            .into_iter()
            .find(|exit| self.0.iter().any(|(e, _)| e == exit))
            .unwrap_or(Exit::Failed);
        match &self.0[..] {
            [] => Ok(()),
            [(exit, text)] => Err(Failed::new(*exit, text)),
            all => {
                let mut text = format!(
                    "{} things are missing or wrong; nothing was created:",
                    all.len()
                );
                for (_, problem) in all {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\n  - {problem}");
                }
                Err(Failed::new(exit, text))
            }
        }
    }
}
