//! One instance per state directory.
//!
//! An advisory lock on `<state_dir>/lock`, held by the kernel for as long as the process lives: a killed daemon leaves
//! nothing to clean up. The file holds the owner's process id, for the message. It is empty while nobody has the lock and the
//! last gateway was left in order, so that it tells of one that was killed; others that take it leave it as they found it.
//!
//! Whoever may still write holds it: a sync that hangs outlives the gateway that ordered it, and what it writes down
//! afterwards must not meet the records of the next process. So every piece of work keeps the lock (`Keeping`).

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use host_runtime::ports::workers::{Work, Workers};
use rustix::fs::FlockOperation;

use crate::exit::{Exit, Failed};

/// How often whoever takes a lock that somebody has waits for [`PAUSE`] and tries again.
const PAUSES: u32 = 10;

/// See [`PAUSES`].
const PAUSE: Duration = Duration::from_millis(10);

/// How long that is: long for whoever only looks, short for a start.
pub(crate) const TAKING: Duration = PAUSE.saturating_mul(PAUSES);

/// The lock; let go when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    in_order: AtomicBool,
}

impl Lock {
    /// Whether the state is in order from now on: it is not while devices run.
    pub(crate) fn set_in_order(&self, in_order: bool) {
        self.in_order.store(in_order, Ordering::Relaxed);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.in_order.load(Ordering::Relaxed) {
            // If that fails, the next one is told of a process that was killed: no more than that it may have been.
            let _ = self.file.set_len(0);
        }
    }
}

/// Workers whose work keeps the lock until it has ended, whoever has let go of it by then.
pub(crate) struct Keeping<W> {
    workers: W,
    lock: Arc<Lock>,
}

impl<W> Keeping<W> {
    pub(crate) fn new(workers: W, lock: Arc<Lock>) -> Self {
        Self { workers, lock }
    }
}

impl<W: Workers> Workers for Keeping<W> {
    fn run(&self, work: Work) {
        let lock = Arc::clone(&self.lock);
        self.workers.run(Box::new(move || {
            work();
            drop(lock);
        }));
    }
}

/// Take the lock of a state directory, which is created (mode 0700) if need be.
///
/// # Errors
/// [`Exit::Retry`] if another process has it, with its id; [`Exit::Failed`] if the directory cannot be used.
pub fn take(state_dir: &Path) -> Result<Lock, Failed> {
    take_with(state_dir, || thread::sleep(PAUSE))
}

/// The same, with pauses of one's own.
pub(crate) fn take_with(state_dir: &Path, pause: impl FnMut()) -> Result<Lock, Failed> {
    let unusable = |e: io::Error| {
        Failed::new(
            Exit::Failed,
            format!(
                "state directory {}: {e}; it must be writable by this user",
                state_dir.display()
            ),
        )
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(unusable)?;
    check_rights(state_dir)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(state_dir.join("lock"))
        .map_err(unusable)?;
    match lock(&file, pause) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            // Only for the message: an unreadable file is no owner.
            let is_read = file.read_to_string(&mut owner).is_ok();
            let owner = owner.trim_matches(|c: char| c == '\0' || c.is_whitespace());
            let owner = if is_read && !owner.is_empty() {
                owner
            } else {
                "unknown"
            };
            return Err(Failed::new(
                Exit::Retry,
                format!(
                    "another otad (process {owner}) uses the state directory {}; stop it, or give each its own `state_dir`",
                    state_dir.display()
                ),
            ));
        }
        Err(e) => return Err(unusable(e.into())),
    }
    let found = file.metadata().map_err(unusable)?.len();
    if let Err(e) = name(&mut file) {
        tracing::warn!("lock of {}: {e}", state_dir.display());
    }
    Ok(Lock {
        file,
        in_order: AtomicBool::new(found == 0),
    })
}

/// Take it from nobody. Whoever looks has it for a moment ([`is_held`]), and that is no reason against a start.
fn lock(file: &File, mut pause: impl FnMut()) -> rustix::io::Result<()> {
    let mut pauses = 0;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if pauses < PAUSES => pause(),
            end => return end,
        }
        pauses += 1;
    }
}

/// Write down who has it. Where a full medium takes no name, the file is not empty all the same, or it would tell of a gateway
/// that was left in order: a hole takes no block.
fn name(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    let name = format!("{}\n", std::process::id());
    file.write_all(name.as_bytes())
        .or_else(|e| file.set_len(1).and(Err(e)))
}

/// Whether the last gateway was not left in order: somebody has the lock still, or it was killed.
pub(crate) fn is_left_behind(state_dir: &Path) -> bool {
    std::fs::metadata(state_dir.join("lock")).is_ok_and(|file| file.len() > 0)
}

/// Whether a process has the lock of a state directory now. Only where a gateway was not left in order is the lock itself asked,
/// for a moment that whoever takes it waits for.
pub(crate) fn is_held(state_dir: &Path) -> bool {
    let Ok(file) = File::open(state_dir.join("lock")) else {
        return false;
    };
    let would_wait = Err(rustix::io::Errno::WOULDBLOCK);
    is_left_behind(state_dir)
        && rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == would_wait
}

/// Whether nobody but its owner, who is root or this user, may write a state directory.
///
/// # Errors
/// [`Exit::Config`] if not; [`Exit::Failed`] if it is not there.
pub(crate) fn check_rights(state_dir: &Path) -> Result<(), Failed> {
    let metadata = std::fs::metadata(state_dir).map_err(|e| {
        Failed::new(
            Exit::Failed,
            format!("state directory {}: {e}", state_dir.display()),
        )
    })?;
    let own = rustix::process::geteuid().as_raw();
    match refusal(state_dir, &metadata, own) {
        None => Ok(()),
        Some(text) => Err(Failed::new(Exit::Config, text)),
    }
}

