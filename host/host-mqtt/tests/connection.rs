//! A connection as a broker sees it, and what is said when it ends.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod common;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::*;
use host_mqtt::{
    Connection, ConnectionState, Login, MqttError, MqttTransport, Security, Turnstile,
};
use host_runtime::mailbox::Input;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A connection that stands, with one device on it.
struct Standing {
    _broker: Broker,
    connection: Connection,
    inbox: Inbox,
    _transport: MqttTransport,
    peer: Peer<TcpStream>,
}

async fn standing() -> Standing {
    let broker = Broker::new().await;
    let connection = Connection::start(broker.config()).unwrap();
    let inbox = Inbox::new();
    let transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    let peer = broker.accept_connected().await;
    inbox.connected().await;
    Standing {
        _broker: broker,
        connection,
        inbox,
        _transport: transport,
        peer,
    }
}

/// Waits until the last error has these words, and says how it stands then.
async fn until_error(connection: &Connection, words: &str) -> String {
    let mut watch = connection.watch();
    let status = patient("an error", async {
        watch
            .wait_for(|status| {
                status
                    .last_error
                    .as_ref()
                    .is_some_and(|error| error.contains(words))
            })
            .await
            .unwrap()
            .clone()
    })
    .await;
    status.last_error.unwrap()
}

#[tokio::test]
async fn connect_asks_for_a_clean_session_with_keep_alive_and_client_id() {
    let broker = Broker::new().await;
    let mut config = broker.config();
    config.login = Some(Login::name("?SDK=otad&Version=1"));
    let connection = Connection::start(config).unwrap();
    let (_peer, connect) = broker.accept().await;
    let mut expected = b"\0\x04MQTT\x04".to_vec();
    expected.push(0x82); // user name, clean session, no will, no password
    expected.extend_from_slice(&60_u16.to_be_bytes());
    for text in [THING, "?SDK=otad&Version=1"] {
        expected.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        expected.extend_from_slice(text.as_bytes());
    }
    assert_eq!(connect.body, expected);
    assert_eq!(connection.status().state, ConnectionState::Connecting);
}

#[tokio::test]
async fn a_password_follows_the_user_name() {
    let broker = Broker::new().await;
    let mut config = broker.config();
    config.login = Some(Login::new("pump", "s3cret"));
    let _connection = Connection::start(config).unwrap();
    let (_peer, connect) = broker.accept().await;
    assert_eq!(connect.body[7], 0xc2); // user name, password, clean session
    assert!(connect.body.ends_with(b"\0\x04pump\0\x06s3cret"));
}

#[tokio::test]
async fn each_refusal_is_worded_and_tried_again() {
    let broker = Broker::new().await;
    let connection = Connection::start(broker.config()).unwrap();
    let inbox = Inbox::new();
    let _transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    let rows = [
        (1, "3.1.1"),
        (2, "client id"),
        (3, "not available"),
        (4, "password"),
        (5, "not authorized"),
    ];
    for (code, words) in rows {
        let (mut peer, _) = broker.accept().await;
        peer.write(&[0x20, 2, 0, code]).await;
        until_error(&connection, words).await;
    }
    let _peer = broker.accept_connected().await;
    // Of the attempts before, the device hears nothing: it was never connected.
    inbox.connected().await;
    let status = connection.status();
    assert_eq!(
        (status.state, status.attempts, status.connections),
        (ConnectionState::Connected, 0, 1)
    );
}

#[tokio::test]
async fn a_broker_that_takes_the_socket_and_refuses_is_asked_ever_more_rarely() {
    let broker = Broker::new().await;
    let mut config = broker.config();
    config.back_off = host_mqtt::BackOffLimits {
        base_ms: 20,
        cap_ms: 80,
    };
    let _connection = Connection::start(config).unwrap();
    let mut accepted = Vec::new();
    for _ in 0..6 {
        let (mut peer, _) = broker.accept().await;
        accepted.push(tokio::time::Instant::now());
        // A server that is not available.
        peer.write(&[0x20, 2, 0, 3]).await;
    }
    let pauses = accepted.windows(2).map(|pair| pair[1] - pair[0]);
    for (pause, least_ms) in pauses.zip([20, 40, 80, 80, 80]) {
        assert!(pause.as_millis() >= least_ms, "{pause:?} < {least_ms} ms");
    }
}

