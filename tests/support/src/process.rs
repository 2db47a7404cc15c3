//! Child processes whose output is captured line by line and awaited with deadlines.
//!
//! Each child leads a process group of its own, which is killed when the value is dropped: a failing test leaves
//! nothing behind. Three threads serve it, one for each stream and one that waits for its end; none of them polls.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What [`Process::signal`] sends.
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::Error;
use crate::deadline::{Deadline, wait_until};

/// Lines that are kept of one process; later ones are read and counted, so that the child never blocks on its output.
pub const LINES_MAX: usize = 200_000;

/// Bytes of a line that are kept. 64 KiB: the longest line that a program here writes on purpose is a job document.
pub const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Lines that an error quotes.
const QUOTED_LINES: usize = 60;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line of output, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub stream: Stream,
    /// The text, with invalid UTF-8 replaced.
    pub text: String,
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
    /// Where the next `wait_line` begins to look.
    cursor: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    lost: usize,
    open_streams: usize,
    exit: Option<ExitStatus>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl State {
    fn said(&self) -> String {
        let skipped = self.lines.len().saturating_sub(QUOTED_LINES);
        let quoted: Vec<&str> = self.lines[skipped..]
            .iter()
            .map(|line| line.text.as_str())
            .collect();
        quoted.join("\n")
    }

    /// The exit status, once everything that the process wrote has been read too.
    fn ended(&self) -> Option<ExitStatus> {
        self.exit.filter(|_| self.open_streams == 0)
    }
}

impl Process {
    /// Starts a command with both outputs captured and no input.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(name: impl Into<String>, mut command: Command) -> Result<Self, Error> {
        let name = name.into();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(Error::io(format!("starting {name}")))?;
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Shared::default());
        let outputs: [(Stream, Option<Box<dyn Read + Send>>); 2] = [
            (
                Stream::Out,
                child.stdout.take().map(|stream| Box::new(stream) as _),
            ),
            (
                Stream::Err,
                child.stderr.take().map(|stream| Box::new(stream) as _),
            ),
        ];
        for (stream, output) in outputs {
            let Some(output) = output else { continue };
            shared.lock().open_streams += 1;
            let shared = Arc::clone(&shared);
            thread::spawn(move || read_lines(stream, output, &shared));
        }
        let waiter = Arc::clone(&shared);
        thread::spawn(move || await_end(child, &waiter));
        Ok(Self {
            name,
            pid,
            shared,
            cursor: 0,
        })
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for a line that contains `text` behind the one that was found last, so that a row of calls also judges the
    /// order.
    ///
    /// # Errors
    /// The deadline passed or the process ended first. The cursor then stays.
    pub fn wait_line(&mut self, text: &str, wait: Duration) -> Result<String, Error> {
        self.wait_match(text, wait, |line| line.text.contains(text))
    }

    /// Like [`Self::wait_line`], for a line that `matches` takes; `what` is named in the error.
    ///
    /// # Errors
    /// As `wait_line`.
    pub fn wait_match(
        &mut self,
        what: &str,
        wait: Duration,
        matches: impl Fn(&Line) -> bool,
    ) -> Result<String, Error> {
        let (line, next) = self.look(self.cursor, what, wait, matches)?;
        self.cursor = next;
        Ok(line)
    }

    /// Waits for a line that contains `text` anywhere in what it says, and leaves the cursor where it is: for what must have
    /// been written by now, but need not have been read yet.
    ///
    /// # Errors
    /// As `wait_line`.
    pub fn wait_said(&self, text: &str, wait: Duration) -> Result<String, Error> {
        let (line, _next) = self.look(0, text, wait, |line| line.text.contains(text))?;
        Ok(line)
    }

    /// The first line at `next` or behind it that `matches` takes, and the index of the one after it.
    fn look(
        &self,
        mut next: usize,
        what: &str,
        wait: Duration,
        matches: impl Fn(&Line) -> bool,
    ) -> Result<(String, usize), Error> {
        let deadline = Deadline::after(wait);
        let (state, found) = wait_until(
            self.shared.lock(),
            &self.shared.changed,
            deadline,
            |state| {
                while let Some(line) = state.lines.get(next) {
                    next += 1;
                    if matches(line) {
                        return Some(Ok(line.text.clone()));
                    }
                }
                state.ended().map(Err)
            },
        );
        let said = state.said();
        drop(state);
        let (name, text) = (self.name.clone(), what.to_owned());
        match found {
            Some(Ok(line)) => Ok((line, next)),
            Some(Err(status)) => Err(Error::Ended {
                name,
                text,
                status,
                said,
            }),
            None => Err(Error::NoLine {
                name,
                text,
                waited: deadline.waited(),
                said,
            }),
        }
    }

    /// Waits for the end of the process and of its output.
    ///
    /// # Errors
    /// It still runs, or one of its children holds its output, when the deadline passes.
    pub fn wait_exit(&self, wait: Duration) -> Result<ExitStatus, Error> {
        let deadline = Deadline::after(wait);
        let (state, found) = wait_until(
            self.shared.lock(),
            &self.shared.changed,
            deadline,
            |state| state.ended(),
        );
        let said = state.said();
        found.ok_or_else(|| Error::Running {
            name: self.name.clone(),
            waited: deadline.waited(),
            said,
        })
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<ExitStatus> {
        self.shared.lock().exit
    }

    /// Everything that it has said so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.shared.lock().lines.clone()
    }

    /// Everything that it has said so far on one stream, as text.
    #[must_use]
    pub fn text(&self, stream: Stream) -> String {
        let state = self.shared.lock();
        let lines: Vec<&str> = state
            .lines
            .iter()
            .filter(|line| line.stream == stream)
            .map(|line| line.text.as_str())
            .collect();
        lines.join("\n")
    }

    /// Sends a signal to the process alone. Nothing happens if it has ended.
    ///
    /// # Errors
    /// The system refuses, for example because it belongs to somebody else.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        // Under the lock: `await_end` frees the process id only there, so it cannot mean a stranger yet.
        let state = self.shared.lock();
        if state.exit.is_some() {
            return Ok(());
        }
        kill_process(self.pid, signal)
            .map_err(|errno| Error::io(format!("signalling {}", self.name))(errno.into()))
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn terminate(&self, wait: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::TERM)?;
        self.wait_exit(wait)
    }

    /// Ends it at once (SIGKILL), as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn kill(&self, wait: Duration) -> Result<ExitStatus, Error> {
        self.signal(Signal::KILL)?;
        self.wait_exit(wait)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group may outlive its leader. While it does, its id is not given to anybody else; when it is empty the
        // call fails, which is as good.
        let _gone = kill_process_group(self.pid, Signal::KILL);
    }
}

