//! A device under a bandwidth cap: what its agent is told, and which of its calls wait.

use super::*;
use crate::bandwidth::{Bandwidth, Cap, NO_CAP};

const TOPIC: &str = "$aws/things/gateway-7/streams/s/get/cbor";

const RANGE: u32 = 128 * 1024;

/// A device under a cap of so many bytes a second, whose agent receives an image.
fn receiving(bytes_per_s: u64) -> Bench {
    let bandwidth = Bandwidth::new(Cap::new(Some(bytes_per_s), Vec::new()));
    let mut bench = Bench::prepared_with(Arc::default(), |device| device.join(&bandwidth));
    bench.react(|_, _| Ok(changed(6, Some("job"))));
    bench.device.start(bench.now).unwrap();
    bench.settle();
    bench.handle(message(1));
    bench.settle();
    bench.react(|_, _| Ok(idle()));
    bench
}

/// Asks for so many ranges at the next message.
fn ask(bench: &mut Bench, count: u64) {
    bench.react(move |outside, event| {
        if matches!(event, Event::Messages(_)) {
            for at in 0..count {
                outside.http_get("https://x/y".into(), at * u64::from(RANGE), RANGE);
            }
        }
        Ok(idle())
    });
    bench.handle(message(1));
}

fn gets(bench: &Bench) -> usize {
    bench
        .wire()
        .iter()
        .filter(|line| line.contains(" get https"))
        .count()
}

/// Lets time pass, poll by poll.
fn run_until(bench: &mut Bench, at_ms: u64) {
    loop {
        let next = bench.settle().unwrap_or(at_ms);
        if next >= at_ms {
            bench.now.now_ms = at_ms;
            bench.settle();
            return;
        }
        bench.now.now_ms = next;
    }
}

#[test]
fn an_agent_is_told_its_share_when_it_begins_and_after_each_restart() {
    let mut bench = receiving(50_000);
    assert!(bench.seen().contains(&"Allowance(50000)".to_owned()));
    run_until(&mut bench, 20_000);
    assert!(
        !bench
            .seen()
            .iter()
            .any(|line| line.starts_with("Allowance")),
        "nothing has changed"
    );
    bench.react(|_, _| Err(trap()));
    bench.handle(message(1));
    bench.seen();
    bench.react(|_, _| Ok(idle()));
    let later = bench.now.now_ms + BACKOFF_MIN_MS;
    run_until(&mut bench, later);
    assert!(bench.seen().contains(&"Allowance(50000)".to_owned()));
}

#[test]
fn without_a_cap_an_agent_is_told_nothing_and_nothing_waits() {
    let mut bench = Bench::new();
    ask(&mut bench, 60);
    assert_eq!(gets(&bench), 60);
    bench.settle();
    assert!(
        !bench
            .seen()
            .iter()
            .any(|line| line.starts_with("Allowance"))
    );
    assert_eq!(NO_CAP, u64::MAX);
}

#[test]
fn ranges_begin_when_their_bytes_may_come_and_in_order() {
    let mut bench = receiving(100_000);
    bench.wire();
    ask(&mut bench, 10);
    // 10 ranges of 128 KiB at 100 kB/s are 13.2 s.
    let begin = bench.now.now_ms;
    run_until(&mut bench, begin + 6_700);
    let first = bench.wire();
    assert_eq!(first.len(), 5, "{first:?}");
    assert!(first[4].ends_with(&format!(" {}+{RANGE}", 4 * RANGE)));
    run_until(&mut bench, begin + 14_000);
    assert_eq!(gets(&bench), 5);
}

#[test]
fn no_more_calls_wait_than_memory_is_meant_for() {
    let mut bench = receiving(1000);
    ask(&mut bench, 64);
    bench.settle();
    let is_refused = |line: &String| line.contains("holds too many calls back");
    assert!(!bench.seen().iter().any(is_refused));
    ask(&mut bench, 4000);
    bench.settle();
    assert!(bench.seen().iter().any(is_refused));
}

#[test]
fn a_range_that_waits_can_be_given_up_and_ends_once() {
    let mut bench = receiving(1000);
    bench.wire();
    ask(&mut bench, 2);
    bench.seen();
    bench.react(|outside, event| {
        if matches!(event, Event::Messages(_)) {
            outside.cancel(1);
            outside.cancel(1);
        }
        Ok(idle())
    });
    bench.handle(message(1));
    bench.settle();
    let ends: Vec<String> = bench
        .seen()
        .into_iter()
        .filter(|s| s.starts_with("Done"))
        .collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert!(
        ends[0].contains("token: 1") && ends[0].contains("cancelled"),
        "{ends:?}"
    );
    assert!(bench.wire().is_empty(), "the transport never heard of it");
}

#[test]
fn deep_in_debt_requests_wait_and_what_is_acknowledged_does_not() {
    let mut bench = receiving(100_000);
    // An agent that does not listen: 3 MB came in no time.
    for _ in 0..24 {
        bench.handle(message(128 * 1024));
    }
    bench.react(|outside, event| {
        if matches!(event, Event::Messages(_)) {
            outside.publish(TOPIC.into(), vec![0], Qos::AtMostOnce);
            outside.publish(TOPIC.into(), vec![0; 2], Qos::AtLeastOnce);
        }
        Ok(idle())
    });
    bench.wire();
    bench.handle(message(1));
    let first = bench.wire();
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].ends_with("2 bytes"), "{first:?}");
    let begin = bench.now.now_ms;
    run_until(&mut bench, begin + 15_000);
    assert!(bench.wire().is_empty(), "2 MB of debt are 20 s");
    run_until(&mut bench, begin + 25_000);
    let second = bench.wire();
    assert_eq!(second.len(), 1, "{second:?}");
    assert!(second[0].ends_with("1 bytes"), "{second:?}");
}

#[test]
fn a_lost_connection_ends_requests_that_wait_and_leaves_ranges() {
    let mut bench = receiving(1000);
    for _ in 0..12 {
        bench.handle(message(128 * 1024));
    }
    bench.react(|outside, event| {
        if matches!(event, Event::Messages(_)) {
            outside.publish(TOPIC.into(), vec![0], Qos::AtMostOnce);
            outside.http_get("https://x/y".into(), 0, RANGE);
        }
        Ok(idle())
    });
    bench.wire();
    bench.handle(message(1));
    assert!(bench.wire().is_empty());
    bench.handle(Input::Disconnected {
        reason: 7,
        detail: "gone".into(),
    });
    let told = bench.wire();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("publish"), "{told:?}");
}
