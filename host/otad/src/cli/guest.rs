//! A component or a library named on the command line, loaded as far as a stranger's may be: read up to a limit, told apart
//! by its world, compiled in a child process that may use only so much time and memory; a library runs in a process of its
//! own as under the daemon, with no grant.
//!
//! Compilers take bytes of anybody's making and can be made to work for hours. So the child compiles into a directory that
//! only we can read, and this process takes the code from there, or nothing. The child is `otad check --compile-into`; it is
//! handed the bytes that were judged here, whatever the file holds by then.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum as _;
use host_runtime::agent::AgentBuild;
use host_runtime::engine::{
    AGENT_WORLD, COMPONENT_MAX_BYTES, Engine, EngineOptions, PLUGIN_WORLD, Refusal, Time, World,
    world_of,
};
use host_runtime::plugin::lend::LENDABLE;
use host_runtime::plugin::native::{Confinement, Isolation, LIBRARY_MAX_BYTES, NativePlugin};
use host_runtime::plugin::{ComponentPlugin, PluginFactory};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::args::{Builtin, GuestArg};
use crate::code::{Form, Kind};
use crate::config::BUILTIN;
use crate::exit::{Exit, Failed};
use crate::gateway::native;

/// Address space of the child, in bytes: the program itself maps some hundred MiB, compiling 4 MiB takes a few hundred.
const COMPILE_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// How often the child is looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 10;

/// What can be run.
#[derive(Clone)]
pub(super) enum Guest {
    /// An agent.
    Agent(Arc<AgentBuild>),
    /// A plugin.
    Plugin(Arc<dyn PluginFactory>),
}

impl Guest {
    /// What it is.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Agent(_) => Kind::Agent,
            Self::Plugin(_) => Kind::Plugin,
        }
    }

    /// Its name and version, by itself.
    pub(super) fn who(&self) -> (&str, &str) {
        match self {
            Self::Agent(build) => {
                let who = build.description();
                (&who.name, &who.version)
            }
            Self::Plugin(plugin) => {
                let who = plugin.description();
                (&who.name, &who.version)
            }
        }
    }

    /// What it must be lent, by WIT names; what every agent is lent is not listed.
    pub(super) fn imports(&self) -> &[String] {
        match self {
            Self::Agent(_) => &[],
            Self::Plugin(plugin) => plugin.imports(),
        }
    }

    /// What it says of itself, for people.
    pub(super) fn title(&self) -> String {
        let (name, version) = self.who();
        format!("{} {name} {version}", self.kind())
    }
}

impl Builtin {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Agent => guest_artifacts::AGENT,
            Self::Simple => guest_artifacts::AGENT_SIMPLE,
            Self::FlashFile => guest_artifacts::FLASH_FILE,
            Self::SerialMcu => guest_artifacts::SERIAL_MCU,
        }
    }

    /// Whether the cases say to the letter what it does; of the second agent they ask what the contract does.
    pub(super) fn is_exact(self) -> bool {
        self != Self::Simple
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Simple => "simple",
            Self::FlashFile => "flash-file",
            Self::SerialMcu => "serial-mcu",
        }
    }
}

impl GuestArg {
    /// A path, or `builtin:NAME`.
    ///
    /// # Errors
    /// Nothing of that name ships.
    pub(super) fn at(path: &Path) -> Result<Self, Failed> {
        let name = path.to_str().and_then(|text| text.strip_prefix(BUILTIN));
        let builtin = name.map(|name| Builtin::from_str(name, false)).transpose();
        let builtin = builtin.map_err(|_| {
            let names = Builtin::value_variants().iter();
            let names: Vec<_> = names
                .map(|name| format!("{BUILTIN}{}", name.name()))
                .collect();
            let text = format!(
                "no {} ships; there are: {}",
                path.display(),
                names.join(", ")
            );
            Failed::new(Exit::Usage, text)
        })?;
        Ok(Self {
            file: builtin.is_none().then(|| path.to_owned()),
            builtin,
        })
    }

    /// Load it as an agent.
    ///
    /// # Errors
    /// As [`load`](Self::load); it is a plugin.
    pub(super) fn load_agent(&self, compile_s: u64) -> Result<Arc<AgentBuild>, Failed> {
        match self.load(compile_s)? {
            Guest::Agent(agent) => Ok(agent),
            Guest::Plugin(_) => Err(Failed::new(
                Exit::Refused,
                format!("{} is refused: it is a plugin, not an agent", self.label()),
            )),
        }
    }

