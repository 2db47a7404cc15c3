//! The operator's own programs: reset, health check, version. Argv arrays, never a shell line.

mod child;
mod group;
mod starter;
mod tail;

use std::sync::Weak;
use std::sync::atomic::AtomicBool;

use child::{Surroundings, run};
pub use group::kill_all;
pub use starter::{Starter, be_starter, start_through, start_with_files};

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
    /// What went wrong, for people, with the last line of standard error; empty when it exited with 0.
    pub detail: String,
}

/// Most bytes kept of a command's standard output.
pub const OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// Runs the operator's commands.
pub trait Commands: Send + Sync {
    /// Start `command` with extra environment; `reply` is called exactly once.
    fn run(&self, command: &Command, environment: &[(String, String)], reply: Reply<CommandEnd>);

    /// As [`run`](Self::run); the command is killed as soon as `cancel` is set or its owner has gone. By default it is
    /// not: a simulated program ends when the simulation says.
    fn run_unless(
        &self,
        command: &Command,
        environment: &[(String, String)],
        cancel: Weak<AtomicBool>,
        reply: Reply<CommandEnd>,
    ) {
        drop(cancel);
        self.run(command, environment, reply);
    }
}

/// Most bytes kept of a command's standard error; they end up in the log.
pub const ERROR_MAX_BYTES: usize = 1024;

/// Runs programs as children of this process.
///
/// Each one leads a process group of its own, which is killed at its deadline, when it is cancelled, and when the runtime
/// or this process ends: the next process starts the command again, and two at once would count each start twice. What
/// is to outlive that must leave the group (`setsid`), as a service manager's services have. A process that is killed
/// takes its commands with it, but not what those have started. A program that exits in time leaves what it has started
/// alone, so a restart command may start a service; that service must have its output redirected, as the pipe ends with
/// the command. Standard input is empty, the environment is inherited.
#[derive(Clone, Debug)]
pub struct TokioCommands(tokio::runtime::Handle);

impl TokioCommands {
    /// Children of the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self(tokio::runtime::Handle::current())
    }
}

impl Commands for TokioCommands {
    fn run(&self, command: &Command, environment: &[(String, String)], reply: Reply<CommandEnd>) {
        self.spawn(command, environment, None, reply);
    }

    fn run_unless(
        &self,
        command: &Command,
        environment: &[(String, String)],
        cancel: Weak<AtomicBool>,
        reply: Reply<CommandEnd>,
    ) {
        self.spawn(command, environment, Some(cancel), reply);
    }
}

impl TokioCommands {
    fn spawn(
        &self,
        command: &Command,
        environment: &[(String, String)],
        cancel: Option<Weak<AtomicBool>>,
        reply: Reply<CommandEnd>,
    ) {
        let (command, environment) = (command.clone(), environment.to_vec());
        // Not joined on purpose: the end comes back through the reply.
        drop(self.0.spawn(async move {
            let surroundings = Surroundings::Inherited(&environment);
            let end = run(&command, &surroundings, cancel).await.end;
            if end.code != Some(0) {
                let program = command.argv.first().map_or("", String::as_str);
                tracing::warn!(program, code = end.code, "command failed: {}", end.detail);
            }
            reply(end);
        }));
    }
}

/// A program that gets nothing of this process's but what stands here: no variable, no working directory, no terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanCommand {
    /// What to run, and for how long at most.
    pub command: Command,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// Its standard input, closed behind it. A program that does not read it is not at fault.
    pub input: Vec<u8>,
}

/// How a [`CleanCommand`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanEnd {
    /// Exit code, output, and what went wrong.
    pub end: CommandEnd,
    /// First [`ERROR_MAX_BYTES`] of standard error.
    pub stderr: Vec<u8>,
    /// By what.
    pub way: Way,
}

/// By what a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By itself, with an exit code or by a signal of somebody else's.
    Itself,
    /// It was killed at its deadline, or because it was no longer wanted.
    Killed,
    /// It never ran.
    NotStarted,
}

impl CleanCommand {
    /// Run it, in `/`, as the leader of a process group that is killed at the deadline, when this future is dropped, and
    /// when this process ends. To be awaited on a tokio runtime.
    pub async fn run(&self) -> CleanEnd {
        let surroundings = Surroundings::Clean {
            environment: &self.environment,
            input: &self.input,
        };
        run(&self.command, &surroundings, None).await
    }
}

#[cfg(test)]
mod tests;
