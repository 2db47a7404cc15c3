//! Pushing ahead: a staged plugin gets the file while it comes, marks nothing, and the agent's install takes over.

use std::sync::{Arc, Mutex};

use super::world::{FILE, Setup, World};
use crate::plugin::lend::Lent;
use crate::plugin::{
    Answer, Description, Duty, Extent, Plugin, PluginError, PluginFactory, Transfer, WakeOn,
    capability,
};
use crate::types::{Blob, Failure, Outcome, Setting, TargetState, code};

/// What was done, whichever instance did it.
#[derive(Default)]
struct Done {
    /// Bytes that the target has.
    pushed: Vec<u8>,
    installs: u32,
    /// Installs that fail, counted down.
    failing: u32,
    /// It says that it is finished as soon as it has sent what there is.
    hasty: bool,
}

struct Factory {
    description: Description,
    imports: Vec<String>,
    done: Arc<Mutex<Done>>,
}

impl PluginFactory for Factory {
    fn label(&self) -> &str {
        "test:eager"
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports(&self) -> &[String] {
        &self.imports
    }

    fn make(&self, lent: Lent) -> Result<Box<dyn Plugin>, PluginError> {
        Ok(Box::new(Eager {
            lent,
            done: Arc::clone(&self.done),
            size: 0,
        }))
    }
}

struct Eager {
    lent: Lent,
    done: Arc<Mutex<Done>>,
    size: u64,
}

const NOTHING: Result<Duty, PluginError> = Ok(Duty::Finished(Answer::Nothing));

impl Eager {
    fn push(&mut self) -> Result<Duty, PluginError> {
        let staged = self.lent.staged_image.clone().unwrap();
        let mut done = self.done.lock().unwrap();
        let (from, to) = (done.pushed.len() as u64, staged.held());
        if to > from {
            let bytes = staged.read_at(from, (to - from) as u32).unwrap();
            done.pushed.extend(bytes);
        }
        if (to == self.size && staged.verified()) || done.hasty {
            return NOTHING;
        }
        Ok(Duty::Working {
            done: to,
            total: self.size,
            wake: WakeOn {
                on_data: true,
                after_ms: Some(1000),
                ..WakeOn::default()
            },
        })
    }

