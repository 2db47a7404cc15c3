//! Small durable files: journals, transfer records, block maps, the event ring.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Names, below a prefix, of what is being stored or was not stored to its end, for [`Self::remove`]: `list` does not tell
    /// them. Only who knows that nothing is being stored there may remove any. By default nothing is left of that.
    ///
    /// # Errors
    /// What the medium says.
    fn drafts(&self, _prefix: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
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
    /// All names below a folder (empty = all there are), in any order; others may be among them.
    ///
    /// # Errors
    /// What the medium says.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
}

/// A file that is being written.
pub trait OpenFile: Send {
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
    /// Whether it can still be found: false where somebody else has removed it. By default nobody does.
    fn has_name(&self) -> bool {
        true
    }
}

/// What follows a name while its new contents are written.
const DRAFT: &str = ".new";

/// Files that are kept open to be appended to again: a block map grows with every few blocks, and finding its file costs
/// more than what is written. Those that were appended to last, of all devices.
pub const OPEN_MAX: usize = 32;

/// A directory of files: stores go by temp file, fsync, rename, directory fsync.
pub struct FileStateDir<F = DirFiles> {
    files: F,
    open: Mutex<Open>,
}

/// Files that are open, and nobody's at the moment.
#[derive(Default)]
struct Open {
    /// The last one was appended to last.
    files: Vec<(String, Box<dyn OpenFile>)>,
    /// How often a name was given to another file.
    changes: u64,
    /// Names of new files that are not durable yet, as the append that made them has failed.
    unsynced: BTreeSet<String>,
}

impl Open {
    fn take(&mut self, name: &str) -> Option<Box<dyn OpenFile>> {
        let at = self.files.iter().position(|(kept, _)| kept == name)?;
        Some(self.files.remove(at).1)
    }

    fn keep(&mut self, name: &str, file: Box<dyn OpenFile>) {
        if self.files.len() >= OPEN_MAX {
            self.files.remove(0);
        }
        self.files.push((name.to_owned(), file));
    }
}

impl<F: fmt::Debug> fmt::Debug for FileStateDir<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileStateDir").field(&self.files).finish()
    }
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
        Self {
            files,
            open: Mutex::default(),
        }
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name is another file's now, or nobody's.
    fn close(&self, name: &str) {
        let mut open = self.opened();
        open.files.retain(|(kept, _)| kept != name);
        open.unsynced.remove(name);
        open.changes += 1;
    }
}

impl<F: Files> StateDir for FileStateDir<F> {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.files.read(name)
    }

    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = format!("{name}{DRAFT}");
        let mut file = self.files.create(&draft)?;
        let written = file.write(bytes).and_then(|()| file.sync());
        drop(file);
        let end = written.and_then(|()| self.files.rename(&draft, name));
        if let Err(error) = end {
            // What is there of it takes the room of others. What a kill leaves, the next one to be stored there replaces, or
            // who knows its folder removes it (`drafts`).
            drop(self.files.remove(&draft));
            return Err(error);
        }
        self.close(name);
        self.files.sync_directory(name)
    }

    fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let (open, unsynced, changes) = {
            let mut open = self.opened();
            (open.take(name), open.unsynced.contains(name), open.changes)
        };
        let (mut file, fresh) = match open.filter(|file| file.has_name()) {
            Some(file) => (file, false),
            None => self.files.append(name)?,
        };
        let mut end = file.write(bytes);
        if sync {
            end = end.and_then(|()| file.sync());
        }
        // At once, whatever this append is worth: later ones that are synced rely on the name.
        let is_new = fresh || unsynced;
        if is_new {
            end = end.and_then(|()| self.files.sync_directory(name));
        }
        let mut open = self.opened();
        if is_new && end.is_err() {
            open.unsynced.insert(name.to_owned());
        } else if is_new {
            open.unsynced.remove(name);
        }
        end?;
        // Otherwise the name may be another file's meanwhile.
        if open.changes == changes {
            open.keep(name, file);
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
        let end = self.files.remove(name);
        self.close(name);
        match end {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            end => end,
        }
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = self.files.list(folder_of(prefix))?;
        names.retain(|name| name.starts_with(prefix) && !name.ends_with(DRAFT));
        names.sort();
        Ok(names)
    }

    fn drafts(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut names = self.files.list(folder_of(prefix))?;
        names.retain(|name| name.starts_with(prefix) && name.ends_with(DRAFT));
        names.sort();
        Ok(names)
    }
}

