//! How a program is started: on a thread of its own and, where there is one, through a starter.
//!
//! ```text
//! a task ── order ──▶ this thread ── vfork, exec ──▶ the starter ── limits, tie ── exec ──▶ the program
//! ```
//!
//! The thread has a runtime of its own, which looks after the programs' pipes and ends: that of the task may end while a program
//! is being started, and what then runs already would be nobody's.
//!
//! What must be done between fork and exec leaves the standard library only a `fork`, and that copies the page tables of
//! a process with thousands of mappings: some 70 ms with a thousand devices, against less than one for a `vfork`. So it
//! is done by a process that has begun anew: this same program in another role. The thread is there because the kernel
//! takes the *thread* that has started a program for its parent: threads of a runtime come and go, and a program that is
//! tied to one would be killed with it. And no thread that serves devices waits for a start.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::process::{Child, Command};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use super::group::Group;

/// Orders that wait for the thread; more wait in their tasks.
const ORDERS_MAX: usize = 64;

/// Open files that a program may have at first; none = as many as this process.
static FILES: AtomicU64 = AtomicU64::new(NO_FILES);
const NO_FILES: u64 = u64::MAX;

/// From now on programs are started with this soft limit of open files: for a process that has raised its own. One that
/// waits with `select` breaks on numbers above 1023, and whoever needs more raises it up to the hard limit himself.
pub fn start_with_files(soft: u64) {
    FILES.store(soft, Ordering::Relaxed);
}

/// A program that starts others: it hands what follows these words to [`be_starter`].
#[derive(Clone, Debug)]
pub struct Starter {
    /// The program, with its path.
    pub program: PathBuf,
    /// Its first arguments.
    pub words: Vec<OsString>,
}

static STARTER: OnceLock<Starter> = OnceLock::new();

/// From now on programs are started through this one, for as long as this process lives. Without it, and where it
/// cannot be started, they are started by a `fork`, which is the same but slower in a big process.
pub fn start_through(starter: Starter) {
    // The first stays: there is one in a process.
    let _ = STARTER.set(starter);
}

/// What a program finds when it starts, besides its arguments.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Nothing of this process's environment and directory, and something to read.
    pub(super) is_clean: bool,
}

/// A program that runs.
pub(super) struct Started {
    /// First, so that it is killed before it is left to whoever collects what ends.
    pub(super) group: Option<Group>,
    pub(super) child: Child,
    /// It was a starter at first.
    pub(super) through_starter: bool,
}

impl Start {
    /// Start it as the leader of a process group that does not outlive this process; given up, what has begun is killed. To be
    /// awaited on a tokio runtime.
    pub(super) async fn by(self, desk: &Desk) -> io::Result<Started> {
        let (reply, answer) = oneshot::channel();
        let order = Order::new(move || self.spawn(), reply);
        if let Err(mpsc::error::SendError(order)) = desk.send(order).await {
            // The thread is not to be had: here, then.
            order.follow();
        }
        answer
            .await
            .unwrap_or_else(|_| Err(io::Error::other("what starts it broke")))
    }

    fn spawn(&self) -> io::Result<Started> {
        let parent = rustix::process::getpid();
        let files = Some(FILES.load(Ordering::Relaxed)).filter(|files| *files != NO_FILES);
        let through = STARTER.get().map(|starter| {
            let files = files.map_or_else(|| ALL_FILES.to_owned(), |files| files.to_string());
            let mut command = Command::new(&starter.program);
            command
                .args(&starter.words)
                .arg(parent.as_raw_nonzero().to_string())
                .arg(files)
                .arg(&self.program);
            self.surround(&mut command).spawn()
        });
        let (child, through_starter) = match through {
            Some(Ok(child)) => (child, true),
            // What is wrong with the starter is no concern of the program's.
            Some(Err(_)) | None => (self.fork(parent, files)?, false),
        };
        Ok(Started {
            group: Group::of(&child),
            child,
            through_starter,
        })
    }

    fn fork(&self, parent: Pid, files: Option<u64>) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        self.surround(&mut command);
        #[expect(
            unsafe_code,
            reason = "between fork and exec; all of it are plain system calls, which allocate nothing"
        )]
        // SAFETY: `tie` makes a few system calls, touches no lock and no heap.
        unsafe {
            command.pre_exec(move || tie(parent, files));
        }
        command.spawn()
    }

    /// The rest of the arguments, and what both ways have in common.
    fn surround<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if self.is_clean {
            command.stdin(Stdio::piped()).current_dir("/").env_clear();
        } else {
            command.stdin(Stdio::null());
            // The service manager's socket is this process's: a program must not speak in its name.
            for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(key, value)| (key, value)))
    }
}

