//! One instance per state directory.
//!
//! An advisory lock on `<state_dir>/lock`, held by the kernel for as long as the process lives: a killed daemon leaves
//! nothing to clean up. The file holds the owner's process id, for the message only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::exit::{Exit, Failed};

/// The lock; let go when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
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
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(unusable)?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
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
        drop(first);
        take(&state).unwrap();
    }
}
