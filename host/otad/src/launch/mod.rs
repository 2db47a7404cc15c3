//! `otad launch TARGET`: starts the program of a flash-file target from the slot that counts.
//!
//! ```text
//! record armed, tries left    count a try, sync it, exec the next slot
//! record armed, none left     note the old slot, sync, exec the confirmed slot: the plugin sees that it went back
//! otherwise                   exec the confirmed slot
//! record changed meanwhile    begin anew
//! ```
//!
//! The launcher belongs to the installed otad, never to a slot: it is what is left when a slot does not start. It starts
//! only bytes whose digest the record names and the host noted when it verified them. Not here: marking, committing,
//! rolling back; the plugin does that, on the agent's order.

pub mod record;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use host_crypto::Hasher;

use crate::exit::{Exit, Failed};
use crate::image::draft_of;
use record::{Doubled as _, Image, REGION_BYTES, Record, Slot, State, Tries};

/// The four files of a flash-file target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `slot-a`.
    pub slot_a: PathBuf,
    /// `slot-b`.
    pub slot_b: PathBuf,
    /// The plugin's record.
    pub record: PathBuf,
    /// The launcher's record.
    pub tries: PathBuf,
}

impl Files {
    /// Where a slot lies.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> &Path {
        match slot {
            Slot::A => &self.slot_a,
            Slot::B => &self.slot_b,
        }
    }
}

/// What a launch decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What to start.
    pub image: Image,
    /// What to note first, if it is news.
    pub note: Option<Tries>,
    /// Why.
    pub reason: Reason,
}

/// Why this slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is the confirmed one.
    Confirmed,
    /// It is in test; so many starts of so many are used with this one.
    Try {
        /// This one included.
        used: u32,
        /// In all.
        max: u32,
    },
    /// The image in test has used up its tries.
    TriesUsedUp,
    /// The image in test is not the one that was verified.
    NextUnfit,
}

/// Which slot to start, from what the records say; `next_is_fit` is asked only where the next slot is in question.
#[must_use]
pub fn choose(
    record: &Record,
    tries: Option<Tries>,
    max: u32,
    next_is_fit: impl FnOnce(&Image) -> bool,
) -> Option<Choice> {
    let counted = tries.filter(|t| t.record_sequence == record.sequence);
    let used = counted.map_or(0, |t| t.used);
    let sequence = tries.map_or(0, |t| t.sequence.wrapping_add(1));
    let note = |used, slot| {
        let fresh = Tries {
            sequence,
            record_sequence: record.sequence,
            used,
            started: Some(slot),
        };
        let is_known = counted.is_some_and(|t| t.used == used && t.started == Some(slot));
        (!is_known).then_some(fresh)
    };
    let back = |reason| {
        record.confirmed.map(|image| Choice {
            image,
            note: note(used, image.slot),
            reason,
        })
    };
    match (record.state, record.next) {
        (State::Armed, Some(next)) => {
            // Once gone back, never forward again under the same mark: the plugin has told the agent already.
            let went_back = counted
                .and_then(|t| t.started)
                .is_some_and(|s| s != next.slot);
            if went_back || used >= max {
                back(Reason::TriesUsedUp)
            } else if !next_is_fit(&next) {
                back(Reason::NextUnfit)
            } else {
                let used = used + 1;
                Some(Choice {
                    image: next,
                    note: note(used, next.slot),
                    reason: Reason::Try { used, max },
                })
            }
        }
        _ => back(Reason::Confirmed),
    }
}

/// Times that the launcher begins anew because the record has changed meanwhile, or a try could not be noted. The record
/// changes some three times an update.
const ROUNDS_MAX: u32 = 8;

