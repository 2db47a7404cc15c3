//! Order, coalescing, durability and damage of the journal.

use super::*;
use crate::ports::state_dir::StateDir as _;
use crate::testing::{FakeState, StepWorkers, desk};

fn blob(text: &str) -> Blob {
    Blob {
        schema: 3,
        bytes: text.as_bytes().to_vec(),
    }
}

fn journal(state: &Arc<FakeState>, workers: &Arc<StepWorkers>) -> (Journal, Found) {
    Journal::load(desk("d", state, workers)).unwrap()
}

fn poll(journal: &mut Journal) -> Vec<(Token, Outcome)> {
    let mut out = Vec::new();
    journal.poll(&mut out);
    out
}

#[test]
fn a_store_ends_when_it_is_durable_and_is_read_after_a_restart() {
    let (state, workers) = Default::default();
    let (mut journal, found) = self::journal(&state, &workers);
    assert_eq!(found, Found::Nothing);
    journal.store(1, blob("one"));
    assert_eq!(poll(&mut journal), []);
    assert_eq!(journal.current(), Some(&blob("one")));
    workers.run_one();
    assert_eq!(poll(&mut journal), [(1, Outcome::Nothing)]);
    assert_eq!(poll(&mut journal), []);
    let (_, found) = self::journal(&state, &workers);
    assert_eq!(found, Found::Whole(blob("one")));
}

#[test]
fn of_the_stores_that_wait_only_the_last_is_written_and_all_tokens_end_once() {
    let (state, workers) = Default::default();
    let (mut journal, _) = self::journal(&state, &workers);
    for (token, text) in [(1, "one"), (2, "two"), (3, "three")] {
        journal.store(token, blob(text));
    }
    assert_eq!(journal.generation(), 3);
    // Only the first one is with the workers: there is never more than one under way.
    assert_eq!(workers.waiting(), 1);
    workers.run_one();
    assert_eq!(poll(&mut journal), [(1, Outcome::Nothing)]);
    assert_eq!(workers.waiting(), 1);
    workers.run_one();
    let ends = poll(&mut journal);
    assert_eq!(ends, [(2, Outcome::Nothing), (3, Outcome::Nothing)]);
    assert_eq!(state.writes(), 2);
    assert_eq!(
        self::journal(&state, &workers).1,
        Found::Whole(blob("three"))
    );
}

#[test]
fn empty_bytes_delete_the_journal() {
    let (state, workers) = Default::default();
    let (mut journal, _) = self::journal(&state, &workers);
    journal.store(1, blob("one"));
    journal.store(2, blob(""));
    while workers.run_one() {
        poll(&mut journal);
    }
    assert_eq!(journal.current(), None);
    assert_eq!(self::journal(&state, &workers).1, Found::Nothing);
}

#[test]
fn a_full_disk_fails_the_store_by_errno_and_the_next_one_may_work() {
    let (state, workers) = Default::default();
    let (mut journal, _) = self::journal(&state, &workers);
    state.fail_with(Some(28));
    journal.store(1, blob("one"));
    workers.run_one();
    let ends = poll(&mut journal);
    let [(1, Outcome::Failed(failure))] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert_eq!((failure.main, failure.sub), (0xd6, 28));
    state.fail_with(None);
    journal.store(2, blob("two"));
    workers.run_one();
    assert_eq!(poll(&mut journal), [(2, Outcome::Nothing)]);
}

#[test]
fn a_journal_with_any_byte_changed_or_cut_is_put_aside() {
    let good = encode(&blob("phases"));
    assert_eq!(decode(&good), Some(blob("phases")));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(decode(&bad), None, "byte {at}");
        assert_eq!(decode(&good[..at]), None, "cut at {at}");
    }
    let (state, workers): (Arc<FakeState>, _) = Default::default();
    state.store("devices/d/journal", &good[..9]).unwrap();
    assert_eq!(self::journal(&state, &workers).1, Found::Damaged);
    let aside = state.load("devices/d/journal.damaged").unwrap();
    assert_eq!(aside.as_deref(), Some(&good[..9]));
}

#[test]
fn the_largest_journal_is_read_back() {
    let largest = Blob {
        schema: u32::MAX,
        bytes: vec![0xa5; JOURNAL_MAX_BYTES],
    };
    assert_eq!(decode(&encode(&largest)), Some(largest));
}
