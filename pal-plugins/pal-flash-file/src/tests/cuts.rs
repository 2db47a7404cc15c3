//! Power fails at every lent call of an update, with every way of tearing what was being written.

use pal_sdk::fake::Call;

use super::*;

/// How the story is meant to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Commit,
    RejectArmed,
    RejectRunning,
}

/// One run: power fails at `cut`, comes back, and the host goes on by looking. Returns the lent calls it took.
fn run(ending: Ending, cut: Option<Cut>) -> Vec<Call> {
    let story = format!("{ending:?} with {cut:?}");
    let mut bench = Bench::started();
    let base = bench.fake.world().calls.len();
    bench.fake.world().cut = cut.map(|cut| Cut {
        at_call: base + cut.at_call,
        ..cut
    });
    // At most one cut, so the second attempt goes through.
    let mut progress = Progress {
        created: false,
        sequence: launcher::record(&bench.fake).0,
    };
    for attempt in 0..2 {
        match drive(&mut bench, ending, &mut progress) {
            Ok(()) => break,
            Err(failure) => {
                assert!(bench.fake.world().is_dark(), "{story}: {failure}");
                assert_eq!(attempt, 0, "{story}");
                bench.fake.world().power_on();
                after_power_cut(&mut bench, progress, &story);
            }
        }
    }
    let calls = bench.fake.world().calls[base..].to_vec();
    let expected = match ending {
        Ending::Commit => (2, Some(1), Some(true)),
        Ending::RejectArmed | Ending::RejectRunning => (3, Some(0), Some(false)),
    };
    assert_eq!(bench.told(), expected, "{story}");
    let slot = launcher::launch(&bench.fake);
    assert_eq!(slot, u8::from(ending == Ending::Commit), "{story}");
    calls
}

/// What the host knows to be done.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The transfer was created.
    created: bool,
    /// Version of the state record when the last duty was over.
    sequence: u32,
}

/// The gateway boots: whatever was torn, there is a valid record and the launcher starts a whole image.
fn after_power_cut(bench: &mut Bench, progress: Progress, story: &str) {
    // What a finished duty wrote is there; at most the write of the one under way is there too.
    let sequence = launcher::record(&bench.fake).0;
    assert!(
        sequence == progress.sequence || sequence == progress.sequence + 1,
        "{story}: the record went from {} to {sequence}",
        progress.sequence
    );
    let slot = launcher::launch(&bench.fake);
    let (name, bytes) = [("slot-a", image(OLD)), ("slot-b", image(NEW))][usize::from(slot)].clone();
    let mut world = bench.fake.world();
    assert_eq!(
        world.region(name).bytes[..bytes.len()],
        bytes,
        "{story}: slot {slot} started"
    );
    drop(world);
    bench.restart_host(progress.created.then(|| transfer("job-1", &image(NEW))));
}

/// What a host does from wherever the target is: ask it, and do what is missing.
fn drive(bench: &mut Bench, ending: Ending, progress: &mut Progress) -> Result<(), Failure> {
    let new = image(NEW);
    if !progress.created {
        bench.plugin.create(transfer("job-1", &new))?;
        progress.created = true;
    }
    let mut restarts = 0;
    loop {
        progress.sequence = launcher::record(&bench.fake).0;
        let state = match bench.plugin.state()? {
            Duty::Finished(Answer::State(state)) => state,
            other => panic!("{other:?}"),
        };
        match (state.code, state.runs_new, ending) {
            (2, Some(true), Ending::Commit) => return Ok(()),
            (3, Some(false), Ending::RejectArmed | Ending::RejectRunning) => return Ok(()),
            (2, Some(false), _) => {
                // Blocks that were not synced may be gone: write them all again, as the host's map says.
                for (n, block) in new.chunks(BLOCK_BYTES).enumerate() {
                    bench
                        .plugin
                        .write_block((n * BLOCK_BYTES) as u64, block.to_vec())?;
                }
                pal_sdk::lent::BlockDevice::sync(&bench.fake, 1)?;
                bench.plugin.activate(digest(&new))?;
            }
            (4, _, Ending::RejectArmed) => {
                bench.plugin.reject()?;
            }
            (4, _, _) => {
                launcher::launch(&bench.fake);
            }
            (1, Some(true), Ending::Commit) => {
                bench.plugin.commit()?;
            }
            (1, Some(true), _) => {
                if bench.plugin.reject()? == Duty::Finished(Answer::HostResets) {
                    restarts += 1;
                    launcher::launch(&bench.fake);
                }
            }
            (3, Some(true), _) => {
                restarts += 1;
                launcher::launch(&bench.fake);
            }
            other => panic!("{other:?}"),
        }
        assert!(restarts < 3, "it does not settle");
    }
}

#[test]
fn a_power_cut_at_any_lent_call_leaves_a_bootable_target_that_goes_on() {
    for ending in [Ending::Commit, Ending::RejectArmed, Ending::RejectRunning] {
        let calls = run(ending, None);
        assert!(calls.contains(&Call::Write(RECORD, 128)));
        for (at_call, call) in calls.into_iter().enumerate() {
            for survivors in survivors(call) {
                run(ending, Some(Cut { at_call, survivors }));
            }
        }
    }
}

const RECORD: u32 = 2;

/// What may be left: of a state record every first and every last byte, of a block its ends.
fn survivors(call: Call) -> Vec<Survivors> {
    let mut all = vec![Survivors::Nothing, Survivors::All];
    let torn: Vec<usize> = match call {
        Call::Write(RECORD, length) => (0..=length).collect(),
        Call::Write(_, length) => vec![1, length / 2, length - 1],
        // What was written before and not synced.
        _ => vec![1, 64],
    };
    for bytes in torn {
        all.push(Survivors::Head(bytes));
        all.push(Survivors::Tail(bytes));
    }
    all
}
