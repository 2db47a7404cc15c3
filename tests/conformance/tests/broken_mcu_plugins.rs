//! The plugin for MCUs with one bug at a time, put round the shipped one: `otad check` finds each of them, by the cases with
//! an MCU on the line alone.

use std::collections::VecDeque;
use std::sync::Arc;

use conformance::first_finding;
use host_runtime::engine::{Engine, EngineOptions};
use host_runtime::plugin::lend::{HardwareReset, Lent};
use host_runtime::plugin::{
    Answer, ComponentPlugin, Description, Duty, Extent, Plugin, PluginError, PluginFactory,
    Transfer,
};
use host_runtime::types::{Blob, Setting, TargetState};
use host_sandbox::check::script::Case;
use host_sandbox::check::{Subject, plugin_cases};

/// A bug, by what the plugin does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// `activate` marks nothing.
    MarksNothing,
    /// `install` marks already.
    MarksEarly,
    /// A failed `install` says done.
    InstallsAnyhow,
    /// `reset` restarts nothing.
    ResetsNothing,
    /// `reset` restarts whatever runs.
    ResetsAlways,
    /// `reset` restarts once more when the new image is up.
    ResetsTwice,
    /// `self-test` confirms.
    ConfirmsEarly,
    /// `self-test` passes without a look.
    PassesUnseen,
    /// `commit` confirms nothing.
    ConfirmsNothing,
    /// `reject` takes nothing back.
    RejectsNothing,
    /// `reject` confirms what runs.
    RejectsByConfirming,
    /// `state` tells what was done last, and not what the target says.
    Remembers,
    /// A silent target is said to be well.
    GuessesValid,
    /// Any bootloader will do.
    TakesAnyBootloader,
}

const BUGS: [Bug; 14] = [
    Bug::MarksNothing,
    Bug::MarksEarly,
    Bug::InstallsAnyhow,
    Bug::ResetsNothing,
    Bug::ResetsAlways,
    Bug::ResetsTwice,
    Bug::ConfirmsEarly,
    Bug::PassesUnseen,
    Bug::ConfirmsNothing,
    Bug::RejectsNothing,
    Bug::RejectsByConfirming,
    Bug::Remembers,
    Bug::GuessesValid,
    Bug::TakesAnyBootloader,
];

/// Makes instances with the bug.
struct Factory {
    sound: Arc<dyn PluginFactory>,
    bug: Bug,
}

impl PluginFactory for Factory {
    fn label(&self) -> &str {
        self.sound.label()
    }

    fn description(&self) -> &Description {
        self.sound.description()
    }

    fn imports(&self) -> &[String] {
        self.sound.imports()
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        let reset = lent.hardware_reset.clone().expect("it is lent");
        Ok(Box::new(Bent {
            sound: self.sound.make(lent)?,
            bug: self.bug,
            reset,
            then: VecDeque::new(),
            duty: "",
            done: "",
        }))
    }
}

/// Begins a duty.
type Begin = fn(&mut dyn Plugin) -> Result<Duty, PluginError>;

/// The shipped plugin with the bug round it.
struct Bent {
    sound: Box<dyn Plugin>,
    bug: Bug,
    reset: Arc<dyn HardwareReset>,
    /// Duties that follow the one under way.
    then: VecDeque<Begin>,
    /// The duty under way, and the one that was done last.
    duty: &'static str,
    done: &'static str,
}

const DONE: Duty = Duty::Finished(Answer::Nothing);

fn state(code: u8, runs_new: bool) -> Duty {
    Duty::Finished(Answer::State(TargetState {
        code,
        running: None,
        runs_new: Some(runs_new),
    }))
}

impl Bent {
    fn begin(
        &mut self,
        name: &'static str,
        duty: impl FnOnce(&mut dyn Plugin) -> Result<Duty, PluginError>,
    ) -> Result<Duty, PluginError> {
        self.duty = name;
        let begun = duty(&mut *self.sound);
        self.on(begun)
    }

    /// What comes of a duty.
    fn on(&mut self, came: Result<Duty, PluginError>) -> Result<Duty, PluginError> {
        match came {
            Ok(Duty::Finished(answer)) => {
                self.done = self.duty;
                if self.duty == "reset" && self.bug == Bug::ResetsTwice {
                    self.reset.pulse(0).map_err(PluginError::Failed)?;
                }
                match (&answer, self.then.pop_front()) {
                    (_, Some(next)) => {
                        let begun = next(&mut *self.sound);
                        self.on(begun)
                    }
                    (Answer::State(told), None)
                        if told.code == 0 && self.bug == Bug::GuessesValid =>
                    {
                        Ok(state(2, false))
                    }
                    (_, None) => Ok(Duty::Finished(answer)),
                }
            }
            Err(PluginError::Failed(_))
                if self.duty == "install" && self.bug == Bug::InstallsAnyhow =>
            {
                Ok(DONE)
            }
            // Its progress would go back where another duty follows, and that is not the bug.
            Ok(Duty::Working { wake, .. }) => Ok(Duty::Working {
                done: 0,
                total: 0,
                wake,
            }),
            other => other,
        }
    }
}