    fn know(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.size = transfer.size;
        NOTHING
    }
}

impl Plugin for Eager {
    fn open(&mut self, _: &[Setting], _: Option<&Blob>) -> Result<(), PluginError> {
        Ok(())
    }
    fn create(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.know(transfer)
    }
    fn reopen(&mut self, transfer: &Transfer) -> Result<Duty, PluginError> {
        self.know(transfer)
    }
    fn write_block(&mut self, _: u64, _: &[u8]) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn extents(&mut self) -> Result<Vec<Extent>, PluginError> {
        Ok(Vec::new())
    }
    fn examine(&mut self) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn install(&mut self) -> Result<Duty, PluginError> {
        {
            let mut done = self.done.lock().unwrap();
            done.installs += 1;
            if done.failing > 0 {
                done.failing -= 1;
                let failure = Failure::new(code::UNREACHABLE, 0, "silent");
                return Err(PluginError::Failed(failure));
            }
        }
        self.push()
    }
    fn activate(&mut self, _: &[u8; 32]) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn reset(&mut self) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn self_test(&mut self) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn commit(&mut self) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn reject(&mut self) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn state(&mut self) -> Result<Duty, PluginError> {
        Ok(Duty::Finished(Answer::State(TargetState {
            code: 2,
            running: None,
            runs_new: Some(false),
        })))
    }
    fn abort(&mut self) -> Result<Duty, PluginError> {
        NOTHING
    }
    fn step(&mut self, _: u32) -> Result<Duty, PluginError> {
        self.push()
    }
    fn suspend(&mut self) -> Result<Blob, PluginError> {
        Ok(Blob {
            schema: 1,
            bytes: Vec::new(),
        })
    }
}

fn factory(done: &Arc<Mutex<Done>>, more: u32) -> Arc<dyn PluginFactory> {
    Arc::new(Factory {
        description: Description {
            name: "eager".into(),
            version: "1.0.0".into(),
            kinds: vec!["double".into()],
            capabilities: capability::STAGED | capability::REVERT | more,
            largest_write: 0,
            schemas: vec![1],
        },
        imports: vec!["staged-image".into()],
        done: Arc::clone(done),
    })
}

fn world() -> (World, Arc<Mutex<Done>>) {
    let done: Arc<Mutex<Done>> = Arc::default();
    let world = World::new(Setup {
        staged: true,
        plugin: Some(factory(&done, capability::AHEAD)),
        ..Setup::default()
    });
    (world, done)
}

#[test]
fn what_is_held_without_a_gap_is_pushed_while_the_rest_comes() {
    let (mut world, done) = world();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    assert_eq!(done.lock().unwrap().installs, 0, "there is nothing yet");
    world.write_blocks(&image, 0..2);
    world.poll();
    assert_eq!(done.lock().unwrap().pushed, image[..2048]);
    world.write_blocks(&image, 3..6);
    world.poll();
    assert_eq!(done.lock().unwrap().pushed, image[..2048], "a gap");
    world.write_blocks(&image, 2..3);
    world.poll();
    assert_eq!(done.lock().unwrap().pushed, image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(done.lock().unwrap().installs, 1, "one push in all");
}

#[test]
fn a_build_that_cannot_push_ahead_is_not_asked_to_go_on_with_it() {
    let (mut world, done) = world();
    let image = World::image(5000, 2);
    assert_eq!(world.create("job-1", &image), Outcome::Nothing);
    world.write_blocks(&image, 0..2);
    world.poll();
    assert_eq!(done.lock().unwrap().installs, 1);
    let late = factory(&done, 0);
    let took_over = |end: Result<(), Failure>| end.unwrap();
    world.targets.swap(FILE, late, Box::new(took_over));
    for _ in 0..10 {
        world.poll();
    }
    world.write_blocks(&image, 2..6);
    world.poll();
    assert_eq!(done.lock().unwrap().installs, 1);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.install(), Outcome::Nothing);
    let done = done.lock().unwrap();
    assert_eq!((done.installs, &done.pushed), (2, &image));
}

#[test]
fn a_question_ends_the_push_and_it_begins_again() {
    let (mut world, done) = world();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.poll();
    assert_eq!(world.state_now().code, 2);
    world.write_blocks(&image, 2..6);
    world.poll();
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.install(), Outcome::Nothing);
    let done = done.lock().unwrap();
    assert_eq!(done.pushed, image);
    assert!(done.installs >= 2, "{}", done.installs);
}

#[test]
fn a_push_that_fails_is_left_to_the_agents_install() {
    let (mut world, done) = world();
    done.lock().unwrap().failing = 1;
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.poll();
    assert_eq!(done.lock().unwrap().pushed, [0; 0]);
    world.write_blocks(&image, 2..6);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(done.lock().unwrap().pushed, image);
    assert_eq!(done.lock().unwrap().installs, 2);
}

#[test]
fn an_end_before_the_file_is_verified_is_not_believed() {
    let (mut world, done) = world();
    done.lock().unwrap().hasty = true;
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.poll();
    world.write_blocks(&image, 2..6);
    done.lock().unwrap().hasty = false;
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(done.lock().unwrap().pushed, image);
    assert_eq!(done.lock().unwrap().installs, 2, "asked again");
}

#[test]
fn a_transfer_that_is_thrown_away_is_pushed_no_further() {
    let (mut world, done) = world();
    let image = World::image(5000, 2);
    world.create("job-1", &image);
    world.write_blocks(&image, 0..2);
    world.poll();
    assert_eq!(world.abort(), Outcome::Nothing);
    world.poll();
    assert_eq!(done.lock().unwrap().installs, 1);
    assert_eq!(world.create("job-2", &image), Outcome::Nothing);
    world.poll();
    assert_eq!(done.lock().unwrap().installs, 1, "nothing of it is held");
}
