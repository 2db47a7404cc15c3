//! The operator's own programs: reset, health check, version. Argv arrays, never a shell line.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::workers::Reply;
use crate::agent::text::clean;
use crate::types::DETAIL_MAX_BYTES;

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
}

/// Bytes of standard error that end up in the log when a program fails.
const ERROR_MAX_BYTES: usize = 1024;

/// After a program has exited, its output is read for so long at most: what it has started in the background may hold
/// the pipe open for ever. What was written before the exit is in the pipe and needs no waiting.
const DRAIN_MS: u64 = 100;

/// Runs programs as children of this process.
///
/// Each one leads a process group of its own, which is killed at its deadline. A program that exits in time leaves what
/// it has started alone, so a restart command may start a service; that service must have its output redirected, as
/// the pipe ends with the command. Standard input is empty, the environment is inherited.
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
        let (command, environment) = (command.clone(), environment.to_vec());
        // Not joined on purpose: the end comes back through the reply.
        drop(self.0.spawn(async move {
            let end = run(&command, &environment).await;
            if end.code != Some(0) {
                let program = command.argv.first().map_or("", String::as_str);
                tracing::warn!(program, code = end.code, "command failed: {}", end.detail);
            }
            reply(end);
        }));
    }
}

async fn run(command: &Command, environment: &[(String, String)]) -> CommandEnd {
    let failed = |detail: String| CommandEnd {
        code: None,
        stdout: Vec::new(),
        detail,
    };
    let Some((program, arguments)) = command.argv.split_first() else {
        return failed("the command is empty".to_owned());
    };
    let spawned = tokio::process::Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => return failed(format!("`{program}` cannot be started: {e}")),
    };
    let stdout = child
        .stdout
        .take()
        .map(|pipe| Tail::read(pipe, OUTPUT_MAX_BYTES));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| Tail::read(pipe, ERROR_MAX_BYTES));
    let deadline = Duration::from_millis(command.deadline_ms);
    let status = tokio::time::timeout(deadline, child.wait()).await;
    let mut detail = String::new();
    let code = match status {
        Ok(Ok(status)) => {
            if let Some(signal) = status.signal() {
                detail = format!("killed by signal {signal}");
            }
            status.code()
        }
        Ok(Err(e)) => {
            detail = format!("`{program}` cannot be waited for: {e}");
            None
        }
        Err(_) => {
            kill_group(&mut child).await;
            detail = format!("not done within {} ms, killed", command.deadline_ms);
            None
        }
    };
    let stdout = Tail::end(stdout).await;
    let stderr = Tail::end(stderr).await;
    if code != Some(0)
        && let Some(line) = last_line(&stderr)
    {
        let separator = if detail.is_empty() { "" } else { ": " };
        detail = format!("{detail}{separator}{line}");
    }
    CommandEnd {
        code,
        stdout,
        detail,
    }
}

/// Kill the child and what it has started in its process group, and collect the child.
async fn kill_group(child: &mut tokio::process::Child) {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // It may have ended in between.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    // After the signal this does not take long; a failure leaves a zombie to the runtime's reaper.
    drop(child.wait().await);
}

/// The last line of a program's standard error that says something.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map(|line| clean(line.trim(), DETAIL_MAX_BYTES))
}

/// What comes out of a pipe: the beginning of standard output, and read on so that the program does not block.
struct Tail {
    task: tokio::task::JoinHandle<()>,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Tail {
    fn read(mut pipe: impl AsyncRead + Unpin + Send + 'static, max: usize) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let kept = Arc::clone(&kept);
            async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = max.saturating_sub(kept.len()).min(count);
                    kept.extend_from_slice(&buffer[..room]);
                }
            }
        });
        Self { task, kept }
    }

    /// What came, once the pipe has ended or [`DRAIN_MS`] are over.
    async fn end(tail: Option<Self>) -> Vec<u8> {
        let Some(mut tail) = tail else {
            return Vec::new();
        };
        let drained = tokio::time::timeout(Duration::from_millis(DRAIN_MS), &mut tail.task).await;
        if drained.is_err() {
            tail.task.abort();
        }
        std::mem::take(&mut *tail.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end_of(argv: &[&str], deadline_ms: u64) -> CommandEnd {
        let command = Command {
            argv: argv.iter().map(|text| (*text).to_owned()).collect(),
            deadline_ms,
        };
        let (reply, end) = tokio::sync::oneshot::channel();
        let environment = [("OTAD_TARGET".to_owned(), "app".to_owned())];
        TokioCommands::current().run(
            &command,
            &environment,
            Box::new(|end| reply.send(end).unwrap()),
        );
        end.await.unwrap()
    }

    async fn shell(script: &str, deadline_ms: u64) -> CommandEnd {
        end_of(&["/bin/sh", "-c", script], deadline_ms).await
    }

    #[tokio::test]
    async fn a_command_gives_its_exit_code_and_output_and_sees_its_environment() {
        let end = shell("echo $OTAD_TARGET 1.2.3; exit 0", 10_000).await;
        assert_eq!(end.code, Some(0));
        assert_eq!(end.stdout, b"app 1.2.3\n");
        assert_eq!(end.detail, "");
    }

    #[tokio::test]
    async fn a_failed_command_tells_its_last_word() {
        let end = shell("echo first >&2; echo 'no   answer' >&2; exit 3", 10_000).await;
        assert_eq!((end.code, end.detail.as_str()), (Some(3), "no   answer"));
        let end = shell("kill -9 $$", 10_000).await;
        assert_eq!(
            (end.code, end.detail.as_str()),
            (None, "killed by signal 9")
        );
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_a_named_error() {
        let end = end_of(&["/nonexistent/program"], 10_000).await;
        assert_eq!(end.code, None);
        assert!(
            end.detail
                .contains("`/nonexistent/program` cannot be started")
        );
        assert_eq!(end_of(&[], 10_000).await.detail, "the command is empty");
    }

    #[tokio::test]
    async fn at_its_deadline_a_command_is_killed_with_everything_it_has_started() {
        let temp = tempfile::tempdir().unwrap();
        let pid_file = temp.path().join("pid");
        // The grandchild writes its process id; the shell waits for it without end.
        let script = format!(
            "sleep 1000 & echo $! > {}; echo out; wait",
            pid_file.display()
        );
        let end = shell(&script, 2000).await;
        assert_eq!(end.code, None);
        assert_eq!(end.detail, "not done within 2000 ms, killed");
        assert_eq!(end.stdout, b"out\n");
        let pid = std::fs::read_to_string(pid_file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        // It is dead as soon as the kernel gets to it, or a zombie that waits for whoever collects orphans here.
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z")) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_command_leaves_in_the_background_is_not_waited_for_and_not_killed() {
        let end = shell("sleep 1000 & echo $!; exit 0", 10_000).await;
        assert_eq!(end.code, Some(0));
        let pid: i32 = String::from_utf8(end.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn output_over_the_limit_is_cut_and_does_not_block_the_command() {
        let end = shell("head -c 1000000 /dev/zero; echo done >&2", 10_000).await;
        assert_eq!(end.code, Some(0));
        assert_eq!(end.stdout.len(), OUTPUT_MAX_BYTES);
    }
}
