//! A directory into which plugin builds are dropped: each file that is renamed to `<device>.<target>.wasm` (`.so` for a shared
//! library, `.bundle` for either with its manifest) there is put in, as by `otad plugin swap`, and then named `.loaded` or
//! `.refused`, so that nothing is done twice. One whose target is busy waits. Manifest and signature, where they are files of
//! their own, are to lie there before it, and go with it.
//!
//! Only the rename counts (inotify, `IN_MOVED_TO`, by rustix, which is linked anyway): a file that is written in place is
//! looked at by nobody until it has its name, so no half of it is ever read. A poll could not tell the two apart. What got
//! its name while no daemon ran is taken at the start. Not here: what a swap is.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host_runtime::plugin::PluginFactory;
use host_runtime::supervisor::DeviceHandle;
use host_runtime::types::code;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::fs::{Access, CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tokio::time::{Instant, sleep};

use crate::code::{BUNDLE, Entry, MANIFEST, SIGNATURE, Source, beside};
use crate::exit::Failed;
use crate::gateway::{Hold, Plugins, to_its_end};

/// How often the kernel is asked for renames. (Waiting for the descriptor itself takes a call of tokio's that is unsafe.)
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes of the buffer for events: some twenty names.
const EVENTS_BYTES: usize = 4096;

/// How often a file whose target is busy is tried again.
const TRY_EVERY: Duration = Duration::from_secs(2);

/// Watches until it is dropped. A directory that cannot be watched is an error in the log; the devices run on. `shared`: others
/// may write there.
pub(super) async fn serve(
    dir: PathBuf,
    shared: bool,
    devices: Vec<DeviceHandle>,
    plugins: Arc<Plugins>,
) {
    let watch = Watch {
        dir,
        put: Swaps { devices, plugins },
    };
    let own = rustix::process::geteuid().as_raw();
    let end = match check_dir(&watch.dir, Some(own), shared) {
        Ok(()) => watch.run().await.map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    if let Err(why) = end {
        tracing::error!(
            "plugin_dir {} is not watched until otad is started again: {why}",
            watch.dir.display()
        );
    }
}

/// Whether nobody but otad's user, where that is known, and root may drop something there, unless others may; and whether
/// what was looked at can get its other name there.
pub(crate) fn check_dir(dir: &Path, user: Option<u32>, shared: bool) -> Result<(), String> {
    let meta = fs::metadata(dir).map_err(|error| error.to_string())?;
    let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
    let what = match user.filter(|user| owner != *user && owner != 0) {
        _ if shared => None,
        Some(user) => Some(format!("it belongs to user {owner}, not to {user}")),
        None if mode & 0o022 != 0 => {
            Some(format!("it has mode {mode:04o}: others may write there"))
        }
        None => None,
    };
    if let Some(what) = what {
        return Err(format!(
            "{what}; chown and chmod 0755 it, or set `plugin_dir_shared = true` in [daemon]"
        ));
    }
    // One that kept its name would be put in again at each start. Whether a user can write there, the kernel says of this
    // process's own; of another one's it is known of what belongs to root.
    let renames = match user {
        Some(user) if user == rustix::process::geteuid().as_raw() => {
            let end = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK);
            end.map_err(|error| error.to_string())
        }
        Some(user) if !shared && user != 0 && user != owner => {
            Err(format!("it belongs to user {owner}, not to {user}"))
        }
        Some(_) | None => Ok(()),
    };
    renames.map_err(|why| format!("nothing in it can be renamed ({why}); chown it to otad's user"))
}

/// How a file that was dropped ended.
enum End<B> {
    Loaded,
    /// Its target cannot take it now.
    Waits(B, String),
    Refused(String),
}

/// A build whose target is busy: it was loaded, and kept in the state directory, once and not at each try.
struct Waiting<B> {
    file: Identity,
    build: B,
}

/// Puts in what is in a file.
trait Put {
    /// What was loaded from it.
    type Build;

    /// `loaded` is what is in the file, where that is known.
    async fn put(
        &self,
        device: &str,
        target: &str,
        path: &Path,
        loaded: Option<Self::Build>,
    ) -> End<Self::Build>;
}

/// Which file it was that had a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified_s: meta.mtime(),
            modified_ns: meta.mtime_nsec(),
        }
    }
}

