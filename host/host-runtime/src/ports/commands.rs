//! The operator's own programs: reset, health check, version. Argv arrays, never a shell line.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

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

/// How often a running command's cancel flag is looked at, in milliseconds: nobody waits for a command that is no longer
/// wanted, and a look costs nothing.
const CANCEL_LOOK_MS: u64 = 100;

/// Most bytes kept of a command's standard error; they end up in the log.
pub const ERROR_MAX_BYTES: usize = 1024;

/// After a program has exited, its output is read for so long at most: what it has started in the background may hold
/// the pipe open for ever. What was written before the exit is in the pipe and needs no waiting.
const DRAIN_MS: u64 = 100;

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

/// What a program finds when it starts.
enum Surroundings<'a> {
    /// This process's environment and directory, and more variables; nothing to read.
    Inherited(&'a [(String, String)]),
    /// Only this.
    Clean {
        environment: &'a [(String, String)],
        input: &'a [u8],
    },
}

impl Surroundings<'_> {
    fn prepare(&self, command: &mut tokio::process::Command) {
        match self {
            Self::Inherited(environment) => {
                command.stdin(Stdio::null());
                command.envs(environment.iter().map(|(key, value)| (key, value)));
            }
            Self::Clean { environment, .. } => {
                command.stdin(Stdio::piped()).current_dir("/").env_clear();
                command.envs(environment.iter().map(|(key, value)| (key, value)));
            }
        }
    }

    /// Hand the input over, beside the program: it may write before it reads.
    fn feed(&self, child: &mut tokio::process::Child) {
        let Self::Clean { input, .. } = self else {
            return;
        };
        let Some(mut pipe) = child.stdin.take() else {
            return;
        };
        let input = input.to_vec();
        // Ends with the pipe: the program has read all, closed it, or was killed. What it did not read is its choice.
        drop(tokio::spawn(async move {
            drop(pipe.write_all(&input).await);
        }));
    }
}

/// Kill every command that this process runs, with all of its group: for a process that ends without ending its runtime.
pub fn kill_all() {
    for group in groups().iter() {
        kill(*group);
    }
}

/// The process groups of the commands under way.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn groups() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // It may have ended in between.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// The process group of a command under way; dropped before the command has ended, it is killed.
struct Group(i32);

impl Group {
    fn of(child: &tokio::process::Child) -> Option<Self> {
        let id = i32::try_from(child.id()?).ok()?;
        groups().insert(id);
        Some(Self(id))
    }

    /// The command has ended by itself: what it has left behind is meant to stay.
    fn leave(self) {
        groups().remove(&self.0);
        std::mem::forget(self);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(self.0);
        groups().remove(&self.0);
    }
}

/// Start a program as the leader of a process group that does not outlive this process.
fn start(
    program: &str,
    arguments: &[String],
    surroundings: &Surroundings<'_>,
) -> std::io::Result<tokio::process::Child> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    surroundings.prepare(&mut command);
    let parent = rustix::process::getpid();
    let tie = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(rustix::io::Errno::SRCH.into())
        }
    };
    #[expect(
        unsafe_code,
        reason = "between fork and exec; both calls are plain system calls and allocate nothing"
    )]
    // SAFETY: `tie` makes two system calls, touches no lock and no heap.
    unsafe {
        command.pre_exec(tie);
    }
    command.spawn()
}

/// Ends when `cancel` is set or its owner has gone; never without one.
async fn cancelled(cancel: Option<Weak<AtomicBool>>) {
    let Some(cancel) = cancel else {
        return std::future::pending().await;
    };
    while cancel
        .upgrade()
        .is_some_and(|cancel| !cancel.load(Ordering::Relaxed))
    {
        tokio::time::sleep(Duration::from_millis(CANCEL_LOOK_MS)).await;
    }
}

