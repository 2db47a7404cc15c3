//! Calls of devices, and messages for them.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod common;

use std::time::Duration;

use common::*;
use host_mqtt::{Brings, Connection, ConnectionConfig, ConnectionState, MqttTransport, Notice};
use host_runtime::mailbox::{Input, MESSAGES_MAX};
use host_runtime::ports::transport::Transport;
use host_runtime::types::{Outcome, Qos, Token};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

struct Bench {
    broker: Broker,
    connection: Connection,
    peer: Peer<TcpStream>,
    inbox: Inbox,
    transport: MqttTransport,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}, true).await
    }

    async fn with(change: impl FnOnce(&mut ConnectionConfig), subscribe_replies: bool) -> Self {
        let broker = Broker::new().await;
        let mut config = broker.config();
        change(&mut config);
        let connection = Connection::start(config).unwrap();
        let inbox = Inbox::new();
        let transport = connection
            .attach(THING, inbox.mailbox.clone(), subscribe_replies)
            .unwrap();
        let peer = broker.accept_connected().await;
        inbox.connected().await;
        Self {
            broker,
            connection,
            peer,
            inbox,
            transport,
        }
    }

    /// Another connection, in place of the one whose peer goes.
    async fn replaced(&mut self) -> Peer<TcpStream> {
        self.peer.0.shutdown().await.unwrap();
        let peer = self.broker.accept_connected().await;
        self.inbox.disconnected().await;
        self.inbox.connected().await;
        peer
    }
}

#[tokio::test]
async fn a_subscription_is_done_with_its_own_suback() {
    let mut bench = Bench::new().await;
    let filters = [topic("jobs/notify-next"), topic("streams/s/data/cbor")];
    bench.transport.subscribe(1, &filters[0], Qos::AtLeastOnce);
    let first = bench.peer.read().await;
    bench.transport.subscribe(2, &filters[1], Qos::AtMostOnce);
    let second = bench.peer.read().await;
    for (packet, filter, qos) in [(&first, &filters[0], 1), (&second, &filters[1], 0)] {
        assert_eq!(packet.kind, SUBSCRIBE);
        assert_eq!(&packet.body[4..4 + filter.len()], filter.as_bytes());
        assert_eq!(packet.body.last(), Some(&qos));
    }
    // Answered the other way round.
    for (packet, token) in [(&second, 2), (&first, 1)] {
        let [high, low] = packet.id();
        bench.peer.write(&[0x90, 3, high, low, 0]).await;
        assert_eq!(bench.inbox.done().await, (token, None));
    }
}

#[tokio::test]
async fn a_refused_subscription_fails_with_the_code_of_the_c_agent() {
    let mut bench = Bench::new().await;
    bench
        .transport
        .subscribe(1, &topic("jobs/notify-next"), Qos::AtLeastOnce);
    let [high, low] = bench.peer.read().await.id();
    bench.peer.write(&[0x90, 3, high, low, 0x80]).await;
    assert_eq!(bench.inbox.failed().await, (1, 0xa1, 0x80));
}

#[tokio::test]
async fn unsubscribing_is_done_with_unsuback() {
    let mut bench = Bench::new().await;
    bench.transport.unsubscribe(1, &topic("jobs/notify-next"));
    let packet = bench.peer.read().await;
    assert_eq!(packet.kind, UNSUBSCRIBE);
    let [high, low] = packet.id();
    bench.peer.write(&[0xb0, 2, high, low]).await;
    assert_eq!(bench.inbox.done().await, (1, None));
}

#[tokio::test]
async fn a_publish_of_qos_0_is_done_when_queued_and_one_of_qos_1_when_acknowledged() {
    let mut bench = Bench::new().await;
    bench
        .transport
        .publish(1, &topic("a"), b"one".to_vec(), Qos::AtMostOnce);
    assert_eq!(bench.inbox.done().await, (1, None));
    bench
        .transport
        .publish(2, &topic("b"), b"two".to_vec(), Qos::AtLeastOnce);
    bench
        .transport
        .publish(3, &topic("c"), b"three".to_vec(), Qos::AtMostOnce);
    assert_eq!(bench.inbox.done().await, (3, None), "2 is not acknowledged");
    // On the wire they keep their order.
    let mut packets = Vec::new();
    for _ in 0..3 {
        packets.push(bench.peer.read().await);
    }
    let told: Vec<_> = packets.iter().map(Packet::publish).collect();
    let payloads: Vec<_> = told.iter().map(|(_, _, p)| p.as_slice()).collect();
    assert_eq!(payloads, [b"one".as_slice(), b"two", b"three"]);
    assert!(packets.iter().all(|p| p.flags & 1 == 0), "not retained");
    let [high, low] = told[1].1.unwrap();
    bench.peer.write(&[0x40, 2, high, low]).await;
    assert_eq!(bench.inbox.done().await, (2, None));
}