struct Watch<P> {
    dir: PathBuf,
    put: P,
}

impl<P: Put> Watch<P> {
    async fn run(&self) -> io::Result<()> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let wanted = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, &self.dir, wanted)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        let mut waiting: BTreeMap<String, Waiting<P::Build>> = BTreeMap::new();
        let mut try_at = Instant::now();
        loop {
            if Instant::now() >= try_at {
                names.extend(waiting.keys().cloned());
                try_at = Instant::now() + TRY_EVERY;
            }
            for name in names {
                let waits = self.take(&name, waiting.remove(&name)).await;
                waiting.extend(waits.map(|waits| (name, waits)));
            }
            sleep(LOOK_EVERY).await;
            names = moved(&fd)?;
        }
    }

    /// Put in what has this name, if it is one of ours; what has to wait, for the next try. `waited` is what the try before
    /// gave: who looks into the log knows of it.
    async fn take(
        &self,
        name: &str,
        waited: Option<Waiting<P::Build>>,
    ) -> Option<Waiting<P::Build>> {
        let (device, target) = parse(name)?;
        let path = self.dir.join(name);
        // None: renamed between the watch and the look at the start, which has taken it.
        let before = fs::symlink_metadata(&path).ok()?;
        let file = Identity::of(&before);
        let known = waited.filter(|waited| waited.file == file);
        let is_known = known.is_some();
        let loaded = known.map(|known| known.build);
        let ending = match self.put.put(device, target, &path, loaded).await {
            End::Loaded => {
                tracing::info!("{} is put in", path.display());
                "loaded"
            }
            End::Waits(build, why) => {
                if !is_known {
                    tracing::warn!("{} waits: {why}", path.display());
                }
                return Some(Waiting { file, build });
            }
            End::Refused(why) => {
                tracing::error!("{} is not put in: {why}", path.display());
                "refused"
            }
        };
        finish(&path, file, ending);
        None
    }
}

/// As `otad plugin swap` does it.
struct Swaps {
    devices: Vec<DeviceHandle>,
    plugins: Arc<Plugins>,
}

/// What was loaded, and what keeps its bytes in the state directory until its swap has ended.
struct Loaded {
    plugin: Arc<dyn PluginFactory>,
    kept: Hold,
}

impl Put for Swaps {
    type Build = Loaded;

    async fn put(
        &self,
        device: &str,
        target: &str,
        path: &Path,
        loaded: Option<Self::Build>,
    ) -> End<Self::Build> {
        let Some(handle) = self.devices.iter().find(|d| d.name() == device) else {
            return End::Refused(format!("no device \"{device}\" runs here"));
        };
        let build = match self.build(device, target, path, loaded).await {
            Ok(build) => build,
            Err(failed) => return End::Refused(failed.text),
        };
        let plugin = Some(Arc::clone(&build.plugin));
        let (handle, target) = (handle.clone(), target.to_owned());
        let swap = async move { handle.swap_plugin(&target, plugin).await };
        match to_its_end(swap, Some(build.kept.clone())).await {
            Ok(()) => End::Loaded,
            Err(failure) if failure.main == code::BUSY => End::Waits(build, failure.to_string()),
            Err(failure) => End::Refused(failure.to_string()),
        }
    }
}

impl Swaps {
    /// What is in the file: what was loaded from it, unless it was signed anew since.
    async fn build(
        &self,
        device: &str,
        target: &str,
        path: &Path,
        loaded: Option<Loaded>,
    ) -> Result<Loaded, Failed> {
        let (plugins, entry) = (|| Arc::clone(&self.plugins), Entry::New);
        let source = || Source::File(path.to_owned());
        if let Some(build) = loaded
            && plugins()
                .check_again(device, target, source(), entry, &*build.plugin)
                .await?
        {
            return Ok(build);
        }
        let kept = self.plugins.hold().await;
        let taken = plugins().take_in(device, target, source(), entry, &kept);
        let plugin = taken.await?;
        Ok(Loaded { plugin, kept })
    }
}

