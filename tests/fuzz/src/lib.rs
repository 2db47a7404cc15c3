//! Hostile input: one function a parser, `fn(&[u8]) -> bool`, which asserts what must hold for any bytes whatever.
//!
//! The same functions run in three ways: a few times in every `cargo test`, as often as `OTAD_FUZZ_RUNS` says when it is
//! set, and under `cargo fuzz` with coverage (`fuzz/`). Inputs of the first two are mutations of a corpus by a seeded
//! generator, so a failure names the seed and the number that replay it. What must not happen: a panic, a run that takes
//! long, memory that grows.
//!
//! ```
//! let target = fuzz::targets::LIGHT[0];
//! fuzz::run(&target, 20);
//! ```

pub mod device;
pub mod mutate;
pub mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use mutate::{Mutator, Random};
use support::deadline::now;
pub use targets::{Corpus, Target};

/// Runs of each target in a normal test.
const RUNS_DEFAULT: u64 = 200;

/// Longest time of one input: a thousand times of what the slowest takes in a debug build on a busy machine.
const INPUT_MAX: Duration = Duration::from_secs(20);

/// Growth that is not one: caches, buffers at their largest, the allocator's own.
const GROWTH_MAX_BYTES: u64 = 48 << 20;

/// How often each target is run: `OTAD_FUZZ_RUNS`, or a few times.
///
/// # Panics
/// When the variable is no number.
#[must_use]
pub fn runs() -> u64 {
    match std::env::var("OTAD_FUZZ_RUNS") {
        Ok(text) => match text.parse::<u64>() {
            Ok(runs) => runs.max(1),
            Err(error) => panic!("OTAD_FUZZ_RUNS is {text:?}: {error}"),
        },
        Err(_) => RUNS_DEFAULT,
    }
}

/// The seed of all runs: `OTAD_SEED`, or always the same.
#[must_use]
pub fn seed() -> u64 {
    std::env::var("OTAD_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2026)
}

/// Runs each of the targets so often, or of those that `OTAD_FUZZ_TARGET` names, one after another.
///
/// # Panics
/// When a name is no target's; see [`run`] as well.
pub fn run_each(targets: &[Target], runs: u64) {
    let chosen = std::env::var("OTAD_FUZZ_TARGET").ok();
    let chosen: Option<Vec<&str>> = chosen.as_deref().map(|names| names.split(',').collect());
    for name in chosen.iter().flatten() {
        assert!(
            targets::all().any(|target| target.name == *name),
            "OTAD_FUZZ_TARGET names {name:?}, which is no target of this build"
        );
    }
    for target in targets {
        if chosen
            .as_ref()
            .is_none_or(|names| names.contains(&target.name))
        {
            run(target, runs);
        }
    }
}

/// One target at a time: it is judged by the growth of the whole process.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a target on its corpus as it is, then on so many mutations.
///
/// # Panics
/// When the target does, does not take what is good or takes what is bad, an input takes too long, or memory grows; with what
/// replays it. When another target runs in this process.
#[expect(
    clippy::print_stderr,
    reason = "figures of long runs, and what replays a failure"
)]
pub fn run(target: &Target, runs: u64) {
    let alone = ONE.try_lock();
    assert!(
        !matches!(alone, Err(TryLockError::WouldBlock)),
        "{}: another target runs in this process, whose memory would be judged too; run one after the other",
        target.name
    );
    let Corpus { good, bad } = (target.corpus)();
    let seed = seed();
    let begin = now();
    let watch = watch(target.name);
    for (kind, inputs) in [("good", &good), ("bad", &bad)] {
        for (at, bytes) in inputs.iter().enumerate() {
            let which = format!("corpus, {kind} {at}");
            let (_, is_taken) = one(target, &watch, &which, bytes);
            let text = String::from_utf8_lossy(bytes);
            let name = target.name;
            assert_eq!(
                is_taken,
                kind == "good",
                "{name}, {which}: whether it is taken: {text:?}"
            );
        }
    }
    let corpus = [good, bad].concat();
    // Twice the corpus has filled every cache that there is.
    let before = resident_bytes();
    let mut slowest = Duration::ZERO;
    let mut mutator = Mutator::new(&corpus, Random::new(seed, target.name));
    for at in 0..runs {
        let bytes = mutator.input();
        let which = format!("OTAD_SEED={seed}, input {at}");
        slowest = slowest.max(one(target, &watch, &which, &bytes).0);
        if at == runs / 8 {
            // What the largest inputs need is there by now; from here on nothing may stay.
            let early = resident_bytes();
            assert!(
                early < before + 8 * GROWTH_MAX_BYTES,
                "{}: {before} to {early} bytes",
                target.name
            );
        }
    }
    let growth = resident_bytes().saturating_sub(before);
    let took = begin.elapsed();
    assert!(
        growth < GROWTH_MAX_BYTES,
        "{}: {growth} bytes more after {runs} runs",
        target.name
    );
    eprintln!(
        "{}: {runs} runs in {:.1} s, slowest {} us, {} KiB more",
        target.name,
        took.as_secs_f64(),
        slowest.as_micros(),
        growth / 1024
    );
}

