//! The directory in which the guests are built. All builds of one target directory share it, debug and release, one at a
//! time: here is where it lies, and whose turn it is in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

const LOCK: &str = ".otad-lock";

/// `guests` in the target directory, by the profile's directory, which is the one that holds `build`. How deep `OUT_DIR`
/// lies in that is cargo's business. The mark of a cache, CACHEDIR.TAG, does not tell: cargo leaves it away where the
/// directory was there before, and one further up is of something else.
pub(crate) fn dir(out_dir: &Path, target: &str) -> PathBuf {
    let build = out_dir.ancestors().find(|dir| dir.ends_with("build"));
    let above = build.and_then(Path::parent).and_then(Path::parent);
    // Built with `--target`, or a directory that somebody called like that: in its top only, cargo keeps this file.
    let is_targets =
        |above: &Path| above.ends_with(target) && !above.join(".rustc_info.json").exists();
    let above = match above.map(|above| (is_targets(above), above.parent())) {
        Some((true, Some(top))) => Some(top),
        _ => above,
    };
    above.unwrap_or(out_dir).join("guests")
}

/// Runs a command and reads the files that it leaves, before another build has other ones there: each leaves a guest at the
/// same place with other features, and cargo's own lock ends with cargo.
pub(crate) fn run_and_read<const N: usize>(
    dir: &Path,
    command: &mut Command,
    files: [PathBuf; N],
) -> Result<[Vec<u8>; N], String> {
    let lock = dir.join(LOCK);
    let at_lock = |e: io::Error| format!("{}: {e}", lock.display());
    fs::create_dir_all(dir).map_err(at_lock)?;
    let turn = File::create(&lock).map_err(at_lock)?;
    match turn.lock() {
        Err(error) if !is_unknown_there(&error) => return Err(at_lock(error)),
        _ => {}
    }
    let status = command
        .status()
        .map_err(|e| format!("it cannot run: {e}"))?;
    if !status.success() {
        return Err(status.to_string());
    }
    let mut read = [const { Vec::new() }; N];
    for (bytes, file) in read.iter_mut().zip(files) {
        *bytes = fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(read)
}

/// Whether a file system has no locks at all: there, cargo goes on without its own too.
fn is_unknown_there(error: &io::Error) -> bool {
    /// `errno` of Linux where a network's file system has nobody who keeps locks (`man 2 flock`).
    const ENOLCK: i32 = 37;
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_guests_lie_in_the_target_directory() {
        let rows = [
            ("/t/debug/build/guest-artifacts-1/out", "/t/guests"),
            ("/t/arm/release/build/guest-artifacts-1/out", "/t/guests"),
            ("/t/debug/build/guest-artifacts/1/out", "/t/guests"),
            ("/build/debug/build/guest-artifacts-1/out", "/build/guests"),
            ("/t/other/debug/build/g-1/out", "/t/other/guests"),
            ("/somewhere/out", "/somewhere/out/guests"),
        ];
        for (out_dir, expected) in rows {
            let found = dir(Path::new(out_dir), "arm");
            assert_eq!(found, Path::new(expected), "{out_dir}");
        }
    }

    #[test]
    fn a_target_directory_may_be_called_like_a_target() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("arm");
        let out = top.join("debug/build/guest-artifacts-1/out");
        fs::create_dir_all(&top).unwrap();
        fs::write(top.join(".rustc_info.json"), "{}").unwrap();
        assert_eq!(dir(&out, "arm"), top.join("guests"));
    }

    #[test]
    fn a_file_system_without_locks_stops_no_build() {
        // ENOLCK, ENOSYS, EOPNOTSUPP; EACCES and EIO are somebody's to mend.
        for (errno, goes_on) in [(37, true), (38, true), (95, true), (13, false), (5, false)] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(is_unknown_there(&error), goes_on, "{error}");
        }
    }

    #[test]
    fn each_build_reads_what_it_has_left_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("guest");
        thread::scope(|scope| {
            for name in ["with", "without"] {
                let (dir, file) = (dir.path(), &file);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let mut command = Command::new("sh");
                        command.args(["-c", "printf %s \"$0\" >\"$1\"", name]);
                        command.arg(file);
                        let [read] = run_and_read(dir, &mut command, [file.clone()]).unwrap();
                        assert_eq!(String::from_utf8_lossy(&read), name);
                    }
                });
            }
        });
    }

    #[test]
    fn what_fails_and_what_leaves_nothing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("guest");
        for (script, word) in [("exit 3", "3"), ("exit 0", "guest")] {
            let mut command = Command::new("sh");
            let read = run_and_read(dir.path(), command.args(["-c", script]), [file.clone()]);
            assert!(read.is_err_and(|error| error.contains(word)), "{script}");
        }
    }
}
