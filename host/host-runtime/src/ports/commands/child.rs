//! One program from its start to its end: what it finds, how long it may take, what is left of it.

use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::starter::{Desk, Start, Started, desk, not_started};
use super::tail::Tail;
use super::{CleanEnd, Command, CommandEnd, ERROR_MAX_BYTES, OUTPUT_MAX_BYTES, Way};
use crate::agent::text::clean;
use crate::types::DETAIL_MAX_BYTES;

/// How often a running command's cancel flag is looked at, in milliseconds: nobody waits for a command that is no longer
/// wanted, and a look costs nothing.
const CANCEL_LOOK_MS: u64 = 100;

/// What a program finds when it starts.
pub(super) enum Surroundings<'a> {
    /// This process's environment and directory, and more variables; nothing to read.
    Inherited(&'a [(String, String)]),
    /// Only this.
    Clean {
        environment: &'a [(String, String)],
        input: &'a [u8],
    },
}

impl Surroundings<'_> {
    fn start(&self, program: &str, arguments: &[String]) -> Start {
        let (environment, is_clean) = match self {
            Self::Inherited(environment) => (environment, false),
            Self::Clean { environment, .. } => (environment, true),
        };
        Start {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            environment: environment.to_vec(),
            is_clean,
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

pub(super) async fn run(
    command: &Command,
    surroundings: &Surroundings<'_>,
    cancel: Option<Weak<AtomicBool>>,
) -> CleanEnd {
    run_by(desk(), command, surroundings, cancel).await
}

/// The same with somebody who starts it.
pub(super) async fn run_by(
    desk: &Desk,
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
    let cannot = |e: std::io::Error| failed(format!("`{program}` cannot be started: {e}"));
    let deadline_ms = command.deadline_ms;
    // From here on: it may have to wait for its start, too.
    let mut over = pin!(tokio::time::sleep(Duration::from_millis(deadline_ms)));
    let mut cancelled = pin!(cancelled(cancel));
    let started = tokio::select! {
        biased;
        started = surroundings.start(program, arguments).by(desk) => started,
        () = &mut over => return failed(format!("not started within {deadline_ms} ms")),
        () = &mut cancelled => return failed("cancelled before it was started".to_owned()),
    };
    let started = match started {
        Ok(started) => started,
        Err(e) => return cannot(e),
    };
    let Started {
        mut child,
        group,
        through_starter,
    } = started;
    surroundings.feed(&mut child);
    let stdout = child
        .stdout
        .take()
        .map(|pipe| Tail::read(pipe, OUTPUT_MAX_BYTES));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| Tail::read(pipe, ERROR_MAX_BYTES));
    let status = tokio::select! {
        biased;
        status = child.wait() => Ok(status),
        () = &mut over => Err(format!("not done within {deadline_ms} ms, killed")),
        () = &mut cancelled => Err("cancelled, killed".to_owned()),
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
    if through_starter && let Some(e) = not_started(code, &stderr) {
        return cannot(e);
    }
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