/// Decide, note, make executable; what is left is to exec.
///
/// Digests take seconds, and the plugin does not wait: what was decided counts only if the record is still the same
/// once it is noted durably. The plugin looks at the note after it has written the record, so one of the two sees the
/// other.
///
/// # Errors
/// [`Exit::Nothing`] if no image was ever laid down, [`Exit::Unverified`] if no slot holds what was verified,
/// [`Exit::Failed`] if the record cannot be read, or does not stop changing.
pub fn prepare(
    files: &Files,
    tries_max: u32,
    is_verified: impl Fn(&[u8; 32]) -> bool,
) -> Result<(Choice, PathBuf), Failed> {
    // Before any note is made: without a record there is nothing to launch.
    decode(&files.record, &read_region(&files.record)?)?;
    let mut notes = Notes::open(&files.tries);
    for _ in 0..ROUNDS_MAX {
        let record = decode(&files.record, &read_region(&files.record)?)?;
        let choice = decide(files, &record, &notes, tries_max, &is_verified)?;
        let noted = notes.write(choice.note);
        if !noted && matches!(choice.reason, Reason::Try { .. }) {
            continue;
        }
        let path = files.slot(choice.image.slot).to_owned();
        make_executable(&path).map_err(|e| storage(&path, &e))?;
        if decode(&files.record, &read_region(&files.record)?)? == record {
            return Ok((choice, path));
        }
        tracing::info!("the record has changed meanwhile; deciding anew");
    }
    Err(Failed::new(
        Exit::Failed,
        format!(
            "{}: has changed {ROUNDS_MAX} times while the launcher was deciding; start it again",
            files.record.display()
        ),
    ))
}

/// Which slot, of those that hold what the record says.
fn decide(
    files: &Files,
    record: &Record,
    notes: &Notes<'_>,
    tries_max: u32,
    is_verified: &impl Fn(&[u8; 32]) -> bool,
) -> Result<Choice, Failed> {
    let fit = |image: &Image| fit(files.slot(image.slot), image, is_verified);
    // A try that is not noted would be repeated for ever, and nobody would know what runs.
    let choice = choose(record, notes.newest(), tries_max, |next| {
        notes.is_good
            && fit(next)
                .inspect_err(|failed| tracing::warn!("{failed}"))
                .is_ok()
    });
    let Some(choice) = choice else {
        return Err(Failed::new(
            Exit::Unverified,
            "no slot is confirmed and the image in test cannot be started; lay down an image with `otad target init`",
        ));
    };
    if !matches!(choice.reason, Reason::Try { .. }) {
        fit(&choice.image)?;
    }
    Ok(choice)
}

/// The `tries` file, locked: one launch at a time counts. One that cannot be read, locked or written keeps an image in
/// test from being started, and nothing else.
struct Notes<'a> {
    path: &'a Path,
    /// The lock goes with it. Notes are tried as long as it is there: a failed one may have to be put right.
    file: Option<File>,
    is_good: bool,
}

impl<'a> Notes<'a> {
    fn open(path: &'a Path) -> Self {
        let mut notes = Self {
            path,
            file: None,
            is_good: true,
        };
        match lock_tries(path) {
            Ok(file) => notes.file = Some(file),
            Err(e) => notes.fail(&e.to_string()),
        }
        if let Err(failed) = read_region(path) {
            notes.fail(&failed.text);
        }
        notes
    }

    fn fail(&mut self, why: &str) {
        self.is_good = false;
        tracing::warn!(
            "{}: {why}; starts cannot be noted, so no image in test is started",
            self.path.display()
        );
    }

    fn region(&self) -> Vec<u8> {
        read_region(self.path).unwrap_or_default()
    }

    fn newest(&self) -> Option<Tries> {
        Tries::newest(&self.region()).map(|t| t.1)
    }

    /// Note it durably; whether that worked.
    fn write(&mut self, note: Option<Tries>) -> bool {
        let Some(note) = note else {
            return self.is_good;
        };
        let region = self.region();
        let at = Tries::next_offset(&region);
        let Some(file) = &self.file else {
            return false;
        };
        let copy = note.encode();
        let written = file
            .write_all_at(&copy, at as u64)
            .and_then(|()| file.sync_all());
        let written = written.or_else(|_| {
            replace(self.path, region, at, &copy)?;
            // The next note goes to the new one.
            self.file = Some(lock_tries(self.path)?);
            Ok::<_, io::Error>(())
        });
        if let Err(e) = written {
            self.fail(&e.to_string());
            return false;
        }
        true
    }
}

/// Become the program. Returns only if that did not work.
#[must_use]
pub fn exec(program: &Path, arguments: &[std::ffi::OsString], target: &str, slot: Slot) -> Failed {
    let error = Command::new(program)
        .args(arguments)
        .env("OTAD_TARGET", target)
        .env("OTAD_SLOT", slot.name())
        .exec();
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; is the file system mounted noexec, or the user another one?"
        }
        io::ErrorKind::ExecutableFileBusy => "; somebody has it open for writing",
        _ => "",
    };
    Failed::new(
        Exit::Failed,
        format!("{} cannot be started: {error}{advice}", program.display()),
    )
}