/// Give a file that was looked at the name that says so, with its manifest; unless another one has got its name meanwhile,
/// whose turn comes by that rename.
fn finish(path: &Path, before: Identity, ending: &str) {
    let done = beside(path, ending);
    if let Err(error) = fs::rename(path, &done) {
        tracing::warn!("{} keeps its name: {error}", path.display());
        return;
    }
    if fs::symlink_metadata(&done).is_ok_and(|after| Identity::of(&after) != before) {
        give_back(&done, path);
        return;
    }
    for part in [MANIFEST, SIGNATURE] {
        match fs::rename(beside(path, part), beside(&done, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("the {part} of {} keeps its name: {error}", path.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Give a file that was not looked at its name back, unless a third one has that by now: it is the latest, and this one was
/// replaced by it as by any rename.
fn give_back(done: &Path, path: &Path) {
    let end = match renameat_with(CWD, done, CWD, path, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => {
            tracing::warn!("{} was replaced before it was looked at", path.display());
            fs::rename(done, beside(path, "refused"))
        }
        // A file system that cannot tell: the instant between the two renames stays.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(done, path),
        end => end.map_err(io::Error::from),
    };
    if let Err(error) = end {
        tracing::warn!("{} is not looked at: {error}", done.display());
    }
}

/// Names that files in the directory got by a rename.
fn moved(fd: &OwnedFd) -> io::Result<Vec<String>> {
    let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
    let mut events = Reader::new(fd, &mut buffer);
    let mut names = Vec::new();
    loop {
        match events.next() {
            Ok(event) => names.extend(
                event
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            ),
            Err(Errno::WOULDBLOCK) => return Ok(names),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Device and target of `<device>.<target>.wasm`, `.so` or `.bundle`; a thing's name has no dot. What it is, says the target's
/// carrier.
fn parse(name: &str) -> Option<(&str, &str)> {
    let (name, ending) = name.rsplit_once('.')?;
    let is_code = ["wasm", "so", BUNDLE].contains(&ending);
    let (device, target) = name.split_once('.').filter(|_| is_code)?;
    (!device.is_empty() && !target.is_empty()).then_some((device, target))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn a_name_says_which_target_of_which_device() {
        assert_eq!(parse("pump-1.main.wasm"), Some(("pump-1", "main")));
        assert_eq!(parse("pump-1.app.v2.wasm"), Some(("pump-1", "app.v2")));
        assert_eq!(parse("pump-1.board.so"), Some(("pump-1", "board")));
        assert_eq!(parse("pump-1.board.bundle"), Some(("pump-1", "board")));
        for other in [
            "main.wasm",
            "main.so",
            ".main.wasm",
            "pump-1..wasm",
            "pump-1.main.wasm.loaded",
            "pump-1.main.wasm.manifest",
            ".x",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_another_one_has_taken_the_name_of_is_not_marked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.b.wasm");
        fs::write(&path, "first").unwrap();
        let identity = |path: &Path| Identity::of(&fs::symlink_metadata(path).unwrap());
        let first = identity(&path);
        fs::write(dir.path().join("draft"), "second").unwrap();
        fs::rename(dir.path().join("draft"), &path).unwrap();
        finish(&path, first, "loaded");
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert!(!beside(&path, "loaded").exists());
        let second = identity(&path);
        fs::write(beside(&path, MANIFEST), "its").unwrap();
        finish(&path, second, "loaded");
        let done = beside(&path, "loaded");
        assert_eq!(fs::read(&done).unwrap(), b"second");
        assert!(beside(&done, MANIFEST).exists() && !path.exists());
    }

    #[test]
    fn a_name_is_not_given_back_over_the_file_that_has_it_by_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.b.wasm");
        let done = beside(&path, "loaded");
        fs::write(&done, "second").unwrap();
        fs::write(&path, "third").unwrap();
        give_back(&done, &path);
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read(beside(&path, "refused")).unwrap(), b"second");
        fs::rename(&path, &done).unwrap();
        give_back(&done, &path);
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert!(!done.exists());
    }

    /// A target that is busy for so many tries; builds are what is in the file.
    struct Busy {
        tries: Cell<u32>,
        /// What was known of the file at each try.
        known: RefCell<Vec<Option<String>>>,
    }

    impl Put for Busy {
        type Build = String;

        async fn put(&self, _: &str, _: &str, path: &Path, loaded: Option<String>) -> End<String> {
            self.known.borrow_mut().push(loaded.clone());
            if self.tries.get() == 0 {
                return End::Loaded;
            }
            self.tries.set(self.tries.get() - 1);
            let build = loaded.unwrap_or_else(|| fs::read_to_string(path).unwrap());
            End::Waits(build, "busy".to_owned())
        }
    }

    #[tokio::test]
    async fn a_file_whose_target_is_busy_keeps_its_name_and_is_loaded_once() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch {
            dir: dir.path().to_owned(),
            put: Busy {
                tries: Cell::new(3),
                known: RefCell::default(),
            },
        };
        let (name, path) = ("a.b.wasm", dir.path().join("a.b.wasm"));
        let drop_in = |text: &str| {
            fs::write(dir.path().join("draft"), text).unwrap();
            fs::rename(dir.path().join("draft"), &path).unwrap();
        };
        drop_in("first");
        let waits = watch.take(name, None).await;
        let waits = watch.take(name, waits).await;
        // Another one in its place is no file that is known.
        drop_in("second");
        let waits = watch.take(name, waits).await;
        assert!(path.exists() && waits.is_some());
        assert!(watch.take(name, waits).await.is_none());
        assert!(!path.exists() && beside(&path, "loaded").exists());
        let known = |text: &str| Some(text.to_owned());
        assert_eq!(
            *watch.put.known.borrow(),
            [None, known("first"), None, known("second")]
        );
        // Withdrawn while it waits: nothing is left to do.
        watch.put.tries.set(1);
        drop_in("third");
        let waits = watch.take(name, None).await;
        fs::remove_file(&path).unwrap();
        assert!(watch.take(name, waits).await.is_none());
        assert_eq!(watch.put.known.borrow().len(), 5);
    }

    #[test]
    fn a_directory_where_others_may_write_is_refused_unless_that_is_meant() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mode = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode));
        mode(0o755).unwrap();
        assert_eq!(check_dir(dir.path(), None, false), Ok(()));
        for open in [0o775, 0o757, 0o1777] {
            mode(open).unwrap();
            let why = check_dir(dir.path(), None, false).unwrap_err();
            assert!(
                why.contains("others may write there; chown and chmod"),
                "{why}"
            );
            assert_eq!(check_dir(dir.path(), None, true), Ok(()));
        }
    }

    #[test]
    fn a_directory_of_somebody_else_or_where_nothing_can_be_renamed_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let owner = fs::metadata(dir.path()).unwrap().uid();
        let check = |user| check_dir(dir.path(), Some(user), false);
        assert_eq!(check(owner), Ok(()));
        // Root's is not refused for its owner: but otad's user, whoever asks, can rename nothing there.
        let why = check(owner + 1).unwrap_err();
        assert!(why.contains("it belongs to user"), "{why}");
        let is_of_root = owner == 0;
        assert_eq!(
            why.starts_with("nothing in it can be renamed"),
            is_of_root,
            "{why}"
        );
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        // Root may write anywhere.
        assert_eq!(check(owner).is_ok(), is_of_root);
    }

    #[test]
    fn only_a_rename_is_heard_of() {
        let dir = tempfile::tempdir().unwrap();
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&fd, dir.path(), WatchFlags::MOVED_TO).unwrap();
        fs::write(dir.path().join("a.b.wasm"), "half").unwrap();
        fs::write(dir.path().join("draft"), "whole").unwrap();
        assert_eq!(moved(&fd).unwrap(), [] as [&str; 0]);
        fs::rename(dir.path().join("draft"), dir.path().join("c.d.wasm")).unwrap();
        assert_eq!(moved(&fd).unwrap(), ["c.d.wasm"]);
    }
}
