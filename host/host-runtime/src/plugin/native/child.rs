//! The child: `otad pal-host`. It takes its orders, locks itself in, loads the library and calls it, one duty at a time;
//! what the library is lent it asks of the host over the same channel.
//!
//! It decides nothing and has nothing: no configuration, no trust store, no state. When the channel closes it ends.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getpid, kill_process};

use super::confine;
use super::library::{Instance, Library};
use super::wire::{
    self, Answered, Call, FromChild, HOST_META_MAX_BYTES, Lend, Loan, Start, Started, ToChild,
    WireError,
};
use crate::plugin::lend::{
    BlockDevice, HardwareReset, Lent, LineParameters, Log, Region, SerialLine, StagedImage,
    TRANSFER_MAX_BYTES, check_length,
};
use crate::plugin::{Plugin as _, PluginError};
use crate::ports::clock::Clock;
use crate::ports::workers::Wake;
use crate::types::{Failure, Level, code};

/// Be the child: the channel is standard input, the library standard output. Returns when the host closes the channel.
///
/// # Errors
/// The channel does not work, or this was not started by a host, in words.
pub fn serve() -> Result<(), String> {
    let words = |e: io::Error| format!("it is started by otad itself, not by hand: {e}");
    let (channel, library) = inherited().map_err(words)?;
    let watched = channel.try_clone().map_err(words)?;
    let channel = Arc::new(Channel(Mutex::new(channel)));
    ignore_signals();
    let Some(start) = channel.start()? else {
        let reason = format!(
            "the program that is to run it (otad {}) is of another build than what loads it; install both of one build",
            env!("CARGO_PKG_VERSION")
        );
        return channel.send(&FromChild::Started(Err(reason)), &[]);
    };
    let loaded = load(&start, library, watched);
    let library = match loaded {
        Ok((library, lacking)) => {
            channel.send(
                &FromChild::Started(Ok(Started {
                    description: library.description.clone(),
                    needs: library.needs,
                    lacking,
                })),
                &[],
            )?;
            Arc::new(library)
        }
        Err(reason) => return channel.send(&FromChild::Started(Err(reason)), &[]),
    };
    let mut instance = Instance::new(library, lent(&channel));
    loop {
        let (call, data) = match channel.receive() {
            Ok((ToChild::Call(call), data)) => (call, data),
            Ok((ToChild::Start(_) | ToChild::Lent(_), _)) | Err(_) => return Ok(()),
        };
        let answer = match answer(&mut instance, call, &data) {
            Ok(answered) => Ok(answered),
            Err(PluginError::Failed(failure)) => Err(failure),
            // What the library said makes no sense; the host hears it as it hears of any other crash.
            Err(PluginError::Broken(reason)) => {
                lent(&channel).log.log(Level::Error, &reason);
                std::process::abort();
            }
        };
        channel.send(&FromChild::Answer(answer), &[])?;
    }
}

/// What ends the daemon is sent to its children as well, by systemd and by a terminal. The daemon lets a call end first, and
/// the end of the channel ends this process.
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        #[expect(unsafe_code, reason = "no safe wrapper ignores a signal")]
        // SAFETY: no handler is installed.
        let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
        debug_assert_ne!(before, libc::SIG_ERR, "any of these can be ignored");
    }
}

/// The channel and the library, away from where a library would read or print.
fn inherited() -> io::Result<(File, File)> {
    let channel = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let library = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok((channel, library))
}

/// Lock up, then load.
fn load(start: &Start, library: File, watched: File) -> Result<(Library, Vec<String>), String> {
    let lacking = confine::confine(&start.confinement)?;
    // Of a library that computes for ever while its host is killed nothing must be left.
    thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || end_with(&watched))
        .map_err(|e| format!("no thread: {e}"))?;
    Ok((Library::load(library)?, lacking))
}