/// An input under way; none = it has ended.
type News = Option<(String, Vec<u8>)>;

/// Waits for the end of each input; one that does not come ends the process, for nothing else stops a loop.
#[expect(clippy::print_stderr, reason = "what replays a failure")]
fn watch(name: &'static str) -> SyncSender<News> {
    let (sender, begun) = sync_channel::<News>(1);
    std::thread::spawn(move || {
        while let Ok(begin) = begun.recv() {
            let Some((which, bytes)) = begin else {
                continue;
            };
            // The end of this input, or the end of all.
            if matches!(
                begun.recv_timeout(INPUT_MAX),
                Err(RecvTimeoutError::Timeout)
            ) {
                eprintln!("{name} hangs at {which}");
                show(&bytes);
                std::process::abort();
            }
        }
    });
    sender
}

#[expect(clippy::print_stderr, reason = "what replays a failure")]
fn show(bytes: &[u8]) {
    let shown = &bytes[..bytes.len().min(4096)];
    eprintln!(
        "{} bytes: {:?}",
        bytes.len(),
        String::from_utf8_lossy(shown)
    );
    eprintln!("in hex: {}", hex(shown));
}

#[expect(clippy::print_stderr, reason = "what replays a failure")]
fn one(target: &Target, watch: &SyncSender<News>, which: &str, bytes: &[u8]) -> (Duration, bool) {
    let tell = |news| {
        watch
            .send(news)
            .expect("the watch lives as long as the run")
    };
    tell(Some((which.to_owned(), bytes.to_vec())));
    let begin = now();
    let end = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let took = begin.elapsed();
    tell(None);
    let is_taken = end.unwrap_or_else(|panic| {
        eprintln!("{} fails at {which}", target.name);
        show(bytes);
        resume_unwind(panic);
    });
    (took, is_taken)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &'static str, run: fn(&[u8]) -> bool) -> Target {
        let corpus = || Corpus {
            good: vec![b"good".to_vec()],
            bad: vec![b"bad".to_vec()],
        };
        Target { name, run, corpus }
    }

    /// Why a run fails.
    fn why(target: Target) -> String {
        let failed = catch_unwind(|| run(&target, 10)).expect_err("it fails");
        let text = failed.downcast::<String>().expect("a text");
        *text
    }

    // One test: targets run one at a time.
    #[test]
    fn a_target_runs_alone_and_takes_what_is_good_and_nothing_that_is_bad() {
        run(&target("fine", |bytes| bytes != b"bad"), 10);
        let all = why(target("all", |_| true));
        assert!(all.contains("corpus, bad 0"), "{all}");
        let none = why(target("none", |_| false));
        assert!(none.contains("corpus, good 0"), "{none}");
        let two = why(target("two", |_| {
            run(&target("inner", |_| true), 1);
            true
        }));
        assert!(two.contains("another target runs"), "{two}");
    }
}
