//! The host's side of a child: start it, ask it, serve what it is lent, and be rid of it.
//!
//! A call has a deadline by the system's clock, whatever clock is lent: what the child does with its time is no concern
//! of a sandbox's. The time in which the host serves is not the child's. Whatever breaks the order of messages, comes too
//! late or too often costs the child its life; nothing is mended here, a new child is.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::abi;
use super::wire::{
    self, Answered, CHILD_META_MAX_BYTES, Call, Confinement, FromChild, Lend, Loan, Start, Started,
    ToChild, WireError,
};
use crate::agent::text::{FAULT_MAX_BYTES, clean};
use crate::engine::{Budget, Usage};
use crate::plugin::apart;
use crate::plugin::lend::Lent;
use crate::ports::clock::{Clock as _, SystemClock};
use crate::types::Failure;

/// Time until a library is loaded and has said who it is: a program is started and maps its code, from a slow card.
const START_MAX_MS: u64 = 20_000;

/// Time between the end of the channel and the end of the process.
const END_MAX_MS: i64 = 500;

/// How the child is started: the program and the words that make it one.
#[derive(Clone, Debug)]
pub struct HostProgram {
    /// The program: otad, of this build.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl HostProgram {
    /// The program that runs now, also where its file was replaced meanwhile.
    #[must_use]
    pub fn this() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec!["pal-host".into()],
        }
    }
}

/// How a call did not end.
#[derive(Debug)]
pub(super) enum End {
    /// The process ended by itself, with this status.
    Exit(i32),
    /// A signal has ended it, or it broke the contract and was ended for that, in words.
    Broken(String),
}

/// A child that runs.
pub(super) struct Process {
    child: Child,
    channel: UnixStream,
    clock: SystemClock,
}

