//! A directory into which plugin builds are dropped: each file that is renamed to `<device>.<target>.wasm` (`.so` for a shared
//! library) there is put in, as by `otad plugin swap`, and then named `.loaded` or `.refused`, so that nothing is done twice.
//! Its manifest and signature are to lie there before it, and go with it.
//!
//! Only the rename counts (inotify, `IN_MOVED_TO`, by rustix, which is linked anyway): a file that is written in place is
//! looked at by nobody until it has its name, so no half of it is ever read. A poll could not tell the two apart. What got
//! its name while no daemon ran is taken at the start. Not here: what a swap is.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host_runtime::supervisor::DeviceHandle;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::time::sleep;

use crate::code::{Entry, MANIFEST, SIGNATURE, beside};
use crate::gateway::Plugins;

/// How often the kernel is asked for renames. (Waiting for the descriptor itself takes a call of tokio's that is unsafe.)
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Bytes of the buffer for events: some twenty names.
const EVENTS_BYTES: usize = 4096;

/// Watches until it is dropped. A directory that cannot be watched is an error in the log; the devices run on.
pub(super) async fn serve(dir: PathBuf, devices: Vec<DeviceHandle>, plugins: Arc<Plugins>) {
    let watch = Watch {
        dir,
        devices,
        plugins,
    };
    if let Err(error) = watch.run().await {
        tracing::error!(
            "plugin_dir {} is not watched until otad is started again: {error}",
            watch.dir.display()
        );
    }
}

struct Watch {
    dir: PathBuf,
    devices: Vec<DeviceHandle>,
    plugins: Arc<Plugins>,
}

impl Watch {
    async fn run(&self) -> io::Result<()> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let wanted = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        inotify::add_watch(&fd, &self.dir, wanted)?;
        for entry in fs::read_dir(&self.dir)? {
            self.take(&entry?.file_name().to_string_lossy()).await;
        }
        loop {
            for name in moved(&fd)? {
                self.take(&name).await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Put in what has this name, if it is one of ours.
    async fn take(&self, name: &str) {
        let Some((device, target)) = parse(name) else {
            return;
        };
        let path = self.dir.join(name);
        if fs::symlink_metadata(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            // Renamed between the watch and the look at the start, which has taken it.
            return;
        }
        let ending = match self.swap(device, target, &path).await {
            Ok(()) => {
                tracing::info!("{} is put in", path.display());
                "loaded"
            }
            Err(why) => {
                tracing::error!("{} is not put in: {why}", path.display());
                "refused"
            }
        };
        let done = beside(&path, ending);
        if let Err(error) = fs::rename(&path, &done) {
            tracing::warn!("{} keeps its name: {error}", path.display());
        }
        for part in [MANIFEST, SIGNATURE] {
            match fs::rename(beside(&path, part), beside(&done, part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("the {part} of {} keeps its name: {error}", path.display());
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    async fn swap(&self, device: &str, target: &str, path: &Path) -> Result<(), String> {
        let handle = self.devices.iter().find(|d| d.name() == device);
        let handle = handle.ok_or_else(|| format!("no device \"{device}\" runs here"))?;
        let plugins = Arc::clone(&self.plugins);
        let build = plugins.take_in(device, target, path, Entry::New).await;
        let build = build.map_err(|failed| failed.text)?;
        let end = handle.swap_plugin(target, Some(build)).await;
        end.map_err(|failure| failure.to_string())
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

/// Device and target of `<device>.<target>.wasm` or `.so`; a thing's name has no dot. Which of the two it is, says the
/// target's carrier.
fn parse(name: &str) -> Option<(&str, &str)> {
    let name = name
        .strip_suffix(".wasm")
        .or_else(|| name.strip_suffix(".so"))?;
    let (device, target) = name.split_once('.')?;
    (!device.is_empty() && !target.is_empty()).then_some((device, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_target_of_which_device() {
        assert_eq!(parse("pump-1.main.wasm"), Some(("pump-1", "main")));
        assert_eq!(parse("pump-1.app.v2.wasm"), Some(("pump-1", "app.v2")));
        assert_eq!(parse("pump-1.board.so"), Some(("pump-1", "board")));
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