/// A start for the thread.
pub(super) struct Order {
    start: Box<dyn FnOnce() -> io::Result<Started> + Send>,
    reply: oneshot::Sender<io::Result<Started>>,
}

impl Order {
    pub(super) fn new(
        start: impl FnOnce() -> io::Result<Started> + Send + 'static,
        reply: oneshot::Sender<io::Result<Started>>,
    ) -> Self {
        let start = Box::new(start);
        Self { start, reply }
    }

    /// To be called on a runtime.
    fn follow(self) {
        if self.reply.is_closed() {
            return;
        }
        // Nobody waits for it any more: with the answer its process group goes.
        drop(self.reply.send((self.start)()));
    }
}

/// The way to whoever starts programs.
pub(super) type Desk = mpsc::Sender<Order>;

/// The way to the thread, which lives as long as the process.
pub(super) fn desk() -> &'static Desk {
    static DESK: OnceLock<Desk> = OnceLock::new();
    DESK.get_or_init(|| {
        let (sender, mut orders) = mpsc::channel::<Order>(ORDERS_MAX);
        let thread = std::thread::Builder::new().name("starter".to_owned());
        let serve = async move {
            while let Some(order) = orders.recv().await {
                // With this thread every program that it has started would be killed. Whoever waits for this one hears that
                // nobody answers.
                if catch_unwind(AssertUnwindSafe(|| order.follow())).is_err() {
                    tracing::error!("the start of a program broke");
                }
            }
        };
        let unserved =
            |e| tracing::warn!("programs are started by the threads that want them: {e}");
        // Made there: a runtime must not be dropped on another one's thread. Without it nobody takes orders.
        let started =
            thread.spawn(
                move || match Builder::new_current_thread().enable_io().build() {
                    Ok(runtime) => runtime.block_on(serve),
                    Err(e) => unserved(e),
                },
            );
        if let Err(e) = started {
            unserved(e);
        }
        sender
    })
}

/// Make this process one that `parent` starts a program with.
fn tie(parent: Pid, files: Option<u64>) -> io::Result<()> {
    if let Some(files) = files {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(maximum.map_or(files, |maximum| files.min(maximum)));
        setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    }
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have died before the line above.
    if rustix::process::getppid() == Some(parent) {
        Ok(())
    } else {
        Err(Errno::SRCH.into())
    }
}

/// In the place of a number: as many files as this process may have.
const ALL_FILES: &str = "-";

/// Exit code of a starter that did not become its program, as of a shell that does not find one.
const NOT_STARTED: u8 = 127;

/// Round the error that a starter ends with. A program of its own accord writes no such thing and exits with 127.
const BEFORE_ERROR: &str = "\0otad-starter ";
const AFTER_ERROR: &str = "\0\n";

/// Be the starter: `PARENT FILES PROGRAM ARGUMENT…`. It becomes the program; where it does not, this is its exit code.
/// To be called before the program has done anything else.
#[must_use]
pub fn be_starter(words: impl IntoIterator<Item = OsString>) -> u8 {
    let mut stderr = io::stderr();
    // Should nobody listen, there is nobody to tell.
    let _ = match become_program(words) {
        Some(error) => {
            let number = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
            write!(stderr, "{BEFORE_ERROR}{number}{AFTER_ERROR}")
        }
        None => writeln!(stderr, "the daemon starts this, with PARENT FILES PROGRAM"),
    };
    NOT_STARTED
}

/// Why that did not work; none = these are not words for a starter.
fn become_program(words: impl IntoIterator<Item = OsString>) -> Option<io::Error> {
    let mut words = words.into_iter();
    let parent = Pid::from_raw(words.next()?.to_str()?.parse().ok()?)?;
    let files = match words.next()?.to_str()? {
        ALL_FILES => None,
        number => Some(number.parse().ok()?),
    };
    let program = words.next()?;
    if let Err(error) = tie(parent, files) {
        return Some(error);
    }
    // This also gives back the signals that the start of this program has set, as a fork's child does.
    Some(std::process::Command::new(program).args(words).exec())
}

/// Why a starter did not become its program; none = it did.
pub(super) fn not_started(code: Option<i32>, stderr: &[u8]) -> Option<io::Error> {
    let text = std::str::from_utf8(stderr).ok()?;
    let number = text.strip_prefix(BEFORE_ERROR)?.strip_suffix(AFTER_ERROR)?;
    let error = io::Error::from_raw_os_error(number.parse().ok()?);
    (code == Some(NOT_STARTED.into())).then_some(error)
}