#[tokio::test]
async fn a_connection_sets_the_delay_back_to_its_base() {
    let broker = Broker::new().await;
    let mut config = broker.config();
    config.back_off = host_mqtt::BackOffLimits {
        base_ms: 10,
        cap_ms: 100_000,
    };
    let connection = Connection::start(config).unwrap();
    let inbox = Inbox::new();
    let _transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    // Waits of 10, 20, 40 ms and so on up to 1.28 s, and the next one would be 2.56 s at least.
    for _ in 0..8 {
        let (mut peer, _) = broker.accept().await;
        peer.write(&[0x20, 2, 0, 3]).await;
    }
    let peer = broker.accept_connected().await;
    inbox.connected().await;
    drop(peer);
    let cut = Instant::now();
    let _again = broker.accept().await;
    let pause = cut.elapsed();
    assert!(pause < Duration::from_millis(2560), "{pause:?}");
}

#[tokio::test]
async fn a_port_on_which_nobody_listens_is_tried_again_until_somebody_does() {
    let broker = Broker::new().await;
    let config = broker.config();
    let address = format!("127.0.0.1:{}", broker.port);
    drop(broker);
    let connection = Connection::start(config).unwrap();
    let told = until_error(&connection, "cannot connect").await;
    assert!(
        told.contains(&address) && told.contains("(network)"),
        "{told}"
    );
    connection.stop().await;
    assert_eq!(connection.status().state, ConnectionState::Stopped);
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_no_failed_connection() {
    let broker = Broker::new().await;
    let mut config = broker.config();
    config.security = Security::Tls(host_mqtt::TlsFiles {
        ca: "/nonexistent/ca.pem".into(),
        certificate: "/nonexistent/device.pem".into(),
        key: "/nonexistent/device.key".into(),
    });
    let error = Connection::start(config).unwrap_err();
    assert!(matches!(error, MqttError::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn a_bad_packet_ends_the_connection_with_its_reason() {
    let broker = Broker::new().await;
    let connection = Connection::start(broker.config()).unwrap();
    let inbox = Inbox::new();
    let _transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    // A packet type that does not exist; a PUBACK nobody waits for; a packet above the limit.
    let rows: [&[u8]; 3] = [
        &[0xf0, 0],
        &[0x40, 2, 0, 7],
        &[0x30, 0xff, 0xff, 0xff, 0x7f],
    ];
    for bytes in rows {
        let mut peer = broker.accept_connected().await;
        inbox.connected().await;
        peer.write(bytes).await;
        let (reason, detail) = inbox.disconnected().await;
        assert_eq!(reason, 2, "{bytes:x?}: {detail}");
    }
}

#[tokio::test]
async fn a_broker_that_answers_no_ping_is_given_up() {
    let mut up = standing().await;
    // From here on only timers can wake the client: 60 s to the ping, 60 s for its answer.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    let (reason, detail) = loop {
        if let Some(Input::Disconnected { reason, detail }) = up.inbox.mailbox.take() {
            break (reason, detail);
        }
        assert!(before.elapsed().as_secs() <= 130, "it waits too long");
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    };
    tokio::time::resume();
    assert_eq!(reason, 3, "{detail}");
    assert_eq!(up.peer.read().await.kind, PINGREQ);
}

#[tokio::test]
async fn an_idle_connection_costs_one_ping_for_each_keep_alive() {
    let up = standing().await;
    let mut peer = up.peer;
    tokio::time::pause();
    let pings = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&pings);
    let served = tokio::spawn(async move {
        while let Ok(packet) = peer.try_read().await {
            assert_eq!(packet.kind, PINGREQ, "{packet:?}");
            counted.fetch_add(1, Ordering::SeqCst);
            peer.write(&[0xd0, 0]).await;
        }
    });
    // Ten minutes at 60 s each.
    for _ in 0..600 {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    }
    let pings = pings.load(Ordering::SeqCst);
    assert!((9..=10).contains(&pings), "{pings} pings");
    assert!(!served.is_finished(), "something else than a ping came");
    assert_eq!(up.connection.status().connections, 1);
}

#[tokio::test]
async fn a_broker_that_closes_is_named_and_connected_to_again() {
    let broker = Broker::new().await;
    let connection = Connection::start(broker.config()).unwrap();
    let inbox = Inbox::new();
    let _transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    let peer = broker.accept_connected().await;
    inbox.connected().await;
    drop(peer);
    assert_eq!(inbox.disconnected().await.0, 4);
    let _peer = broker.accept_connected().await;
    inbox.connected().await;
    assert_eq!(connection.status().connections, 2);
}

#[tokio::test]
async fn a_client_that_is_thrown_out_again_and_again_suspects_another_one() {
    let broker = Broker::new().await;
    let connection = Connection::start(broker.config()).unwrap();
    let inbox = Inbox::new();
    let _transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    let mut reasons = Vec::new();
    let mut last = String::new();
    for _ in 0..4 {
        let peer = broker.accept_connected().await;
        inbox.connected().await;
        drop(peer);
        let (reason, detail) = inbox.disconnected().await;
        reasons.push(reason);
        last = detail;
    }
    assert_eq!(reasons, [4, 4, 6, 6]);
    assert!(last.contains(THING) && last.contains("4 times"), "{last}");
}

#[tokio::test]
async fn stop_says_goodbye_to_the_broker_and_to_the_devices() {
    let mut up = standing().await;
    let (_, packet) = tokio::join!(up.connection.stop(), up.peer.read());
    assert_eq!((packet.kind, packet.body.len()), (DISCONNECT, 0));
    up.peer.read_end().await;
    assert_eq!(up.inbox.disconnected().await.0, 1);
    assert_eq!(up.connection.status().state, ConnectionState::Stopped);
    // Again is harmless.
    up.connection.stop().await;
}

#[tokio::test]
async fn stop_while_connecting_or_waiting_ends_it_too() {
    let broker = Broker::new().await;
    let connection = Connection::start(broker.config()).unwrap();
    let (mut peer, _) = broker.accept().await;
    connection.stop().await;
    peer.read_end().await;
    assert_eq!(connection.status().state, ConnectionState::Stopped);

    let mut config = broker.config();
    config.back_off.base_ms = 3_600_000;
    config.back_off.cap_ms = 3_600_000;
    drop(broker);
    let connection = Connection::start(config).unwrap();
    let mut watch = connection.watch();
    patient(
        "the delay",
        watch.wait_for(|s| matches!(s.state, ConnectionState::Waiting { .. })),
    )
    .await
    .unwrap();
    patient("the stop", connection.stop()).await;
    assert_eq!(connection.status().state, ConnectionState::Stopped);
}

#[tokio::test]
async fn connections_of_one_turnstile_are_begun_one_after_the_other_and_again_when_they_are_lost() {
    let broker = Broker::new().await;
    let turnstile = Turnstile::new(NonZeroU32::new(20).unwrap());
    let gap = Duration::from_millis(50);
    let begun = Instant::now();
    let connections: Vec<Connection> = (0..4)
        .map(|_| Connection::start_in_turn(broker.config(), &turnstile).unwrap())
        .collect();
    // Each is lost at once, so that each comes twice: eight turns, and seven gaps between them.
    for turn in 0..8 {
        drop(broker.accept().await);
        assert!(begun.elapsed() >= gap * turn, "turn {turn}");
    }
    for connection in &connections {
        connection.stop().await;
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_its_turn_can_be_stopped() {
    let broker = Broker::new().await;
    let turnstile = Turnstile::new(NonZeroU32::MIN);
    let start = || Connection::start_in_turn(broker.config(), &turnstile).unwrap();
    let (first, second) = (start(), start());
    // It says that it waits, and not that it connects.
    let mut watch = second.watch();
    let waits = watch.wait_for(|s| matches!(s.state, ConnectionState::Waiting { .. }));
    drop(patient("the wait for a turn", waits).await.unwrap());
    let _peer = broker.accept().await;
    patient("the end of one that waits", second.stop()).await;
    assert_eq!(second.status().state, ConnectionState::Stopped);
    patient("the end of the other", first.stop()).await;
}