#[tokio::test]
async fn a_lost_connection_is_told_first_and_then_fails_what_was_under_way() {
    let mut bench = Bench::new().await;
    bench
        .transport
        .subscribe(1, &topic("jobs/notify-next"), Qos::AtLeastOnce);
    bench
        .transport
        .publish(2, &topic("b"), b"two".to_vec(), Qos::AtLeastOnce);
    bench.peer.read().await;
    bench.peer.read().await;
    drop(bench.peer);
    assert_eq!(bench.inbox.disconnected().await.0, 4);
    assert_eq!(bench.inbox.failed().await, (1, 0xd8, 0));
    assert_eq!(bench.inbox.failed().await, (2, 0xd8, 0));
    // Calls without a connection fail at once, and none of them is sent later.
    bench
        .transport
        .publish(3, &topic("c"), b"stale".to_vec(), Qos::AtLeastOnce);
    bench
        .transport
        .publish(4, &topic("c"), b"stale".to_vec(), Qos::AtMostOnce);
    assert_eq!(bench.inbox.failed().await, (3, 0xd8, 0));
    assert_eq!(bench.inbox.failed().await, (4, 0xd8, 0));
    let mut peer = bench.broker.accept_connected().await;
    bench.inbox.connected().await;
    bench
        .transport
        .publish(5, &topic("d"), b"fresh".to_vec(), Qos::AtMostOnce);
    assert_eq!(peer.read().await.publish().2, b"fresh");
}

#[tokio::test]
async fn a_cancelled_call_ends_once() {
    let mut bench = Bench::new().await;
    bench
        .transport
        .publish(1, &topic("a"), b"x".to_vec(), Qos::AtLeastOnce);
    let (_, id, _) = bench.peer.read().await.publish();
    bench.transport.cancel(1);
    bench.transport.cancel(1);
    bench.transport.cancel(77);
    assert_eq!(bench.inbox.failed().await, (1, 0xd7, 0));
    // Its acknowledgement comes too late to be told.
    let [high, low] = id.unwrap();
    bench.peer.write(&[0x40, 2, high, low]).await;
    bench
        .transport
        .publish(2, &topic("a"), b"y".to_vec(), Qos::AtMostOnce);
    assert_eq!(bench.inbox.done().await, (2, None));
    assert!(bench.inbox.mailbox.is_empty());
}

/// Waits for a call to time out, on a clock that jumps while nothing else happens.
async fn timed_out(inbox: &Inbox) -> (Token, u8, u32) {
    tokio::time::pause();
    let failed = inbox.failed().await;
    tokio::time::resume();
    failed
}

#[tokio::test]
async fn calls_that_nobody_acknowledges_end_and_then_the_connection_is_made_anew() {
    let limits = |config: &mut ConnectionConfig| {
        config.limits.ack_timeout = Duration::from_secs(5);
        config.limits.unanswered_max = 3;
    };
    let mut bench = Bench::with(limits, true).await;
    for token in 1..=3 {
        bench
            .transport
            .publish(token, &topic("a"), b"x".to_vec(), Qos::AtLeastOnce);
        bench.peer.read().await;
        assert_eq!(timed_out(&bench.inbox).await, (token, 0xd9, 0));
    }
    let (reason, detail) = bench.inbox.disconnected().await;
    assert_eq!(reason, 3, "{detail}");
    assert!(detail.contains("3 calls"), "{detail}");
    let _peer = bench.broker.accept_connected().await;
    bench.inbox.connected().await;
}

