//! Durability, order, bounds and readers of the ring.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::ports::state_dir::StateDir as _;
use crate::testing::{FakeState, StepWorkers, desk};

fn event(sequence: u64) -> ApplicationEvent {
    ApplicationEvent {
        sequence,
        kind: 16,
        job_id: Some(format!("job-{sequence}")),
        file: Some(0),
        failure: None,
        version: None,
        document: b"{\"status\":\"SUCCEEDED\"}".to_vec(),
    }
}

fn large(sequence: u64) -> ApplicationEvent {
    ApplicationEvent {
        document: vec![0xff; DOCUMENT_MAX_BYTES],
        ..event(sequence)
    }
}

#[derive(Default)]
struct World {
    state: Arc<FakeState>,
    workers: Arc<StepWorkers>,
}

impl World {
    /// What a host process finds.
    fn ring(&self) -> EventRing {
        EventRing::load(desk("d", &self.state, &self.workers)).unwrap()
    }

    /// Poll and work until nothing is left to do.
    fn settle(&self, ring: &EventRing) {
        ring.poll(0);
        while self.workers.run_one() {
            ring.poll(0);
        }
    }

    fn log(&self) -> Vec<u8> {
        self.state.load("devices/d/events.log").unwrap().unwrap()
    }
}

fn sequences(ring: &EventRing) -> Vec<u64> {
    let events = ring.after(0, usize::MAX);
    events.iter().map(|stored| stored.event.sequence).collect()
}

/// One poll of a future that never needs a second one when it is ready.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn an_event_is_seen_only_when_it_is_durable_and_again_after_a_restart() {
    let world = World::default();
    let ring = world.ring();
    ring.emit(Some(1_700_000_000), event(1));
    ring.poll(0);
    assert_eq!(sequences(&ring), [] as [u64; 0]);
    assert_eq!(ring.last(), 1);
    world.workers.run_one();
    assert_eq!(sequences(&ring), [] as [u64; 0]);
    ring.poll(0);
    let seen = ring.after(0, 10);
    assert_eq!(seen[0].event, event(1));
    assert_eq!(seen[0].at_s, Some(1_700_000_000));
    assert_eq!(world.ring().after(0, 10), seen);
}

#[test]
fn a_number_is_taken_once_also_across_a_restart() {
    let world = World::default();
    let ring = world.ring();
    for sequence in [1, 2, 2, 1] {
        ring.emit(None, event(sequence));
    }
    world.settle(&ring);
    ring.emit(None, event(2));
    world.settle(&ring);
    let again = world.ring();
    again.emit(None, event(1));
    again.emit(None, event(3));
    world.settle(&again);
    assert_eq!(sequences(&again), [1, 2, 3]);
    assert_eq!(sequences(&world.ring()), [1, 2, 3]);
}

#[test]
fn events_that_come_while_one_is_written_are_written_together_after_it() {
    let world = World::default();
    let ring = world.ring();
    ring.emit(None, event(1));
    ring.poll(0);
    ring.emit(None, event(2));
    ring.emit(None, event(3));
    ring.poll(0);
    assert_eq!(world.workers.waiting(), 1);
    world.settle(&ring);
    assert_eq!(sequences(&ring), [1, 2, 3]);
    assert_eq!(world.state.writes(), 2);
}

#[test]
fn a_torn_record_at_the_end_is_dropped_and_does_not_hide_what_comes_after() {
    let world = World::default();
    let ring = world.ring();
    for sequence in 1..=3 {
        ring.emit(None, event(sequence));
        world.settle(&ring);
    }
    let whole = world.log();
    for cut in 1..30 {
        world
            .state
            .store("devices/d/events.log", &whole[..whole.len() - cut])
            .unwrap();
        let ring = world.ring();
        assert_eq!(sequences(&ring), [1, 2], "cut of {cut}");
        ring.emit(None, event(3));
        world.settle(&ring);
        assert_eq!(sequences(&world.ring()), [1, 2, 3], "cut of {cut}");
    }
}