    /// What to call it.
    pub(super) fn label(&self) -> String {
        match (&self.file, self.builtin) {
            (Some(file), _) => file.display().to_string(),
            (None, Some(builtin)) => format!("{BUILTIN}{}", builtin.name()),
            (None, None) => "nothing".to_owned(),
        }
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>, Failed> {
        // At most a library's size, and a byte that tells that it was more.
        self.bytes_within(COMPONENT_MAX_BYTES.max(LIBRARY_MAX_BYTES) + 1)
    }

    /// At most so many bytes of it.
    pub(super) fn bytes_within(&self, max: usize) -> Result<Vec<u8>, Failed> {
        match (&self.file, self.builtin) {
            (Some(path), _) => {
                let label = self.label();
                let file = File::open(path);
                read(
                    &label,
                    file.map_err(|e| Failed::chain(Exit::Failed, &label, &e))?,
                    max,
                )
            }
            (None, Some(builtin)) => Ok(builtin.bytes().to_vec()),
            (None, None) => Err(Failed::new(
                Exit::Usage,
                "name a component, or one that ships with --builtin",
            )),
        }
    }

    /// The world that it is of, without compiling it.
    pub(super) fn world(&self) -> Result<&'static World, Failed> {
        let label = self.label();
        let bytes = self.bytes()?;
        match Form::of(&bytes) {
            Some(Form::Native) => Ok(&PLUGIN_WORLD),
            Some(Form::Component) | None => {
                world_of(&bytes).map_err(|refusal| refused(&label, &refusal))
            }
        }
    }

    /// Load it.
    ///
    /// # Errors
    /// It cannot be read; it is refused ([`Exit::Refused`]), with the reason.
    pub(super) fn load(&self, compile_s: u64) -> Result<Guest, Failed> {
        self.load_bytes(&self.bytes()?, compile_s, Time::Real)
    }

    /// Load these bytes of it, which somebody has judged.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(super) fn load_bytes(
        &self,
        bytes: &[u8],
        compile_s: u64,
        time: Time,
    ) -> Result<Guest, Failed> {
        let label = self.label();
        if Form::of(bytes) == Some(Form::Native) {
            let isolation = Isolation::Process(native::host(), Confinement::default());
            return match NativePlugin::load(&label, bytes, isolation) {
                Ok(plugin) => Ok(Guest::Plugin(plugin)),
                Err(reason) => {
                    let text = format!("{label} is refused: {reason}");
                    Err(Failed::new(Exit::Refused, text))
                }
            };
        }
        let world = world_of(bytes).map_err(|refusal| refused(&label, &refusal))?;
        // What ships is compiled here: it is as trusted as the rest of the program.
        let cache = match &self.file {
            Some(file) => Some(Cache::fill(file, bytes, compile_s, time)?),
            None => None,
        };
        let options = EngineOptions {
            only_cached: cache.is_some(),
            cache_dir: cache.as_ref().map(|cache| cache.path().to_owned()),
            time,
        };
        let engine =
            Engine::new(&options).map_err(|e| Failed::chain(Exit::Failed, "the engine", &e))?;
        let loaded = if *world == AGENT_WORLD {
            AgentBuild::load(&engine, &label, bytes).map(Guest::Agent)
        } else {
            ComponentPlugin::load(&engine, &label, bytes).map(|plugin| Guest::Plugin(plugin))
        };
        loaded.map_err(|refusal| refused(&label, &refusal))
    }
}

fn refused(label: &str, refusal: &Refusal) -> Failed {
    Failed::new(Exit::Refused, format!("{label} is refused: {refusal}"))
}

fn read(label: &str, from: impl Read, max: usize) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    from.take(max as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| Failed::chain(Exit::Failed, label, &e))?;
    Ok(bytes)
}

