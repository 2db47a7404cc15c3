//! Compiled code between starts of the process: ours alone, or not used at all.
//!
//! Compiled code is native code, so an entry is as trusted as the program itself. It is only taken from a directory
//! that nobody else can write to, under a name made of the component's digest and the engine's settings, and only if
//! its own digest is right; anything else is compiled again. Losing an entry costs one compilation, so nothing here is
//! an error after opening.

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::{EngineError, unfold};

/// First bytes of an entry; another layout gets another number.
const MAGIC: &[u8; 8] = b"OTADCWC1";

/// Magic and SHA-256 of the code.
const HEADER_BYTES: usize = 8 + 32;

/// Most bytes of an entry. 4 MiB of component compile to some 20 MiB, and to three times as much unfolded; what is more is
/// compiled at each start.
const ENTRY_MAX_BYTES: u64 = 128 * 1024 * 1024;

/// Entries kept; the oldest go. A gateway has a hand full of builds, two of each during a swap.
pub(super) const ENTRIES_MAX: usize = 32;

/// Why a process of user `own` takes no compiled code from what is there, not followed if it is a link; `None` if it does.
#[must_use]
pub fn cache_refusal(found: &Metadata, own: u32) -> Option<String> {
    if !found.is_dir() {
        return Some("is no directory itself".to_owned());
    }
    let (owner, mode) = (found.uid(), found.mode() & 0o777);
    if owner != own {
        return Some(format!("belongs to user {owner}, otad runs as {own}"));
    }
    (mode & 0o077 != 0).then(|| format!("is open to others (mode {mode:04o})"))
}

/// An open cache directory.
#[derive(Debug)]
pub(super) struct Cache {
    dir: File,
    path: PathBuf,
    /// Settings and version of the engine, and of what is done to code before it is compiled: other code does not fit.
    engine: u64,
}

impl Cache {
    /// Open `path`, creating it (0700) if need be.
    pub(super) fn open(path: &Path, engine: &wasmtime::Engine) -> Result<Self, EngineError> {
        let refuse = |reason: String| EngineError::Cache {
            path: path.to_owned(),
            reason,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| refuse(format!("cannot be created: {e}")))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| refuse(format!("cannot be opened: {e}")))?;
        let dir = File::from(dir);
        let found = dir.metadata();
        let found = found.map_err(|e| refuse(format!("cannot be read: {e}")))?;
        if let Some(reason) = cache_refusal(&found, rustix::process::geteuid().as_raw()) {
            return Err(refuse(reason));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        unfold::VERSION.hash(&mut hasher);
        Ok(Self {
            dir,
            path: path.to_owned(),
            engine: hasher.finish(),
        })
    }

    /// The compiled code of a component, if there is a good entry.
    pub(super) fn load(&self, engine: &wasmtime::Engine, digest: &[u8; 32]) -> Option<Component> {
        let name = self.name(digest);
        let code = match self.read(&name) {
            Ok(code) => code,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                tracing::warn!(entry = %name, "compiled-code cache: {e}; compiling again");
                return None;
            }
        };
        #[expect(
            unsafe_code,
            reason = "compiled code is native code: it comes from a directory that only this user can write to, \
                      is named by digest and engine, and its own digest has just been checked"
        )]
        // SAFETY: the bytes are what `Component::serialize` gave `store` in this or an earlier process of this user.
        let component = unsafe { Component::deserialize(engine, &code) };
        component
            .inspect_err(|e| {
                tracing::warn!(entry = %name, "compiled-code cache: {e:#}; compiling again");
            })
            .ok()
    }

    /// Keep the compiled code of a component. A cache that cannot be written is worth a line, not a failure.
    pub(super) fn store(&self, digest: &[u8; 32], component: &Component) {
        let name = self.name(digest);
        let stored = component
            .serialize()
            .map_err(|e| io::Error::other(format!("{e:#}")))
            .and_then(|code| {
                if (HEADER_BYTES + code.len()) as u64 > ENTRY_MAX_BYTES {
                    let text = format!("{} bytes, at most {ENTRY_MAX_BYTES} are kept", code.len());
                    return Err(io::Error::other(text));
                }
                self.write(&name, &code)
            });
        if let Err(e) = stored {
            tracing::warn!(directory = %self.path.display(), "compiled code is not cached: {e}");
        }
        self.prune();
    }

    fn name(&self, digest: &[u8; 32]) -> String {
        format!("{}-{:016x}.cwasm", hex(digest), self.engine)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.dir, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        let ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if !regular || !ours || stat.st_mode & 0o022 != 0 {
            return Err(io::Error::other("the entry is not a file of ours alone"));
        }
        let mut bytes = Vec::new();
        File::from(fd)
            .take(ENTRY_MAX_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > ENTRY_MAX_BYTES {
            return Err(io::Error::other("the entry is too large"));
        }
        let whole = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .is_some_and(|(header, code)| {
                header[..8] == *MAGIC && header[8..] == Sha256::digest(code)[..]
            });
        if !whole {
            return Err(io::Error::other("the entry is damaged"));
        }
        bytes.drain(..HEADER_BYTES);
        Ok(bytes)
    }

    fn write(&self, name: &str, code: &[u8]) -> io::Result<()> {
        // One writer at a time would be enough; another process makes the same bytes, so the last rename wins.
        let temp = format!("{name}.{}.new", std::process::id());
        let _ = rustix::fs::unlinkat(&self.dir, &temp, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, &temp, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(fd);
        let written = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(&Sha256::digest(code)))
            .and_then(|()| file.write_all(code))
            .and_then(|()| Ok(rustix::fs::renameat(&self.dir, &temp, &self.dir, name)?));
        if written.is_err() {
            // Best effort: a left-over is overwritten by the next try.
            let _ = rustix::fs::unlinkat(&self.dir, &temp, AtFlags::empty());
        }
        written
    }

    /// Remove the oldest entries over [`ENTRIES_MAX`].
    fn prune(&self) {
        let Ok(dir) = rustix::fs::Dir::read_from(&self.dir) else {
            return;
        };
        let mut entries: Vec<_> = dir
            .flatten()
            .filter(|entry| entry.file_name().to_bytes().ends_with(b".cwasm"))
            .filter_map(|entry| {
                let name = entry.file_name().to_owned();
                let stat = rustix::fs::statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
                Some((stat.st_mtime, stat.st_mtime_nsec, name))
            })
            .collect();
        entries.sort();
        let surplus = entries.len().saturating_sub(ENTRIES_MAX);
        for (_, _, name) in entries.into_iter().take(surplus) {
            // Somebody else may have been faster.
            let _ = rustix::fs::unlinkat(&self.dir, &name, AtFlags::empty());
        }
    }
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
