//! Bytes that stay: the regions lent to plugins, and the staging files.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Random-access storage of one region or staging file. Positions are bytes from its start.
pub trait Storage: Send + Sync {
    /// Bytes it can hold.
    fn capacity(&self) -> u64;
    /// Fill `buffer` from `offset`; bytes never written read as 0xff.
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
    /// Make everything written so far durable.
    ///
    /// # Errors
    /// What the medium says.
    fn sync(&self) -> io::Result<()>;
}

/// A plain file. It is as long as what was written to it, so a slot file is the image, byte for byte.
#[derive(Debug)]
pub struct FileStorage {
    file: File,
    path: PathBuf,
    capacity: u64,
}

impl FileStorage {
    /// Open or create `path`, which may grow to `capacity` bytes.
    ///
    /// # Errors
    /// The file cannot be opened or created.
    pub fn open(path: &Path, capacity: u64, read_only: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        if !read_only {
            options.write(true).create(true).truncate(false);
        }
        Ok(Self {
            file: options.open(path)?,
            path: path.to_owned(),
            capacity,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Storage for FileStorage {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + filled as u64)
            {
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
        self.file.write_all_at(data, offset)
    }

    fn erase(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        if offset >= end {
            return Ok(());
        }
        if offset.saturating_add(length) >= end {
            return self.file.set_len(offset);
        }
        let blank = [0xff; 4096];
        let mut at = offset;
        let stop = offset + length;
        while at < stop {
            let n = usize::try_from((stop - at).min(blank.len() as u64)).unwrap_or(blank.len());
            self.file.write_all_at(&blank[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
