//! `otad target init`: lays down the first image of a flash-file target.
//!
//! The image is copied into a slot, the host notes it as verified, and the record says that it is confirmed: whoever may
//! run this command on the machine vouches for the image. This is the one record that the plugin does not write; it is
//! written while no plugin lives. Not here: updates.
//!
//! ```text
//! slot      the image, into the slot that is not the confirmed one (slot a, where none is)
//! list      the new image beside the old ones; what the host knew of the slots is forgotten
//! record    the new image is confirmed, in one rename
//! list      the new image alone; its slot is the committed one
//! ```
//!
//! A cut anywhere leaves an image that can be launched, if there was one: the old one, or the new one from the record on.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use host_runtime::ports::state_dir::StateDir;
use host_runtime::target::verified_record::{self, VerifiedImage};

use crate::exit::{Exit, Failed};
use crate::image::{self, Facts, draft_of};
use crate::launch::record::{COPY_BYTES, Doubled as _, Image, Record, Slot, State};
use crate::launch::{Files, PROGRAM_MODE, RECORD_MODE, make_directory, sync_directory};

/// Where the image goes.
#[derive(Debug)]
pub struct Place<'a> {
    /// Device.
    pub device: &'a str,
    /// Target.
    pub target: &'a str,
    /// Its files.
    pub files: &'a Files,
    /// Bytes of a slot.
    pub slot_size_bytes: u64,
    /// Replace what is there.
    pub force: bool,
}

/// What was laid down.
#[derive(Debug)]
pub struct Laid {
    /// What is known of the image.
    pub facts: Facts,
    /// Where it lies.
    pub slot: Slot,
}

/// Lay down `file`.
///
/// # Errors
/// [`Exit::Refused`] if the target has an image already and `force` is not set, or the image is too large or empty;
/// otherwise what the files say.
pub fn init(place: &Place<'_>, file: &Path, state: &dyn StateDir) -> Result<Laid, Failed> {
    init_by_steps(place, file, state, &mut || Ok(()))
}

/// The same; `step` comes before everything that changes a medium.
fn init_by_steps(
    place: &Place<'_>,
    file: &Path,
    state: &dyn StateDir,
    step: Step<'_>,
) -> Result<Laid, Failed> {
    let files = place.files;
    let facts = check(place, file)?;
    if [&files.slot_a, &files.slot_b]
        .iter()
        .any(|slot| image::is_same(file, &draft_of(slot)))
    {
        let text = format!(
            "{}: give it another name, for the slot is put together there",
            file.display()
        );
        return Err(Failed::new(Exit::Usage, text));
    }
    let old = match fs::read(&files.record) {
        Ok(record) => record,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        // Without it nobody knows which slot is confirmed.
        Err(e) => {
            let record = files.record.display();
            let text =
                format!("{record}: {e}; if it is lost, move it away and lay the image down anew");
            return Err(Failed::new(Exit::Failed, text));
        }
    };
    if Record::newest_copy(&old).is_some() && !place.force {
        return Err(Failed::new(
            Exit::Refused,
            format!(
                "target \"{}\" has an image already; updates come by `otad run`, --force replaces it by hand",
                place.target
            ),
        ));
    }
    let old = Record::newest(&old).map(|(_, record)| record);
    let confirmed = old.and_then(|record| record.confirmed);
    let image = Image {
        slot: confirmed.map_or(Slot::A, |image| image.slot.other()),
        length: facts.size,
        sha256: facts.sha256,
    };
    let entry = VerifiedImage {
        sha256: facts.sha256,
        size: facts.size,
        version: facts.trailer.as_ref().map(|t| t.version),
        signer: "initial".to_owned(),
    };
    let (device, target, region) = (place.device, place.target, image.slot.name());
    lay_slot(files, image, file, step)
        .and_then(|()| {
            if old.is_none() {
                // Tries of a former life would count for a record of the new one.
                step()?;
                remove(&files.tries)?;
            }
            step()?;
            verified_record::announce_initial(state, device, target, entry.clone())?;
            let sequence = old.map_or(0, |record| record.sequence);
            lay_record(files, &first_record(image, sequence), step)?;
            step()?;
            verified_record::enter_initial(state, device, target, region, entry)
        })
        .map_err(|e| {
            Failed::new(
                Exit::Failed,
                format!("laying down the image of \"{target}\": {e}"),
            )
        })?;
    Ok(Laid {
        facts,
        slot: image.slot,
    })
}

/// Called before every change.
type Step<'a> = &'a mut dyn FnMut() -> io::Result<()>;

