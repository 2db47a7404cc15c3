//! Small durable files: journals, transfer records, block maps, the event ring.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A flat, durable set of named byte strings. Names are `[a-z0-9._-]+/…` paths chosen by the runtime, never by a guest.
pub trait StateDir: Send + Sync {
    /// Read one; `None` if it does not exist.
    ///
    /// # Errors
    /// What the medium says.
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Replace one atomically; durable when it returns.
    ///
    /// # Errors
    /// What the medium says; the old contents are still there.
    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Append to one, creating it; durable only with `sync`. A cut may tear the last record.
    ///
    /// # Errors
    /// What the medium says.
    fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()>;
    /// Remove one; what does not exist is not an error.
    ///
    /// # Errors
    /// What the medium says.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names below a prefix, sorted.
    ///
    /// # Errors
    /// What the medium says.
    fn list(&self, prefix: &str) -> io::Result<Vec<String>>;
}

/// A directory of files: stores go by temp file, fsync, rename, directory fsync.
#[derive(Debug)]
pub struct FileStateDir {
    root: PathBuf,
}

impl FileStateDir {
    /// Use `root`, creating it (mode 0700) if need be.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn open(root: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn parent(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&parent)?;
        Ok(parent)
    }
}

impl StateDir for FileStateDir {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let parent = self.parent(name)?;
        let path = self.path(name);
        let mut temp = path.clone().into_os_string();
        temp.push(".new");
        let mut file = File::create(&temp)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        File::open(parent)?.sync_all()
    }

    fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let parent = self.parent(name)?;
        let path = self.path(name);
        let fresh = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(bytes)?;
        if sync {
            file.sync_data()?;
            if fresh {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut pending = vec![self.root.clone()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if let Ok(name) = path.strip_prefix(&self.root) {
                    let name = name.to_string_lossy();
                    if name.starts_with(prefix) && !name.ends_with(".new") {
                        names.push(name.into_owned());
                    }
                }
            }
        }
        names.sort();
        Ok(names)
    }
}