#[test]
fn any_log_at_all_can_be_opened() {
    let world = World::default();
    let ring = world.ring();
    ring.emit(None, event(1));
    world.settle(&ring);
    let whole = world.log();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x41;
        world.state.store("devices/d/events.log", &bad).unwrap();
        let ring = world.ring();
        assert_eq!(sequences(&ring).len(), usize::from(at < 8), "byte {at}");
    }
}

#[test]
fn after_damage_what_can_be_read_is_kept() {
    let world = World::default();
    let ring = world.ring();
    for sequence in 1..=30 {
        ring.emit(None, event(sequence));
        world.settle(&ring);
    }
    let whole = world.log();
    let spoilt = |from: usize, to: usize| {
        let mut bytes = whole.clone();
        bytes[from..to].fill(b'#');
        bytes
    };
    let length = whole.len();
    let rows = [
        ("in the middle", spoilt(length / 2, length / 2 + 5), 29),
        ("at the begin", spoilt(0, length / 2), 15),
        ("at the end", spoilt(length / 2, length), 14),
        ("everywhere", spoilt(0, length), 0),
    ];
    for (name, bytes, left) in rows {
        world.state.store("devices/d/events.log", &bytes).unwrap();
        let ring = world.ring();
        assert!(sequences(&ring).len().abs_diff(left) < 2, "{name}");
        // The agent goes on above all that it has emitted.
        ring.emit(None, event(31));
        world.settle(&ring);
        assert_eq!(world.ring().last(), 31, "{name}");
    }
}

#[test]
fn the_ring_and_its_file_are_bounded_by_count() {
    let world = World::default();
    let ring = world.ring();
    let count = EVENTS_MAX as u64 + 10;
    for sequence in 1..=count {
        ring.emit(None, event(sequence));
        world.settle(&ring);
    }
    assert_eq!(sequences(&ring), (11..=count).collect::<Vec<_>>());
    assert_eq!(sequences(&world.ring()), (11..=count).collect::<Vec<_>>());
}

#[test]
fn the_file_of_small_events_grows_no_longer_than_twice_what_is_kept() {
    let world = World::default();
    let mut ring = world.ring();
    let (mut longest, mut anew, mut before) = (0, 0, 0);
    for sequence in 1..=10 * EVENTS_MAX as u64 {
        // Of a process that is started again now and then, too.
        if sequence.is_multiple_of(300) {
            ring = world.ring();
        }
        ring.emit(None, event(sequence));
        world.settle(&ring);
        let log = world.log().len();
        longest = longest.max(log);
        anew += u32::from(log < before);
        before = log;
    }
    let one = 1024;
    assert!(longest <= LOG_BYTES_MIN + one, "{longest}");
    // It was, and not with every event.
    assert!((1..=5).contains(&anew), "{anew}");
}

#[test]
fn the_ring_and_its_file_are_bounded_by_bytes() {
    let world = World::default();
    let ring = world.ring();
    for sequence in 1..=40 {
        ring.emit(None, large(sequence));
        world.settle(&ring);
        let log = world.log().len();
        assert!(log <= 2 * EVENT_BYTES_MAX + 2 * DOCUMENT_MAX_BYTES, "{log}");
    }
    let kept = sequences(&ring);
    assert_eq!(kept, [34, 35, 36, 37, 38, 39, 40]);
    assert_eq!(sequences(&world.ring()), kept);
}

#[test]
fn a_medium_that_fails_is_tried_again_later_and_loses_nothing() {
    let world = World::default();
    let ring = world.ring();
    ring.emit(None, event(1));
    world.settle(&ring);
    world.state.fail_with(Some(28));
    ring.emit(None, event(2));
    world.settle(&ring);
    assert_eq!(sequences(&ring), [1]);
    assert!(ring.last_error().unwrap().contains("not stored"));
    world.state.fail_with(None);
    // Not at once, but when its time has come.
    assert_eq!(ring.poll(RETRY_MS - 1), Some(RETRY_MS));
    assert_eq!(world.workers.waiting(), 0);
    assert_eq!(ring.poll(RETRY_MS), None);
    world.settle(&ring);
    assert_eq!(sequences(&ring), [1, 2]);
    assert_eq!(sequences(&world.ring()), [1, 2]);
    assert_eq!(ring.last_error(), None);
}

