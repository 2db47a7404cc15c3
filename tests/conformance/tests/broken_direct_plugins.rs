//! The plugin that a new project begins with, with one bug at a time put round it: `otad check` finds each of them, though
//! it knows nothing of the kind of its target.

use std::sync::Arc;

use conformance::first_finding;
use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::plugin::lend::Lent;
use host_runtime::plugin::{
    Answer, ComponentPlugin, Description, Duty, Extent, Plugin, PluginError, PluginFactory,
    Transfer,
};
use host_runtime::types::{Blob, Failure, Setting, TargetState};
use host_sandbox::check::{Subject, plugin_cases};
use wit_component::ComponentEncoder;

/// A bug, by what the plugin does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// None.
    None,
    /// `reset` traps.
    BreaksInReset,
    /// `reset` begins to use nothing.
    ResetsNothing,
    /// `self-test` traps.
    BreaksInSelfTest,
    /// `commit` traps.
    BreaksInCommit,
    /// `commit` makes nothing permanent.
    CommitsNothing,
    /// `reject` traps.
    BreaksInReject,
    /// `reject` goes back to nothing.
    RejectsNothing,
    /// `reject` leaves it to the host, which `reset` does not.
    LeavesRejectToTheHost,
    /// `reject` makes permanent.
    RejectsByCommitting,
    /// `state` says that something is marked, whatever is.
    AlwaysArmed,
    /// `state` says that all is well, whatever is.
    AlwaysValid,
    /// `state` says that what runs is new, whatever does.
    AlwaysNew,
    /// There is no second update.
    OnlyOnce,
}

const BUGS: [Bug; 13] = [
    Bug::BreaksInReset,
    Bug::ResetsNothing,
    Bug::BreaksInSelfTest,
    Bug::BreaksInCommit,
    Bug::CommitsNothing,
    Bug::BreaksInReject,
    Bug::RejectsNothing,
    Bug::LeavesRejectToTheHost,
    Bug::RejectsByCommitting,
    Bug::AlwaysArmed,
    Bug::AlwaysValid,
    Bug::AlwaysNew,
    Bug::OnlyOnce,
];

/// Makes instances with the bug.
struct Factory {
    sound: Arc<dyn PluginFactory>,
    description: Description,
    bug: Bug,
}

impl PluginFactory for Factory {
    fn label(&self) -> &str {
        self.sound.label()
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports(&self) -> &[String] {
        self.sound.imports()
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        Ok(Box::new(Bent {
            sound: self.sound.make(lent)?,
            bug: self.bug,
            committed: false,
        }))
    }
}

/// The template with the bug round it.
struct Bent {
    sound: Box<dyn Plugin>,
    bug: Bug,
    committed: bool,
}

const DONE: Duty = Duty::Finished(Answer::Nothing);

fn broken() -> Result<Duty, PluginError> {
    Err(PluginError::Broken("it trapped".to_owned()))
}

impl Bent {
    /// Only then `self-test` and `commit` have their bugs: what they refuse before is asked of any plugin.
    fn is_in_test(&mut self) -> Result<bool, PluginError> {
        let told = self.sound.state()?;
        Ok(matches!(told, Duty::Finished(Answer::State(state)) if state.code == 1))
    }
}

impl Plugin for Bent {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        self.sound.open(settings, saved)
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        if self.bug == Bug::OnlyOnce && self.committed {
            let failure = Failure::new(0xe8, 0, "there was one already");
            return Err(PluginError::Failed(failure));
        }
        self.sound.create(transfer)
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.sound.reopen(transfer)
    }

    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        self.sound.write_block(offset, data)
    }

    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        self.sound.extents()
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.sound.examine()
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        self.sound.install()
    }

    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        self.sound.activate(sha256)
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        match self.bug {
            Bug::BreaksInReset => broken(),
            Bug::ResetsNothing => Ok(DONE),
            _ => self.sound.reset(),
        }
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        if !self.is_in_test()? {
            let failure = Failure::new(0xe8, 0, "nothing is in test");
            return Err(PluginError::Failed(failure));
        }
        match self.bug {
            Bug::BreaksInSelfTest => broken(),
            _ => Ok(DONE),
        }
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        self.committed = true;
        let is_in_test = self.is_in_test()?;
        match self.bug {
            Bug::BreaksInCommit if is_in_test => broken(),
            Bug::CommitsNothing if is_in_test => Ok(DONE),
            _ => self.sound.commit(),
        }
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        match self.bug {
            Bug::BreaksInReject => broken(),
            Bug::RejectsNothing => Ok(DONE),
            Bug::LeavesRejectToTheHost => Ok(Duty::Finished(Answer::HostResets)),
            Bug::RejectsByCommitting => self.sound.commit(),
            _ => self.sound.reject(),
        }
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        let told = self.sound.state()?;
        let Duty::Finished(Answer::State(state)) = told else {
            return Ok(told);
        };
        let new = state.runs_new.map(|_| true);
        let state = match self.bug {
            Bug::AlwaysArmed => TargetState { code: 4, ..state },
            // What a mere mark says is asked of any plugin.
            Bug::AlwaysValid if state.code == 1 => TargetState { code: 2, ..state },
            Bug::AlwaysNew => TargetState {
                runs_new: new,
                ..state
            },
            _ => state,
        };
        Ok(Duty::Finished(Answer::State(state)))
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.sound.abort()
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        self.sound.step(budget_bytes)
    }

    fn suspend(&mut self) -> Result<Blob, PluginError> {
        self.sound.suspend()
    }
}

fn template(engine: &Arc<Engine>) -> Arc<dyn PluginFactory> {
    let encoder = ComponentEncoder::default().module(guest_artifacts::TEMPLATE_MODULE);
    let bytes = encoder
        .and_then(|mut encoder| encoder.encode())
        .expect("a component");
    ComponentPlugin::load(engine, "template", &bytes).expect("it loads")
}

#[test]
fn every_bug_of_a_direct_plugin_of_its_own_kind_is_found_and_none_where_there_is_none() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let sound = template(&engine);
    let mut cases = plugin_cases().unwrap();
    // It takes a second, and no bug here is one of memory.
    cases.retain(|case| !case.name.contains("hour"));
    let found = |bug| {
        let mut description = sound.description().clone();
        // The bench asks only what has the capability for a test of its own.
        description.capabilities |= host_runtime::plugin::capability::SELF_TEST;
        let factory = Factory {
            sound: Arc::clone(&sound),
            description,
            bug,
        };
        let subject = Subject::Plugin {
            factory: Arc::new(factory),
            settings: Vec::new(),
        };
        first_finding(&subject, &cases)
    };
    let mut missed = Vec::new();
    for bug in BUGS {
        match found(bug) {
            Some(what) => println!("{bug:?}: {what}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
    assert_eq!(found(Bug::None), None);
}
