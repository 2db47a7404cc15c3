//! `otad check`: is this component fit to ship? Conformance cases as data, run on anybody's agent or plugin.
//!
//! A component is judged at its boundary, through the host's own engine with its limits, in virtual time and without any
//! hardware, cloud or network. [`run`] plays the cases of `cases/` in parallel; which one judges what is in [`agent`] and
//! [`plugin`]. Not here: files, processes and reports, which are the program's; random faults and crashes, which are
//! `crate::explore`'s.

pub mod agent;
pub mod plugin;
pub mod script;
pub mod verdict;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use host_runtime::agent::AgentBuild;
use host_runtime::plugin::PluginFactory;
use host_runtime::ports::clock::Clock;
use host_runtime::types::Setting;

use script::{Case, ScriptError};
use verdict::{Judged, Report, Skip, Verdict};

/// Cases in which a component may break without having passed one: what breaks so often breaks always, and every further
/// case may cost a whole budget of fuel.
const BROKEN_MAX: usize = 8;

/// What is judged.
#[derive(Clone)]
pub enum Subject {
    /// A component of world `agent`, or agent-core in this process.
    Agent(Arc<AgentBuild>),
    /// A component of world `plugin`, or any other carrier of one.
    Plugin {
        /// The build.
        factory: Arc<dyn PluginFactory>,
        /// Settings that every instance is opened with, as an operator would give them.
        settings: Vec<Setting>,
    },
    /// A plugin that keeps things where nobody has lent it anything, such as a library in files: loaded anew for each case.
    PluginAnew {
        /// Loads it, with places of its own; what goes wrong, in words.
        load: Arc<Load>,
        /// As above.
        settings: Vec<Setting>,
    },
}

/// Loads a plugin for one case.
pub type Load = dyn Fn() -> Result<Arc<dyn PluginFactory>, String> + Send + Sync;

impl Subject {
    /// All cases for one of its kind.
    ///
    /// # Errors
    /// A case file is none: a defect of this build.
    pub fn cases(&self) -> Result<Vec<Case>, ScriptError> {
        match self {
            Self::Agent(_) => agent_cases(),
            Self::Plugin { .. } | Self::PluginAnew { .. } => plugin_cases(),
        }
    }

    fn judge(&self, case: &Case, exact: bool) -> Verdict {
        match self {
            Self::Agent(build) => agent::judge::judge(build, case, exact),
            Self::Plugin { factory, settings } => plugin::judge::judge(factory, settings, case),
            Self::PluginAnew { load, settings } => match load() {
                Ok(factory) => plugin::judge::judge(&factory, settings, case),
                Err(reason) => Verdict::Broken(reason),
            },
        }
    }
}

/// The cases for agents.
///
/// # Errors
/// A case file is none: a defect of this build.
pub fn agent_cases() -> Result<Vec<Case>, ScriptError> {
    let files = agent::files()?;
    Ok(files.into_iter().flat_map(|file| file.cases).collect())
}

/// The cases for plugins.
///
/// # Errors
/// A case file is none: a defect of this build.
pub fn plugin_cases() -> Result<Vec<Case>, ScriptError> {
    let files = plugin::files()?;
    Ok(files.into_iter().flat_map(|file| file.cases).collect())
}

/// How cases are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Cases at once.
    pub jobs: NonZeroUsize,
    /// Also judge how the shipped build does what the contract leaves open.
    pub exact: bool,
}

/// Runs cases on a component; `each` hears of every case as it ends, in no particular order.
pub fn run(
    subject: &Subject,
    cases: &[Case],
    options: Options,
    clock: &dyn Clock,
    each: impl FnMut(&Judged) + Send,
) -> Report {
    let began = clock.now_ms();
    let next = AtomicUsize::new(0);
    let strikes = Strikes::default();
    let judged: Mutex<Vec<Option<Judged>>> = Mutex::new(vec![None; cases.len()]);
    let each = Mutex::new(each);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.get().min(cases.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    let began = clock.now_ms();
                    let verdict = strikes.judge(subject, case, options.exact);
                    let ended = Judged {
                        name: case.name.clone(),
                        purpose: case.purpose(),
                        source: case.source.clone(),
                        verdict,
                        took_ms: clock.now_ms().saturating_sub(began),
                    };
                    each.lock().unwrap_or_else(PoisonError::into_inner)(&ended);
                    let mut judged = judged.lock().unwrap_or_else(PoisonError::into_inner);
                    judged[at] = Some(ended);
                }
            });
        }
    });
    let judged = judged.into_inner().unwrap_or_else(PoisonError::into_inner);
    Report {
        cases: judged.into_iter().flatten().collect(),
        took_ms: clock.now_ms().saturating_sub(began),
    }
}

/// Ends the run of a component that does nothing but break.
#[derive(Default)]
struct Strikes {
    broken: AtomicUsize,
    passed: AtomicUsize,
}

impl Strikes {
    fn judge(&self, subject: &Subject, case: &Case, exact: bool) -> Verdict {
        let broken = self.broken.load(Ordering::Relaxed);
        if broken >= BROKEN_MAX && self.passed.load(Ordering::Relaxed) == 0 {
            return Verdict::Skipped(Skip::Breaks(broken));
        }
        let verdict = subject.judge(case, exact);
        match verdict {
            Verdict::Broken(_) => self.broken.fetch_add(1, Ordering::Relaxed),
            Verdict::Passed => self.passed.fetch_add(1, Ordering::Relaxed),
            Verdict::Failed(_) | Verdict::Skipped(_) => 0,
        };
        verdict
    }
}
