//! Saved states of every case, damaged: another agent refuses them, or starts and stays one that can be used.
//!
//! A damaged state that still reads as one may say anything; the host keeps digests of what it stores. Here the agent's
//! own defence is judged: no panic, no state without a deadline, a typed refusal.

use agent_core::agent::Agent;
use agent_core::code::State;
use agent_core::types::{self as core, Context, Event, StartInfo};
use host_runtime::agent::Saved;
use host_runtime::types::Blob;
use host_sandbox::check::agent::world::{Legacy, legacy};
use host_sandbox::native_agent;

/// `failure.main` of a saved state that this build cannot use.
const UNUSABLE: u8 = 0xdf;

/// One byte in so many is damaged, another one in each case: all of them in all cases would take twenty seconds.
const STRIDE: usize = 19;

/// Turns that an agent with a damaged memory is watched for.
const TURNS: usize = 6;

fn legacies() -> Vec<(String, Legacy)> {
    let agent = native_agent();
    let mut legacies = Vec::new();
    for case in conformance::files().iter().flat_map(|file| &file.cases) {
        let left = legacy(&agent, case).unwrap_or_else(|error| panic!("{error}"));
        legacies.extend(left.map(|left| (case.name.clone(), left)));
    }
    assert!(
        legacies.len() > 100,
        "only {} agents came to be",
        legacies.len()
    );
    legacies
}

/// Starts from this and watches the agent for some turns; whether it started.
fn starts(start: &host_runtime::agent::StartInfo, saved: Saved, what: &str) -> bool {
    let mut context = Context {
        now_ms: 1_000_000,
        wall_s: None,
    };
    let info = StartInfo {
        saved: saved_in(saved),
        ..start_in(start)
    };
    let mut agent = match Agent::start(context, info) {
        Ok(agent) => agent,
        Err(failure) => {
            assert_eq!(failure.main, UNUSABLE, "{what}");
            return false;
        }
    };
    agent.handle(
        context,
        Event::Connected {
            session_present: false,
        },
    );
    for _ in 0..TURNS {
        // Nobody answers its orders: their own deadlines have to do.
        while agent.poll_action().is_some() {}
        let state = State::from_code(agent.status().state).expect("a known state");
        let Some(deadline) = agent.deadline() else {
            let may_wait = [State::WaitingForJob, State::Suspended, State::Stopped];
            assert!(
                may_wait.contains(&state),
                "{what}: {state:?} has no deadline"
            );
            break;
        };
        context.now_ms = context.now_ms.max(deadline);
        agent.handle(context, Event::Timeout);
    }
    true
}

fn saved_in(saved: Saved) -> core::Saved {
    let blob = |blob: Blob| core::Blob {
        schema: blob.schema,
        bytes: blob.bytes,
    };
    match saved {
        Saved::None => core::Saved::None,
        Saved::Journal(saved) => core::Saved::Journal(blob(saved)),
        Saved::Snapshot(saved) => core::Saved::Snapshot(blob(saved)),
    }
}

fn start_in(from: &host_runtime::agent::StartInfo) -> StartInfo {
    let settings = |from: &[host_runtime::types::Setting]| {
        let one = |setting: &host_runtime::types::Setting| core::Setting {
            key: setting.key.clone(),
            value: setting.value.clone(),
        };
        from.iter().map(one).collect()
    };
    let targets = from.config.targets.iter().map(|target| core::Target {
        file: target.file,
        name: target.name.clone(),
        settings: settings(&target.settings),
    });
    StartInfo {
        config: core::Config {
            device: from.config.device.clone(),
            settings: settings(&from.config.settings),
            targets: targets.collect(),
        },
        saved: core::Saved::None,
        schema: from.schema,
        seed: from.seed,
        outstanding: from.outstanding.clone(),
        last_event: from.last_event,
    }
}

fn with(blob: &Blob, change: impl FnOnce(&mut Vec<u8>)) -> Blob {
    let mut blob = blob.clone();
    change(&mut blob.bytes);
    blob
}

#[test]
fn what_an_agent_leaves_behind_is_taken_by_another() {
    for (name, left) in legacies() {
        assert!(starts(&left.start, Saved::Snapshot(left.snapshot), &name));
        if let Some(journal) = left.journal {
            assert!(starts(&left.start, Saved::Journal(journal), &name));
        }
    }
}

#[test]
fn a_saved_state_with_a_flipped_bit_is_refused_or_harmless() {
    let mut refused = 0_usize;
    for (case, (name, left)) in legacies().iter().enumerate() {
        for at in (case % STRIDE..left.snapshot.bytes.len()).step_by(STRIDE) {
            let bit = (at + case) % 8;
            let blob = with(&left.snapshot, |bytes| bytes[at] ^= 1 << bit);
            let what = format!("{name}: snapshot, byte {at}, bit {bit}");
            refused += usize::from(!starts(&left.start, Saved::Snapshot(blob), &what));
        }
        let Some(journal) = &left.journal else {
            continue;
        };
        for at in (case % STRIDE..journal.bytes.len()).step_by(STRIDE) {
            let bit = (at + case) % 8;
            let blob = with(journal, |bytes| bytes[at] ^= 1 << bit);
            let what = format!("{name}: journal, byte {at}, bit {bit}");
            refused += usize::from(!starts(&left.start, Saved::Journal(blob), &what));
        }
    }
    assert!(refused > 1000, "only {refused} were refused");
}

#[test]
fn a_saved_state_that_is_cut_is_refused() {
    for (case, (name, left)) in legacies().iter().enumerate() {
        for end in (case % STRIDE..left.snapshot.bytes.len()).step_by(STRIDE) {
            let blob = with(&left.snapshot, |bytes| bytes.truncate(end));
            let what = format!("{name}: snapshot cut at {end}");
            assert!(!starts(&left.start, Saved::Snapshot(blob), &what), "{what}");
        }
    }
}