impl Process {
    /// Start a child for this library and let it say who it is.
    pub(super) fn start(
        host: &HostProgram,
        library: &File,
        confinement: &Confinement,
    ) -> Result<(Self, Started), End> {
        let io = |what: &'static str| {
            move |e: io::Error| End::Broken(format!("{what} for its process: {e}"))
        };
        let (channel, theirs) = UnixStream::pair().map_err(io("a channel"))?;
        let library = library.try_clone().map_err(io("the library"))?;
        let home = confinement.directories.first();
        let home = home.map_or_else(|| Path::new("/"), PathBuf::as_path);
        let child = Command::new(&host.program)
            .args(&host.arguments)
            .env_clear()
            // A program without a path is looked for in the environment that it gets.
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            // Some PALs ask the environment where they are.
            .env("PWD", home)
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(library))
            .stderr(Stdio::null())
            .spawn()
            .map_err(io("no start"))?;
        let mut process = Self {
            child,
            channel,
            clock: SystemClock::new(),
        };
        let start = ToChild::Start(Start::new(confinement.clone()));
        let mut limit = Limit::new(&process.clock, START_MAX_MS);
        let sent = process.send(&limit, &start, &[]);
        let answer = sent.and_then(|()| apart(|| process.receive(&mut limit)));
        match answer {
            // Constructors of the library run before this is said, and may say it.
            Ok((FromChild::Started(Ok(mut started)), _)) => {
                for lacking in &mut started.lacking {
                    *lacking = clean(lacking, FAULT_MAX_BYTES);
                }
                Ok((process, started))
            }
            Ok((FromChild::Started(Err(reason)), _)) => {
                Err(End::Broken(clean(&reason, FAULT_MAX_BYTES)))
            }
            Ok((FromChild::Answer(_) | FromChild::Lend(_), _)) => {
                Err(process.broken("it answered before it was asked"))
            }
            Err(error) => Err(process.ended("its start", &limit, error)),
        }
    }

    /// The process, for people.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the child has now, into the account; of one that is about to go, what it had before.
    pub(super) fn look(&self, usage: &mut Usage) {
        let place = PathBuf::from(format!("/proc/{}", self.id()));
        if let Ok(files) = fs::read_dir(place.join("fd")) {
            let files = files.count() as u64;
            (usage.handles.all, usage.handles.most) = (files, files);
        }
        let status = fs::read_to_string(place.join("status")).unwrap_or_default();
        let data = status.lines().find_map(|line| line.strip_prefix("VmData:"));
        let kib = data.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        if let Some(kib) = kib {
            (usage.memory_bytes.all, usage.memory_bytes.most) = (kib * 1024, kib * 1024);
        }
    }

    /// Make one call, and serve what the child asks for meanwhile; what it asks for goes into the account.
    pub(super) fn call(
        &mut self,
        lent: &Lent,
        call: Call,
        data: &[u8],
        usage: &mut Usage,
    ) -> Result<Result<Answered, Failure>, End> {
        let mut left = Budget::PLUGIN.host_calls;
        let end = apart(|| self.exchange(lent, call, data, &mut left, usage));
        let calls = Budget::PLUGIN.host_calls - left;
        usage.host_calls.add(calls.into());
        end
    }

    fn exchange(
        &mut self,
        lent: &Lent,
        call: Call,
        data: &[u8],
        left: &mut u32,
        usage: &mut Usage,
    ) -> Result<Result<Answered, Failure>, End> {
        let name = call.name();
        let mut limit = Limit::new(&self.clock, abi::CALL_MAX_MS);
        if let Err(error) = self.send(&limit, &ToChild::Call(call), data) {
            return Err(self.ended(name, &limit, error));
        }
        loop {
            let (lend, data) = match self.receive(&mut limit) {
                Ok((FromChild::Answer(answer), _)) => return Ok(answer),
                Ok((FromChild::Lend(lend), data)) => (lend, data),
                Ok((FromChild::Started(_), _)) => {
                    return Err(self.broken("it started within a call"));
                }
                Err(error) => return Err(self.ended(name, &limit, error)),
            };
            if *left == 0 {
                return Err(self.broken(&format!(
                    "it called the host more than {} times in one call",
                    Budget::PLUGIN.host_calls
                )));
            }
            *left -= 1;
            let began = self.clock.now_ms();
            let came = data.len();
            let (answer, data) = match serve(lent, lend, &data) {
                Ok((loan, data)) => (Ok(loan), data),
                Err(failure) => (Err(failure), Vec::new()),
            };
            usage.host_call_bytes.add((came + data.len()) as u64);
            limit.excuse(self.clock.now_ms() - began);
            if let Err(error) = self.send(&limit, &ToChild::Lent(answer), &data) {
                return Err(self.ended(name, &limit, error));
            }
        }
    }

    fn send(&mut self, limit: &Limit, message: &ToChild, data: &[u8]) -> Result<(), WireError> {
        wire::send(&mut self.within(limit), message, data)
    }

    fn receive(&mut self, limit: &mut Limit) -> Result<(FromChild, Vec<u8>), WireError> {
        wire::receive(&mut self.within(limit), CHILD_META_MAX_BYTES)
    }

    fn within<'a>(&'a self, limit: &'a Limit) -> Within<'a> {
        Within {
            channel: &self.channel,
            clock: &self.clock,
            limit,
        }
    }

    /// What a failure of the channel says of the child.
    fn ended(&mut self, during: &str, limit: &Limit, error: WireError) -> End {
        let late = |e: &io::Error| {
            matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            )
        };
        match error {
            WireError::Closed => match self.wait() {
                Some(status) => exit(during, status),
                None => self.broken(&format!("it closed its channel in {during}")),
            },
            WireError::Io(e) if late(&e) => {
                self.broken(&format!("{during} did not end within {} ms", limit.max_ms))
            }
            error @ (WireError::Io(_) | WireError::TooLong { .. } | WireError::Malformed(_)) => {
                self.broken(&format!("in {during}: {error}"))
            }
        }
    }

    /// It has to go.
    fn broken(&mut self, reason: &str) -> End {
        let began = self.clock.now_us();
        self.kill();
        let took = self.clock.now_us() - began;
        End::Broken(format!("{reason}; its process was killed within {took} µs"))
    }

    /// How it ended, if it did so before long.
    fn wait(&mut self) -> Option<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let mut fds = [PollFd::new(&handle, PollFlags::IN)];
        let most = Timespec {
            tv_sec: 0,
            tv_nsec: END_MAX_MS * 1_000_000,
        };
        // A poll that was interrupted has seen nothing; then it is killed.
        poll(&mut fds, Some(&most)).ok()?;
        self.child.try_wait().ok()?
    }

    fn kill(&mut self) {
        // That it has ended already is no failure, and there is no other.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn exit(during: &str, status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, Some(signal)) => {
            End::Broken(format!("its process ended in {during} by signal {signal}"))
        }
        (None, None) => End::Broken(format!("its process ended in {during}: {status}")),
    }
}