impl Plugin for Bent {
    fn open(&mut self, settings: &[Setting], saved: Option<&Blob>) -> Result<(), PluginError> {
        let mut settings = settings.to_vec();
        if self.bug == Bug::TakesAnyBootloader {
            settings.push(Setting {
                key: "allow_no_revert".to_owned(),
                value: "overwrite".to_owned(),
            });
        }
        self.sound.open(&settings, saved)
    }

    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.begin("create", |sound| sound.create(transfer))
    }

    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.begin("reopen", |sound| sound.reopen(transfer))
    }

    fn write_block(&mut self, offset: u64, data: &[u8]) -> Result<Duty, PluginError> {
        self.sound.write_block(offset, data)
    }

    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        self.sound.extents()
    }

    fn examine(&mut self) -> Result<Duty, PluginError> {
        self.begin("examine", |sound| sound.examine())
    }

    fn install(&mut self) -> Result<Duty, PluginError> {
        if self.bug == Bug::MarksEarly {
            self.then.push_back(|sound| sound.activate(&[0; 32]));
        }
        self.begin("install", |sound| sound.install())
    }

    fn activate(&mut self, sha256: &[u8; 32]) -> Result<Duty, PluginError> {
        match self.bug {
            Bug::MarksNothing => Ok(DONE),
            _ => self.begin("activate", |sound| sound.activate(sha256)),
        }
    }

    fn reset(&mut self) -> Result<Duty, PluginError> {
        match self.bug {
            Bug::ResetsNothing => Ok(DONE),
            Bug::ResetsAlways => {
                self.reset.pulse(0).map_err(PluginError::Failed)?;
                Ok(DONE)
            }
            _ => self.begin("reset", |sound| sound.reset()),
        }
    }

    fn self_test(&mut self) -> Result<Duty, PluginError> {
        match self.bug {
            Bug::PassesUnseen => return Ok(DONE),
            Bug::ConfirmsEarly => self.then.push_back(|sound| sound.commit()),
            _ => {}
        }
        self.begin("self-test", |sound| sound.self_test())
    }

    fn commit(&mut self) -> Result<Duty, PluginError> {
        match self.bug {
            Bug::ConfirmsNothing => Ok(DONE),
            _ => self.begin("commit", |sound| sound.commit()),
        }
    }

    fn reject(&mut self) -> Result<Duty, PluginError> {
        match self.bug {
            Bug::RejectsNothing => Ok(DONE),
            Bug::RejectsByConfirming => self.begin("reject", |sound| sound.commit()),
            _ => self.begin("reject", |sound| sound.reject()),
        }
    }

    fn state(&mut self) -> Result<Duty, PluginError> {
        match (self.bug, self.done) {
            (Bug::Remembers, "activate") => Ok(state(4, false)),
            (Bug::Remembers, "reset" | "self-test") => Ok(state(1, true)),
            (Bug::Remembers, "commit") => Ok(state(2, true)),
            _ => self.begin("state", |sound| sound.state()),
        }
    }

    fn abort(&mut self) -> Result<Duty, PluginError> {
        self.begin("abort", |sound| sound.abort())
    }

    fn step(&mut self, budget_bytes: u32) -> Result<Duty, PluginError> {
        let stepped = self.sound.step(budget_bytes);
        self.on(stepped)
    }

    fn suspend(&mut self) -> Result<Blob, PluginError> {
        self.sound.suspend()
    }
}

/// What is found in a plugin.
fn found(factory: Arc<dyn PluginFactory>, cases: &[Case]) -> Option<String> {
    let subject = Subject::Plugin {
        factory,
        settings: Vec::new(),
    };
    first_finding(&subject, cases)
}

#[test]
fn every_bug_of_a_plugin_for_mcus_is_found_and_none_where_there_is_none() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let sound: Arc<dyn PluginFactory> =
        ComponentPlugin::load(&engine, "serial-mcu", guest_artifacts::SERIAL_MCU).unwrap();
    let mut cases = plugin_cases().unwrap();
    cases.retain(|case| case.file.ends_with("serial-mcu.txt"));
    assert!(cases.len() >= 25, "{}", cases.len());
    assert_eq!(found(Arc::clone(&sound), &cases), None);
    let mut missed = Vec::new();
    for bug in BUGS {
        let sound = Arc::clone(&sound);
        match found(Arc::new(Factory { sound, bug }), &cases) {
            Some(what) => println!("{bug:?}: {what}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn what_a_step_does_is_held_to_the_duty_that_was_begun() {
    let engine = Engine::new(&EngineOptions::default()).unwrap();
    let sound = ComponentPlugin::load(&engine, "serial-mcu", guest_artifacts::SERIAL_MCU).unwrap();
    let mut cases = plugin_cases().unwrap();
    cases.retain(|case| case.name == "a-push-to-an-mcu-that-goes-on-by-steps-marks-nothing");
    let bug = Bug::MarksEarly;
    let what = found(Arc::new(Factory { sound, bug }), &cases).expect("it marks in a step");
    assert!(what.contains("Install marks an image"), "{what}");
}
