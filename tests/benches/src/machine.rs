//! What figures were taken on: facts that make two files comparable, or not.

use std::fs;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// Facts about machine and build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// Model of the first processor, as the kernel names it.
    pub cpu: String,
    /// Release of the kernel.
    pub kernel: String,
    /// `release` or `debug`: of this program, and of the daemon that is built beside it.
    pub profile: String,
    /// Runnable tasks, mean of the last minute before the first run: a figure of a busy machine is none.
    pub load: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let profile = match cfg!(debug_assertions) {
            true => "debug",
            false => "release",
        };
        let load = read("/proc/loadavg");
        Self {
            cores: available_parallelism().map_or(1, usize::from),
            cpu: model(&read("/proc/cpuinfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            profile: profile.to_owned(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// x86 says `model name`; others say `Model`, of the whole board, or only numbers.
fn model(cpuinfo: &str) -> String {
    let named = |wanted: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(key, value)| (key.trim() == wanted).then(|| value.trim().to_owned()))
    };
    let found = ["model name", "Model", "CPU part"].into_iter();
    found
        .filter_map(named)
        .next()
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_as_well_as_the_kernel_can() {
        let check = |cpuinfo: &str, expected: &str| assert_eq!(model(cpuinfo), expected);
        check(
            "processor\t: 0\nmodel name\t: Xeon 8\nmodel name\t: other\n",
            "Xeon 8",
        );
        check("CPU part\t: 0xd08\n\nModel\t\t: Board 4\n", "Board 4");
        check("", std::env::consts::ARCH);
    }

    #[test]
    fn this_machine_has_facts() {
        let here = Machine::here();
        assert!(here.cores > 0 && !here.cpu.is_empty() && !here.kernel.is_empty());
    }
}