/// The folder that all names with this prefix lie in: others may hold what is not ours (`lost+found`).
fn folder_of(prefix: &str) -> &str {
    prefix.rfind('/').map_or("", |end| &prefix[..end])
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

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let first = self.path(folder);
        let mut pending = Vec::from_iter(first.exists().then_some(first));
        while let Some(dir) = pending.pop() {
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
            for entry in fs::read_dir(&dir).map_err(named)? {
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

    fn has_name(&self) -> bool {
        // What cannot be told is found out by writing.
        self.0.metadata().map_or(true, |meta| meta.nlink() > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn dir() -> (tempfile::TempDir, FileStateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = FileStateDir::open(root.path()).unwrap();
        (root, state)
    }

    #[test]
    fn what_is_appended_goes_to_the_file_that_has_the_name_now() {
        let (_root, state) = dir();
        let contents = || state.load("a/log").unwrap();
        for sync in [false, true] {
            state.append("a/log", b"1", sync).unwrap();
        }
        assert_eq!(contents().unwrap(), b"11");
        state.store("a/log", b"2").unwrap();
        state.append("a/log", b"3", false).unwrap();
        assert_eq!(contents().unwrap(), b"23");
        state.remove("a/log").unwrap();
        assert_eq!(contents(), None);
        state.append("a/log", b"4", false).unwrap();
        state.settle("a/log").unwrap();
        assert_eq!(contents().unwrap(), b"4");
    }

    #[test]
    fn what_a_process_that_was_killed_has_left_half_written_is_nothing_and_is_replaced() {
        let (root, state) = dir();
        state.store("agents/build", b"whole").unwrap();
        fs::create_dir_all(root.path().join("targets/pump/main")).unwrap();
        let halves = ["agents/build.new", "targets/pump/main/record.json.new"];
        for half in halves {
            fs::write(root.path().join(half), b"ha").unwrap();
        }
        // Nobody takes it for what it was to be.
        assert_eq!(state.list("").unwrap(), ["agents/build"]);
        assert_eq!(state.list("agents/").unwrap(), ["agents/build"]);
        assert_eq!(state.list("agents/b").unwrap(), ["agents/build"]);
        assert_eq!(state.list("plugins/").unwrap(), [""; 0]);
        assert_eq!(state.drafts("").unwrap(), halves);
        assert_eq!(state.drafts("agents/").unwrap(), halves[..1]);
        assert_eq!(state.load("targets/pump/main/record.json").unwrap(), None);
        state.store("agents/build", b"newer").unwrap();
        state
            .store("targets/pump/main/record.json", b"first")
            .unwrap();
        for half in halves {
            assert!(!root.path().join(half).exists(), "{half}");
        }
        assert_eq!(state.load("agents/build").unwrap().unwrap(), b"newer");
    }

    #[test]
    fn only_so_many_files_stay_open_and_the_others_are_found_again() {
        let (_root, state) = dir();
        let names: Vec<String> = (0..OPEN_MAX + 8).map(|n| format!("{n}/log")).collect();
        for _ in 0..3 {
            for name in &names {
                state.append(name, name.as_bytes(), false).unwrap();
                assert!(state.opened().files.len() <= OPEN_MAX);
            }
        }
        for name in &names {
            assert_eq!(
                state.load(name).unwrap().unwrap(),
                name.repeat(3).as_bytes()
            );
        }
    }

    #[test]
    fn a_file_that_somebody_else_has_removed_is_made_anew() {
        let (root, state) = dir();
        state.append("a/log", b"1", false).unwrap();
        fs::remove_file(root.path().join("a/log")).unwrap();
        state.append("a/log", b"2", true).unwrap();
        assert_eq!(state.load("a/log").unwrap().unwrap(), b"2");
        // All of it, as by who starts over.
        fs::remove_dir_all(root.path().join("a")).unwrap();
        state.append("a/log", b"3", true).unwrap();
        assert_eq!(state.load("a/log").unwrap().unwrap(), b"3");
    }

    /// What is about to be done to a file; an error = it fails.
    type Hook = dyn Fn(Step) -> io::Result<()> + Send + Sync;

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Step {
        Write,
        Sync,
        SyncDirectory,
        /// Of new contents, beside the old ones.
        Draft,
        SyncDraft,
        Rename,
    }

    /// A directory where somebody looks on.
    struct Hooked(DirFiles, Arc<Hook>);

    struct HookedFile {
        file: Box<dyn OpenFile>,
        hook: Arc<Hook>,
        write: Step,
        sync: Step,
    }

    impl Hooked {
        fn dir(
            hook: impl Fn(Step) -> io::Result<()> + Send + Sync + 'static,
        ) -> (tempfile::TempDir, FileStateDir<Self>) {
            let root = tempfile::tempdir().unwrap();
            let files = DirFiles::new(root.path().to_owned());
            (root, FileStateDir::over(Self(files, Arc::new(hook))))
        }

        fn hooked(&self, file: Box<dyn OpenFile>, write: Step, sync: Step) -> Box<dyn OpenFile> {
            let hook = Arc::clone(&self.1);
            Box::new(HookedFile {
                file,
                hook,
                write,
                sync,
            })
        }
    }

    impl Files for Hooked {
        fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            self.0.read(name)
        }
        fn create(&self, name: &str) -> io::Result<Box<dyn OpenFile>> {
            Ok(self.hooked(self.0.create(name)?, Step::Draft, Step::SyncDraft))
        }
        fn append(&self, name: &str) -> io::Result<(Box<dyn OpenFile>, bool)> {
            let (file, fresh) = self.0.append(name)?;
            Ok((self.hooked(file, Step::Write, Step::Sync), fresh))
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            (self.1)(Step::Rename)?;
            self.0.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }
        fn sync_directory(&self, of: &str) -> io::Result<()> {
            (self.1)(Step::SyncDirectory)?;
            self.0.sync_directory(of)
        }
        fn list(&self, folder: &str) -> io::Result<Vec<String>> {
            self.0.list(folder)
        }
    }

    impl OpenFile for HookedFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            // As on a full disk: a part is there.
            let part = bytes.get(..bytes.len() / 2).unwrap_or_default();
            (self.hook)(self.write).inspect_err(|_| drop(self.file.write(part)))?;
            self.file.write(bytes)
        }
        fn sync(&mut self) -> io::Result<()> {
            (self.hook)(self.sync)?;
            self.file.sync()
        }
    }

    #[test]
    fn what_cannot_be_stored_takes_no_room_and_leaves_the_old_contents() {
        for failing in [Step::Draft, Step::SyncDraft, Step::Rename] {
            let full = Arc::new(AtomicBool::new(false));
            let is_full = Arc::clone(&full);
            let (root, state) =
                Hooked::dir(
                    move |step| match step == failing && is_full.load(Ordering::SeqCst) {
                        true => Err(io::ErrorKind::StorageFull.into()),
                        false => Ok(()),
                    },
                );
            state.store("a/x", b"old").unwrap();
            full.store(true, Ordering::SeqCst);
            let error = state.store("a/x", b"newer").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert_eq!(state.load("a/x").unwrap().unwrap(), b"old");
            let there: Vec<_> = fs::read_dir(root.path().join("a")).unwrap().collect();
            assert_eq!(there.len(), 1, "{there:?}");
            full.store(false, Ordering::SeqCst);
            state.store("a/x", b"newer").unwrap();
            assert_eq!(state.load("a/x").unwrap().unwrap(), b"newer");
        }
    }

    #[test]
    fn the_name_of_a_new_file_is_synced_also_when_the_first_append_fails() {
        for failing in [Step::Write, Step::Sync, Step::SyncDirectory] {
            let fails = Arc::new(AtomicBool::new(true));
            let synced = Arc::new(AtomicUsize::new(0));
            let told = (Arc::clone(&fails), Arc::clone(&synced));
            let (_root, state) = Hooked::dir(move |step| {
                if step == failing && told.0.swap(false, Ordering::SeqCst) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                if step == Step::SyncDirectory {
                    told.1.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            });
            state.append("log", b"1", true).unwrap_err();
            assert_eq!(synced.load(Ordering::SeqCst), 0);
            // Once: later ones find the name as it is to be.
            for _ in 0..2 {
                state.append("log", b"2", true).unwrap();
                assert_eq!(synced.load(Ordering::SeqCst), 1);
            }
        }
    }

    #[test]
    fn a_file_that_lost_its_name_during_an_append_is_not_kept_for_it() {
        let go = Arc::new(AtomicBool::new(false));
        let may_go = Arc::clone(&go);
        let (_root, state) = Hooked::dir(move |step| {
            while step == Step::Sync && !may_go.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Ok(())
        });
        std::thread::scope(|scope| {
            let append = scope.spawn(|| state.append("log", b"old", true));
            while state.load("log").unwrap().unwrap_or_default() != b"old" {
                std::thread::yield_now();
            }
            // The name is given to another file while the append is under way.
            state.store("log", b"new").unwrap();
            go.store(true, Ordering::SeqCst);
            append.join().unwrap().unwrap();
        });
        state.append("log", b"er", false).unwrap();
        assert_eq!(state.load("log").unwrap().unwrap(), b"newer");
    }
}