#[tokio::test]
async fn a_connection_whose_broker_takes_nothing_any_more_ends_when_it_is_asked_to() {
    let mut bench = Bench::with(|config| config.limits.queue_max = 1, true).await;
    let finds_no_room = |token: Token| {
        let mut inputs = std::iter::from_fn(|| bench.inbox.mailbox.take());
        inputs.any(|input| match input {
            Input::Done { token: of, outcome } => {
                of == token && matches!(outcome, Outcome::Failed(f) if f.main == 0xd1)
            }
            _ => false,
        })
    };
    // First what fills the socket, then what waits behind it.
    let mut tokens = 1..;
    for token in tokens.by_ref() {
        bench
            .transport
            .publish(token, &topic("a"), vec![0; 100_000], Qos::AtMostOnce);
        // The other task writes until the socket takes no more.
        tokio::task::yield_now().await;
        if finds_no_room(token) {
            break;
        }
    }
    for token in tokens {
        bench
            .transport
            .subscribe(token, &topic("b"), Qos::AtLeastOnce);
        if finds_no_room(token) {
            break;
        }
    }
    tokio::time::pause();
    bench.connection.stop().await;
    assert_eq!(bench.connection.status().state, ConnectionState::Stopped);
}

#[tokio::test]
async fn calls_that_time_out_together_end_one_connection_and_not_the_next_too() {
    const CALLS: u64 = 6;
    let limits = |config: &mut ConnectionConfig| {
        config.limits.ack_timeout = Duration::from_secs(5);
        config.limits.unanswered_max = 3;
    };
    let mut bench = Bench::with(limits, true).await;
    for token in 1..=CALLS {
        bench
            .transport
            .publish(token, &topic("a"), b"x".to_vec(), Qos::AtLeastOnce);
        bench.peer.read().await;
    }
    timed_out(&bench.inbox).await;
    let mut peer = bench.broker.accept_connected().await;
    // Whether the last ones timed out or were ended by the loss is all the same.
    let (mut ended, mut connected) = (1, false);
    while ended < CALLS || !connected {
        match bench.inbox.next().await {
            Input::Done { .. } => ended += 1,
            Input::Connected { .. } => connected = true,
            Input::Disconnected { detail, .. } => assert!(detail.contains("3 calls"), "{detail}"),
            other => panic!("{other:?}"),
        }
    }
    bench
        .transport
        .publish(7, &topic("a"), b"x".to_vec(), Qos::AtLeastOnce);
    let [high, low] = peer.read().await.publish().1.unwrap();
    peer.write(&[0x40, 2, high, low]).await;
    assert_eq!(bench.inbox.done().await, (7, None));
    assert_eq!(bench.connection.status().connections, 2);
}

#[tokio::test]
async fn an_acknowledgement_in_between_keeps_the_connection() {
    let limits = |config: &mut ConnectionConfig| {
        config.limits.ack_timeout = Duration::from_secs(5);
        config.limits.unanswered_max = 2;
    };
    let mut bench = Bench::with(limits, true).await;
    for token in [1, 3, 5] {
        bench
            .transport
            .publish(token, &topic("a"), b"x".to_vec(), Qos::AtLeastOnce);
        bench.peer.read().await;
        assert_eq!(timed_out(&bench.inbox).await, (token, 0xd9, 0));
        bench
            .transport
            .publish(token + 1, &topic("a"), b"x".to_vec(), Qos::AtLeastOnce);
        let [high, low] = bench.peer.read().await.publish().1.unwrap();
        bench.peer.write(&[0x40, 2, high, low]).await;
        assert_eq!(bench.inbox.done().await, (token + 1, None));
    }
    assert_eq!(bench.connection.status().connections, 1);
}

#[tokio::test]
async fn replies_that_come_unasked_are_not_subscribed_to() {
    let mut bench = Bench::with(|_| {}, false).await;
    bench
        .transport
        .subscribe(1, &topic("jobs/$next/get/accepted"), Qos::AtLeastOnce);
    assert_eq!(bench.inbox.done().await, (1, None));
    bench
        .transport
        .unsubscribe(2, &topic("jobs/$next/get/accepted"));
    assert_eq!(bench.inbox.done().await, (2, None));
    bench
        .transport
        .subscribe(3, &topic("jobs/notify-next"), Qos::AtLeastOnce);
    let packet = bench.peer.read().await;
    assert!(packet.body.ends_with(b"jobs/notify-next\x01"));
}

