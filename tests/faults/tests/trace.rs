//! What a flight recorder keeps can be replayed, exactly; what is in `traces/` is replayed here for ever.
//!
//! An incident becomes a test by copying its file into `traces/`: each must be followed by the shipped agent in all calls
//! that have an effect. Where a change of the agent is meant to change one, `OTAD_BLESS=1` writes those anew that were
//! made here (`MADE_HERE`); one from the field is then replaced or taken out by hand.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot be set up has nothing to test"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::{fs, iter};

use host_runtime::agent::record::{FILES_MAX, Recorder};
use host_runtime::agent::replay::{Compared, Likeness, Replayed, diff, replay};
use host_runtime::agent::shadow::{Shadow, ShadowEnd};
use host_runtime::agent::tap::tapped;
use host_runtime::agent::trace::{Header, Trace, TraceError};
use host_runtime::agent::{AgentBuild, AgentInstance, Around, Context, Event, Turn};
use host_runtime::engine::GuestFault;
use host_sandbox::fault::{Fault, inflict};
use host_sandbox::scenario::{Scenario, by_name};
use host_sandbox::{Options, Report, Shipped, explore, native_agent};

fn shipped() -> &'static Shipped {
    static SHIPPED: OnceLock<Shipped> = OnceLock::new();
    SHIPPED.get_or_init(|| Shipped::load().unwrap())
}

fn header(build: &AgentBuild) -> Header {
    Header {
        agent: build.description().name.clone(),
        version: build.description().version.clone(),
        digest: host_crypto::hex(build.digest()),
        device: "pump-1".into(),
    }
}

/// A story with things going wrong.
fn troubled(name: &str, faults: &[&str]) -> Scenario {
    let faults: Vec<Fault> = faults.iter().map(|word| word.parse().unwrap()).collect();
    let mut scenario = by_name(name).unwrap();
    assert_eq!(inflict(&faults, &mut scenario), Ok(Vec::new()));
    scenario
}

fn run(scenario: Scenario, agent: Arc<AgentBuild>, seed: u64) -> Report {
    let options = Options {
        agent,
        trace: true,
        ..Options::native(seed)
    };
    let report = explore::run(&scenario.prepare(), options);
    assert_eq!(report.violations, []);
    report
}

/// Run a story with a recorder; returns its files, oldest first.
fn record(
    scenario: Scenario,
    build: &Arc<AgentBuild>,
    dir: &Path,
    full_bytes: u64,
) -> Vec<PathBuf> {
    let recorder = Recorder::new(dir, header(build), [1; 16]).unwrap();
    let recorder = recorder.with_files_of(full_bytes);
    run(scenario, tapped(build, Arc::new(Mutex::new(recorder))), 7);
    files(dir)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

const WHOLE: u64 = u64::MAX;

fn replayed(build: &Arc<AgentBuild>, file: &Path, likeness: Likeness) -> Replayed {
    let bytes = fs::read(file).unwrap();
    let trace = Trace::open(&bytes).unwrap();
    replay(build, trace, likeness).unwrap()
}

#[test]
fn what_the_shipped_agent_did_is_replayed_exactly_by_it_and_by_the_one_in_this_process() {
    let dir = tempfile::tempdir().unwrap();
    let faults = [
        "blocks-lost=200@60000",
        "replies-doubled=300@60000",
        "half-open=3000-9000",
    ];
    let build = &shipped().agent;
    for (number, name) in ["plain", "two-files", "unhealthy"].into_iter().enumerate() {
        let dir = dir.path().join(number.to_string());
        let files = record(troubled(name, &faults), build, &dir, WHOLE);
        let [file] = files.as_slice() else {
            panic!("{files:?}")
        };
        for build in [build, &native_agent()] {
            let replayed = replayed(build, file, Likeness::Exact);
            assert_eq!(replayed.difference, None, "{name}");
            assert!(
                replayed.exchanges > 60 && replayed.calls > 60,
                "{replayed:?}"
            );
            assert!(!replayed.cut);
        }
    }
}

#[test]
fn each_file_of_a_long_recording_is_replayed_by_itself_and_there_are_never_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let build = &native_agent();
    let files = record(troubled("two-files", &[]), build, dir.path(), 8 * 1024);
    assert_eq!(files.len(), FILES_MAX, "the oldest ones are gone");
    for file in &files {
        let replayed = replayed(build, file, Likeness::Exact);
        assert_eq!(replayed.difference, None, "{}", file.display());
        assert!(replayed.exchanges > 2);
        assert!(fs::metadata(file).unwrap().len() < 64 * 1024);
    }
}