/// Why a process of user `own` uses no state directory with these rights; `None` if it does.
pub(crate) fn refusal(state_dir: &Path, found: &Metadata, own: u32) -> Option<String> {
    let wrong = wrong_rights(found.mode(), found.uid(), own)?;
    Some(format!(
        "state directory {} {wrong}: what lies there decides what `otad launch` starts",
        state_dir.display()
    ))
}

/// Why a directory is not safe from other users, if it is not.
///
/// # Errors
/// It cannot be looked at.
pub(crate) fn unsafe_rights(directory: &Path) -> io::Result<Option<String>> {
    let metadata = std::fs::metadata(directory)?;
    let own = rustix::process::geteuid().as_raw();
    Ok(wrong_rights(metadata.mode(), metadata.uid(), own))
}

/// The same by mode and owner, for a process of user `own`.
pub(crate) fn wrong_rights(mode: u32, owner: u32, own: u32) -> Option<String> {
    if owner != 0 && owner != own {
        return Some(if own == 0 {
            // Root would start what another user has written there.
            format!("belongs to uid {owner}: run this as that user, or chown it to root")
        } else {
            format!("belongs to uid {owner} and not to root or to uid {own}, chown it")
        });
    }
    let mode = mode & 0o7777;
    (mode & 0o022 != 0)
        .then(|| format!("may be written by group or others (mode {mode:04o}), chmod go-w it"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rustix::fs::{MemfdFlags, SealFlags};

    use super::*;

    #[test]
    fn a_second_taker_is_told_who_has_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let first = take(&state).unwrap();
        let failed = take_with(&state, || ()).unwrap_err();
        assert_eq!(failed.exit, Exit::Retry);
        let process = format!("process {}", std::process::id());
        assert!(failed.text.contains(&process), "{}", failed.text);
        assert!(is_left_behind(&state) && is_held(&state));
        drop(first);
        assert!(!is_held(&state));
        assert!(!is_left_behind(&state));
        take(&state).unwrap();
    }

    #[test]
    fn a_killed_gateway_is_known_until_another_one_is_left_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let is_left_behind = || is_left_behind(dir.path());
        take(dir.path()).unwrap().set_in_order(false);
        assert!(is_left_behind(), "it ended with devices that ran");
        assert!(!is_held(dir.path()));
        drop(take(dir.path()).unwrap());
        assert!(is_left_behind(), "one came and went, and no device ran");
        let next = take(dir.path()).unwrap();
        next.set_in_order(false);
        next.set_in_order(true);
        drop(next);
        assert!(!is_left_behind());
        drop(take(dir.path()).unwrap());
        assert!(!is_left_behind());
    }

    #[test]
    fn whoever_looks_does_not_stop_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "").unwrap();
        let open = || File::open(&path).unwrap();
        let looker = open();
        rustix::fs::flock(&looker, FlockOperation::NonBlockingLockShared).unwrap();
        let mut looker = Some(looker);
        let taken = open();
        lock(&taken, || looker = None).unwrap();
        // One who stays is not waited for.
        let mut pauses = 0;
        let end = lock(&open(), || pauses += 1);
        assert_eq!(end, Err(rustix::io::Errno::WOULDBLOCK));
        assert_eq!(pauses, PAUSES);
    }

    #[test]
    fn a_lock_that_a_full_medium_takes_no_name_of_is_held_all_the_same() {
        // As a full medium: it grows, and takes no bytes.
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut full = File::from(rustix::fs::memfd_create("full", flags).unwrap());
        rustix::fs::fcntl_add_seals(&full, SealFlags::WRITE).unwrap();
        name(&mut full).unwrap_err();
        assert_eq!(full.metadata().unwrap().len(), 1);

        let dir = tempfile::tempdir().unwrap();
        let taken = take(dir.path()).unwrap();
        taken.file.set_len(0).unwrap();
        taken.file.set_len(1).unwrap();
        assert!(is_left_behind(dir.path()) && is_held(dir.path()));
        let failed = take_with(dir.path(), || ()).unwrap_err();
        assert!(failed.text.contains("(process unknown)"), "{failed}");
        drop(taken);
        assert!(!is_left_behind(dir.path()));
    }

    #[test]
    fn work_that_has_not_ended_keeps_the_lock() {
        #[derive(Clone, Default)]
        struct Held(Arc<Mutex<Vec<Work>>>);
        impl Workers for Held {
            fn run(&self, work: Work) {
                self.0.lock().unwrap().push(work);
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let held = Held::default();
        let workers = Keeping::new(held.clone(), Arc::new(take(dir.path()).unwrap()));
        workers.run(Box::new(|| {}));
        drop(workers);
        assert_eq!(take_with(dir.path(), || ()).unwrap_err().exit, Exit::Retry);
        for work in held.0.lock().unwrap().drain(..) {
            work();
        }
        take(dir.path()).unwrap();
    }

    #[test]
    fn a_state_directory_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        for (mode, taken) in [(0o755, true), (0o775, false), (0o777, false), (0o700, true)] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let end = take(dir.path());
            assert_eq!(end.is_ok(), taken, "{mode:o}");
            if let Err(failed) = end {
                assert_eq!(failed.exit, Exit::Config);
                assert!(failed.text.contains("chmod go-w"), "{}", failed.text);
            }
        }
        assert_eq!(wrong_rights(0o700, 0, 1000), None);
        assert_eq!(wrong_rights(0o700, 1000, 1000), None);
        let says = |own, words: &str| wrong_rights(0o700, 1001, own).unwrap().contains(words);
        assert!(says(1000, "not to root or to uid 1000"));
        assert!(says(0, "belongs to uid 1001: run this as that user"));
    }
}