#[tokio::test]
async fn messages_go_to_the_device_in_their_topic() {
    let mut bench = Bench::new().await;
    let other = Inbox::new();
    let second = bench
        .connection
        .attach("thing-2", other.mailbox.clone(), true)
        .unwrap();
    other.connected().await;
    let refused = bench
        .connection
        .attach("thing-2", other.mailbox.clone(), true);
    assert!(refused.is_err());
    for (to, qos, payload) in [
        ("$aws/things/thing-2/jobs/notify-next", 1, "b"),
        ("$aws/things/thing-3/jobs/notify-next", 0, "nobody"),
        ("elsewhere", 0, "nobody"),
        ("$aws/things/thing-1/jobs/notify-next", 0, "a"),
    ] {
        bench.peer.publish(to, qos, payload.as_bytes()).await;
    }
    assert_eq!(bench.inbox.message().await.1, b"a");
    match other.next().await {
        Input::Message {
            topic,
            payload,
            qos,
        } => {
            assert_eq!(topic, "$aws/things/thing-2/jobs/notify-next");
            assert_eq!((&payload[..], qos), (&b"b"[..], Qos::AtLeastOnce));
        }
        input => panic!("{input:?}"),
    }
    assert_eq!(bench.connection.unrouted(), 2);
    // A device that is gone hears nothing and disturbs nobody; its name is free again.
    drop(second);
    bench
        .peer
        .publish("$aws/things/thing-2/x", 0, b"late")
        .await;
    bench.peer.publish(&topic("x"), 0, b"c").await;
    assert_eq!(bench.inbox.message().await.1, b"c");
    assert!(other.mailbox.is_empty());
    assert!(
        bench
            .connection
            .attach("thing-2", other.mailbox.clone(), true)
            .is_ok()
    );
}

#[tokio::test]
async fn a_topic_of_notices_is_heard_by_all_devices_that_name_it_now() {
    async fn heard(inbox: &Inbox, words: &[u8]) {
        match inbox.next().await {
            Input::Custom { bytes, .. } => assert_eq!(&bytes[..], words),
            input => panic!("{input:?}"),
        }
    }
    let notices = |topics: &[&str]| -> Vec<Notice> {
        let notice = |topic: &&str| Notice::new(topic, Brings::Job).unwrap();
        topics.iter().map(notice).collect()
    };
    let mut bench = Bench::new().await;
    let other = Inbox::new();
    let second = bench
        .connection
        .attach("thing-2", other.mailbox.clone(), true)
        .unwrap();
    other.connected().await;
    second.listen(notices(&["site/jobs"]));
    bench
        .transport
        .listen(notices(&["site/former", "site/jobs"]));
    bench.transport.listen(notices(&["site/jobs"]));
    for (to, words) in [("site/former", "nobody"), ("site/jobs", "both")] {
        bench.peer.publish(to, 0, words.as_bytes()).await;
    }
    heard(&bench.inbox, b"both").await;
    heard(&other, b"both").await;
    assert_eq!(bench.connection.unrouted(), 1);
    // Those that stay go on hearing of it; the name of one that is gone brings nothing back.
    drop(second);
    bench.peer.publish("site/jobs", 0, b"one").await;
    heard(&bench.inbox, b"one").await;
    let _second = bench
        .connection
        .attach("thing-2", other.mailbox.clone(), true)
        .unwrap();
    other.connected().await;
    bench.peer.publish("site/jobs", 0, b"still one").await;
    heard(&bench.inbox, b"still one").await;
    assert!(other.mailbox.is_empty());
}

#[tokio::test]
async fn a_device_that_takes_nothing_does_not_stop_the_others() {
    let mut bench = Bench::new().await;
    let slow = Inbox::new();
    let _slow = bench
        .connection
        .attach("slow", slow.mailbox.clone(), true)
        .unwrap();
    let count = MESSAGES_MAX * 3;
    let block = publish_bytes("$aws/things/slow/streams/s/data/cbor", 0, &[0; 256]);
    for _ in 0..count {
        bench.peer.write(&block).await;
    }
    bench.peer.publish(&topic("x"), 0, b"through").await;
    assert_eq!(bench.inbox.message().await.1, b"through");
    let counters = slow.mailbox.counters();
    assert_eq!(counters.received, count as u64);
    assert_eq!(counters.dropped, (count - MESSAGES_MAX) as u64);
}