#[test]
fn a_recording_holds_no_block_of_an_image_and_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut scenario = Scenario::plain("blocks", 4);
    scenario.files[0].size_bytes = 256 * 1024;
    for (_, value) in &mut scenario.settings {
        if value == "256" {
            "4096".clone_into(value);
        }
    }
    let files = record(scenario, &native_agent(), dir.path(), WHOLE);
    let bytes = fs::read(&files[0]).unwrap();
    // An update has some 100 exchanges besides its blocks.
    assert!(bytes.len() < 128 * 1024, "{} bytes", bytes.len());
    let text = String::from_utf8(bytes).unwrap();
    // The length before the bytes ends in a zero as well.
    let zeros = text.matches("[0,4097]").count();
    assert!(zeros >= 60, "{zeros}");
}

#[test]
fn a_damaged_trace_is_refused_and_one_that_was_cut_off_is_good_up_to_there() {
    let dir = tempfile::tempdir().unwrap();
    let build = &native_agent();
    let files = record(troubled("short", &[]), build, dir.path(), WHOLE);
    let bytes = fs::read(&files[0]).unwrap();
    let end = |bytes: &[u8]| replay(build, Trace::open(bytes)?, Likeness::Exact);
    let whole = end(&bytes).unwrap();
    let cut = end(&bytes[..bytes.len() - 9]).unwrap();
    assert_eq!((cut.exchanges, cut.cut), (whole.exchanges - 1, true));
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    let without = |gone: usize| -> Vec<u8> {
        let left = lines.iter().enumerate().filter(|(n, _)| *n != gone);
        left.flat_map(|(_, line)| line.iter().copied()).collect()
    };
    let damaged = |line| move |error: TraceError| matches!(error, TraceError::Damaged { line: at, .. } if at == line);
    assert!(end(&without(3)).is_err_and(damaged(4)), "a line is gone");
    assert!(end(&without(0)).is_err_and(|error| error == TraceError::Magic));
    let mut turned = bytes.clone();
    let at = lines[0].len() + lines[1].len() / 2;
    turned[at] ^= 1;
    assert!(end(&turned).is_err_and(damaged(2)), "a bit is turned over");
    let other = [b"otad-trace 9 {}\n", &bytes[..]].concat();
    assert_eq!(end(&other), Err(TraceError::Format("9".into())));
    let middle = crc_chained(lines[0], &lines[5][9..]);
    assert_eq!(end(&middle), Err(TraceError::NoStart));
}

/// A trace of one line, with a sum that is right.
fn crc_chained(header: &[u8], body: &[u8]) -> Vec<u8> {
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let sum = crc32c::crc32c_append(crc32c::crc32c(header), body);
    [header, format!("{sum:08x} ").as_bytes(), body, b"\n"].concat()
}

/// A build that does not hear of its `n`-th block.
fn deaf(inner: &Arc<AgentBuild>, n: u32) -> Arc<AgentBuild> {
    let inner = Arc::clone(inner);
    let description = inner.description().clone();
    AgentBuild::native("deaf", description, move |outside| {
        Ok(Box::new(Deaf {
            inner: inner.instantiate(outside)?,
            left: AtomicU32::new(n),
        }))
    })
}

struct Deaf {
    inner: Box<dyn AgentInstance>,
    left: AtomicU32,
}

impl Around for Deaf {
    fn inner(&mut self) -> &mut dyn AgentInstance {
        &mut *self.inner
    }

    fn handle(&mut self, context: Context, event: Event) -> Result<Turn, GuestFault> {
        let event = match event {
            Event::Messages(mut messages) => {
                messages.retain(|message| {
                    let is_block = message.topic.contains("/data/");
                    !is_block || self.left.fetch_sub(1, Ordering::Relaxed) != 1
                });
                match messages.is_empty() {
                    true => Event::Timeout,
                    false => Event::Messages(messages),
                }
            }
            event => event,
        };
        self.inner.handle(context, event)
    }
}

