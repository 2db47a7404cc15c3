//! The operator's own programs: reset, health check, version. Argv arrays, never a shell line.

use super::workers::Reply;

/// One program of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments; the first is not looked up through a shell.
    pub argv: Vec<String>,
    /// Killed (its whole process group) after so many milliseconds.
    pub deadline_ms: u64,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnd {
    /// Exit code; `None` = killed by a signal, by the deadline, or never started.
    pub code: Option<i32>,
    /// First [`OUTPUT_MAX_BYTES`] of standard output.
    pub stdout: Vec<u8>,
    /// What went wrong, for people; empty when it exited.
    pub detail: String,
}

/// Most bytes kept of a command's standard output.
pub const OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// Runs the operator's commands.
pub trait Commands: Send + Sync {
    /// Start `command` with extra environment; `reply` is called exactly once.
    fn run(&self, command: &Command, environment: &[(String, String)], reply: Reply<CommandEnd>);
}
