//! The link against a broker of the test's own, which does what the test says: it shows what a real one rarely does.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;
use crate::{
    Cloud, CloudConfig, CloudHandle,
    endpoint::protocol::{Protocol, Received},
    operator::wire::CreateJob,
    service::{QoS, ThingName},
};

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it happens in time")
}

/// The broker's side of one connection.
struct Peer {
    stream: TcpStream,
    protocol: Protocol,
    bytes: Vec<u8>,
}

impl Peer {
    /// Waits for the cloud and lets it in; what it subscribed to.
    async fn accept(listener: &TcpListener, grant: impl Fn(&str) -> bool) -> (Self, Vec<String>) {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        let mut peer = Self {
            stream,
            protocol: Protocol::new(),
            bytes: Vec::new(),
        };
        assert!(matches!(peer.next().await, Some(Received::Connect(_))));
        peer.protocol.connack().unwrap();
        peer.flush().await;
        let Some(Received::Subscribe(id, filters)) = peer.next().await else {
            panic!("no SUBSCRIBE");
        };
        let granted: Vec<_> = filters
            .iter()
            .map(|(filter, qos)| grant(filter).then_some(*qos))
            .collect();
        peer.protocol.suback(id, &granted).unwrap();
        peer.flush().await;
        (
            peer,
            filters.into_iter().map(|(filter, _)| filter).collect(),
        )
    }

    /// The next packet; `None` when the cloud hung up.
    async fn next(&mut self) -> Option<Received> {
        loop {
            while !self.bytes.is_empty() {
                let (taken, received) = self.protocol.receive(&self.bytes).unwrap();
                self.bytes.drain(..taken);
                if received.is_some() {
                    return received;
                }
            }
            let mut buffer = [0; 4096];
            let read = soon(self.stream.read(&mut buffer)).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.bytes.extend_from_slice(&buffer[..read]);
        }
    }

    /// The next message, acknowledged if `ack` says so: topic and payload.
    async fn message(&mut self, ack: bool) -> (String, serde_json::Value) {
        loop {
            if let Some(Received::Publish(message)) = self.next().await {
                if let (true, Some(id)) = (ack, message.ack) {
                    self.protocol.puback(id).unwrap();
                    self.flush().await;
                }
                let payload = serde_json::from_slice(message.payload.as_slice());
                return (message.topic, payload.unwrap());
            }
        }
    }

    /// A message of a device.
    async fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.protocol
            .publish(topic, payload, QoS::AtMostOnce)
            .unwrap();
        self.flush().await;
    }

    async fn flush(&mut self) {
        let out = self.protocol.out.split();
        self.stream.write_all(&out).await.unwrap();
    }
}

fn gw() -> ThingName {
    "gw".parse().unwrap()
}

async fn broker() -> (TcpListener, BrokerUrl) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("mqtt://127.0.0.1:{port}").parse().unwrap();
    (listener, url)
}

async fn cloud(dir: &std::path::Path, url: BrokerUrl) -> CloudHandle {
    let config = CloudConfig {
        tls: None,
        broker: Some(BrokerConfig::new(url)),
        things: vec![gw()],
        ..CloudConfig::new(dir)
    };
    Cloud::start(config).await.unwrap()
}

async fn job(cloud: &CloudHandle, id: &str) {
    let job = serde_json::json!({"job_id": id, "things": ["gw"], "document": {"a": 1}});
    let job: CreateJob = serde_json::from_value(job).unwrap();
    cloud.operator().create_job(job).await.unwrap();
}

#[tokio::test]
async fn a_request_is_answered_over_the_broker_by_the_thing_of_its_topic() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = broker().await;
    let cloud = cloud(dir.path(), url).await;
    let (mut peer, filters) = Peer::accept(&listener, |_| true).await;
    assert_eq!(filters, FILTERS);
    peer.publish("$aws/things/gw/jobs/get", br#"{"clientToken":"t"}"#)
        .await;
    let (topic, body) = peer.message(true).await;
    assert_eq!(topic, "$aws/things/gw/jobs/get/accepted");
    assert_eq!(body["clientToken"], "t");
    // What is no request is nobody's: the next answer is of what comes behind it.
    peer.publish("$aws/things/gw/shadow/get", b"{}").await;
    peer.publish("telemetry", b"{}").await;
    peer.publish("$aws/things/bad name/jobs/get", b"{}").await;
    peer.publish("$aws/things/gw/jobs/start-next", &[b' '; 200_000])
        .await;
    peer.publish("$aws/things/gw/jobs/none/get", b"{}").await;
    let (topic, body) = peer.message(true).await;
    assert_eq!(topic, "$aws/things/gw/jobs/none/get/rejected");
    assert_eq!(body["code"], "ResourceNotFound");
    // Not under our topics, no thing's name, too large.
    assert_eq!(cloud.broker().unwrap().borrow().dropped, 3);
    cloud.shutdown().await;
}

