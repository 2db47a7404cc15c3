//! Two days of devices in one process, with random jobs, orders, lost connections and killed processes: memory, descriptors
//! and state directories do not grow. `OTAD_SOAK_DEVICES` says how many there are (2 if it does not).
//!
//! ```text
//! first day: books and rings fill up to their bounds ─▶ a look ─▶ second day ─▶ another look, which is held against it
//! ```
//!
//! The devices live through it hour by hour, one after the other, on both days: were it one device's whole day after another's
//! at first, resident memory would grow by the change to the other order. A look is taken when every device is between two jobs
//! and its agent is parked. The state directories are real ones, with real descriptors. The heap is counted to the byte, by
//! thread; resident memory says something only of many devices.

#![expect(unsafe_code, reason = "an allocator is about raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use host_runtime::agent::{AgentBuild, AgentInstance, Around, Command, Context, Event, Turn};
use host_runtime::engine::GuestFault;
use host_runtime::ports::state_dir::{FileStateDir, StateDir};
use host_sandbox::net::{Outage, OutageKind};
use host_sandbox::random::Random;
use host_sandbox::scenario::{Deed, Prepared, Scenario, When};
use host_sandbox::{CutKind, Options, Shipped, World, WorldFiles, judge};
use support::usage::Usage;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// Until the first look: more than the 100 jobs that a history keeps, and than the 52 whose events a ring keeps.
const WARM_UP_H: u64 = 24;

/// Until the second one.
const END_H: u64 = 48;

/// The pause before a job is at most so long. A job comes every twelve minutes, 240 of them in two days.
const PAUSE_MAX_MS: u64 = 30 * MINUTE_MS;

/// Jobs that a device is given at most. Images have numbers of eight bits.
const JOBS_MAX: usize = 254;

/// How long an agent is left awake without an event, in milliseconds.
const QUIET_MS: u64 = 30_000;

/// What the heap, and resident memory, may grow by with each job, in bytes: a quarter of a leak of 1 KiB. That it is not zero
/// is because numbers get longer.
const BYTES_OF_JOB: f64 = 256.0;

/// Devices from which on resident memory is looked at: below that a page more or less says nothing.
const DEVICES_OF_RSS: usize = 100;

/// One of these at a time: descriptors are those of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn devices() -> usize {
    let given = std::env::var("OTAD_SOAK_DEVICES").ok();
    given.and_then(|n| n.parse().ok()).unwrap_or(2).max(1)
}

/// The system's allocator, which counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: i64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    // A thread that ends holds nothing that is looked at.
    let _ended = HELD.try_with(|held| held.set(held.get() + sign * bytes));
}

// SAFETY: all of it is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's word is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the devices of this process take at an instant.
#[derive(Clone, Copy, Debug)]
struct Look {
    devices: usize,
    jobs: usize,
    heap_bytes: i64,
    rss_bytes: u64,
    descriptors: usize,
}

/// Most bytes of a file of a device's state directory, as the READMEs of the host promise; none = they promise no such file.
fn file_bytes_max(name: &str) -> Option<u64> {
    const KIB: u64 = 1024;
    match name.rsplit_once('/').map_or(name, |(_, leaf)| leaf) {
        "journal" => Some(64 * KIB + 20),
        // Written anew above 128 and 256 KiB: what is longer than that is one more write.
        "events.log" => Some(132 * KIB),
        "history" => Some(260 * KIB),
        "cursor" => Some(20),
        "agent.json" | "record.json" | "verified.json" => Some(4 * KIB),
        // Four blocks, with marks and a header.
        "blocks.map" => Some(4 * KIB),
        _ => None,
    }
}

/// What has grown between two looks.
fn growth(first: &Look, second: &Look) -> Vec<String> {
    let mut found = Vec::new();
    let jobs = (second.jobs - first.jobs) as f64;
    let mut grows = |what: &str, bytes: f64| {
        if bytes > BYTES_OF_JOB * jobs {
            found.push(format!("{what}: {:.0} bytes with each job", bytes / jobs));
        }
    };
    grows("heap", (second.heap_bytes - first.heap_bytes) as f64);
    if first.devices >= DEVICES_OF_RSS {
        let grown = second.rss_bytes as f64 - first.rss_bytes as f64;
        grows("resident memory", grown);
    }
    if second.descriptors > first.descriptors {
        let (before, after) = (first.descriptors, second.descriptors);
        found.push(format!("descriptors: {before}, then {after}"));
    }
    found
}

