//! Bytes that stay: the regions lent to plugins, and the staging files.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// Random-access storage of one region or staging file. Positions are bytes from its start.
pub trait Storage: Send + Sync {
    /// Bytes it can hold.
    fn capacity(&self) -> u64;
    /// Fill `buffer` from `offset`. Beyond the last byte ever written it reads 0xff; a gap between written bytes reads as
    /// the medium has it (0 in a file).
    ///
    /// # Errors
    /// What the medium says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Write all of `data`; durable only after [`sync`](Self::sync), before it a power cut may lose or tear it.
    ///
    /// # Errors
    /// What the medium says, and `StorageFull` beyond the capacity.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Forget a range; it reads as 0xff afterwards. Forgetting all of a file gives its space back.
    ///
    /// # Errors
    /// What the medium says.
    fn erase(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Find room for what will be written there, where the medium can do so before: one that is full says so before anything is
    /// fetched, and what comes in pieces lies together. Nothing reads differently.
    ///
    /// # Errors
    /// What the medium says.
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let _ = (offset, length);
        Ok(())
    }
    /// Make everything written so far durable.
    ///
    /// # Errors
    /// What the medium says.
    fn sync(&self) -> io::Result<()>;
    /// Let what was synced be read from the medium, and not from a cache above it. After a failed sync a cache shows
    /// bytes that the medium may never get, and says no more that they are missing.
    ///
    /// # Errors
    /// What the medium says.
    fn evict(&self) -> io::Result<()>;
    /// The same for a range alone, where that can be done; all of it otherwise.
    ///
    /// # Errors
    /// What the medium says.
    fn evict_range(&self, offset: u64, length: u64) -> io::Result<()> {
        let _ = (offset, length);
        self.evict()
    }
}

/// Mode of a file that is made here: nobody but its owner may write what is started from it.
const FILE_MODE: u32 = 0o644;

/// A plain file. It is as long as what was written to it, so a slot file is the image, byte for byte.
///
/// It is open for writing only from the first write to the next [`Storage::sync`]: the kernel neither starts a program
/// whose file is open for writing nor opens one for writing that runs (ETXTBSY), and slots hold programs.
#[derive(Debug)]
pub struct FileStorage {
    reader: File,
    writer: Mutex<Option<Arc<File>>>,
    path: PathBuf,
    capacity: u64,
    read_only: bool,
}