fn read_lines(stream: Stream, output: Box<dyn Read + Send>, shared: &Shared) {
    let mut output = BufReader::new(output);
    loop {
        let mut bytes = Vec::new();
        match output
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)
        {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\n', '\r'])
            .to_owned();
        shared.change(|state| {
            if state.lines.len() < LINES_MAX {
                state.lines.push(Line { stream, text });
            } else {
                state.lost += 1;
            }
        });
    }
    shared.change(|state| state.open_streams -= 1);
}

/// Waits without reaping, and reaps under the lock: see [`Process::signal`].
fn await_end(mut child: Child, shared: &Shared) {
    let pid = Pid::from_child(&child);
    while let Err(error) = waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    ) {
        if error != rustix::io::Errno::INTR {
            break;
        }
    }
    shared.change(|state| state.exit = child.wait().ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("shell", command).unwrap()
    }

    #[test]
    fn lines_are_found_in_order_and_only_once() {
        let mut shell = shell("echo one; echo two >&2; echo three");
        shell.wait_exit(LONG).unwrap();
        assert_eq!(shell.wait_line("three", LONG).unwrap(), "three");
        assert!(matches!(
            shell.wait_line("three", LONG),
            Err(Error::Ended { .. })
        ));
        assert_eq!(shell.text(Stream::Err), "two");
        assert_eq!(shell.text(Stream::Out), "one\nthree");
    }

    #[test]
    fn what_was_said_is_found_from_the_first_line_however_late_it_comes() {
        let mut shell = shell("echo one; echo two; echo three; exec tail -f /dev/null");
        shell.wait_line("two", LONG).unwrap();
        assert_eq!(shell.wait_said("one", LONG).unwrap(), "one");
        assert_eq!(shell.wait_said("three", LONG).unwrap(), "three");
        assert_eq!(shell.wait_line("three", LONG).unwrap(), "three");
        assert!(matches!(
            shell.wait_said("four", Duration::from_millis(1)),
            Err(Error::NoLine { .. })
        ));
    }

    #[test]
    fn an_end_before_the_line_is_told_with_what_was_said() {
        let mut shell = shell("echo no luck; exit 3");
        let error = shell.wait_line("ready", LONG).unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("no luck"),
            "{error}"
        );
    }

    #[test]
    fn a_silent_process_is_given_up_at_the_deadline() {
        let mut shell = shell("read line < /dev/zero");
        assert!(matches!(
            shell.wait_line("ready", Duration::from_millis(1)),
            Err(Error::NoLine { .. })
        ));
        assert!(matches!(
            shell.wait_exit(Duration::from_millis(1)),
            Err(Error::Running { .. })
        ));
        assert!(!shell.kill(LONG).unwrap().success());
    }

    #[test]
    fn a_dropped_process_takes_its_children_along() {
        let mut shell = shell("tail -f /dev/null & echo up; wait");
        shell.wait_line("up", LONG).unwrap();
        let shared = Arc::clone(&shell.shared);
        drop(shell);
        let deadline = Deadline::after(LONG);
        let (_guard, ended) = wait_until(shared.lock(), &shared.changed, deadline, |state| {
            state.ended()
        });
        assert!(ended.is_some(), "the grandchild still holds the output");
    }

    #[test]
    fn a_signal_after_the_end_does_nothing() {
        let shell = shell("exit 0");
        shell.wait_exit(LONG).unwrap();
        shell.signal(Signal::TERM).unwrap();
        assert_eq!(shell.exit().and_then(|status| status.code()), Some(0));
    }
}
