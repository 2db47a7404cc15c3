//! Saved states that are damaged, of another schema, or of a moment at which a crash is worst.

use alloc::format;
use alloc::vec::Vec;

use super::world::{World, config, document, version};
use crate::agent::job::Stage;
use crate::agent::table::Cause;
use crate::agent::{Agent, SCHEMAS};
use crate::code::State;
use crate::types::{Blob, Context, Failure, Saved, StartInfo};

const CONTEXT: Context = Context {
    now_ms: 5000,
    wall_s: None,
};

/// More events than any story here has.
const LONG: usize = 1000;

fn start(world: &World, saved: Saved) -> Result<Agent, Failure> {
    let info = StartInfo {
        config: world.config.clone(),
        saved,
        schema: SCHEMAS[0],
        seed: 9,
        outstanding: Vec::new(),
        last_event: world.last_event,
    };
    Agent::start(CONTEXT, info)
}

/// A world in the middle of a download, where a saved state holds most.
fn downloading() -> World {
    let mut world = World::single();
    world.lose_blocks.push(1);
    world.usual_job();
    world.connect();
    world.run_to(State::WaitingForFileBlock);
    world.settle();
    world
}

/// Both kinds of saved state, made of the same bytes.
fn both(blob: &Blob) -> [Saved; 2] {
    [Saved::Journal(blob.clone()), Saved::Snapshot(blob.clone())]
}

#[test]
fn a_saved_state_of_an_unknown_schema_is_refused_with_its_code() {
    let mut world = downloading();
    let snapshot = world.agent.snapshot(CONTEXT);
    for schema in [0, SCHEMAS[0] + 1, u32::MAX] {
        let blob = Blob {
            schema,
            bytes: snapshot.bytes.clone(),
        };
        for saved in both(&blob) {
            let failure = start(&world, saved).err().unwrap();
            assert_eq!((failure.main, failure.sub), (0xdf, schema));
        }
    }
    let mut info = StartInfo {
        config: world.config.clone(),
        saved: Saved::None,
        schema: 7,
        seed: 9,
        outstanding: Vec::new(),
        last_event: 0,
    };
    let failure = Agent::start(CONTEXT, info.clone()).err().unwrap();
    assert_eq!((failure.main, failure.sub), (0xdf, 7));
    info.schema = SCHEMAS[0];
    assert!(Agent::start(CONTEXT, info).is_ok());
}

#[test]
fn a_saved_state_that_is_cut_or_has_more_is_refused() {
    let mut world = downloading();
    let snapshot = world.agent.snapshot(CONTEXT);
    let journal = world.journal.clone().unwrap();
    let refused = |saved: Saved, what: &str| {
        let failure = start(&world, saved).err();
        assert_eq!(failure.map(|failure| failure.main), Some(0xdf), "{what}");
    };
    let cut = |blob: &Blob, end: usize| Blob {
        schema: blob.schema,
        bytes: blob.bytes[..end].to_vec(),
    };
    // No bytes at all are no journal, which is allowed.
    for end in 1..journal.bytes.len() {
        refused(
            Saved::Journal(cut(&journal, end)),
            &format!("journal cut at {end}"),
        );
    }
    for end in 0..snapshot.bytes.len() {
        refused(
            Saved::Snapshot(cut(&snapshot, end)),
            &format!("snapshot cut at {end}"),
        );
    }
    for mut blob in [journal, snapshot] {
        blob.bytes.push(0);
        for saved in both(&blob) {
            refused(saved, "one byte more");
        }
    }
}

/// What is accepted must be a state that this agent could have left: what it saves next is read again.
#[test]
fn a_snapshot_of_a_job_that_fails_for_no_reason_or_is_decided_in_mid_download_is_refused() {
    let harms: [fn(&mut Agent); 5] = [
        |agent| agent.job.failing = Some(Cause::JobFailed),
        |agent| agent.job.stage = Stage::Back,
        |agent| agent.state = State::GoingBack,
        |agent| agent.state = State::Committing,
        |agent| agent.state = State::Reporting,
    ];
    for harm in harms {
        let mut world = downloading();
        let sound = world.agent.snapshot(CONTEXT);
        assert!(start(&world, Saved::Snapshot(sound)).is_ok());
        harm(&mut world.agent);
        let harmed = world.agent.snapshot(CONTEXT);
        let failure = start(&world, Saved::Snapshot(harmed)).err();
        assert_eq!(failure.map(|failure| failure.main), Some(0xdf));
    }
}

