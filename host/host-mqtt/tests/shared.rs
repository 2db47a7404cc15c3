//! An application owns the connection; a device rides along.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod common;

use common::*;
use host_mqtt::{Brings, Notice, SharedConnection};
use host_runtime::ports::transport::Transport;
use host_runtime::types::Qos;
use rumqttc::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet as Incoming};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};

/// Requests that the application's queue holds.
const QUEUE: usize = 16;

fn application(broker: &Broker) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new("application", ("127.0.0.1", broker.port));
    options.set_max_packet_size(256 * 1024, 256 * 1024);
    AsyncClient::builder(options).capacity(QUEUE).build()
}

/// The application's loop: it keeps the messages that are its own.
fn drive(
    shared: SharedConnection,
    mut event_loop: EventLoop,
) -> (mpsc::Receiver<String>, JoinHandle<()>) {
    let (own, messages) = mpsc::channel(8);
    let task = tokio::spawn(async move {
        loop {
            match event_loop.poll().await {
                Ok(event) => {
                    shared.incoming(&event);
                    if let Event::Incoming(Incoming::Publish(publish)) = &event {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        own.try_send(topic).unwrap();
                    }
                }
                Err(error) => {
                    shared.lost(&error);
                    if matches!(error, ConnectionError::RequestsDone) {
                        break;
                    }
                }
            }
        }
    });
    (messages, task)
}

#[tokio::test]
async fn one_connection_serves_application_and_device() {
    let broker = Broker::new().await;
    let (client, event_loop) = application(&broker);
    let shared = SharedConnection::new(client.clone()).unwrap();
    let inbox = Inbox::new();
    let mut transport = shared.attach(THING, inbox.mailbox.clone(), true).unwrap();
    // Not connected yet: a call fails at once instead of waiting in the application's queue.
    transport.publish(1, &topic("a"), b"early".to_vec(), Qos::AtMostOnce);
    assert_eq!(inbox.failed().await, (1, 0xd8, 0));

    let (mut messages, _task) = drive(shared.clone(), event_loop);
    let mut peer = broker.accept_connected().await;
    inbox.connected().await;
    transport.publish(2, &topic("a"), b"device".to_vec(), Qos::AtLeastOnce);
    let (_, id, payload) = peer.read().await.publish();
    assert_eq!(payload, b"device");
    let [high, low] = id.unwrap();
    peer.write(&[0x40, 2, high, low]).await;
    assert_eq!(inbox.done().await, (2, None));

    peer.publish("application/topic", 0, b"x").await;
    peer.publish(&topic("jobs/notify-next"), 0, b"y").await;
    assert_eq!(messages.recv().await.unwrap(), "application/topic");
    assert_eq!(inbox.message().await.1, b"y");
    assert_eq!(messages.recv().await.unwrap(), topic("jobs/notify-next"));

    // The device goes; the application's connection stays.
    drop(transport);
    client
        .publish(
            "application/topic",
            "still here",
            rumqttc::PublishOptions::at_most_once(),
        )
        .await
        .unwrap();
    assert_eq!(peer.read().await.publish().2, b"still here");
}

#[tokio::test]
async fn a_device_follows_the_application_through_a_lost_connection() {
    let broker = Broker::new().await;
    let (client, event_loop) = application(&broker);
    let shared = SharedConnection::new(client).unwrap();
    let inbox = Inbox::new();
    let mut transport = shared.attach(THING, inbox.mailbox.clone(), true).unwrap();
    let _messages = drive(shared, event_loop);
    let peer = broker.accept_connected().await;
    inbox.connected().await;
    transport.publish(1, &topic("a"), b"x".to_vec(), Qos::AtLeastOnce);
    drop(peer);
    assert_eq!(inbox.disconnected().await.0, 4);
    assert_eq!(inbox.failed().await, (1, 0xd8, 0));
    let _peer = broker.accept_connected().await;
    inbox.connected().await;
}

#[tokio::test]
async fn an_application_may_close_and_come_back_with_another_client() {
    let broker = Broker::new().await;
    let (client, event_loop) = application(&broker);
    let shared = SharedConnection::new(client).unwrap();
    let inbox = Inbox::new();
    let mut transport = shared.attach(THING, inbox.mailbox.clone(), true).unwrap();
    let (_first, first) = drive(shared.clone(), event_loop);
    let _peer = broker.accept_connected().await;
    inbox.connected().await;

    let (client, event_loop) = application(&broker);
    let shared = shared.renew(client);
    assert_eq!(inbox.disconnected().await.0, 1);
    let _second = drive(shared, event_loop);
    let mut peer = broker.accept_connected().await;
    inbox.connected().await;
    // The end of the first loop, which nobody holds a client of any more, is no loss.
    first.await.unwrap();
    assert!(inbox.mailbox.is_empty());
    transport.publish(1, &topic("a"), b"over it".to_vec(), Qos::AtMostOnce);
    assert_eq!(peer.read().await.publish().2, b"over it");
}

#[tokio::test]
async fn a_device_that_goes_leaves_nothing_that_waits_for_room_at_any_client() {
    let broker = Broker::new().await;
    let (client, event_loop) = application(&broker);
    let shared = SharedConnection::new(client.clone()).unwrap();
    let inbox = Inbox::new();
    let transport = shared.attach(THING, inbox.mailbox.clone(), true).unwrap();
    let notice = |n: usize| Notice::new(&format!("site/{n}"), Brings::Job).unwrap();
    // Nothing leaves either queue before its loop is driven.
    shared.connected(false);
    transport.listen((0..2 * QUEUE).map(notice).collect());
    yield_now().await;
    let (next, next_loop) = application(&broker);
    let renewed = shared.renew(next.clone());
    renewed.connected(false);
    yield_now().await;
    drop(transport);
    for (shared, client, event_loop) in [(shared, client, event_loop), (renewed, next, next_loop)] {
        let _driven = drive(shared, event_loop);
        let mut peer = broker.accept_connected().await;
        for n in 0..QUEUE {
            let packet = peer.read().await;
            assert_eq!(packet.kind, SUBSCRIBE, "{n}");
            let [high, low] = packet.id();
            peer.write(&[0x90, 3, high, low, 1]).await;
        }
        let options = rumqttc::PublishOptions::at_most_once();
        client.publish("own", "x", options).await.unwrap();
        assert_eq!(peer.read().await.publish().2, b"x");
    }
}