/// The path of a directory of ours alone; what is there goes when it is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A name that nobody has.
    pub(super) fn name() -> Result<Self, Failed> {
        let mut name = [0; 8];
        getrandom::fill(&mut name)
            .map_err(|e| Failed::new(Exit::Failed, format!("no random numbers: {e}")))?;
        let name = format!("otad-check-{:016x}", u64::from_le_bytes(name));
        Ok(Self(std::env::temp_dir().join(name)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory of ours in the place for temporary ones; what stays, the system clears away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Compiled code that only we can read.
struct Cache(Scratch);

impl Cache {
    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Has a child compile the bytes of a file.
    fn fill(file: &Path, bytes: &[u8], compile_s: u64, time: Time) -> Result<Self, Failed> {
        let failed = |e: std::io::Error| Failed::chain(Exit::Failed, "compiling it apart", &e);
        // The engine makes it, with mode 0700, and refuses one that is not ours alone.
        let cache = Self(Scratch::name()?);
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("check")
            .arg("--compile-into")
            .arg(cache.path())
            .arg("--compile-seconds")
            .arg(compile_s.to_string())
            .args(match time {
                Time::Real => None,
                Time::Virtual => Some("--virtual-time"),
                Time::Hasty => Some("--hasty-time"),
            })
            .arg("--")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that does not take them says why by its end.
            let _ = stdin.write_all(bytes);
        }
        let mut said = child.stderr.take();
        // Four times that by the clock, for a machine that is busy with other things.
        let wall_s = compile_s.saturating_mul(4);
        let looks = wall_s.saturating_mul(1000) / LOOK_EVERY_MS;
        for _ in 0..looks {
            if let Some(status) = child.try_wait().map_err(failed)? {
                let mut text = String::new();
                if let Some(stderr) = &mut said {
                    // What cannot be read is not said.
                    let _ = stderr.take(64 * 1024).read_to_string(&mut text);
                }
                return verdict(status, text.trim(), file, compile_s).map(|()| cache);
            }
            std::thread::sleep(Duration::from_millis(LOOK_EVERY_MS));
        }
        child.kill().and_then(|()| child.wait()).map_err(failed)?;
        Err(Failed::new(
            Exit::Refused,
            format!(
                "{} is refused: it was not compiled within {wall_s} s",
                file.display()
            ),
        ))
    }
}

/// How the child ended.
fn verdict(status: ExitStatus, text: &str, file: &Path, compile_s: u64) -> Result<(), Failed> {
    use std::os::unix::process::ExitStatusExt as _;
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(i32::from(Exit::Refused.code())) {
        let text = text.strip_prefix("otad: ").unwrap_or(text);
        return Err(Failed::new(Exit::Refused, text));
    }
    let why = match status.signal() {
        Some(signal) if signal == libc_signal::XCPU || signal == libc_signal::KILL => {
            format!("compiling it takes more than {compile_s} s of processor time")
        }
        Some(libc_signal::ABRT) => format!(
            "compiling it takes more than {} MiB of memory",
            COMPILE_MEMORY_BYTES / 1024 / 1024
        ),
        _ => {
            let last = text.lines().last().unwrap_or_default();
            format!("the compiler's process ended with {status}: {last}")
        }
    };
    Err(Failed::new(
        Exit::Refused,
        format!("{} is refused: {why}", file.display()),
    ))
}

/// Numbers of signals on Linux, the same for every architecture that otad is built for.
mod libc_signal {
    pub(super) const ABRT: i32 = 6;
    pub(super) const KILL: i32 = 9;
    pub(super) const XCPU: i32 = 24;
}

/// The child: compile the component that stands on its standard input into `dir`, under limits that it sets for itself
/// before it reads a byte. `label` is what its parent calls it.
///
/// # Errors
/// It is refused, or the limits cannot be set.
pub(super) fn compile_into(
    dir: &Path,
    label: &str,
    compile_s: u64,
    time: Time,
) -> Result<(), Failed> {
    let limit = |resource, amount: u64| {
        let limit = Rlimit {
            current: Some(amount),
            maximum: Some(amount),
        };
        setrlimit(resource, limit)
            .map_err(|e| Failed::new(Exit::Failed, format!("limits of the compiler: {e}")))
    };
    limit(Resource::Cpu, compile_s)?;
    limit(Resource::As, COMPILE_MEMORY_BYTES)?;
    limit(Resource::Core, 0)?;
    let bytes = read(label, std::io::stdin().lock(), COMPONENT_MAX_BYTES + 1)?;
    let options = EngineOptions {
        cache_dir: Some(dir.to_owned()),
        time,
        ..EngineOptions::default()
    };
    let engine =
        Engine::new(&options).map_err(|e| Failed::chain(Exit::Failed, "the engine", &e))?;
    let world = world_of(&bytes).map_err(|refusal| refused(label, &refusal))?;
    let lent = if *world == AGENT_WORLD {
        AGENT_WORLD.imports
    } else {
        &LENDABLE
    };
    debug_assert!(*world == AGENT_WORLD || *world == PLUGIN_WORLD);
    engine
        .load(&bytes, world, lent)
        .map_err(|refusal| refused(label, &refusal))?;
    Ok(())
}
