//! Hooks: programs of the application in other processes, which decide about updates or are told of them.
//!
//! ```text
//! device ─ event ring ─▶ run.rs ─ JSON on standard input ─▶ program ─ exit code, standard output ─▶ answer.rs ─ command ─▶ device
//! ```
//!
//! A device never waits for a hook: hooks read its events like any other reader, and their answers come in like an
//! operator's. What the exit codes mean is in `answer`; what happens when a hook is missing, hangs or fails stands
//! there too, for it is an answer like the others. Not here: the configuration of hooks (`config::hooks`), and
//! processes (`host_runtime::ports::commands`).

mod answer;
mod input;
mod run;
mod waiting;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use host_runtime::types::FileId;
use tokio::sync::Semaphore;

use crate::config::{Activation, Config, Device, Hook, Hooks, keys};

pub(crate) use answer::{result, status};
pub use run::serve;
pub use waiting::{JobView, Waiting, jobs, waiting};

/// Hooks that run at once in one daemon; more wait. A gateway of a thousand devices must not start a thousand shells.
pub const HOOKS_MAX: usize = 16;

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Is the offered job to be taken?
    Job,
    /// May the target restart into the new image now?
    Activate,
    /// Is the image in test good?
    StartTest,
    /// A job has failed; there is nothing to decide.
    Fail,
    /// Whose is this job that is no update?
    CustomJob,
}

impl Kind {
    /// The hook that an application event is for; numbers of `os.wit`.
    #[must_use]
    pub fn of_event(kind: u32) -> Option<Self> {
        match kind {
            0 => Some(Self::Activate),
            1 => Some(Self::Fail),
            2 => Some(Self::StartTest),
            5 => Some(Self::CustomJob),
            6 => Some(Self::Job),
            _ => None,
        }
    }

    /// Its key in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Activate => "activate",
            Self::StartTest => "start_test",
            Self::Fail => "fail",
            Self::CustomJob => "custom_job",
        }
    }
}

/// What hooks are told about a target, and which of them it has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TargetPlan {
    name: String,
    /// Its activation waits for an order.
    deferred: bool,
    /// The verdict of its self-test comes from outside.
    external: bool,
}

/// The hooks of one device and what they need to know.
#[derive(Clone, Debug)]
pub struct Plan {
    device: String,
    hooks: Hooks,
    targets: BTreeMap<FileId, TargetPlan>,
    /// Offers are made and answered.
    asks: bool,
    /// When a question is put again for which a hook gave no time.
    later_ms: u64,
    config: PathBuf,
    socket: PathBuf,
    places: Arc<Semaphore>,
}

impl Plan {
    /// The plan of a device; `None` if it has no hooks.
    #[must_use]
    pub fn new(config: &Config, device: &Device, places: &Arc<Semaphore>) -> Option<Self> {
        device.hooks.all().next()?;
        let set = |key: &str| device.agent.iter().find(|s| s.key == key);
        let reminder = &keys::ACTIVATION_REMINDER_MS;
        let targets = device.targets.iter().map(|target| {
            let external = target
                .agent_settings
                .iter()
                .any(|s| s.key == "self_test" && s.value == "external");
            let plan = TargetPlan {
                name: target.name.value.clone(),
                deferred: target.activation == Activation::Deferred,
                external,
            };
            (target.file_id, plan)
        });
        let whole = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Some(Self {
            device: device.name.value.clone(),
            hooks: device.hooks.clone(),
            targets: targets.collect(),
            asks: set("on_job").is_some_and(|s| s.value == "ask"),
            later_ms: set(reminder.key)
                .and_then(|s| s.value.parse().ok())
                .unwrap_or_else(|| reminder.otherwise()),
            config: whole(&config.file),
            socket: whole(&config.daemon.control_socket.value),
            places: Arc::clone(places),
        })
    }

    /// The hooks for an event about this file, if the operator wants them asked: one, or the chain of parsers.
    fn hooks(&self, kind: Kind, file: Option<FileId>) -> &[Hook] {
        let target = file.and_then(|file| self.targets.get(&file));
        match kind {
            Kind::Job if self.asks => self.hooks.job.as_slice(),
            Kind::Activate if target.is_some_and(|t| t.deferred) => self.hooks.activate.as_slice(),
            Kind::StartTest if target.is_some_and(|t| t.external) => {
                self.hooks.start_test.as_slice()
            }
            Kind::Job | Kind::Activate | Kind::StartTest => &[],
            Kind::Fail => self.hooks.fail.as_slice(),
            Kind::CustomJob => &self.hooks.custom_job,
        }
    }
}

#[cfg(test)]
mod tests;
