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
    /// Make durable what can be read of one, so that it may be acted on: a process that was killed before it could sync
    /// has left what a power cut takes back. What does not exist is not an error.
    ///
    /// # Errors
    /// What the medium says.
    fn settle(&self, name: &str) -> io::Result<()>;
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

/// What a [`FileStateDir`] does to files: a file system as far as it matters for what survives a power cut. Names are
/// those of [`StateDir`], and below them what is being written. A simulation implements it to lose what was not synced,
/// and runs the same [`FileStateDir`] that a gateway runs.
pub trait Files: Send + Sync {
    /// All of a file; `None` if it does not exist.
    ///
    /// # Errors
    /// What the medium says.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Create a file, with its directories, or empty it.
    ///
    /// # Errors
    /// What the medium says.
    fn create(&self, name: &str) -> io::Result<Box<dyn OpenFile>>;
    /// Open a file to append to it; true = it was created, with its directories.
    ///
    /// # Errors
    /// What the medium says.
    fn append(&self, name: &str) -> io::Result<(Box<dyn OpenFile>, bool)>;
    /// Give a file another name in the same directory, in place of what had it.
    ///
    /// # Errors
    /// What the medium says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Delete a file.
    ///
    /// # Errors
    /// What the medium says; `NotFound` if there is none.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Make the names in the directory of a file durable.
    ///
    /// # Errors
    /// What the medium says.
    fn sync_directory(&self, of: &str) -> io::Result<()>;
    /// All names, in any order.
    ///
    /// # Errors
    /// What the medium says.
    fn list(&self) -> io::Result<Vec<String>>;
}

/// A file that is being written.
pub trait OpenFile {
    /// Write all of it at the end.
    ///
    /// # Errors
    /// What the medium says; a part may be there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Make what was written durable.
    ///
    /// # Errors
    /// What the medium says; none of it may be there.
    fn sync(&mut self) -> io::Result<()>;
}

/// What follows a name while its new contents are written.
const DRAFT: &str = ".new";

/// A directory of files: stores go by temp file, fsync, rename, directory fsync.
#[derive(Debug)]
pub struct FileStateDir<F = DirFiles> {
    files: F,
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
        Ok(Self::over(DirFiles::new(root.to_owned())))
    }
}

impl<F: Files> FileStateDir<F> {
    /// Use these files.
    pub fn over(files: F) -> Self {
        Self { files }
    }
}

impl<F: Files> StateDir for FileStateDir<F> {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.files.read(name)
    }

    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = format!("{name}{DRAFT}");
        let mut file = self.files.create(&draft)?;
        file.write(bytes)?;
        file.sync()?;
        drop(file);
        self.files.rename(&draft, name)?;
        self.files.sync_directory(name)
    }

    fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let (mut file, fresh) = self.files.append(name)?;
        file.write(bytes)?;
        if sync {
            file.sync()?;
        }
        // At once, whatever this append is worth: later ones that are synced rely on the name.
        if fresh {
            self.files.sync_directory(name)?;
        }
        Ok(())
    }

    fn settle(&self, name: &str) -> io::Result<()> {
        if self.files.read(name)?.is_none() {
            return Ok(());
        }
        let (mut file, _) = self.files.append(name)?;
        file.sync()?;
        self.files.sync_directory(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.files.remove(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            end => end,
        }
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = self.files.list()?;
        names.retain(|name| name.starts_with(prefix) && !name.ends_with(DRAFT));
        names.sort();
        Ok(names)
    }
}

/// A directory of the operating system's.
#[derive(Debug)]
pub struct DirFiles {
    root: PathBuf,
}

impl DirFiles {
    /// The files below `root`, which exists.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn parent(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        path.parent().unwrap_or(&self.root).to_owned()
    }
}

impl Files for DirFiles {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn OpenFile>> {
        fs::create_dir_all(self.parent(name))?;
        Ok(Box::new(Written(File::create(self.path(name))?)))
    }

    fn append(&self, name: &str) -> io::Result<(Box<dyn OpenFile>, bool)> {
        fs::create_dir_all(self.parent(name))?;
        let path = self.path(name);
        let fresh = !path.exists();
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok((Box::new(Written(file)), fresh))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_directory(&self, of: &str) -> io::Result<()> {
        File::open(self.parent(of))?.sync_all()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut pending = vec![self.root.clone()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                if path.is_dir() {
                    pending.push(path);
                } else if let Ok(name) = path.strip_prefix(&self.root) {
                    names.push(name.to_string_lossy().into_owned());
                }
            }
        }
        Ok(names)
    }
}

/// A file of the operating system's.
struct Written(File);

impl OpenFile for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is synced with the data (fsync(2)), and nothing else of a file counts here.
        self.0.sync_data()
    }
}
