//! `otad target init`: lays down the first image of a flash-file target.
//!
//! The image is copied into slot a, the record says that it is confirmed, and the host notes it as verified: whoever may
//! run this command on the machine vouches for the image. This is the one record that the plugin does not write; it is
//! written before any plugin lives. Not here: updates.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use host_runtime::ports::state_dir::StateDir;
use host_runtime::target::verified_record::{self, VerifiedImage};

use crate::exit::{Exit, Failed};
use crate::image::{self, Facts, draft_of};
use crate::launch::Files;
use crate::launch::record::{COPY_BYTES, Doubled as _, Image, Record, Slot, State};

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

/// Lay down `file`.
///
/// # Errors
/// [`Exit::Refused`] if the target has an image already and `force` is not set, or the image is too large or empty;
/// otherwise what the files say.
pub fn init(place: &Place<'_>, file: &Path, state: &dyn StateDir) -> Result<Facts, Failed> {
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
    let old = fs::read(&files.record).unwrap_or_default();
    if Record::newest_copy(&old).is_some() && !place.force {
        return Err(Failed::new(
            Exit::Refused,
            format!(
                "target \"{}\" has an image already; updates come by `otad run`, --force replaces it by hand",
                place.target
            ),
        ));
    }
    let laying = |e: io::Error| {
        Failed::new(
            Exit::Failed,
            format!("laying down the image of \"{}\": {e}", place.target),
        )
    };
    lay_slots(files, file).map_err(laying)?;
    let entry = VerifiedImage {
        sha256: facts.sha256,
        size: facts.size,
        version: facts.trailer.as_ref().map(|t| t.version),
        signer: "initial".to_owned(),
    };
    let region = Slot::A.name();
    verified_record::enter_initial(state, place.device, place.target, region, entry).map_err(
        |e| {
            Failed::new(
                Exit::Failed,
                format!("noting the image of \"{}\" as verified: {e}", place.target),
            )
        },
    )?;
    lay_record(files, &facts).map_err(laying)?;
    Ok(facts)
}

/// The image, before the list of verified images and the record. A cut leaves a target as it was or, from here to the
/// record, one that has to be laid down again.
fn lay_slots(files: &Files, image: &Path) -> io::Result<()> {
    for path in [&files.slot_a, &files.slot_b, &files.record, &files.tries] {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
    }
    let slot = files.slot(Slot::A);
    // A program that runs from there keeps its old file: the new one takes its name.
    let draft = draft_of(slot);
    fs::copy(image, &draft)?;
    File::open(&draft)?.sync_all()?;
    fs::rename(&draft, slot)?;
    remove(&files.slot_b)?;
    // Tries of a former life would count for a record of the new one.
    remove(&files.tries)?;
    for path in [slot, &files.slot_b, &files.tries] {
        sync_directory(path)?;
    }
    Ok(())
}

/// The record comes last: what it names has to be in its place and in the list of verified images.
fn lay_record(files: &Files, facts: &Facts) -> io::Result<()> {
    let draft = draft_of(&files.record);
    let mut file = File::create(&draft)?;
    file.write_all(&first_record(facts))?;
    file.sync_all()?;
    fs::rename(&draft, &files.record)?;
    sync_directory(&files.record)
}

/// Make a name durable, or its absence.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Both copies, sequences 1 and 2.
fn first_record(facts: &Facts) -> Vec<u8> {
    let mut region = vec![0xff; 2 * COPY_BYTES];
    for (at, sequence) in [(0, 1), (COPY_BYTES, 2)] {
        let record = Record {
            sequence,
            confirmed: Some(Image {
                slot: Slot::A,
                length: facts.size,
                sha256: facts.sha256,
            }),
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
    use host_runtime::ports::state_dir::FileStateDir;

    use super::*;
    use crate::launch::{Reason, prepare};

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
        fn init(&self, bytes: &[u8], force: bool) -> Result<Facts, Failed> {
            self.init_with(&self.state, bytes, force)
        }

        fn init_with(
            &self,
            state: &dyn StateDir,
            bytes: &[u8],
            force: bool,
        ) -> Result<Facts, Failed> {
            let file = self.dir.path().join("image");
            fs::write(&file, bytes).unwrap();
            let place = Place {
                device: "pump-1",
                target: "main",
                files: &self.files,
                slot_size_bytes: 32,
                force,
            };
            init(&place, &file, state)
        }

        fn launch(&self) -> (Slot, Reason) {
            let known = verified_record::list(&self.state, "pump-1", "main").unwrap();
            let is_verified = |d: &[u8; 32]| known.iter().any(|v| v.sha256 == *d);
            let (choice, _) = prepare(&self.files, 3, is_verified).unwrap();
            (choice.image.slot, choice.reason)
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
        bench.init(b"two", true).unwrap();
        assert_eq!(fs::read(&bench.files.slot_a).unwrap(), b"two");
        assert_eq!(bench.launch(), (Slot::A, Reason::Confirmed));
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

    /// A state directory whose medium fails at the store of this number.
    struct Failing<'a> {
        inner: &'a FileStateDir,
        at: usize,
        stores: std::sync::atomic::AtomicUsize,
    }

    impl StateDir for Failing<'_> {
        fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            self.inner.load(name)
        }

        fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
            let number = self
                .stores
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if number == self.at {
                return Err(io::Error::other("power cut"));
            }
            self.inner.store(name, bytes)
        }

        fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
            self.inner.append(name, bytes, sync)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.inner.remove(name)
        }

        fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
            self.inner.list(prefix)
        }
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

    #[test]
    fn an_init_that_was_cut_can_be_repeated_without_force() {
        for at in 0..2 {
            let bench = bench();
            let failing = Failing {
                inner: &bench.state,
                at,
                stores: Default::default(),
            };
            let failed = bench.init_with(&failing, b"#!/bin/sh\n", false);
            assert_eq!(failed.unwrap_err().exit, Exit::Failed, "store {at}");
            bench.init(b"#!/bin/sh\n", false).unwrap();
            assert_eq!(bench.launch(), (Slot::A, Reason::Confirmed));
        }
    }
}