/// A world whose next image is the version that runs, with its blocks on the way and a journal that is stored by nobody.
fn refused_without_a_journal() -> World {
    let mut world = World::single();
    world.targets.get_mut(&0).unwrap().image = version(1, 0, 0);
    world.usual_job();
    world.connect();
    world.run_to(State::WaitingForFileBlock);
    world.hang.push("journal");
    world.run_to(State::GoingBack);
    world.settle();
    world
}

#[test]
fn a_transfer_is_thrown_away_only_when_the_journal_says_that_its_job_goes_back() {
    let mut world = refused_without_a_journal();
    assert!(
        !world.calls.contains(&"abort 0".into()),
        "{}",
        world.story()
    );
    world.hang.clear();
    world.finish("journal", crate::types::Outcome::Nothing);
    world.run_to_end();
    assert!(world.calls.contains(&"abort 0".into()));
    assert_eq!(world.verdict().0, "FAILED");
}

#[test]
fn a_crash_before_that_fetches_nothing_again() {
    let mut world = refused_without_a_journal();
    let sent = world.blocks_sent.len();
    world.hang.clear();
    world.crash();
    world.run_to_end();
    assert_eq!(world.blocks_sent.len(), sent);
    assert_eq!(world.verdict().0, "FAILED");
}

#[test]
fn a_transfer_is_thrown_away_in_the_end_though_no_journal_can_be_stored() {
    let mut world = refused_without_a_journal();
    world.hang.clear();
    let full = Failure::new(0xd5, 0, "full");
    world.fail.push(("journal", full.clone(), 1000));
    world.finish("journal", crate::types::Outcome::Failed(full));
    world.run_to_end();
    assert!(world.calls.contains(&"abort 0".into()));
    assert_eq!(world.verdict().0, "FAILED");
}

#[test]
fn a_decided_job_whose_file_cannot_be_reopened_is_tried_a_few_times_and_ends() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.hang.push("commit 0");
    world.run_to(State::Committing);
    world.settle();
    // It went back by itself, it does not say so, and its plugin takes no transfer back any more.
    let target = world.targets.get_mut(&0).unwrap();
    target.revert();
    target.code = 2;
    world.hang.clear();
    let broke = Failure::new(0xd5, 3, "broke");
    world.fail.push(("reopen 0", broke, 100_000));
    world.crash();
    world.run_to_end();
    assert_eq!(world.verdict().0, "FAILED");
    let reopened = world.calls.iter().filter(|call| *call == "reopen 0");
    assert!(reopened.count() <= 10);
}

/// Restarts in the test use up tries; then a target goes back by itself when it is decided that all go forward.
#[test]
fn what_the_way_to_the_decision_has_cost_does_not_count_against_the_way_forward() {
    let mut world = World::double();
    world.create_job("job-2", &document(&[(0, 2500, 0), (1, 1500, 0)]));
    world.connect();
    world.run_to(State::Testing);
    for file in &mut world.agent.job.files {
        file.tries = 3;
    }
    world.hang.push("commit 0");
    world.run_to(State::Committing);
    world.settle();
    world.targets.get_mut(&1).unwrap().revert();
    world.hang.clear();
    world.crash();
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED", "{}", world.story());
}

#[test]
fn restarts_on_the_way_forward_are_no_tries() {
    let mut world = World::double();
    world.create_job("job-2", &document(&[(0, 2500, 0), (1, 1500, 0)]));
    world.connect();
    world.hang.push("commit 1");
    world.run_to(State::Committing);
    world.settle();
    world.targets.get_mut(&1).unwrap().revert();
    world.hang.clear();
    world.hang.push("install 1");
    for _ in 0..8 {
        world.crash();
        world.settle();
    }
    world.hang.clear();
    world.crash();
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED", "{}", world.story());
}