/// The bytes of a device's state directory; `found` gets what is larger than promised.
fn state_bytes(root: &Path, found: &mut BTreeSet<String>) -> u64 {
    let mut whole = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the state directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::metadata(&path).expect("what was listed");
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).expect("it is below").display();
            whole += metadata.len();
            match file_bytes_max(&name.to_string()) {
                Some(most) if metadata.len() <= most => {}
                Some(most) => {
                    found.insert(format!("{name} is longer than {most} bytes"));
                }
                None => {
                    found.insert(format!("nobody promises {name}"));
                }
            }
        }
    }
    whole
}

/// Jobs, orders, lost connections; and, for those whose jobs restart their own process anyway, kills.
fn story(seed: u64) -> Scenario {
    let mut random = Random::stream(seed, "soak");
    let mut scenario = Scenario::plain("soak", 4);
    // One of two is never restarted: what it forgets to give back stays.
    scenario.by_command = seed.is_multiple_of(2);
    // Beyond the second look.
    let mut left_ms = (END_H + 2) * HOUR_MS;
    while scenario.jobs() < JOBS_MAX {
        // On average a fair part of what is left: of a thousand devices none is out of jobs before the second look.
        let fair_ms = left_ms / (JOBS_MAX - scenario.jobs()) as u64;
        let pause_ms = 1 + random.below((2 * fair_ms).clamp(1, PAUSE_MAX_MS));
        if pause_ms > left_ms {
            break;
        }
        left_ms -= pause_ms;
        if random.chance(300) {
            let order = Deed::Order(Command::CheckForUpdate);
            scenario.deeds.push((When::AfterEnd(pause_ms / 3), order));
        }
        if !scenario.by_command && random.chance(50) {
            let kill = Deed::Cut(CutKind::Kill);
            scenario.deeds.push((When::AfterEnd(pause_ms / 2), kill));
        }
        scenario
            .deeds
            .push((When::AfterEnd(pause_ms), Deed::NextJob));
        // Withdrawn somewhere in the middle of it; not the last one, which says how it all ends.
        if random.chance(100) && left_ms > PAUSE_MAX_MS && scenario.jobs() < JOBS_MAX {
            let cancel = (When::Then(random.below(1500)), Deed::Cancel(true));
            scenario.deeds.push(cancel);
        }
    }
    for _ in 0..4 {
        let from_ms = random.below(END_H * HOUR_MS);
        scenario.outages.push(Outage {
            kind: OutageKind::Disconnected,
            from_ms,
            until_ms: from_ms + 1 + random.below(HOUR_MS),
        });
    }
    scenario
}

/// Lets so many devices live through it; what has grown.
fn soak(options: &Options, count: usize) -> Vec<String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // As many images as any of them needs, for all.
    let mut longest = Scenario::plain("soak", 4);
    longest.deeds = vec![(When::AfterEnd(1), Deed::NextJob); JOBS_MAX - 1];
    let images = longest.prepare();
    let stories: Vec<Prepared> = (1..=count as u64)
        .map(|seed| images.retold(story(seed)))
        .collect();
    let root = tempfile::tempdir().expect("a folder for temporary files");
    let mut worlds: Vec<World<'_>> = Vec::new();
    for (number, prepared) in stories.iter().enumerate() {
        let own = root.path().join(number.to_string());
        fs::create_dir(&own).expect("a state directory");
        let options = Options {
            seed: number as u64 + 1,
            park_after_ms: Some(QUIET_MS),
            state_root: Some(own),
            forgets: true,
            ..options.clone()
        };
        worlds.push(World::new(prepared, options, judge::standard()));
    }
    let mut found = BTreeSet::new();
    let mut largest = 0;
    let mut first = None;
    for hour in 1..=END_H {
        for (number, world) in worlds.iter_mut().enumerate() {
            let goes_on = world.go_on(hour * HOUR_MS);
            assert!(goes_on, "device {number} was over before hour {hour}");
            let own = root.path().join(number.to_string());
            largest = largest.max(state_bytes(&own, &mut found));
        }
        if hour == WARM_UP_H {
            first = Some(look(&worlds));
        }
    }
    let (Some(first), second) = (first, look(&worlds)) else {
        unreachable!("the end of the first day is among them");
    };
    let jobs = second.jobs - first.jobs;
    support::note(&format!(
        "{count} devices, {} jobs; with the {jobs} of the second day the heap grew by {} bytes, resident memory by {} KiB, \
         descriptors from {} to {}; the largest state directory had {} KiB",
        second.jobs,
        second.heap_bytes - first.heap_bytes,
        (second.rss_bytes / 1024).cast_signed() - (first.rss_bytes / 1024).cast_signed(),
        first.descriptors,
        second.descriptors,
        largest / 1024,
    ));
    let mut found: Vec<String> = found.into_iter().collect();
    found.extend(growth(&first, &second));
    for (number, mut world) in worlds.into_iter().enumerate() {
        assert!(!world.go_on(u64::MAX), "device {number} goes on for ever");
        let report = world.end();
        assert_eq!(report.violations, [], "device {number}");
        assert!(report.parks > 100, "device {number}: {}", report.parks);
    }
    found
}

