//! The endpoint from outside: raw bytes over a pipe with the clock standing still, and a client that others wrote over
//! sockets, plain and TLS.

mod pipe;
mod plain;
mod policy;
pub(crate) mod tls;

use std::{net::SocketAddr, time::Duration};

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, PublishOptions, QoS};
use tokio::time::timeout;

use crate::{
    Cloud, CloudConfig, CloudHandle, CloudStats,
    operator::wire::{CreateUpdate, FileSpec, ImageInput},
    service::ThingName,
};

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn thing(name: &str) -> ThingName {
    ThingName::new(name).unwrap()
}

pub(super) fn file(bytes: &[u8]) -> FileSpec {
    FileSpec {
        file_id: 0,
        image: ImageInput::Bytes(bytes.to_vec().into()),
        sha256: None,
        file_type: None,
        file_path: "/fw.bin".to_owned(),
        cert_file: "/cert.pem".to_owned(),
        signature: None,
    }
}

/// An update called `AFR_OTA-u` with the stream `s`, for `gw`.
pub(super) fn update(bytes: &[u8]) -> CreateUpdate {
    CreateUpdate {
        update_id: Some("u".to_owned()),
        stream_id: Some("s".parse().unwrap()),
        ..CreateUpdate::new(vec![thing("gw")], vec![file(bytes)])
    }
}

/// A cloud on any plain and TLS port, with the things `gw` and `other`.
pub(super) async fn cloud(dir: &std::path::Path) -> CloudHandle {
    cloud_with(CloudConfig::new(dir)).await
}

pub(super) async fn cloud_with(config: CloudConfig) -> CloudHandle {
    Cloud::start(CloudConfig {
        plain: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        things: vec![thing("gw"), thing("other")],
        ..config
    })
    .await
    .unwrap()
}

/// A client that others wrote.
pub(super) struct Client {
    pub(super) client: AsyncClient,
    events: EventLoop,
}

/// A message as a client sees it.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: QoS,
}

impl Client {
    pub(super) fn new(mut options: MqttOptions) -> Self {
        options.set_max_packet_size(512 * 1024, 512 * 1024);
        let (client, events) = AsyncClient::builder(options).capacity(100).build();
        Self { client, events }
    }

    pub(super) async fn plain(cloud: &CloudHandle, id: &str) -> Self {
        let address = cloud.plain_addr().unwrap();
        let broker = (address.ip().to_string(), address.port());
        let mut client = Self::new(MqttOptions::new(id, broker));
        client.connected().await.unwrap();
        client
    }

    /// The next incoming packet, or why the connection ended.
    pub(super) async fn incoming(&mut self) -> Result<Incoming, String> {
        loop {
            let event = timeout(PATIENCE, self.events.poll());
            match event.await.expect("something happens in time") {
                Ok(Event::Incoming(packet)) => return Ok(packet),
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    pub(super) async fn connected(&mut self) -> Result<(), String> {
        match self.incoming().await? {
            Incoming::ConnAck(_) => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.client.subscribe(filter, qos).await.unwrap();
        loop {
            if let Incoming::SubAck(ack) = self.incoming().await.unwrap() {
                assert_eq!(
                    ack.return_codes,
                    [rumqttc::SubscribeReasonCode::Success(qos)]
                );
                return;
            }
        }
    }

    pub(super) async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>, qos: QoS) {
        let options = PublishOptions::new(qos);
        self.client
            .publish(topic, payload.into(), options)
            .await
            .unwrap();
    }

    /// The next message.
    pub(super) async fn message(&mut self) -> Result<Seen, String> {
        loop {
            if let Incoming::Publish(publish) = self.incoming().await? {
                return Ok(Seen {
                    topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                    payload: publish.payload.to_vec(),
                    qos: publish.qos,
                });
            }
        }
    }

    /// Waits for the end of the connection, whatever else comes before.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            if let Err(error) = self.incoming().await {
                return error;
            }
        }
    }

    /// Publishes a request and returns the topic and JSON of what comes next.
    pub(super) async fn ask(&mut self, topic: &str, payload: &str) -> (String, serde_json::Value) {
        self.publish(topic, payload, QoS::AtLeastOnce).await;
        let seen = self.message().await.unwrap();
        (seen.topic, serde_json::from_slice(&seen.payload).unwrap())
    }
}

/// Waits until the counters say something.
pub(super) async fn until(cloud: &CloudHandle, what: impl Fn(&CloudStats) -> bool) {
    let waited = timeout(PATIENCE, async {
        while !what(&cloud.stats()) {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "{:?}", cloud.stats());
}
