//! What outlives a power cut: bytes in memory, or in a file that is the flash byte for byte. The file is locked, so that
//! two simulated MCUs never share one; it is not synced, for a cut of the simulated MCU is none of the machine.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::ERASED;
use crate::Error;

/// Bytes that stay.
#[derive(Debug)]
pub(crate) struct Medium {
    held: Vec<u8>,
    file: Option<(PathBuf, File)>,
    trouble: Option<Error>,
}

impl Medium {
    pub(crate) fn in_memory(bytes: u32) -> Self {
        Self {
            held: vec![ERASED; bytes as usize],
            file: None,
            trouble: None,
        }
    }

    /// Opens the file, or makes an erased one.
    ///
    /// # Errors
    /// A file that cannot be opened or locked, or that has another size than the flash.
    pub(crate) fn in_file(path: &Path, bytes: u32) -> Result<Self, Error> {
        let failed = |source| Error::FlashFile {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::FlashInUse(path.to_owned()))?;
        let size = file.metadata().map_err(failed)?.len();
        let held = if size == 0 {
            let erased = vec![ERASED; bytes as usize];
            file.write_all_at(&erased, 0).map_err(failed)?;
            erased
        } else if size == u64::from(bytes) {
            let mut held = Vec::with_capacity(bytes as usize);
            file.read_to_end(&mut held).map_err(failed)?;
            held
        } else {
            return Err(Error::FlashSize {
                path: path.to_owned(),
                size,
                expected: u64::from(bytes),
            });
        };
        Ok(Self {
            held,
            file: Some((path.to_owned(), file)),
            trouble: None,
        })
    }

    pub(crate) fn held(&self) -> &[u8] {
        &self.held
    }

    pub(crate) fn put(&mut self, offset: u32, bytes: &[u8]) {
        let begin = offset as usize;
        let Some(place) = self.held.get_mut(begin..begin + bytes.len()) else {
            return;
        };
        place.copy_from_slice(bytes);
        if let Some((path, file)) = &self.file
            && let Err(source) = file.write_all_at(bytes, u64::from(offset))
        {
            let path = path.clone();
            // The first one says it all.
            self.trouble
                .get_or_insert(Error::FlashFile { path, source });
        }
    }

    pub(crate) const fn take_trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_the_bytes_and_belongs_to_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flash.bin");
        let mut medium = Medium::in_file(&path, 4096).unwrap();
        assert_eq!(medium.held(), [ERASED; 4096]);
        medium.put(8, &[1, 2, 3]);
        assert!(matches!(
            Medium::in_file(&path, 4096),
            Err(Error::FlashInUse(_))
        ));
        drop(medium);
        let medium = Medium::in_file(&path, 4096).unwrap();
        assert_eq!(medium.held()[8..12], [1, 2, 3, ERASED]);
        drop(medium);
        assert!(matches!(
            Medium::in_file(&path, 8192),
            Err(Error::FlashSize { size: 4096, .. })
        ));
    }
}
