//! The plugin on fake storage.

use pal_sdk::fake::{Cut, Fake, Survivors};
use pal_sdk::lent::{BlockDevice as _, Region};
use pal_sdk::{Answer, Duty, Failure, Plugin, TargetState, Transfer, state};

use super::TwoSlots;

const SLOT_BYTES: u64 = 4096;

fn region(name: &str, kind: u8) -> Region {
    Region {
        name: name.to_owned(),
        kind,
        size: SLOT_BYTES,
        erase_size: 1,
        write_size: 1,
        read_only: false,
    }
}

fn fake() -> Fake {
    Fake::new(vec![
        region("slot-a", Region::SLOT),
        region("slot-b", Region::SLOT),
        region("record", Region::RECORD),
    ])
}

fn open(fake: &Fake) -> TwoSlots<Fake> {
    TwoSlots::open(fake.clone(), Vec::new(), None).unwrap()
}

fn transfer(job: &str) -> Transfer {
    Transfer {
        job_id: job.to_owned(),
        size: 1000,
        ..Transfer::default()
    }
}

/// A whole file, made durable by the host, and marked.
fn bring(fake: &Fake, plugin: &mut TwoSlots<Fake>, job: &str, fill: u8) -> Result<Duty, Failure> {
    plugin.create(transfer(job))?;
    plugin.write_block(0, vec![fill; 1000])?;
    for slot in 0..2 {
        fake.sync(slot)?;
    }
    plugin.activate([0; 32])
}

/// All of an update.
fn update(fake: &Fake, plugin: &mut TwoSlots<Fake>, job: &str, fill: u8) -> Result<Duty, Failure> {
    bring(fake, plugin, job, fill)?;
    plugin.reset()?;
    plugin.commit()
}

/// Whether a slot holds the file of this job.
fn holds(fake: &Fake, slot: &str, fill: u8) -> bool {
    fake.world().region(slot).bytes.starts_with(&[fill; 1000])
}

fn state_of(plugin: &mut TwoSlots<Fake>) -> TargetState {
    match plugin.state() {
        Ok(Duty::Finished(Answer::State(state))) => state,
        end => panic!("{end:?}"),
    }
}

#[test]
fn data_are_marked_used_and_committed_and_the_next_take_the_other_slot() {
    let fake = fake();
    let mut plugin = open(&fake);
    for (job, slot) in [
        ("job-1", "slot-a"),
        ("job-2", "slot-b"),
        ("job-3", "slot-a"),
    ] {
        bring(&fake, &mut plugin, job, 7).unwrap();
        let expected = (state::ARMED, Some(false));
        let now = state_of(&mut plugin);
        assert_eq!((now.code, now.runs_new), expected);
        plugin.reset().unwrap();
        let now = state_of(&mut plugin);
        assert_eq!(
            (now.code, now.runs_new),
            (state::PENDING_COMMIT, Some(true))
        );
        plugin.commit().unwrap();
        let now = state_of(&mut plugin);
        assert_eq!((now.code, now.runs_new), (state::VALID, Some(true)));
        assert!(holds(&fake, slot, 7));
    }
}

#[test]
fn rejected_data_leave_those_that_counted() {
    let fake = fake();
    let mut plugin = open(&fake);
    bring(&fake, &mut plugin, "job-1", 1).unwrap();
    plugin.reset().unwrap();
    plugin.commit().unwrap();
    bring(&fake, &mut plugin, "job-2", 2).unwrap();
    plugin.reset().unwrap();
    plugin.reject().unwrap();
    let now = state_of(&mut plugin);
    assert_eq!((now.code, now.runs_new), (state::VALID, Some(false)));
    assert!(holds(&fake, "slot-a", 1));
}

#[test]
fn a_power_cut_at_any_call_of_an_update_leaves_data_that_count() {
    for at_call in 0.. {
        let fake = fake();
        let mut plugin = open(&fake);
        update(&fake, &mut plugin, "job-1", 1).unwrap();
        let from = fake.world().calls.len();
        fake.world().cut = Some(Cut {
            at_call: from + at_call,
            survivors: Survivors::Head(5),
        });
        let uncut = update(&fake, &mut plugin, "job-2", 2).is_ok();
        fake.world().power_on();
        let mut plugin = open(&fake);
        plugin.reopen(transfer("job-2")).unwrap();
        if state_of(&mut plugin).runs_new != Some(true) {
            assert!(holds(&fake, "slot-a", 1));
        }
        if uncut {
            assert!(at_call > 10, "{at_call}");
            return;
        }
    }
}

#[test]
fn a_power_cut_at_any_call_of_the_first_update_leaves_a_record_that_can_be_read() {
    let media = [0xff, 0].into_iter();
    let cuts = [Survivors::Nothing, Survivors::Head(5), Survivors::Tail(5)];
    for (medium, survivors) in media.flat_map(|m| cuts.map(|c| (m, c))) {
        for at_call in 0.. {
            let fake = fake();
            let blank = [medium; SLOT_BYTES as usize];
            fake.world().region("record").place(0, &blank);
            fake.world().cut = Some(Cut { at_call, survivors });
            let mut plugin = open(&fake);
            let uncut = update(&fake, &mut plugin, "job-1", 1).is_ok();
            fake.world().power_on();
            let mut plugin = open(&fake);
            let end = plugin.reopen(transfer("job-1"));
            assert!(end.is_ok(), "{medium} {survivors:?} {at_call}: {end:?}");
            let now = state_of(&mut plugin);
            if now.runs_new == Some(true) {
                assert!(holds(&fake, "slot-a", 1));
            }
            if now.code != state::VALID {
                plugin.reject().unwrap();
            }
            update(&fake, &mut plugin, "job-2", 2).unwrap();
            if uncut {
                assert!(at_call > 10, "{at_call}");
                break;
            }
        }
    }
}