#[test]
fn a_medium_that_takes_nothing_costs_the_oldest_events_and_they_are_counted() {
    let world = World::default();
    world.state.fail_with(Some(30));
    let ring = world.ring();
    for sequence in 1..=PENDING_MAX as u64 + 3 {
        ring.emit(None, event(sequence));
    }
    assert_eq!(ring.lost(), 3);
    world.state.fail_with(None);
    world.settle(&ring);
    assert_eq!(sequences(&ring)[0], 4);
    assert_eq!(ring.last(), PENDING_MAX as u64 + 3);
}

#[test]
fn a_reader_gets_every_event_in_order_and_the_last_one_again_after_a_restart() {
    let world = World::default();
    let ring = world.ring();
    for sequence in 1..=3 {
        ring.emit(None, event(sequence));
    }
    world.settle(&ring);
    let next = |ring: &EventRing| now(ring.next()).flatten().map(|e| e.event.sequence);
    assert_eq!(next(&ring), Some(1));
    assert_eq!(next(&ring), Some(2));
    world.settle(&ring);
    // The process ends before the application has said that it is done with 2.
    let again = world.ring();
    assert_eq!(next(&again), Some(2));
    assert_eq!(next(&again), Some(3));
    assert_eq!(next(&again), None);
    world.settle(&again);
    assert_eq!(next(&world.ring()), None);
}

#[test]
fn waiting_readers_are_told_that_the_device_has_ended() {
    let world = World::default();
    let ring = world.ring();
    assert_eq!(now(ring.wait_after(0, 1)), None);
    ring.end();
    assert_eq!(now(ring.wait_after(0, 1)), Some(vec![]));
    assert_eq!(now(ring.next()), Some(None));
}

#[test]
fn a_stored_place_beyond_the_last_event_hides_nothing() {
    for place in ["99", "18446744073709551615", "-1"] {
        let world = World::default();
        let cursor = place.as_bytes();
        world.state.store("devices/d/cursor", cursor).unwrap();
        let ring = world.ring();
        ring.emit(None, event(1));
        world.settle(&ring);
        // Its reader has not come to it when the process ends.
        for ring in [world.ring(), ring] {
            let next = now(ring.next()).flatten();
            assert_eq!(next.map(|stored| stored.event.sequence), Some(1), "{place}");
        }
    }
}

#[test]
fn a_reader_of_several_events_goes_on_where_it_says_and_a_new_one_is_known_as_new() {
    let world = World::default();
    let ring = world.ring();
    ring.emit(None, event(1));
    world.settle(&ring);
    assert_eq!(ring.reader_place(), None);
    // It begins with nothing done, which has to be known after a restart too.
    ring.set_reader_place(0);
    world.settle(&ring);
    let ring = world.ring();
    assert_eq!(ring.reader_place(), Some(0));
    ring.emit(None, event(2));
    ring.set_reader_place(1);
    world.settle(&ring);
    let ring = world.ring();
    assert_eq!(ring.reader_place(), Some(1));
    assert_eq!(now(ring.next()).unwrap().unwrap().event.sequence, 2);
}

#[test]
fn a_worker_that_dies_is_a_write_that_failed() {
    let world = World::default();
    let ring = world.ring();
    ring.emit(None, event(1));
    ring.poll(0);
    world.workers.bury_one();
    let again = ring.poll(0);
    assert!(again.is_some_and(|at| at > 0), "{again:?}");
    assert!(ring.last_error().unwrap().contains("died"));
    ring.poll(again.unwrap());
    while world.workers.run_one() {}
    ring.poll(again.unwrap());
    assert_eq!(sequences(&ring), [1]);
    assert_eq!(ring.last_error(), None);
}