fn look(worlds: &[World<'_>]) -> Look {
    let heap_bytes = HELD.get();
    let usage = Usage::of(std::process::id()).expect("what this process takes");
    Look {
        devices: worlds.len(),
        jobs: worlds.iter().map(World::jobs).sum(),
        heap_bytes,
        rss_bytes: usage.rss_kib * 1024,
        descriptors: fs::read_dir("/proc/self/fd").expect("/proc").count(),
    }
}

#[test]
fn two_days_of_random_jobs_leave_memory_descriptors_and_state_as_they_were() {
    let found = soak(&Options::native(0), devices());
    assert_eq!(found, [] as [&str; 0]);
}

#[test]
fn so_do_those_of_the_shipped_components() {
    let shipped = Shipped::load().expect("it runs here");
    let found = soak(&shipped.options(0), devices());
    assert_eq!(found, [] as [&str; 0]);
}

/// One that keeps 1 KiB of each job.
struct Leaking {
    inner: Box<dyn AgentInstance>,
    job_id: Option<String>,
}

fn leaking(inner: &Arc<AgentBuild>) -> Arc<AgentBuild> {
    let made = Arc::clone(inner);
    AgentBuild::native(
        "test:leaking",
        inner.description().clone(),
        move |outside| {
            let inner = made.instantiate(outside)?;
            Ok(Box::new(Leaking {
                inner,
                job_id: None,
            }))
        },
    )
}

impl Around for Leaking {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.inner
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        let turn = self.inner.handle(context, event)?;
        if let Some(status) = &turn.status
            && status.job_id != self.job_id
        {
            self.job_id.clone_from(&status.job_id);
            if self.job_id.is_some() {
                Box::leak(vec![7_u8; 1024].into_boxed_slice());
            }
        }
        Ok(turn)
    }
}

/// One that never closes one in a hundred files, and keeps a book that has no end.
struct Hoarding(FileStateDir<WorldFiles>);

/// Stores of all state directories of that kind.
static STORES: AtomicU64 = AtomicU64::new(0);

impl StateDir for Hoarding {
    fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.0.load(name)
    }
    fn store(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if STORES.fetch_add(1, Ordering::Relaxed).is_multiple_of(100) {
            std::mem::forget(fs::File::open("/dev/null")?);
        }
        self.0
            .append("devices/gateway-7/audit", b"stored\n", false)?;
        self.0.store(name, bytes)
    }
    fn append(&self, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        self.0.append(name, bytes, sync)
    }
    fn settle(&self, name: &str) -> io::Result<()> {
        self.0.settle(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.0.list(prefix)
    }
}

#[test]
fn a_kibibyte_of_each_job_a_file_now_and_then_and_a_book_without_end_are_found() {
    let native = Options::native(0);
    let found = soak(
        &Options {
            agent: leaking(&native.agent),
            state: Some(|files| Arc::new(Hoarding(FileStateDir::over(files)))),
            ..native
        },
        1,
    );
    let has = |text: &str| found.iter().any(|found| found.contains(text));
    for text in [
        "heap: ",
        "descriptors: ",
        "nobody promises devices/gateway-7/audit",
    ] {
        assert!(has(text), "{text} is not in {found:?}");
    }
}