fn storage(path: &Path, error: &io::Error) -> Failed {
    Failed::new(Exit::Failed, format!("{}: {error}", path.display()))
}

/// The file of this name, locked. Whoever had the lock before may have put another one into its place.
fn lock_tries(path: &Path) -> io::Result<File> {
    loop {
        let file = open_tries(path)?;
        rustix::io::retry_on_intr(|| {
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        })?;
        let (locked, named) = (file.metadata()?, fs::metadata(path)?);
        if (locked.dev(), locked.ino()) == (named.dev(), named.ino()) {
            return Ok(file);
        }
    }
}

fn open_tries(path: &Path) -> io::Result<File> {
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(RECORD_MODE)
        .open(path)?;
    if is_new {
        sync_directory(path)?;
    }
    Ok(file)
}

/// Another file in the place of one that takes nothing any more: a bad block, an immutable file, another owner.
fn replace(path: &Path, mut region: Vec<u8>, at: usize, copy: &[u8]) -> io::Result<()> {
    let end = at + copy.len();
    if region.len() < end {
        region.resize(end, 0xff);
    }
    region[at..end].copy_from_slice(copy);
    let draft = draft_of(path);
    let mut file = File::create(&draft)?;
    file.write_all(&region)?;
    file.set_permissions(fs::Permissions::from_mode(RECORD_MODE))?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_directory(path)
}

/// Make a name durable, or its absence.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The record that counts.
fn decode(path: &Path, region: &[u8]) -> Result<Record, Failed> {
    const INIT: &str = "with `otad target init TARGET FILE`";
    if let Some((_, record)) = Record::newest(region) {
        return Ok(record);
    }
    let (exit, what) = if Record::newest_copy(region).is_some() {
        (
            Exit::Unverified,
            "a later otad wrote the record, this one does not know its kind; launch with that otad"
                .to_owned(),
        )
    } else if record::is_blank(region) {
        (
            Exit::Nothing,
            format!("holds no record; lay down the first image {INIT}"),
        )
    } else {
        (
            Exit::Unverified,
            format!("both copies of the record are damaged; lay down an image anew {INIT}"),
        )
    };
    Err(Failed::new(exit, format!("{}: {what}", path.display())))
}

/// A whole region; what does not exist is empty.
fn read_region(path: &Path) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(REGION_BYTES)
                .read_to_end(&mut bytes)
                .map_err(|e| storage(path, &e))?;
            Ok(bytes)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(bytes),
        Err(e) => Err(storage(path, &e)),
    }
}

/// Whether a slot holds the image that the record names, and the host verified it.
fn fit(path: &Path, image: &Image, is_verified: &impl Fn(&[u8; 32]) -> bool) -> Result<(), Failed> {
    let unfit = |text: String| Failed::new(Exit::Unverified, format!("{}: {text}", path.display()));
    let mut file = File::open(path).map_err(|e| storage(path, &e))?;
    let length = file.metadata().map_err(|e| storage(path, &e))?.len();
    if length != image.length {
        return Err(unfit(format!(
            "{length} bytes, the record says {}; not started",
            image.length
        )));
    }
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(storage(path, &e)),
        }
    }
    let found = hasher.finish();
    if *found.sha256() != image.sha256 {
        return Err(unfit(format!(
            "SHA-256 {}, the record says {}; not started",
            host_crypto::hex(found.sha256()),
            host_crypto::hex(&image.sha256)
        )));
    }
    if !is_verified(&image.sha256) {
        return Err(unfit(format!(
            "SHA-256 {} is not among those this host has verified; not started",
            host_crypto::hex(&image.sha256)
        )));
    }
    Ok(())
}

/// Mode of a slot: a program of its owner, whoever may start it.
pub(crate) const PROGRAM_MODE: u32 = 0o755;

/// Mode of the records beside it.
pub(crate) const RECORD_MODE: u32 = 0o644;

/// Make a directory for slots and records, which its owner alone may write: whoever else could, decided what is started.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn make_executable(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o111 == 0o111 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o111))
}

#[cfg(test)]
mod tests;