#[test]
fn two_builds_are_compared_up_to_the_first_thing_that_they_do_differently() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (native_agent(), deaf(&native_agent(), 20));
    let files = record(troubled("plain", &[]), &old, dir.path(), WHOLE);
    let bytes = fs::read(&files[0]).unwrap();
    let compare = |one, other| diff(one, other, Trace::open(&bytes).unwrap(), Likeness::Effects);
    assert!(matches!(compare(&old, &old), Ok(Compared::Same { exchanges }) if exchanges > 60));
    let Compared::Differ {
        exchange,
        asked,
        old: was,
        new: is,
        ..
    } = compare(&old, &new).unwrap()
    else {
        panic!("they differ")
    };
    assert!(exchange >= 18, "{exchange}");
    assert!(!asked.is_empty() && was != is, "{asked}: {was} / {is}");
    assert!(matches!(compare(&new, &new), Ok(Compared::Left(_))));
}

/// Run a story with a shadow beside it; returns what it reported and how the live one went.
fn shadowed(candidate: Arc<AgentBuild>) -> (ShadowEnd, Report) {
    let (tell, told) = sync_channel(1);
    let report = Box::new(move |end| tell.send(end).unwrap());
    let shadow = Shadow::start(candidate, report).unwrap();
    let agent = tapped(&native_agent(), Arc::new(Mutex::new(shadow)));
    let faults = ["blocks-lost=100@60000"];
    let report = run(troubled("plain", &faults), agent, 7);
    (told.recv().unwrap(), report)
}

#[test]
fn a_shadow_of_the_same_build_follows_all_the_way_and_the_live_agent_does_not_notice() {
    let alone = run(
        troubled("plain", &["blocks-lost=100@60000"]),
        native_agent(),
        7,
    );
    let (end, live) = shadowed(shipped().agent.clone());
    assert!(
        matches!(end, ShadowEnd::Over(exchanges) if exchanges > 60),
        "{end:?}"
    );
    assert_eq!(live.trace.first_difference(&alone.trace), None);
}

#[test]
fn a_shadow_ends_with_the_first_call_that_is_not_the_live_agents_or_with_its_trap() {
    let alone = run(
        troubled("plain", &["blocks-lost=100@60000"]),
        native_agent(),
        7,
    );
    let (end, live) = shadowed(deaf(&native_agent(), 20));
    let ShadowEnd::Differs(difference) = end else {
        panic!("{end:?}")
    };
    assert_ne!(difference.recorded, difference.instead);
    assert_eq!(live.trace.first_difference(&alone.trace), None);
    let broken = AgentBuild::native("broken", native_agent().description().clone(), |_| {
        Err(GuestFault::Trapped("at once".into()))
    });
    let (end, live) = shadowed(broken);
    let ShadowEnd::Differs(difference) = end else {
        panic!("{end:?}")
    };
    assert!(difference.instead.contains("at once"), "{difference:?}");
    assert_eq!(live.trace.first_difference(&alone.trace), None);
}

/// Traces that were recorded in the sandbox: name, story, faults.
const MADE_HERE: [(&str, &str, &[&str]); 3] = [
    ("lost-blocks", "plain", &["blocks-lost=200@60000"]),
    ("lost-replies", "plain", &["replies-lost=300@60000"]),
    ("unhealthy", "unhealthy", &[]),
];

#[test]
fn every_trace_in_the_folder_is_followed_by_the_shipped_agent() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    if std::env::var_os("OTAD_BLESS").is_some() {
        for (name, story, faults) in MADE_HERE {
            let dir = tempfile::tempdir().unwrap();
            let made = record(troubled(story, faults), &shipped().agent, dir.path(), WHOLE);
            fs::create_dir_all(&folder).unwrap();
            fs::copy(&made[0], folder.join(format!("{name}.trace"))).unwrap();
        }
    }
    let files = files(&folder);
    assert!(files.len() >= MADE_HERE.len());
    for file in files {
        let replayed = replayed(&shipped().agent, &file, Likeness::Effects);
        assert_eq!(replayed.difference, None, "{}", file.display());
        assert!(replayed.exchanges > 10, "{}", file.display());
    }
}

#[test]
fn nobody_else_can_read_a_recording() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("records");
    let files = record(troubled("short", &[]), &native_agent(), &inner, WHOLE);
    for path in iter::once(&inner).chain(&files) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
}
