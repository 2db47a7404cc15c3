//! The checkers are checked: what a gateway must not do is found.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be set up has nothing to test"
)]

use std::io;
use std::sync::Arc;

use host_runtime::ports::state_dir::{FileStateDir, Files, StateDir};
use host_sandbox::explore::{self, Found};
use host_sandbox::scenario::by_name;
use host_sandbox::trace::Event;
use host_sandbox::{
    Ailment, Cut, CutKind, Moment, Options, Quirk, Spell, Verb, WorldFiles, native_pal,
};

/// Cuts of a plain update under these options: some of them, which is what finds almost everything that is looked for.
fn explored(options: &Options, spells: Vec<Spell>) -> Found {
    explored_by(options, spells, 29)
}

fn explored_by(options: &Options, spells: Vec<Spell>, stride: usize) -> Found {
    let mut scenario = by_name("plain").unwrap();
    scenario.spells = spells;
    explore::every_cut(&scenario.prepare(), options, stride)
}

fn names(found: &Found) -> Vec<&'static str> {
    let all = found.failed.iter().flat_map(|failed| &failed.violations);
    let mut names: Vec<_> = all.map(|violation| violation.invariant).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn with_quirk(quirk: Quirk) -> Found {
    let options = Options {
        pal: native_pal(Some(quirk)),
        ..Options::native(1)
    };
    explored(&options, Vec::new())
}

#[test]
fn without_a_fault_nothing_is_found() {
    assert_eq!(names(&explored(&Options::native(1), Vec::new())), [""; 0]);
}

#[test]
fn a_commit_before_the_test_is_found() {
    let found = with_quirk(Quirk::CommitsUntested);
    assert!(names(&found).contains(&"commit after test"), "{found:?}");
}

#[test]
fn a_commit_in_two_steps_is_found() {
    let found = with_quirk(Quirk::CommitsTwice);
    let names = names(&found);
    assert!(names.contains(&"steps of the boot record"), "{found:?}");
    assert!(!names.contains(&"no wedge"), "{found:?}");
}

#[test]
fn a_plugin_that_forgets_what_is_in_test_is_a_reason_to_end_and_not_to_go_round() {
    let options = Options {
        pal: native_pal(Some(Quirk::CommitsTwice)),
        ..Options::native(1)
    };
    let prepared = by_name("short").unwrap().prepare();
    let found = explore::every_cut(&prepared, &options, 3);
    assert!(!names(&found).contains(&"no wedge"), "{found:?}");
}

#[test]
fn a_record_written_over_the_copy_that_counts_is_found() {
    let options = Options {
        pal: native_pal(Some(Quirk::OverwritesRecord)),
        trace: true,
        ..Options::native(1)
    };
    let prepared = by_name("short").unwrap().prepare();
    let learned = explore::run(&prepared, options.clone());
    let writes = learned
        .trace
        .events()
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Call {
                number,
                verb: Verb::Write,
                place,
                ..
            } if place == "app/record" => Some(*number),
            _ => None,
        });
    let found = writes.filter(|call| {
        let cut = Cut {
            call: *call,
            moment: Moment::During,
            kind: CutKind::Kill,
        };
        let options = Options {
            cuts: vec![cut],
            ..options.clone()
        };
        !explore::run(&prepared, options).violations.is_empty()
    });
    assert!(found.count() > 0);
}

#[test]
fn a_record_that_a_plugin_does_not_sync_the_host_does() {
    let options = Options {
        pal: native_pal(Some(Quirk::ForgetsSync)),
        ..Options::native(1)
    };
    let found = explore::every_cut(&by_name("short").unwrap().prepare(), &options, 1);
    assert_eq!(names(&found), [""; 0], "{found:?}");
}

#[test]
fn a_plugin_that_marks_what_has_not_come_is_stopped_by_the_host_and_found() {
    let found = with_quirk(Quirk::ArmsAtCreate);
    let names = names(&found);
    assert!(names.contains(&"ends as told"), "{found:?}");
    assert!(!names.contains(&"nothing unverified"), "{found:?}");
}

#[test]
fn a_removed_fsync_is_found_wherever_it_was() {
    for place in ["app/slot-b", "app/record", "devices/", "targets/"] {
        let spell = Spell {
            place: place.to_owned(),
            ..Spell::always(Ailment::SyncLies)
        };
        // The journal alone is lost at few cuts.
        let found = explored_by(&Options::native(1), vec![spell], 5);
        assert!(!found.failed.is_empty(), "{place}");
    }
}

/// A state directory in which one step of a store is left out or comes too early.
struct Careless<F> {
    files: F,
    how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    RenameFirst,
    NoFileSync,
    NoDirectorySync,
    InPlace,
}

impl<F: Files> Careless<F> {
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = format!("{name}.new");
        let mut file = self.files.create(&draft)?;
        file.write(bytes)?;
        if self.how == How::RenameFirst {
            self.files.rename(&draft, name)?;
            self.files.sync_directory(name)?;
            return file.sync();
        }
        if self.how == How::NoDirectorySync {
            file.sync()?;
        }
        self.files.rename(&draft, name)?;
        if self.how == How::NoFileSync {
            self.files.sync_directory(name)?;
        }
        Ok(())
    }
}

impl<F: Files> StateDir for Careless<F> {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.files.read(name)
    }
    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.how == How::InPlace {
            let mut file = self.files.create(name)?;
            file.write(bytes)?;
            file.sync()?;
            return self.files.sync_directory(name);
        }
        self.write(name, bytes)
    }
    fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        if sync && self.how == How::RenameFirst {
            // By writing all of it anew, so that there is something to rename.
            let mut all = self.files.read(name)?.unwrap_or_default();
            all.extend_from_slice(bytes);
            return self.write(name, &all);
        }
        let (mut file, fresh) = self.files.append(name)?;
        file.write(bytes)?;
        if sync {
            file.sync()?;
            if fresh {
                self.files.sync_directory(name)?;
            }
        }
        Ok(())
    }
    fn settle(&self, name: &str) -> io::Result<()> {
        if self.files.read(name)?.is_none() {
            return Ok(());
        }
        self.files.append(name)?.0.sync()?;
        self.files.sync_directory(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        match self.files.remove(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            end => end,
        }
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.files.list(folder)
    }
}

fn careless(files: WorldFiles, how: How) -> Arc<dyn StateDir> {
    Arc::new(Careless { files, how })
}

#[test]
fn a_store_with_a_step_too_few_or_too_early_is_found() {
    let makers: [fn(WorldFiles) -> Arc<dyn StateDir>; 4] = [
        |files| careless(files, How::RenameFirst),
        |files| careless(files, How::NoFileSync),
        |files| careless(files, How::NoDirectorySync),
        |files| careless(files, How::InPlace),
    ];
    for (number, make) in makers.into_iter().enumerate() {
        let options = Options {
            state: Some(make),
            ..Options::native(1)
        };
        // What a rename before its fsync loses, it loses between two calls.
        let found = |stride| !explored_by(&options, Vec::new(), stride).failed.is_empty();
        assert!([29, 3].into_iter().any(found), "number {number}");
    }
    let right: fn(WorldFiles) -> Arc<dyn StateDir> = |files| Arc::new(FileStateDir::over(files));
    let options = Options {
        state: Some(right),
        ..Options::native(1)
    };
    assert_eq!(names(&explored(&options, Vec::new())), [""; 0]);
}