/// Whether the image fits and its place is one of files.
fn check(place: &Place<'_>, file: &Path) -> Result<Facts, Failed> {
    let files = place.files;
    let facts = image::facts(file)?;
    if facts.size == 0 || facts.size > place.slot_size_bytes {
        return Err(Failed::new(
            Exit::Refused,
            format!(
                "{} has {} bytes, a slot of \"{}\" takes 1 to {}",
                file.display(),
                facts.size,
                place.target,
                place.slot_size_bytes
            ),
        ));
    }
    for path in [&files.slot_a, &files.slot_b, &files.record, &files.tries] {
        // A rename would put a file into the place of a device's name.
        if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Err(Failed::new(
                Exit::Refused,
                format!(
                    "{} is no regular file; block devices are not supported yet, name a file of a file system",
                    path.display()
                ),
            ));
        }
    }
    Ok(facts)
}

/// The image, durable and by its name.
fn lay_slot(files: &Files, image: Image, from: &Path, step: Step<'_>) -> io::Result<()> {
    for path in [&files.slot_a, &files.slot_b, &files.record, &files.tries] {
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
    }
    let path = files.slot(image.slot);
    // A program that runs from there keeps its old file: the new one takes its name.
    let draft = draft_of(path);
    step()?;
    // What a kill left may have a mode that nobody may write.
    remove(&draft)?;
    fs::copy(from, &draft)?;
    let mut file = File::open(&draft)?;
    file.set_permissions(fs::Permissions::from_mode(PROGRAM_MODE))?;
    file.sync_all()?;
    if image::digest(&mut file)? != (image.length, image.sha256) {
        remove(&draft)?;
        let text = format!(
            "{} was changed while it was copied; do it again",
            from.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    step()?;
    fs::rename(&draft, path)?;
    sync_directory(path)
}

fn lay_record(files: &Files, record: &[u8], step: Step<'_>) -> io::Result<()> {
    let draft = draft_of(&files.record);
    step()?;
    let mut file = File::create(&draft)?;
    file.write_all(record)?;
    file.set_permissions(fs::Permissions::from_mode(RECORD_MODE))?;
    file.sync_all()?;
    step()?;
    fs::rename(&draft, &files.record)?;
    sync_directory(&files.record)
}

/// Both copies of a record that settles `image`, with the sequences after this one.
fn first_record(image: Image, sequence: u32) -> Vec<u8> {
    let mut region = vec![0xff; 2 * COPY_BYTES];
    for (at, after) in [(0, 1), (COPY_BYTES, 2)] {
        let record = Record {
            sequence: sequence.wrapping_add(after),
            confirmed: Some(image),
            next: None,
            state: State::Settled,
        };
        let copy = record.encode();
        region[at..at + copy.len()].copy_from_slice(&copy);
    }
    region
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use host_runtime::ports::state_dir::FileStateDir;

    use super::*;
    use crate::launch::{Choice, Reason, prepare};

    struct Bench {
        dir: tempfile::TempDir,
        files: Files,
        state: FileStateDir,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("target").join(name);
        let files = Files {
            slot_a: at("slot-a"),
            slot_b: at("slot-b"),
            record: at("record"),
            tries: at("tries"),
        };
        let state = FileStateDir::open(&dir.path().join("state")).unwrap();
        Bench { dir, files, state }
    }

    impl Bench {
        fn init(&self, bytes: &[u8], force: bool) -> Result<Slot, Failed> {
            self.init_with(bytes, force, usize::MAX)
        }

        /// The power goes before the change of this number.
        fn init_with(&self, bytes: &[u8], force: bool, cut: usize) -> Result<Slot, Failed> {
            let file = self.dir.path().join("image");
            fs::write(&file, bytes).unwrap();
            let place = Place {
                device: "pump-1",
                target: "main",
                files: &self.files,
                slot_size_bytes: 32,
                force,
            };
            let mut steps = 0;
            let mut step = || {
                steps += 1;
                let dark = steps > cut;
                (!dark)
                    .then_some(())
                    .ok_or_else(|| io::Error::other("power cut"))
            };
            init_by_steps(&place, &file, &self.state, &mut step).map(|laid| laid.slot)
        }

        fn launch(&self) -> (Slot, Reason) {
            let (choice, _) = self.prepare().unwrap();
            (choice.image.slot, choice.reason)
        }

        fn prepare(&self) -> Result<(Choice, PathBuf), Failed> {
            let known = verified_record::list(&self.state, "pump-1", "main").unwrap();
            let is_verified = |d: &[u8; 32]| known.iter().any(|v| v.sha256 == *d);
            prepare(&self.files, 3, is_verified)
        }

        /// What would be started.
        fn program(&self) -> Vec<u8> {
            fs::read(self.prepare().unwrap().1).unwrap()
        }
    }

    #[test]
    fn a_first_image_is_confirmed_and_can_be_launched() {
        let bench = bench();
        bench.init(b"#!/bin/sh\n", false).unwrap();
        assert_eq!(bench.launch(), (Slot::A, Reason::Confirmed));
    }

    #[test]
    fn a_second_image_needs_force_and_then_counts() {
        let bench = bench();
        bench.init(b"one", false).unwrap();
        assert_eq!(bench.init(b"two", false).unwrap_err().exit, Exit::Refused);
        assert_eq!(bench.init(b"two", true).unwrap(), Slot::B);
        assert_eq!(bench.launch(), (Slot::B, Reason::Confirmed));
        assert_eq!(bench.program(), b"two");
    }

    #[test]
    fn an_image_that_changes_while_it_is_copied_is_refused_and_the_old_one_stays() {
        let bench = bench();
        bench.init(b"one", false).unwrap();
        let file = bench.dir.path().join("image");
        fs::write(&file, b"two").unwrap();
        let place = Place {
            device: "pump-1",
            target: "main",
            files: &bench.files,
            slot_size_bytes: 32,
            force: true,
        };
        // Somebody writes to it just before it is copied.
        let mut changes = || fs::write(&file, b"and more");
        let failed = init_by_steps(&place, &file, &bench.state, &mut changes).unwrap_err();
        assert!(failed.text.contains("was changed while"), "{}", failed.text);
        assert_eq!(bench.launch(), (Slot::A, Reason::Confirmed));
        assert_eq!(bench.program(), b"one");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_taken_for_none() {
        let bench = bench();
        bench.init(b"one", false).unwrap();
        fs::remove_file(&bench.files.record).unwrap();
        std::os::unix::fs::symlink(&bench.files.record, &bench.files.record).unwrap();
        let failed = bench.init(b"two", false).unwrap_err();
        assert_eq!(failed.exit, Exit::Failed);
        assert!(failed.text.contains("record"), "{}", failed.text);
        assert_eq!(fs::read(&bench.files.slot_a).unwrap(), b"one");
    }

    #[test]
    fn an_image_that_does_not_fit_is_refused_before_anything_is_written() {
        let bench = bench();
        assert!(bench.init(&[7; 32], false).is_ok());
        for bytes in [&[][..], &[7; 33]] {
            assert_eq!(bench.init(bytes, true).unwrap_err().exit, Exit::Refused);
        }
        assert_eq!(fs::read(&bench.files.slot_a).unwrap(), [7; 32]);
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_left_as_it_is() {
        let bench = bench();
        fs::create_dir(bench.files.slot_a.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/dev/null", &bench.files.slot_a).unwrap();
        let failed = bench.init(b"one", true).unwrap_err();
        assert_eq!(failed.exit, Exit::Refused);
        assert!(failed.text.contains("no regular file"), "{}", failed.text);
        assert!(bench.files.slot_a.is_symlink());
        assert!(!bench.files.record.exists());
    }

    /// Cut at each change, and what there is afterwards.
    fn cut_everywhere(force: bool, after: impl Fn(&Bench, usize)) {
        for cut in 0..100 {
            let bench = bench();
            if force {
                bench.init(b"one", false).unwrap();
                bench.launch();
            }
            if bench.init_with(b"two", force, cut).is_ok() {
                assert!(cut > 4, "{cut} changes only");
                return;
            }
            after(&bench, cut);
        }
        panic!("it never ends");
    }

    #[test]
    fn an_init_that_was_cut_can_be_repeated() {
        cut_everywhere(false, |bench, cut| {
            // From the record on there is an image.
            let there = bench.files.record.exists();
            bench.init(b"two", there).unwrap();
            assert_eq!(bench.program(), b"two", "{cut}");
        });
    }

    #[test]
    fn a_forced_init_that_was_cut_leaves_an_image_that_starts_and_can_be_repeated() {
        cut_everywhere(true, |bench, cut| {
            let started = bench.program();
            assert!(started == b"one" || started == b"two", "{cut}");
            bench.init(b"two", true).unwrap();
            assert_eq!(bench.program(), b"two", "{cut}");
        });
    }

    #[test]
    fn tries_of_the_image_before_do_not_count_for_the_new_one() {
        let bench = bench();
        for bytes in [b"one", b"two", b"six"] {
            bench.init(bytes, true).unwrap();
            for _ in 0..5 {
                assert_eq!(bench.launch().1, Reason::Confirmed);
                assert_eq!(bench.program(), bytes);
            }
        }
    }

    #[test]
    fn what_is_laid_down_may_be_written_by_its_owner_alone() {
        let bench = bench();
        bench.init(b"one", false).unwrap();
        let directory = bench.files.record.parent().unwrap();
        for path in [directory, &bench.files.slot_a, &bench.files.record] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o022, 0, "{}: {mode:o}", path.display());
        }
    }
}