async fn run(
    command: &Command,
    surroundings: &Surroundings<'_>,
    cancel: Option<Weak<AtomicBool>>,
) -> CleanEnd {
    let failed = |detail: String| CleanEnd {
        end: CommandEnd {
            code: None,
            stdout: Vec::new(),
            detail,
        },
        stderr: Vec::new(),
        way: Way::NotStarted,
    };
    let Some((program, arguments)) = command.argv.split_first() else {
        return failed("the command is empty".to_owned());
    };
    let mut child = match start(program, arguments, surroundings) {
        Ok(child) => child,
        Err(e) => return failed(format!("`{program}` cannot be started: {e}")),
    };
    let group = Group::of(&child);
    surroundings.feed(&mut child);
    let stdout = child
        .stdout
        .take()
        .map(|pipe| Tail::read(pipe, OUTPUT_MAX_BYTES));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| Tail::read(pipe, ERROR_MAX_BYTES));
    let deadline = Duration::from_millis(command.deadline_ms);
    let status = tokio::select! {
        status = tokio::time::timeout(deadline, child.wait()) => status
            .map_err(|_| format!("not done within {} ms, killed", command.deadline_ms)),
        () = cancelled(cancel) => Err("cancelled, killed".to_owned()),
    };
    let mut detail = String::new();
    let mut way = Way::Itself;
    let code = match status {
        Ok(Ok(status)) => {
            if let Some(group) = group {
                group.leave();
            }
            if let Some(signal) = status.signal() {
                detail = format!("killed by signal {signal}");
            }
            status.code()
        }
        Ok(Err(e)) => {
            detail = format!("`{program}` cannot be waited for: {e}");
            None
        }
        Err(why) => {
            drop(group);
            // After the signal this does not take long; a failure leaves a zombie to the runtime's reaper.
            drop(child.wait().await);
            detail = why;
            way = Way::Killed;
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
    CleanEnd {
        end: CommandEnd {
            code,
            stdout,
            detail,
        },
        stderr,
        way,
    }
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
        wait_for_death(std::fs::read_to_string(pid_file).unwrap().trim());
    }

    /// Wait until a process is dead, or a zombie that waits for whoever collects orphans here.
    fn wait_for_death(pid: &str) {
        let stat = format!("/proc/{pid}/stat");
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z")) {
            std::thread::yield_now();
        }
    }

    /// A command that writes the process id of what it has started and waits for it without end, once it has done so.
    async fn endless(
        dir: &std::path::Path,
        cancel: Weak<AtomicBool>,
    ) -> (String, tokio::sync::oneshot::Receiver<CommandEnd>) {
        let pid_file = dir.join("pid");
        let script = format!(
            "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
            pid_file.display()
        );
        let command = Command {
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
            deadline_ms: 1_000_000,
        };
        let (reply, end) = tokio::sync::oneshot::channel();
        let reply = Box::new(|end| drop(reply.send(end)));
        TokioCommands::current().run_unless(&command, &[], cancel, reply);
        loop {
            if let Ok(pid) = std::fs::read_to_string(&pid_file) {
                return (pid.trim().to_owned(), end);
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_cancelled_command_is_killed_with_everything_it_has_started() {
        let temp = tempfile::tempdir().unwrap();
        let cancel = Arc::new(AtomicBool::new(false));
        let (pid, end) = endless(temp.path(), Arc::downgrade(&cancel)).await;
        cancel.store(true, Ordering::Relaxed);
        let end = end.await.unwrap();
        assert_eq!((end.code, end.detail.as_str()), (None, "cancelled, killed"));
        wait_for_death(&pid);
    }

    #[tokio::test]
    async fn a_command_whose_owner_has_gone_is_killed() {
        let temp = tempfile::tempdir().unwrap();
        let cancel = Arc::new(AtomicBool::new(false));
        let (pid, end) = endless(temp.path(), Arc::downgrade(&cancel)).await;
        drop(cancel);
        assert_eq!(end.await.unwrap().code, None);
        wait_for_death(&pid);
    }

    #[test]
    fn a_command_does_not_outlive_its_runtime() {
        let temp = tempfile::tempdir().unwrap();
        let cancel = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (pid, _end) = runtime.block_on(endless(temp.path(), Arc::downgrade(&cancel)));
        drop(runtime);
        wait_for_death(&pid);
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

    fn clean(script: &str, deadline_ms: u64, input: &[u8]) -> CleanCommand {
        CleanCommand {
            command: Command {
                argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                deadline_ms,
            },
            environment: vec![("OTAD_HOOK".to_owned(), "job".to_owned())],
            input: input.to_vec(),
        }
    }

    #[tokio::test]
    async fn a_clean_command_reads_its_input_and_finds_nothing_else() {
        let script = "pwd; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_=; cat; echo said >&2";
        let end = clean(script, 10_000, b"{\"a\":1}").run().await;
        assert_eq!(end.end.code, Some(0), "{end:?}");
        let text = String::from_utf8(end.end.stdout).unwrap();
        assert_eq!(text, "/\nOTAD_HOOK=job\n{\"a\":1}");
        assert_eq!(end.stderr, b"said\n");
    }

    #[tokio::test]
    async fn input_that_nobody_reads_neither_blocks_nor_fails_a_command() {
        let end = clean("exit 5", 10_000, &vec![b'x'; 1 << 20]).run().await;
        assert_eq!(end.end.code, Some(5), "{end:?}");
        let hung = clean("exec sleep 1000", 200, &vec![b'x'; 1 << 20])
            .run()
            .await;
        assert_eq!((hung.end.code, hung.way), (None, Way::Killed));
        assert!(hung.end.detail.contains("200 ms"), "{hung:?}");
    }
}
