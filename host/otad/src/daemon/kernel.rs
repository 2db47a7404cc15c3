//! What the kernel lets this process have, held against what the configured devices need: before any of them starts, because
//! a limit that is met in the middle of an update is the worst place to meet it.
//!
//! Open files are a need: without those of its storage and its connection a device never comes on line, so that is refused.
//! Memory mappings and memory are a need only of agents and plugins that are awake at the same time, so those are warned of.
//! Not here: limits of guests (`host_runtime::engine`).

use std::fs;
use std::sync::OnceLock;

use host_runtime::ports::commands::start_with_files;
use host_runtime::ports::state_dir;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::threads::THREADS_MAX;
use crate::config::Config;
use crate::exit::{Exit, Failed};

/// Of a runtime: two of epoll, its waker, signals.
const FILES_OF_RUNTIME: u64 = 4;

/// Open files besides those of devices: state and lock, control socket and its clients, cache, log, runtime, a child's pipes;
/// what the state directory keeps open; the runtimes of the threads that devices live on, of the one that starts programs and of
/// the one that waits for signals.
const FILES_BESIDES: u64 =
    128 + state_dir::OPEN_MAX as u64 + FILES_OF_RUNTIME * (THREADS_MAX as u64 + 2);

/// Of a connection.
const FILES_OF_CONNECTION: u64 = 1;

/// Of a device with a job, besides: a record of the state directory that is written.
const FILES_OF_JOB: u64 = 1;

/// Of a target, always: two slots, the boot record, the launcher's record of tries.
const FILES_OF_TARGET: u64 = 4;

/// Of a target with a job, besides: a slot or record that is written, a staging file, the block map, a line or a child's socket.
const FILES_OF_TRANSFER: u64 = 4;

/// Mappings of an instance of a component: memory with its guard, image of its data, tables, stack.
const MAPS_OF_INSTANCE: u64 = 4;

/// Mappings of the process itself: libraries, threads, heaps, compiled code.
const MAPS_BESIDES: u64 = 2000;

/// Memory of an agent that is awake, in bytes: measured are 34 KiB; with what its device holds.
const BYTES_OF_AGENT: u64 = 64 << 10;

/// What the devices of a configuration need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    devices: u64,
    connections: u64,
    targets: u64,
}

impl Need {
    fn of(config: &Config) -> Self {
        let targets = config.devices.iter().map(|device| device.targets.len());
        let own = config
            .devices
            .iter()
            .map(|device| &device.mqtt.connection_of);
        Self {
            devices: config.devices.len() as u64,
            connections: own.filter(|of| of.is_none()).count() as u64,
            targets: targets.sum::<usize>() as u64,
        }
    }

    /// Open files, if every device has a job at the same time.
    fn files(self) -> u64 {
        self.files_at_least() + self.devices * FILES_OF_JOB + self.targets * FILES_OF_TRANSFER
    }

    /// Open files without which not every device can even be set up and connected.
    fn files_at_least(self) -> u64 {
        FILES_BESIDES + self.connections * FILES_OF_CONNECTION + self.targets * FILES_OF_TARGET
    }

    /// Mappings, if every agent is awake and every target has a job.
    fn maps(self) -> u64 {
        MAPS_BESIDES + (self.devices + self.targets) * MAPS_OF_INSTANCE
    }

    fn memory_bytes(self) -> u64 {
        self.devices * BYTES_OF_AGENT
    }
}

/// What there is; `None` = no limit, or the kernel does not say.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    files: Option<u64>,
    maps: Option<u64>,
    memory_bytes: Option<u64>,
}

/// Raise the limit of open files as far as it is needed and allowed, and hold what there is against what is needed. What is
/// too little is logged.
///
/// # Errors
/// Not every device could be set up and connected.
pub(super) fn check(config: &Config) -> Result<(), Failed> {
    let need = Need::of(config);
    let given = Given {
        files: raise_files(need.files()),
        maps: fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok()),
        memory_bytes: fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| available_bytes(&text)),
    };
    let (refusal, warnings) = judge(need, given);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match refusal {
        Some(text) => Err(Failed::new(Exit::Config, text)),
        None => Ok(()),
    }
}

/// The limit of open files, raised to what is wanted where that is allowed; for this process, not for the operator's programs.
fn raise_files(wanted: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current?;
    let Some(raised) = raised(current, limit.maximum, wanted) else {
        return Some(current);
    };
    let new = Rlimit {
        current: Some(raised),
        maximum: limit.maximum,
    };
    // Refused: what is there already counts.
    let is_raised = setrlimit(Resource::Nofile, new).is_ok();
    if is_raised {
        start_with_files(at_start(current));
    }
    Some(if is_raised { raised } else { current })
}

/// The limit that this process was started with: the first one that is seen here. After a reload with more devices it is
/// raised a second time.
fn at_start(current: u64) -> u64 {
    static FIRST: OnceLock<u64> = OnceLock::new();
    *FIRST.get_or_init(|| current)
}

