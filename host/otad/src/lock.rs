//! One instance per state directory.
//!
//! An advisory lock on `<state_dir>/lock`, held by the kernel for as long as the process lives: a killed daemon leaves
//! nothing to clean up. The file holds the owner's process id, for the message. It is empty while nobody has the lock and the
//! last gateway was left in order, so that it tells of one that was killed; others that take it leave it as they found it.
//!
//! Whoever may still write holds it: a sync that hangs outlives the gateway that ordered it, and what it writes down
//! afterwards must not meet the records of the next process. So every piece of work keeps the lock (`Keeping`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use host_runtime::ports::workers::{Work, Workers};
use rustix::fs::FlockOperation;

use crate::exit::{Exit, Failed};

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
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut owner = String::new();
            // Only for the message: an unreadable file is no owner.
            if file.read_to_string(&mut owner).is_err() || owner.trim().is_empty() {
                owner = "unknown".to_owned();
            }
            return Err(Failed::new(
                Exit::Retry,
                format!(
                    "another otad (process {}) uses the state directory {}; stop it, or give each its own `state_dir`",
                    owner.trim(),
                    state_dir.display()
                ),
            ));
        }
        Err(e) => return Err(unusable(e.into())),
    }
    let found = file.metadata().map_err(unusable)?.len();
    // On a full medium it goes without: nothing is lost but a name in a message.
    let named = file.set_len(0);
    let named = named.and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(e) = named {
        tracing::warn!("lock of {}: {e}", state_dir.display());
    }
    Ok(Lock {
        file,
        in_order: AtomicBool::new(found == 0),
    })
}

/// Whether the last gateway was not left in order: somebody has the lock still, or it was killed.
pub(crate) fn is_left_behind(state_dir: &Path) -> bool {
    std::fs::metadata(state_dir.join("lock")).is_ok_and(|file| file.len() > 0)
}

/// Whether a process has the lock of a state directory now. Nobody is kept from taking it but for the moment of the question,
/// and that only where a gateway was not left in order.
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
    let wrong = unsafe_rights(state_dir).map_err(|e| {
        Failed::new(
            Exit::Failed,
            format!("state directory {}: {e}", state_dir.display()),
        )
    })?;
    match wrong {
        None => Ok(()),
        Some(wrong) => Err(Failed::new(
            Exit::Config,
            format!(
                "state directory {} {wrong}: what lies there decides what `otad launch` starts",
                state_dir.display()
            ),
        )),
    }
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
        return Some(format!(
            "belongs to uid {owner} and not to root or to uid {own}, chown it"
        ));
    }
    let mode = mode & 0o7777;
    (mode & 0o022 != 0)
        .then(|| format!("may be written by group or others (mode {mode:04o}), chmod go-w it"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_second_taker_is_told_who_has_it_and_gets_it_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let first = take(&state).unwrap();
        let failed = take(&state).unwrap_err();
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
        assert_eq!(take(dir.path()).unwrap_err().exit, Exit::Retry);
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
        assert!(wrong_rights(0o700, 1001, 1000).is_some());
    }
}