#[test]
fn a_target_in_test_whose_journal_is_lost_is_adopted_by_its_job() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_until("a test that has begun", |world| {
        world.verdict().1.contains("active")
    });
    // The state directory was lost; flags of the target and details of the job are all that is left.
    world.journal = None;
    world.last_event = 0;
    world.events.clear();
    world.crash();
    world.run_to_end();
    assert_eq!(world.verdict().0, "SUCCEEDED", "{}", world.verdict().1);
    assert_eq!(world.targets[&0].running, version(1, 1, 0));
    assert_eq!(world.targets[&0].code, 2, "committed");
    assert_eq!(world.count("create 0"), 1, "nothing is fetched again");
}

#[test]
fn a_host_that_has_lost_its_events_gets_none_of_their_numbers_for_another_one() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_to_end();
    let last = world.events.last().unwrap().sequence;
    for left in 0..=last {
        world.last_event = left;
        let journal = world.journal.clone().unwrap();
        let news = start(&world, Saved::Journal(journal)).unwrap().news;
        // Those that wait have the numbers that they had before.
        let next = news.last + news.pending.len() as u64 + 1;
        assert_eq!(next, last + 1, "{left} were left");
    }
}

#[test]
fn the_numbers_of_events_end_where_they_end() {
    let mut world = World::single();
    world.usual_job();
    world.last_event = u64::MAX;
    world.start(Saved::None, Vec::new());
    world.connect();
    world.run_to_end();
    assert!(!world.events.is_empty());
    assert!(world.events.iter().all(|event| event.sequence == u64::MAX));
}

#[test]
fn a_target_in_test_without_journal_and_job_goes_back() {
    let mut world = World::single();
    world.usual_job();
    world.connect();
    world.run_to(State::Testing);
    world.journal = None;
    world.last_event = 0;
    world.jobs.clear();
    world.crash();
    world.run_until("the image of before", |world| {
        world.targets[&0].running == version(1, 0, 0)
    });
    world.run_to(State::WaitingForJob);
    assert_eq!(world.count("commit 0"), 0);
    assert_eq!(world.count("reject 0"), 1);
}

/// Plays a job of two files, with `disturb` after so many events, for every such number.
fn at_every_event_of_two_files(disturb: fn(&mut World)) {
    for at in 0..LONG {
        let mut world = World::double();
        world.create_job("job-2", &document(&[(0, 2500, 0), (1, 1500, 0)]));
        world.connect();
        for _ in 0..at {
            if world.jobs.iter().all(|job| !job.is_open()) || !world.turn() {
                break;
            }
        }
        if world.jobs.iter().all(|job| !job.is_open()) {
            assert!(at > 25, "the story has steps");
            return;
        }
        disturb(&mut world);
        world.run_to_end();
        let (status, details) = world.verdict();
        assert_eq!(status, "SUCCEEDED", "{at}: {details}\n{}", world.story());
        for (file, target) in &world.targets {
            assert_eq!(target.running, version(1, 1, 0), "{at}: file {file}");
            assert_eq!(target.code, 2, "{at}: file {file} is committed");
        }
    }
    panic!("the story has no end");
}

#[test]
fn a_crash_at_any_event_of_a_job_of_two_files_changes_nothing_at_the_end() {
    at_every_event_of_two_files(World::crash);
}

#[test]
fn a_swap_at_any_event_of_a_job_of_two_files_changes_nothing_at_the_end() {
    at_every_event_of_two_files(World::swap);
}

#[test]
fn another_encoding_of_streams_at_any_event_changes_nothing_at_the_end() {
    for (before, after) in [("cbor", "json"), ("json", "cbor")] {
        let encoding = |word| config(&[("stream_encoding", word)], &[(0, &[])]);
        for at in 0..LONG {
            let mut world = World::with_config(encoding(before));
            world.usual_job();
            world.connect();
            let steps = (0..at).take_while(|_| world.jobs[0].is_open() && world.turn());
            let steps = steps.count();
            world.config = encoding(after);
            world.swap();
            world.run_to_end();
            assert_eq!(world.verdict().0, "SUCCEEDED", "{at}: {}", world.story());
            assert!(world.blocks_sent.len() <= 2 * 3, "{at}");
            if steps < at {
                assert!(at > 15, "the story has steps");
                break;
            }
        }
    }
}

#[test]
fn a_crash_at_any_event_while_the_host_restarts_with_its_targets_changes_nothing() {
    at_every_event_of_two_files(|world| {
        for target in world.targets.values_mut() {
            target.boot = super::world::Boot::WithHost;
        }
        world.crash();
    });
}
