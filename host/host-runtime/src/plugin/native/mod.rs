//! A plugin as a shared library with the C ABI of `wit/native/ota_pal.h`.
//!
//! ```text
//!   host                                       child (otad pal-host), locked in before it loads anything
//!   Instance ── Process ══ socket pair ══ Channel ── library::Instance ── table of functions in the .so
//!                  └ serve: Lent                 └ Lent by way of the host
//! ```
//!
//! Every instance is a process of its own: a crash is an error, the next instance a new process, and nothing is ever
//! unloaded. [`Isolation::InProcess`] leaves the channel out and calls the same table in this process; then a mistake of
//! the library's is a mistake of the host's. Not here: who may load what (signatures, grants), and swaps; those take a
//! [`PluginFactory`] like any other.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::convert::{clean_description, clean_duty, clean_failure};
use super::lend::{Lent, TRANSFER_MAX_BYTES};
use super::{
    Answer, Description, Duty, Extent, Plugin, PluginError, PluginFactory, Transfer, check_lent,
};
use crate::engine::{Budget, Usage, Use};
use crate::types::{Blob, Failure, Level, Setting, code};
use confine::FILES_MAX;
use library::Library;
use process::{End, Process};
use wire::{Answered, Call};

pub use abi::ABI_VERSION;
pub use child::serve;
pub use confine::MEMORY_MAX_BYTES;
pub use process::HostProgram;
pub use wire::{Confinement, WireError, child_frame};

// The contract's own text, beside the header.
#[path = "../../../../../wit/native/ota_pal.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the plugins' SDK shows it to plugins, and tests hold what no code here needs"
)]
mod abi;
mod child;
mod confine;
mod convert;
mod lent;
mod library;
mod process;
mod wire;

/// Largest library: one with a cryptographic library linked into it has some 10 MiB.
pub const LIBRARY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Where a library runs.
#[derive(Clone, Debug)]
pub enum Isolation {
    /// In a process of its own, started so and confined so.
    Process(HostProgram, Confinement),
    /// In this one: an explicit grant. A mistake of the library's is then one of this process.
    InProcess,
}

/// A native plugin, loaded and asked who it is.
pub struct NativePlugin {
    label: String,
    digest: [u8; 32],
    description: Description,
    imports: Vec<String>,
    /// By what it is not confined.
    caveats: Vec<String>,
    carrier: Carrier,
}

enum Carrier {
    Process {
        host: HostProgram,
        confinement: Confinement,
        library: File,
    },
    InProcess(Arc<Library>),
}

impl NativePlugin {
    /// Take the bytes of a shared library, load it as `isolation` says and ask it who it is. `label` is for people.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn load(label: &str, bytes: &[u8], isolation: Isolation) -> Result<Arc<Self>, String> {
        if bytes.len() > LIBRARY_MAX_BYTES {
            return Err(format!(
                "it has {} bytes, at most {LIBRARY_MAX_BYTES}",
                bytes.len()
            ));
        }
        let library = in_memory(bytes).map_err(|e| format!("no memory for it: {e}"))?;
        let (description, needs, carrier, caveats) = match isolation {
            Isolation::Process(host, confinement) => {
                let (_, started) = Process::start(&host, &library, &confinement)
                    .map_err(|end| words(end, "its start"))?;
                let less = |missing: String| {
                    format!(
                        "THIS KERNEL HAS NO {missing}: the plugin's process is confined by less"
                    )
                };
                let caveats: Vec<_> = started.lacking.into_iter().map(less).collect();
                let carrier = Carrier::Process {
                    host,
                    confinement,
                    library,
                };
                (started.description, started.needs, carrier, caveats)
            }
            Isolation::InProcess => {
                let library = Library::load(library)?;
                let (description, needs) = (library.description.clone(), library.needs);
                let caveat = "RUNS IN THIS PROCESS, unconfined: a mistake in it is one of otad's";
                let carrier = Carrier::InProcess(Arc::new(library));
                (description, needs, carrier, vec![caveat.to_owned()])
            }
        };
        for caveat in &caveats {
            tracing::warn!("plugin {label}: {caveat}");
        }
        let description = clean_description(description);
        description.check()?;
        Ok(Arc::new(Self {
            label: label.to_owned(),
            digest: Sha256::digest(bytes).into(),
            description,
            imports: lent::names(needs)?,
            caveats,
            carrier,
        }))
    }
}

/// The bytes as a file that nobody can change any more and that has no name: what was looked at is what is loaded.
fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match memfd_create("ota-pal", flags | MemfdFlags::EXEC) {
        // Linux before 6.3 has no such flag, and every such file may be executed.
        Err(Errno::INVAL) => memfd_create("ota-pal", flags),
        end => end,
    }?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

impl std::fmt::Debug for NativePlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativePlugin")
            .field("label", &self.label)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

impl PluginFactory for NativePlugin {
    fn label(&self) -> &str {
        &self.label
    }

    fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn caveats(&self) -> &[String] {
        &self.caveats
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        check_lent(&self.imports, &lent)?;
        match &self.carrier {
            Carrier::InProcess(library) => {
                Ok(Box::new(library::Instance::new(Arc::clone(library), lent)))
            }
            Carrier::Process {
                host,
                confinement,
                library,
            } => {
                let library = library.try_clone();
                let library = library.map_err(|e| PluginError::Broken(e.to_string()))?;
                let mut instance = Instance {
                    host: host.clone(),
                    confinement: confinement.clone(),
                    library,
                    lent,
                    process: None,
                    settings: None,
                    transfer: None,
                    duty: Kind::Other,
                    restarted: false,
                    waiting: None,
                    usage: within(confinement),
                };
                instance.start()?;
                Ok(Box::new(instance))
            }
        }
    }
}

/// What the end of the process means to the duty under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It was the restart of the target.
    Activate,
    /// As above.
    Reset,
    /// It was the restart into the old image.
    Reject,
    /// A crash.
    Other,
}

/// One instance in a process of its own.
struct Instance {
    host: HostProgram,
    confinement: Confinement,
    library: File,
    lent: Lent,
    /// `None` after it ended as a restart of the target; the next call begins a new one.
    process: Option<Process>,
    /// What it was opened with.
    settings: Option<Vec<Setting>>,
    /// What it was given with `create` or `reopen`.
    transfer: Option<Transfer>,
    /// What the end of the process would mean in the call under way.
    duty: Kind,
    /// The target was restarted in `activate`, and `reset` need not do it again.
    restarted: bool,
    /// The call of a duty that waits until a new process has been told of the transfer.
    waiting: Option<(Kind, Call, Vec<u8>)>,
    usage: Usage,
}

/// The account of a process that has used nothing yet.
fn within(confinement: &Confinement) -> Usage {
    let of = |limit: u64| Use {
        limit,
        ..Use::default()
    };
    Usage {
        host_calls: of(Budget::PLUGIN.host_calls.into()),
        memory_bytes: of(confinement.memory_max_bytes.unwrap_or(MEMORY_MAX_BYTES)),
        host_call_bytes: of(TRANSFER_MAX_BYTES.into()),
        handles: of(FILES_MAX),
        ..Usage::default()
    }
}

impl Instance {
    fn start(&mut self) -> Result<&mut Process, PluginError> {
        let (process, _) = Process::start(&self.host, &self.library, &self.confinement)
            .map_err(|e| broken(e, "its start"))?;
        tracing::debug!(process = process.id(), "a plugin's process");
        Ok(self.process.insert(process))
    }

    /// After a restart of the target: a new process that knows what the old one knew. Its answer to `reopen`, if
    /// it is told of a transfer.
    fn revive(&mut self, tell: bool) -> Result<Option<Answered>, PluginError> {
        if self.process.is_some() {
            return Ok(None);
        }
        if let Some(line) = &self.lent.serial_line {
            // The old one's.
            line.close();
        }
        self.start()?;
        self.duty = Kind::Other;
        let end = self.tell(tell);
        if end.is_err() {
            // It knows nothing, or half of it; the next call begins another one.
            self.process = None;
        }
        end
    }

    /// Open a new process as the old one was, and reopen the transfer if it is to hear of that.
    fn tell(&mut self, transfer: bool) -> Result<Option<Answered>, PluginError> {
        if let Some(settings) = self.settings.clone() {
            let saved = None;
            self.exchange(Call::Open { settings, saved }, &[])?;
        }
        let transfer = self.transfer.clone().filter(|_| transfer);
        transfer
            .map(|transfer| self.exchange(Call::Reopen(transfer), &[]))
            .transpose()
    }

    /// As [`revive`](Self::revive), for a call that is no duty and cannot wait.
    fn revive_at_once(&mut self) -> Result<(), PluginError> {
        let answer = self.revive(true)?;
        if self.waiting.is_some() || answer.is_some_and(|answer| answer.is_working()) {
            return Err(self.lost("its process is new and has not yet been told of the transfer"));
        }
        Ok(())
    }

    /// It breaks, for this reason.
    fn lost(&mut self, reason: &str) -> PluginError {
        self.process = None;
        PluginError::Broken(reason.to_owned())
    }

    /// It answered something else than it was asked.
    fn astray(&mut self) -> PluginError {
        self.lost("it answered something else than it was asked")
    }

