//! What a process has cost so far: processor time and memory, as the kernel tells it.
//!
//! Exact where the kernel is: threads that live are counted in nanoseconds (as of when they had a turn last, but for the
//! thread that asks for its own), those that have ended and children that were waited for in its ticks. Nothing here judges, and a process that is gone is an error, not a zero.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::Error;

/// Ticks a second of `/proc/PID/stat`: `USER_HZ`, which Linux fixes for all programs at 100 (`man 5 proc`).
const TICKS_PER_S: u64 = 100;

/// By how much the difference of two readings in ticks may be too large: user and system time are each cut to a tick.
const TICKS_ERROR: Duration = Duration::from_millis(2 * 1000 / TICKS_PER_S);

/// What a process has cost until it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of each thread that lives, by its id.
    threads: BTreeMap<String, Duration>,
    /// Processor time of all threads, ended ones as well.
    own: Duration,
    /// Processor time of children that it has waited for.
    children: Duration,
    /// Memory that it has now, in KiB.
    pub rss_kib: u64,
    /// The most that it ever had, in KiB.
    pub peak_kib: u64,
}

impl Usage {
    /// Of a process that lives.
    ///
    /// # Errors
    /// It does not live, or the kernel tells nothing about it.
    pub fn of(id: u32) -> Result<Self, Error> {
        let folder = format!("/proc/{id}");
        let folder = Path::new(&folder);
        let stat = read(&folder.join("stat"))?;
        let status = read(&folder.join("status"))?;
        let (own, children) = ticks(&stat).ok_or_else(|| strange(&folder.join("stat")))?;
        let memory = |name: &str| {
            let value = kib(&status, name);
            value.ok_or_else(|| strange(&folder.join("status")))
        };
        Ok(Self {
            threads: threads(folder)?,
            own,
            children,
            rss_kib: memory("VmRSS:")?,
            peak_kib: memory("VmHWM:")?,
        })
    }

    /// Processor time of the process, and of the children that it has waited for, since an earlier look.
    #[must_use]
    pub fn cpu_since(&self, before: &Self) -> Duration {
        let of_one = |(id, now): (&String, &Duration)| {
            let then = before.threads.get(id).copied().unwrap_or_default();
            now.saturating_sub(then)
        };
        let living: Duration = self.threads.iter().map(of_one).sum();
        // A thread that has ended is in the ticks alone, a part of a tick in the threads alone.
        let ticked = self.own.saturating_sub(before.own);
        let own = living.max(ticked.saturating_sub(TICKS_ERROR));
        own + self.children.saturating_sub(before.children)
    }
}

/// Processor time of the calling thread, until this call.
///
/// # Errors
/// The kernel does not tell it.
pub fn of_this_thread() -> Result<Duration, Error> {
    // It adds up at its ticks, some milliseconds apart, and whenever a thread lets others have its turn.
    std::thread::yield_now();
    let path = Path::new("/proc/thread-self/schedstat");
    running(&read(path)?).ok_or_else(|| strange(path))
}

fn threads(folder: &Path) -> Result<BTreeMap<String, Duration>, Error> {
    let tasks = folder.join("task");
    let mut times = BTreeMap::new();
    for entry in fs::read_dir(&tasks).map_err(Error::io(tasks.display().to_string()))? {
        let entry = entry.map_err(Error::io(tasks.display().to_string()))?;
        // A thread may end while its name is read.
        let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        if let Some(time) = running(&text) {
            times.insert(entry.file_name().to_string_lossy().into_owned(), time);
        }
    }
    Ok(times)
}

/// The first number of a `schedstat`: nanoseconds on a processor.
fn running(schedstat: &str) -> Option<Duration> {
    let first = schedstat.split_whitespace().next()?;
    first.parse().ok().map(Duration::from_nanos)
}

/// Own time and that of children, of a `stat`: fields 14 and 15, 16 and 17, behind a name that may hold anything.
fn ticks(stat: &str) -> Option<(Duration, Duration)> {
    let (_, behind) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind.split_whitespace().collect();
    let number = |at: usize| -> Option<u64> { fields.get(at - 3)?.parse().ok() };
    let time = |ticks: u64| Duration::from_millis(ticks * 1000 / TICKS_PER_S);
    let own = number(14)? + number(15)?;
    let children = number(16)? + number(17)?;
    Some((time(own), time(children)))
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(path.display().to_string()))
}

fn strange(path: &Path) -> Error {
    let what = std::io::Error::other("not what proc(5) says");
    Error::io(path.display().to_string())(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_moves_no_field() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 30 5 20 0 1 0";
        let expected = (Duration::from_millis(1750), Duration::from_millis(350));
        assert_eq!(ticks(stat), Some(expected));
        assert_eq!(ticks("12 (a) S 1 2"), None);
    }

    #[test]
    fn a_thread_that_ends_takes_no_time_away() {
        let usage = |threads: &[(&str, u64)], own_ms: u64, children_ms: u64| Usage {
            threads: threads
                .iter()
                .map(|(id, ms)| ((*id).to_owned(), Duration::from_millis(*ms)))
                .collect(),
            own: Duration::from_millis(own_ms),
            children: Duration::from_millis(children_ms),
            rss_kib: 1,
            peak_kib: 1,
        };
        let check = |before: &Usage, after: &Usage, expected_ms: u64| {
            let expected = Duration::from_millis(expected_ms);
            assert_eq!(after.cpu_since(before), expected, "{before:?} {after:?}");
        };
        let before = usage(&[("1", 15), ("2", 100)], 110, 10);
        // One has ended, and the other has run for 3 ms, less than a tick.
        check(&before, &usage(&[("1", 18)], 110, 10), 3);
        // A new one, and a child.
        let more = usage(&[("1", 18), ("2", 100), ("3", 40)], 150, 30);
        check(&before, &more, 43 + 20);
        // One that has begun and ended in between.
        check(&before, &usage(&[("1", 18), ("2", 100)], 610, 10), 480);
    }

    #[test]
    fn memory_is_read_in_kib() {
        let status = "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(kib(status, "VmRSS:"), Some(1024));
        assert_eq!(kib(status, "VmHWM:"), Some(2048));
        assert_eq!(kib(status, "VmSwap:"), None);
    }

    #[test]
    fn work_of_less_than_a_tick_is_seen() {
        let mut random = crate::image::Random::new(1);
        for _ in 0..16 {
            let before = of_this_thread().unwrap();
            let sum = (0..2000).fold(0, |sum: u64, _| sum.wrapping_add(random.next_u64()));
            assert_ne!(sum, 0);
            assert!(of_this_thread().unwrap() > before);
        }
    }

    #[test]
    fn work_of_this_process_is_seen_and_no_process_is_an_error() {
        let before = of_this_thread().unwrap();
        let whole_before = Usage::of(std::process::id()).unwrap();
        let mut random = crate::image::Random::new(1);
        let sum = (0..3_000_000).fold(0, |sum: u64, _| sum.wrapping_add(random.next_u64()));
        assert_ne!(sum, 0);
        assert!(of_this_thread().unwrap() > before);
        let own = Usage::of(std::process::id()).unwrap();
        assert!(own.cpu_since(&whole_before) > Duration::ZERO);
        assert!(own.peak_kib >= own.rss_kib && own.rss_kib > 0);
        assert!(Usage::of(u32::MAX).is_err());
    }
}