#[tokio::test]
async fn after_a_loss_it_connects_and_subscribes_again_and_tells_what_it_could_not() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = broker().await;
    let cloud = cloud(dir.path(), url).await;
    let mut status = cloud.broker().unwrap();
    let (mut peer, _) = Peer::accept(&listener, |_| true).await;
    job(&cloud, "j1").await;
    // Taken by the broker but for the second one, which is never acknowledged.
    let (first, _) = peer.message(true).await;
    let (second, _) = peer.message(false).await;
    let mut topics = [first, second.clone()];
    topics.sort();
    assert_eq!(
        topics,
        [
            "$aws/things/gw/jobs/notify",
            "$aws/things/gw/jobs/notify-next"
        ]
    );
    drop(peer);
    soon(status.wait_for(|s| !s.connected && s.connections == 1))
        .await
        .unwrap();
    let (mut peer, filters) = Peer::accept(&listener, |_| true).await;
    assert_eq!(filters, FILTERS);
    let (topic, body) = peer.message(true).await;
    assert_eq!(topic, second);
    assert!(body.to_string().contains("j1"), "{body}");
    assert_eq!(status.borrow_and_update().connections, 2);
    assert!(status.borrow().last_error.is_some());
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_newer_notification_waits_for_the_one_on_its_way_and_survives_it() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = broker().await;
    let cloud = cloud(dir.path(), url).await;
    let (mut peer, _) = Peer::accept(&listener, |_| true).await;
    job(&cloud, "j1").await;
    for _ in 0..2 {
        peer.message(false).await;
    }
    // Its `notify` finds the first one's without an acknowledgement, so that only the reply comes.
    job(&cloud, "j2").await;
    peer.publish("$aws/things/gw/jobs/get", b"{}").await;
    assert_eq!(
        peer.message(true).await.0,
        "$aws/things/gw/jobs/get/accepted"
    );
    drop(peer);
    let (mut peer, _) = Peer::accept(&listener, |_| true).await;
    let mut told = [peer.message(true).await, peer.message(true).await];
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let (topic, body) = &told[0];
    assert_eq!(topic, "$aws/things/gw/jobs/notify");
    assert_eq!(body["jobs"]["QUEUED"].as_array().unwrap().len(), 2);
    assert_eq!(told[1].0, "$aws/things/gw/jobs/notify-next");
    cloud.shutdown().await;
}

#[tokio::test]
async fn what_happens_while_the_broker_is_away_is_told_when_it_is_back_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = broker().await;
    let cloud = cloud(dir.path(), url).await;
    // Nobody has accepted yet.
    job(&cloud, "j1").await;
    job(&cloud, "j2").await;
    let (mut peer, _) = Peer::accept(&listener, |_| true).await;
    let mut told = [peer.message(true).await, peer.message(true).await];
    told.sort_by(|a, b| a.0.cmp(&b.0));
    let (topic, body) = &told[0];
    assert_eq!(topic, "$aws/things/gw/jobs/notify");
    // The newest of the topic stands for both.
    assert_eq!(body["jobs"]["QUEUED"].as_array().unwrap().len(), 2);
    assert_eq!(told[1].0, "$aws/things/gw/jobs/notify-next");
    peer.publish("$aws/things/gw/jobs/get", b"{}").await;
    assert_eq!(
        peer.message(true).await.0,
        "$aws/things/gw/jobs/get/accepted"
    );
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_refused_subscription_is_named_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = broker().await;
    let cloud = cloud(dir.path(), url).await;
    let mut status = cloud.broker().unwrap();
    let granted = |filter: &str| !filter.contains("streams");
    let (mut peer, _) = Peer::accept(&listener, granted).await;
    let refused = soon(status.wait_for(|s| s.last_error.is_some()))
        .await
        .unwrap()
        .clone();
    assert!(!refused.connected);
    let error = refused.last_error.unwrap();
    assert!(
        error.contains("$aws/things/+/streams/+/describe/+"),
        "{error}"
    );
    assert!(peer.next().await.is_none());
    let _peer = Peer::accept(&listener, |_| true).await;
    soon(status.wait_for(|s| s.connected)).await.unwrap();
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_cloud_that_stops_says_goodbye_to_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, url) = broker().await;
    let cloud = cloud(dir.path(), url).await;
    let (mut peer, _) = Peer::accept(&listener, |_| true).await;
    let mut status = cloud.broker().unwrap();
    soon(status.wait_for(|s| s.connected)).await.unwrap();
    let last = async {
        let mut last = None;
        while let Some(received) = peer.next().await {
            last = Some(received);
        }
        last
    };
    let ((), last) = tokio::join!(cloud.shutdown(), last);
    assert!(matches!(last, Some(Received::Disconnect)));
}
