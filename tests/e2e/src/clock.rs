//! A wall clock that a test turns while a daemon runs: what a board without a battery, or a wrong time server, does.
//!
//! A library of a few lines is put between the program and the C library (`LD_PRELOAD`): `CLOCK_REALTIME` then tells so many
//! seconds more as stand in a file, at every call anew. Everything that asks for the time of day is lied to, TLS and the
//! checks of certificates too; the monotonic clock is left alone, as the kernel leaves it alone. No setting of `otad` and
//! no right to set the machine's clock is needed. It deliberately does not count on 32-bit machines, whose programs call
//! another function.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Where the library finds the file.
const VARIABLE: &str = "WALL_CLOCK_AHEAD";

/// `clock_gettime` as the kernel answers it, and for the wall clock what stands in the file on top.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *ahead_s;

__attribute__((constructor)) static void find_file(void)
{
    const char *path = getenv("WALL_CLOCK_AHEAD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *page = mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED)
        ahead_s = page;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && ahead_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *ahead_s;
    return result;
}
"#;

/// A clock for any number of processes.
#[derive(Debug)]
pub struct WallClock {
    dir: TempDir,
}

impl WallClock {
    /// One that is right. `None` where there is no C compiler, or the numbers are others.
    #[must_use]
    pub fn new() -> Option<Self> {
        if !cfg!(target_pointer_width = "64") {
            return None;
        }
        let dir = support::temp_dir("wall-clock").unwrap();
        let source = dir.path().join("clock.c");
        fs::write(&source, SOURCE).unwrap();
        let clock = Self { dir };
        clock.turn(0);
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(clock.library())
            .arg(&source)
            .output()
            .ok()?;
        assert!(compiled.status.success(), "{compiled:?}");
        Some(clock)
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    fn ahead(&self) -> PathBuf {
        self.dir.path().join("ahead")
    }

    /// The clock is so many seconds ahead from now on; less than 0 is behind.
    pub fn turn(&self, seconds: i64) {
        use std::os::unix::fs::FileExt as _;
        let file = open(&self.ahead());
        // In place: the page that the processes look at is this one.
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// The process that this starts goes by this clock, and so do its children.
    pub fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.library());
        command.env(VARIABLE, self.ahead());
    }
}

fn open(path: &Path) -> fs::File {
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(false).write(true);
    options.open(path).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_by_the_clock_that_it_is_given_and_nobody_else() {
        let Some(clock) = WallClock::new() else {
            return;
        };
        let year = |clock: Option<&WallClock>| {
            let mut command = Command::new("date");
            command.args(["-u", "+%Y"]);
            if let Some(clock) = clock {
                clock.give(&mut command);
            }
            let output = command.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.trim().parse::<u32>().unwrap()
        };
        let now = year(None);
        assert_eq!(year(Some(&clock)), now);
        // 40 years have 10 leap days.
        clock.turn((40 * 365 + 10) * 86_400);
        assert!((now + 39..=now + 41).contains(&year(Some(&clock))));
        clock.turn(-(40 * 365 + 10) * 86_400);
        assert!((now - 41..=now - 39).contains(&year(Some(&clock))));
        assert!((now..=now + 1).contains(&year(None)));
    }
}