#[tokio::test]
async fn the_largest_block_with_its_envelope_passes() {
    let mut bench = Bench::new().await;
    let payload = vec![0x5a; 160 * 1024];
    bench
        .peer
        .publish(&topic("streams/s/data/cbor"), 0, &payload)
        .await;
    assert_eq!(bench.inbox.message().await.1, payload);
    bench
        .transport
        .publish(1, &topic("x"), vec![1; 128 * 1024], Qos::AtMostOnce);
    assert_eq!(bench.inbox.done().await, (1, None));
    assert_eq!(bench.peer.read().await.publish().2.len(), 128 * 1024);
}

#[tokio::test]
async fn more_requests_than_the_queue_holds_fail_at_once() {
    let mut bench = Bench::with(|config| config.limits.queue_max = 4, true).await;
    // The event loop does not run between these calls: the test never yields.
    for token in 1..=5 {
        bench
            .transport
            .publish(token, &topic("x"), Vec::new(), Qos::AtMostOnce);
    }
    for token in 1..=4 {
        assert_eq!(bench.inbox.done().await, (token, None));
    }
    assert_eq!(bench.inbox.failed().await, (5, 0xd1, 0));
}

#[tokio::test]
async fn subscriptions_to_notices_that_find_the_queue_full_leave_when_there_is_room() {
    let mut bench = Bench::with(|config| config.limits.queue_max = 4, true).await;
    let topics: Vec<String> = (10..30).map(|n| format!("site/{n}")).collect();
    let notice = |topic: &String| Notice::new(topic, Brings::Job).unwrap();
    // The event loop does not run while these are asked for.
    bench.transport.listen(topics.iter().map(notice).collect());
    // Then those of a new connection, which has all of them to ask for at once.
    for round in 1..=2 {
        let mut asked = asked(&mut bench.peer, topics.len()).await;
        asked.sort();
        assert_eq!(asked, topics, "{round}");
        // Each once.
        bench
            .transport
            .publish(round, &topic("x"), Vec::new(), Qos::AtMostOnce);
        assert_eq!(bench.inbox.done().await, (round, None));
        assert_eq!(bench.peer.read().await.kind, PUBLISH);
        bench.peer = bench.replaced().await;
    }
}

/// The topics of the next subscriptions, which are acknowledged.
async fn asked(peer: &mut Peer<TcpStream>, count: usize) -> Vec<String> {
    let mut asked = Vec::new();
    for _ in 0..count {
        let packet = peer.read().await;
        assert_eq!(packet.kind, SUBSCRIBE, "{asked:?}");
        let [high, low] = packet.id();
        peer.write(&[0x90, 3, high, low, 1]).await;
        let filter = &packet.body[4..packet.body.len() - 1];
        asked.push(String::from_utf8(filter.to_vec()).unwrap());
    }
    asked
}

#[tokio::test]
async fn what_waits_for_room_is_not_subscribed_to_any_more_once_nobody_is_to_hear_of_it() {
    let notices = |of: &str, count: usize| -> Vec<Notice> {
        let notice = |n: usize| Notice::new(&format!("{of}/{n}"), Brings::Job).unwrap();
        (0..count).map(notice).collect()
    };
    let mut bench = Bench::with(|config| config.limits.queue_max = 4, true).await;
    let other = Inbox::new();
    let second = bench
        .connection
        .attach("thing-2", other.mailbox.clone(), true)
        .unwrap();
    other.connected().await;
    // The event loop does not run while these are asked for.
    second.listen(notices("gone", 10));
    bench.transport.listen(notices("former", 10));
    bench.transport.listen(notices("now", 1));
    drop(second);
    let expected = ["gone/0", "gone/1", "gone/2", "gone/3", "now/0"];
    assert_eq!(asked(&mut bench.peer, 5).await, expected);
    bench
        .transport
        .publish(1, &topic("x"), Vec::new(), Qos::AtMostOnce);
    assert_eq!(bench.inbox.done().await, (1, None));
    assert_eq!(bench.peer.read().await.kind, PUBLISH);
}

#[tokio::test]
async fn http_is_not_for_this_transport_and_keeps_the_url_to_itself() {
    let mut bench = Bench::new().await;
    bench
        .transport
        .http_get(1, "https://host/file?secret=1", 0, 1);
    let (token, failure) = bench.inbox.done().await;
    let failure = failure.unwrap();
    assert_eq!((token, failure.main), (1, 0xda));
    assert!(failure.detail.contains("https"), "{failure}");
    assert!(!failure.detail.contains("secret"), "{failure}");
}