    /// One call of the process that there is.
    fn exchange(&mut self, call: Call, data: &[u8]) -> Result<Answered, PluginError> {
        let name = call.name();
        let Some(process) = self.process.as_mut() else {
            return Err(self.lost("its process is gone"));
        };
        match process.call(&self.lent, call, data, &mut self.usage) {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(f)) => Err(PluginError::Failed(clean_failure(f.main, f.sub, &f.detail))),
            Err(End::Exit(_)) if self.duty != Kind::Other => {
                let text = format!("its process ended in {name}: that restarts its target");
                self.lent.log.log(Level::Info, &text);
                self.process = None;
                self.restarted = self.duty == Kind::Activate;
                self.duty = Kind::Other;
                Ok(Answered::Duty(Duty::Finished(Answer::Nothing)))
            }
            Err(end) => {
                self.process = None;
                Err(broken(end, name))
            }
        }
    }

    /// Begin a duty; where the process is new, tell it of the transfer first.
    fn begin_duty(&mut self, kind: Kind, call: Call, data: &[u8]) -> Result<Duty, PluginError> {
        if self.waiting.take().is_some() {
            // What waited is not wanted any more, and nobody can tell how much this process knows.
            self.process = None;
        }
        // These two tell it themselves.
        let tells = matches!(call, Call::Create(_) | Call::Reopen(_));
        if let Some(answer) = self.revive(!tells)?
            && answer.is_working()
        {
            self.waiting = Some((kind, call, data.to_vec()));
            return self.duty_of(answer);
        }
        self.duty = kind;
        let answer = self.exchange(call, data)?;
        self.duty_of(answer)
    }

    fn duty_of(&mut self, answer: Answered) -> Result<Duty, PluginError> {
        match answer {
            Answered::Duty(duty) => Ok(clean_duty(duty)),
            Answered::Opened | Answered::Extents(_) | Answered::Saved(_) => Err(self.astray()),
        }
    }

    fn other(&mut self, call: Call) -> Result<Duty, PluginError> {
        self.begin_duty(Kind::Other, call, &[])
    }

    /// `create` and `reopen`.
    fn begin(&mut self, transfer: &Transfer, call: Call) -> Result<Duty, PluginError> {
        self.transfer = None;
        let duty = self.other(call)?;
        self.transfer = Some(transfer.clone());
        self.restarted = false;
        Ok(duty)
    }
}

fn broken(end: End, during: &str) -> PluginError {
    PluginError::Broken(words(end, during))
}

fn words(end: End, during: &str) -> String {
    match end {
        End::Exit(code) => format!("its process ended in {during} with status {code}"),
        End::Broken(reason) => reason,
    }
}

impl Plugin for Instance {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        self.duty = Kind::Other;
        let call = Call::Open {
            settings: settings.to_vec(),
            saved: saved.cloned(),
        };
        match self.exchange(call, &[])? {
            Answered::Opened => {
                self.settings = Some(settings.to_vec());
                Ok(())
            }
            Answered::Duty(_) | Answered::Extents(_) | Answered::Saved(_) => Err(self.astray()),
        }
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.begin(transfer, Call::Create(transfer.clone()))
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.begin(transfer, Call::Reopen(transfer.clone()))
    }

    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        self.begin_duty(Kind::Other, Call::WriteBlock { offset }, data)
    }

    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        self.revive_at_once()?;
        match self.exchange(Call::Extents, &[])? {
            Answered::Extents(extents) => Ok(extents),
            Answered::Opened | Answered::Duty(_) | Answered::Saved(_) => Err(self.astray()),
        }
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.other(Call::Examine)
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        self.other(Call::Install)
    }

    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        self.restarted = false;
        self.begin_duty(Kind::Activate, Call::Activate(*sha256), &[])
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        if std::mem::take(&mut self.restarted) {
            return Ok(Duty::Finished(Answer::Nothing));
        }
        self.begin_duty(Kind::Reset, Call::Reset, &[])
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        self.other(Call::SelfTest)
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        self.other(Call::Commit)
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        self.begin_duty(Kind::Reject, Call::Reject, &[])
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        self.other(Call::State)
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        let duty = self.other(Call::Abort)?;
        self.transfer = None;
        Ok(duty)
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        let mut answer = self.exchange(Call::Step(budget_bytes), &[])?;
        if !answer.is_working()
            && let Some((kind, call, data)) = self.waiting.take()
        {
            self.duty = kind;
            answer = self.exchange(call, &data)?;
        }
        self.duty_of(answer)
    }

    fn suspend(&mut self) -> Result<Blob, PluginError> {
        if self.process.is_none() || self.waiting.is_some() {
            // A successor begins as a new process here would: with nothing but the transfer.
            let why = "its process has ended, and no other knows the transfer yet";
            return Err(PluginError::Failed(Failure::new(code::UNSUPPORTED, 0, why)));
        }
        let kind = self.duty;
        self.duty = Kind::Other;
        let end = self.exchange(Call::Suspend, &[]);
        self.duty = kind;
        match end? {
            Answered::Saved(blob) => Ok(blob),
            Answered::Opened | Answered::Duty(_) | Answered::Extents(_) => Err(self.astray()),
        }
    }

    fn usage(&self) -> Usage {
        let mut usage = self.usage;
        if let Some(process) = &self.process {
            process.look(&mut usage);
        }
        usage
    }
}