impl FileStorage {
    /// Open or create `path`, which may grow to `capacity` bytes.
    ///
    /// # Errors
    /// The file cannot be opened or created, or is no regular file: its length says what was written, and a block
    /// device has none.
    pub fn open(path: &Path, capacity: u64, read_only: bool) -> io::Result<Self> {
        // Before it is opened, which would wait on a pipe and may act on a device.
        if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no regular file; block devices are not supported yet, name a file of a file system",
            ));
        }
        if !read_only && !path.exists() {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(FILE_MODE)
                .open(path)?;
            // Its bytes are synced by and by; its name here.
            if let Some(directory) = path.parent() {
                File::open(directory)?.sync_all()?;
            }
        }
        Ok(Self {
            reader: File::open(path)?,
            writer: Mutex::new(None),
            path: path.to_owned(),
            capacity,
            read_only,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn writer(&self) -> io::Result<Arc<File>> {
        if self.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "the region is read-only",
            ));
        }
        let mut writer = self.lock();
        if let Some(file) = &*writer {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().write(true).open(&self.path)?);
        *writer = Some(Arc::clone(&file));
        Ok(file)
    }

    /// All pages from `offset` on without a length. A file system without a medium (tmpfs) keeps them, and nothing is lost
    /// there.
    fn drop_pages(&self, offset: u64, length: Option<NonZeroU64>) -> io::Result<()> {
        let advice = rustix::fs::Advice::DontNeed;
        Ok(rustix::fs::fadvise(&self.reader, offset, length, advice)?)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<File>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for FileStorage {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        // What somebody else writes, he may write by putting another file into its place.
        let anew = self.read_only.then(|| File::open(&self.path)).transpose()?;
        let reader = anew.as_ref().unwrap_or(&self.reader);
        let mut filled = 0;
        while filled < buffer.len() {
            match reader.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        buffer[filled..].fill(0xff);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > self.capacity)
        {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "beyond the region",
            ));
        }
        self.writer()?.write_all_at(data, offset)
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.reader.metadata()?.len();
        if offset > end {
            return Ok(());
        }
        let writer = self.writer()?;
        if offset.saturating_add(length) >= end {
            // Also what was reserved behind it.
            return writer.set_len(offset);
        }
        let blank = [0xff; 4096];
        let mut at = offset;
        let stop = offset + length;
        while at < stop {
            let n = usize::try_from((stop - at).min(blank.len() as u64)).unwrap_or(blank.len());
            writer.write_all_at(&blank[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let writer = self.writer()?;
        let keep = FallocateFlags::KEEP_SIZE;
        match retry_on_intr(|| fallocate(&*writer, keep, offset, length)) {
            // The file system cannot.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let written = self.lock().take();
        match &written {
            Some(file) => file.sync_all().inspect_err(|_| {
                // Not durable: the next sync has to try again.
                self.lock().get_or_insert_with(|| Arc::clone(file));
            }),
            // Written by an earlier process, perhaps: the reader's descriptor syncs the same file.
            None => self.reader.sync_all(),
        }
    }

    fn evict(&self) -> io::Result<()> {
        self.drop_pages(0, None)
    }

    fn evict_range(&self, offset: u64, length: u64) -> io::Result<()> {
        match NonZeroU64::new(length) {
            Some(length) => self.drop_pages(offset, Some(length)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_slot_that_is_synced_can_be_started_while_it_is_lent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot-a");
        let storage = FileStorage::open(&path, 4096, false).unwrap();
        storage.write_at(0, b"#!/bin/sh\nexit 7\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        storage.sync().unwrap();
        // A child that another test starts may hold the descriptor until it execs; ours would hold it for ever.
        let mut started = Command::new(&path).status();
        for _ in 0..10_000 {
            if started.as_ref().is_ok() {
                break;
            }
            std::thread::yield_now();
            started = Command::new(&path).status();
        }
        assert_eq!(started.unwrap().code(), Some(7));
        // And written again afterwards.
        storage.erase(0, 4096).unwrap();
        storage.write_at(0, b"x").unwrap();
        storage.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn room_is_found_before_anything_is_written_and_given_back() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slot-a");
        let storage = FileStorage::open(&path, 1 << 20, false).unwrap();
        let room = || std::fs::metadata(&path).unwrap().blocks() * 512;
        storage.reserve(0, 100_000).unwrap();
        let mut buffer = [0; 4];
        storage.read_at(0, &mut buffer).unwrap();
        assert_eq!(buffer, [0xff; 4]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        if room() == 0 {
            // A file system that cannot.
            return;
        }
        assert!(room() >= 100_000, "{}", room());
        storage.write_at(0, b"abc").unwrap();
        storage.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert!(room() >= 100_000, "{}", room());
        for _ in 0..2 {
            storage.erase(0, 1 << 20).unwrap();
            assert_eq!(room(), 0);
            storage.reserve(0, 100_000).unwrap();
        }
        let more = rustix::fs::statvfs(dir.path()).unwrap();
        let more = (more.f_blocks + 1) * more.f_frsize;
        let error = storage.reserve(0, more).unwrap_err();
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::FileTooLarge];
        assert!(kinds.contains(&error.kind()), "{error}");
    }

    #[test]
    fn only_a_regular_file_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        for path in [Path::new("/dev/null"), dir.path()] {
            for read_only in [false, true] {
                let error = FileStorage::open(path, 4096, read_only).unwrap_err();
                assert!(error.to_string().contains("no regular file"), "{error}");
            }
        }
    }

    #[test]
    fn a_read_only_region_is_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tries");
        std::fs::write(&path, b"abc").unwrap();
        let storage = FileStorage::open(&path, 8, true).unwrap();
        assert!(storage.write_at(0, b"x").is_err());
        assert!(storage.erase(0, 8).is_err());
        let mut buffer = [0; 4];
        storage.evict().unwrap();
        storage.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"abc\xff");
        // Its writer replaces it.
        let draft = dir.path().join("draft");
        std::fs::write(&draft, b"de").unwrap();
        std::fs::rename(&draft, &path).unwrap();
        storage.read_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"de\xff\xff");
    }
}