/// Until when something must have ended.
struct Limit {
    max_ms: u64,
    until_ms: u64,
}

impl Limit {
    fn new(clock: &SystemClock, max_ms: u64) -> Self {
        Self {
            max_ms,
            until_ms: clock.now_ms() + max_ms,
        }
    }

    /// So much was not the child's.
    fn excuse(&mut self, ms: u64) {
        self.until_ms += ms;
    }

    /// What is left.
    fn left(&self, clock: &SystemClock) -> io::Result<Duration> {
        match self.until_ms.saturating_sub(clock.now_ms()) {
            0 => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Duration::from_millis(left)),
        }
    }
}

/// The channel, within a limit: of a child that sends byte by byte, too.
struct Within<'a> {
    channel: &'a UnixStream,
    clock: &'a SystemClock,
    limit: &'a Limit,
}

impl Read for Within<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.limit.left(self.clock)?;
        self.channel.set_read_timeout(Some(left))?;
        self.channel.read(buffer)
    }
}

impl Write for Within<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let left = self.limit.left(self.clock)?;
        self.channel.set_write_timeout(Some(left))?;
        self.channel.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.channel.flush()
    }
}

/// Serve one call of what is lent. Bounds, locks and account are those of whatever is lent, as for components.
fn serve(lent: &Lent, lend: Lend, data: &[u8]) -> Result<(Loan, Vec<u8>), Failure> {
    let done = |()| (Loan::Nothing, Vec::new());
    let number = |number: u64| (Loan::Number(number), Vec::new());
    let small = |n: u32| number(u64::from(n));
    let bytes = |bytes: Vec<u8>| (Loan::Bytes, bytes);
    match lend {
        Lend::Regions => Ok((Loan::Regions(lent.regions()), Vec::new())),
        Lend::ReadAt {
            region,
            offset,
            length,
        } => lent.storage()?.read_at(region, offset, length).map(bytes),
        Lend::WriteAt { region, offset } => {
            lent.storage()?.write_at(region, offset, data).map(done)
        }
        Lend::Erase {
            region,
            offset,
            length,
        } => lent.storage()?.erase(region, offset, length).map(done),
        Lend::Sync(region) => lent.storage()?.sync(region).map(done),
        Lend::Held => Ok(number(lent.staged().map_or(0, |staged| staged.held()))),
        Lend::Verified => {
            let verified = lent.staged().is_ok_and(|staged| staged.verified());
            Ok(number(u64::from(verified)))
        }
        Lend::ReadStaged { offset, length } => lent.staged()?.read_at(offset, length).map(bytes),
        Lend::OpenLine(parameters) => lent
            .line()?
            .open(&parameters, Arc::clone(&lent.wake))
            .map(done),
        Lend::WriteLine => lent.line()?.write(data).map(small),
        Lend::ReadLine(max) => lent.read_line(max).map(bytes),
        Lend::Unsent => lent.line()?.unsent().map(small),
        Lend::Drain => lent.line()?.drain().map(done),
        Lend::SetLine {
            dtr,
            rts,
            break_condition,
        } => lent.line()?.set_line(dtr, rts, break_condition).map(done),
        Lend::CloseLine => {
            lent.line()?.close();
            Ok(done(()))
        }
        Lend::Pulse(hold_ms) => lent.pulse(hold_ms).map(done),
        Lend::NowMs => Ok(number(lent.clock.now_ms())),
        Lend::Log(level, text) => {
            lent.log.log(level, &text);
            Ok(done(()))
        }
    }
}