/// What a limit is raised to; none = it stays.
fn raised(current: u64, maximum: Option<u64>, wanted: u64) -> Option<u64> {
    let allowed = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    (allowed > current).then_some(allowed)
}

/// `MemAvailable` of /proc/meminfo.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Why the devices cannot be served at all, and what is too little for all of them at once.
fn judge(need: Need, given: Given) -> (Option<String>, Vec<String>) {
    let Need {
        devices, targets, ..
    } = need;
    let short = |given: Option<u64>, needed: u64| given.filter(|given| *given < needed);
    if let Some(files) = short(given.files, need.files_at_least()) {
        let text = format!(
            "{devices} devices with {targets} targets need at least {} open files, this process may have {files}: raise the \
             limit (LimitNOFILE= in the unit, ulimit -n), or spread the devices over several gateways",
            need.files_at_least()
        );
        return (Some(text), Vec::new());
    }
    let mut warnings = Vec::new();
    if let Some(files) = short(given.files, need.files()) {
        warnings.push(format!(
            "updates of all {devices} devices with {targets} targets at once need {} open files, this process may have \
             {files}: raise the limit (LimitNOFILE= in the unit, ulimit -n)",
            need.files()
        ));
    }
    if let Some(maps) = short(given.maps, need.maps()) {
        warnings.push(format!(
            "{devices} agents and {targets} plugins awake at once need {} memory mappings, the kernel gives a process \
             {maps}: raise it (sysctl vm.max_map_count)",
            need.maps()
        ));
    }
    if let Some(bytes) = short(given.memory_bytes, need.memory_bytes()) {
        warnings.push(format!(
            "{devices} agents awake at once need {} MiB of memory, {} MiB are available",
            need.memory_bytes() >> 20,
            bytes >> 20
        ));
    }
    (None, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Need = Need {
        devices: 1000,
        connections: 1000,
        targets: 2000,
    };

    #[test]
    fn too_few_files_for_storage_and_connections_are_refused_with_both_numbers() {
        let given = Given {
            files: Some(1024),
            ..Given::default()
        };
        let (refusal, warnings) = judge(MANY, given);
        let text = refusal.expect("a refusal");
        for word in ["1000 devices", "9200", "1024", "LimitNOFILE"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(warnings, [] as [&str; 0]);
        let one_more = Given {
            files: Some(9200),
            ..Given::default()
        };
        assert_eq!(judge(MANY, one_more).0, None);
        let shared = Need {
            connections: 1,
            ..MANY
        };
        assert_eq!(shared.files_at_least(), MANY.files_at_least() - 999);
    }

    #[test]
    fn each_limit_that_is_too_low_for_all_at_once_is_a_warning_of_its_own() {
        let low = Given {
            files: Some(10_000),
            maps: Some(12_000),
            memory_bytes: Some(16 << 20),
        };
        let (refusal, warnings) = judge(MANY, low);
        assert_eq!((refusal, warnings.len()), (None, 3));
        for (warning, words) in warnings.iter().zip([
            ["18200", "10000", "ulimit -n"],
            ["14000", "12000", "vm.max_map_count"],
            ["62 MiB", "16 MiB", "1000 agents"],
        ]) {
            assert!(words.iter().all(|word| warning.contains(word)), "{warning}");
        }
    }

    #[test]
    fn limits_that_are_high_enough_or_that_there_are_not_are_nothing_to_speak_of() {
        let high = Given {
            files: Some(18_200),
            maps: Some(14_000),
            memory_bytes: Some(1 << 30),
        };
        for given in [high, Given::default()] {
            assert_eq!(judge(MANY, given), (None, Vec::new()));
        }
    }

    #[test]
    fn the_memory_that_is_available_is_read_as_the_kernel_writes_it() {
        let text = "MemTotal:       24110932 kB\nMemAvailable:   20000000 kB\nBuffers: 1 kB\n";
        assert_eq!(available_bytes(text), Some(20_000_000 * 1024));
        for text in ["", "MemAvailable: many kB", "MemAvailable: 7"] {
            assert_eq!(available_bytes(text), None);
        }
    }

    #[test]
    fn programs_keep_the_limit_of_the_start_when_it_is_raised_again() {
        let [first, again] = [1024, 5000].map(at_start);
        assert_eq!(first, again);
    }

    #[test]
    fn the_limit_of_files_is_raised_as_far_as_is_wanted_and_allowed_and_never_lowered() {
        for (current, maximum, wanted, end) in [
            (1024, Some(4096), 2000, Some(2000)),
            (1024, Some(4096), 9000, Some(4096)),
            (1024, None, 9000, Some(9000)),
            (1024, Some(1024), 9000, None),
            (1024, Some(4096), 1024, None),
            (1024, Some(4096), 10, None),
        ] {
            let found = raised(current, maximum, wanted);
            assert_eq!(found, end, "{current} of {maximum:?}, {wanted} wanted");
        }
        let before = getrlimit(Resource::Nofile).current;
        assert!(raise_files(1) == before);
    }
}
