//! The staging file of a staged target as a plain file of the operator's directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StorageFactory;
use crate::ports::storage::{FileStorage, Storage};

/// One file, made when a transfer begins and deleted when it is thrown away.
#[derive(Clone, Debug)]
pub struct FileStaging {
    path: PathBuf,
}

impl FileStaging {
    /// Stage at `path`; its directory must exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Make the file's name, or that it is gone, as durable as its bytes.
    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            Some(_) | None => File::open(".")?.sync_all(),
        }
    }
}

impl StorageFactory for FileStaging {
    fn open(&self, capacity: u64) -> io::Result<Arc<dyn Storage>> {
        let fresh = !self.path.exists();
        let storage = FileStorage::open(&self.path, capacity, false)?;
        if fresh {
            self.sync_directory()?;
        }
        Ok(Arc::new(storage))
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Ok(()) => self.sync_directory(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_stays_between_openings_and_goes_when_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let staging = FileStaging::new(&directory.path().join("app.image"));
        staging.remove().unwrap();
        let storage = staging.open(10).unwrap();
        storage.write_at(2, b"abc").unwrap();
        assert!(storage.write_at(8, b"abc").is_err(), "beyond its capacity");
        drop(storage);
        let mut bytes = [0; 5];
        staging.open(10).unwrap().read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0abc");
        staging.remove().unwrap();
        assert!(!directory.path().join("app.image").exists());
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let staging = FileStaging::new(Path::new("/nonexistent/dir/app.image"));
        assert!(staging.open(1).is_err());
    }
}