/// End this process when the other end of the channel is closed: at once, whatever the library would do at an exit.
fn end_with(channel: &File) {
    loop {
        // No events are asked for; that it is hung up is said all the same.
        let mut fds = [PollFd::new(channel, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => {
                // An error here would leave nothing better to do than to try again.
                let _ = kill_process(getpid(), Signal::KILL);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn answer(instance: &mut Instance, call: Call, data: &[u8]) -> Result<Answered, PluginError> {
    let duty = match call {
        Call::Open { settings, saved } => {
            instance.open(&settings, saved.as_ref())?;
            return Ok(Answered::Opened);
        }
        Call::Extents => return instance.extents().map(Answered::Extents),
        Call::Suspend => return instance.suspend().map(Answered::Saved),
        Call::Create(transfer) => instance.create(&transfer),
        Call::Reopen(transfer) => instance.reopen(&transfer),
        Call::WriteBlock { offset } => instance.write_block(offset, data),
        Call::Examine => instance.examine(),
        Call::Install => instance.install(),
        Call::Activate(sha256) => instance.activate(&sha256),
        Call::Reset => instance.reset(),
        Call::SelfTest => instance.self_test(),
        Call::Commit => instance.commit(),
        Call::Reject => instance.reject(),
        Call::State => instance.state(),
        Call::Abort => instance.abort(),
        Call::Step(budget) => instance.step(budget),
    }?;
    Ok(Answered::Duty(duty))
}

/// The channel: one exchange at a time.
struct Channel(Mutex<File>);

impl Channel {
    /// The first message, if it is that of a host that speaks as this build does.
    fn start(&self) -> Result<Option<Start>, String> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match wire::receive(&mut *file, HOST_META_MAX_BYTES) {
            Ok((ToChild::Start(start), _)) => Ok(Some(start).filter(Start::is_ours)),
            Ok((ToChild::Call(_) | ToChild::Lent(_), _))
            | Err(WireError::Malformed(_) | WireError::TooLong { .. }) => Ok(None),
            Err(e @ (WireError::Closed | WireError::Io(_))) => Err(e.to_string()),
        }
    }

    fn receive(&self) -> Result<(ToChild, Vec<u8>), String> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::receive(&mut *file, HOST_META_MAX_BYTES).map_err(|e| e.to_string())
    }

    fn send(&self, message: &FromChild, data: &[u8]) -> Result<(), String> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wire::send(&mut *file, message, data).map_err(|e| e.to_string())
    }

    /// Ask the host for something that it lends. Without a host there is nothing left to do.
    fn lend(&self, lend: Lend, data: &[u8]) -> Result<(Loan, Vec<u8>), Failure> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lent = wire::send(&mut *file, &FromChild::Lend(lend), data)
            .and_then(|()| wire::receive(&mut *file, HOST_META_MAX_BYTES));
        match lent {
            Ok((ToChild::Lent(lent), data)) => Ok((lent?, data)),
            // Not by an exit: in `activate` that is the restart of the target.
            Ok((ToChild::Start(_) | ToChild::Call(_), _)) | Err(_) => std::process::abort(),
        }
    }

    fn nothing(&self, lend: Lend, data: &[u8]) -> Result<(), Failure> {
        self.lend(lend, data).map(drop)
    }

    fn bytes(&self, lend: Lend) -> Result<Vec<u8>, Failure> {
        self.lend(lend, &[]).map(|(_, data)| data)
    }

    fn number(&self, lend: Lend, data: &[u8]) -> Result<u64, Failure> {
        match self.lend(lend, data)? {
            (Loan::Number(number), _) => Ok(number),
            (Loan::Nothing | Loan::Bytes | Loan::Regions(_), _) => Err(Failure::new(
                code::PLUGIN_FAILED,
                0,
                "the host answered something else",
            )),
        }
    }

    fn small(&self, lend: Lend, data: &[u8]) -> Result<u32, Failure> {
        self.number(lend, data)
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }
}

/// Everything by way of the host, which refuses what was not granted.
fn lent(channel: &Arc<Channel>) -> Lent {
    Lent {
        block_device: Some(Arc::clone(channel) as _),
        staged_image: Some(Arc::clone(channel) as _),
        serial_line: Some(Arc::clone(channel) as _),
        hardware_reset: Some(Arc::clone(channel) as _),
        wake: Arc::new(|| {}),
        clock: Arc::clone(channel) as _,
        log: Arc::clone(channel) as _,
    }
}

impl BlockDevice for Channel {
    fn regions(&self) -> Vec<Region> {
        match self.lend(Lend::Regions, &[]) {
            Ok((Loan::Regions(regions), _)) => regions,
            Ok((Loan::Nothing | Loan::Bytes | Loan::Number(_), _)) | Err(_) => Vec::new(),
        }
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.bytes(Lend::ReadAt {
            region,
            offset,
            length,
        })
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        check_length(data.len() as u64)?;
        self.nothing(Lend::WriteAt { region, offset }, data)
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        self.nothing(
            Lend::Erase {
                region,
                offset,
                length,
            },
            &[],
        )
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        self.nothing(Lend::Sync(region), &[])
    }
}

impl StagedImage for Channel {
    fn held(&self) -> u64 {
        self.number(Lend::Held, &[]).unwrap_or(0)
    }

    fn verified(&self) -> bool {
        self.number(Lend::Verified, &[]) == Ok(1)
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.bytes(Lend::ReadStaged { offset, length })
    }
}

impl SerialLine for Channel {
    fn open(&self, parameters: &LineParameters, _: Wake) -> Result<(), Failure> {
        self.nothing(Lend::OpenLine(*parameters), &[])
    }

    fn write(&self, data: &[u8]) -> Result<u32, Failure> {
        // A line takes what fits, and says how much that was.
        let fits = data.len().min(TRANSFER_MAX_BYTES as usize);
        self.small(Lend::WriteLine, &data[..fits])
    }

    fn read(&self, max: u32) -> Result<Vec<u8>, Failure> {
        self.bytes(Lend::ReadLine(max))
    }

    fn unsent(&self) -> Result<u32, Failure> {
        self.small(Lend::Unsent, &[])
    }

    fn drain(&self) -> Result<(), Failure> {
        self.nothing(Lend::Drain, &[])
    }

    fn set_line(
        &self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> Result<(), Failure> {
        self.nothing(
            Lend::SetLine {
                dtr,
                rts,
                break_condition,
            },
            &[],
        )
    }

    fn close(&self) {
        // Only that it was not granted can be said against it.
        let _ = self.nothing(Lend::CloseLine, &[]);
    }

    /// Of no use here: the host waits for the line, and no library can ask this.
    fn has_news(&self) -> bool {
        false
    }
}

impl HardwareReset for Channel {
    fn pulse(&self, hold_ms: u32) -> Result<(), Failure> {
        self.nothing(Lend::Pulse(hold_ms), &[])
    }
}

impl Clock for Channel {
    fn now_ms(&self) -> u64 {
        self.number(Lend::NowMs, &[]).unwrap_or(0)
    }

    fn wall_s(&self) -> Option<u64> {
        None
    }
}

impl Log for Channel {
    fn log(&self, level: Level, text: &str) {
        let line = text[..text.floor_char_boundary(LINE_MAX_BYTES)].to_owned();
        // A line that the host does not take is lost; the host counts those.
        let _ = self.nothing(Lend::Log(level, line), &[]);
    }
}

/// Most bytes of a line on its way; the host cuts it to fewer.
const LINE_MAX_BYTES: usize = 4096;
