//! The staging file as a staged target's plugin sees it: what is held without a gap, and whether it was verified.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::regions::Account;
use crate::plugin::lend::{StagedImage, check_length};
use crate::ports::storage::Storage;
use crate::types::{Failure, code};

/// The staging file as a plugin sees it.
pub(super) struct Staged {
    account: Arc<Account>,
    file: Mutex<StagedFile>,
}

#[derive(Default)]
struct StagedFile {
    storage: Option<Arc<dyn Storage>>,
    held: u64,
    verified: bool,
}

impl Staged {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            file: Mutex::default(),
        }
    }

    /// Show a file, or none; nothing of it is held yet.
    pub(super) fn show(&self, storage: Option<Arc<dyn Storage>>) {
        *self.file() = StagedFile {
            storage,
            ..StagedFile::default()
        };
    }

    /// Whether there is something to push.
    pub(super) fn has_bytes(&self) -> bool {
        self.file().held > 0
    }

    /// So much is held without a gap.
    pub(super) fn set_held(&self, held: u64) {
        self.file().held = held;
    }

    /// The complete file was verified, or is not any more.
    pub(super) fn set_verified(&self, verified: bool) {
        self.file().verified = verified;
    }

    fn file(&self) -> MutexGuard<'_, StagedFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StagedImage for Staged {
    fn held(&self) -> u64 {
        self.file().held
    }

    fn verified(&self) -> bool {
        self.file().verified
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        check_length(u64::from(length))?;
        let (storage, held) = {
            let file = self.file();
            (file.storage.clone(), file.held)
        };
        let end = offset.checked_add(u64::from(length));
        let storage = storage.filter(|_| end.is_some_and(|end| end <= held));
        let Some(storage) = storage else {
            return Err(Failure::new(
                code::NOT_FOUND,
                0,
                format!("{length} bytes at {offset} are not there yet; {held} are held"),
            ));
        };
        self.account.spend(u64::from(length))?;
        let mut buffer = vec![0; length as usize];
        storage
            .read_at(offset, &mut buffer)
            .map_err(|e| Failure::storage("read staging", &e))?;
        Ok(buffer)
    }
}
