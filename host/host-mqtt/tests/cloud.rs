//! Against the embedded cloud: mutual TLS, replies that come unasked, cuts, and a second client of the same name.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod common;

use common::*;
use host_cloud::{Cloud, CloudConfig, CloudHandle};
use host_mqtt::{
    BackOffLimits, Connection, ConnectionConfig, ConnectionState, Endpoint, Reason, Security,
    TlsFiles,
};
use host_runtime::mailbox::Input;
use host_runtime::ports::transport::Transport;
use host_runtime::types::Qos;
use tempfile::TempDir;

struct Bench {
    cloud: CloudHandle,
    config: ConnectionConfig,
    _dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cloud = Cloud::start(CloudConfig::new(dir.path())).await.unwrap();
        let credentials = cloud.thing_create(&THING.parse().unwrap()).await.unwrap();
        let endpoint = Endpoint {
            host: "localhost".to_owned(),
            port: cloud.tls_addr().unwrap().port(),
        };
        let files = TlsFiles {
            ca: credentials.root_path,
            certificate: credentials.certificate_path,
            key: credentials.private_key_path,
        };
        let mut config = ConnectionConfig::new(endpoint, THING, Security::Tls(files));
        config.back_off = BackOffLimits {
            base_ms: 1,
            cap_ms: 4,
        };
        Self {
            cloud,
            config,
            _dir: dir,
        }
    }
}

#[tokio::test]
async fn a_job_request_is_answered_without_a_subscription() {
    let bench = Bench::new().await;
    let connection = Connection::start(bench.config.clone()).unwrap();
    let inbox = Inbox::new();
    let mut transport = connection
        .attach(THING, inbox.mailbox.clone(), false)
        .unwrap();
    inbox.connected().await;
    transport.subscribe(1, &topic("jobs/$next/get/accepted"), Qos::AtLeastOnce);
    assert_eq!(inbox.done().await, (1, None));
    let request = br#"{"clientToken":"u0-00000000"}"#.to_vec();
    transport.publish(2, &topic("jobs/$next/get"), request, Qos::AtLeastOnce);
    let (mut acknowledged, mut reply) = (false, None);
    while !acknowledged || reply.is_none() {
        match inbox.next().await {
            Input::Done { token: 2, .. } => acknowledged = true,
            Input::Message { topic, payload, .. } => reply = Some((topic, payload)),
            other => panic!("{other:?}"),
        }
    }
    let (from, payload) = reply.unwrap();
    assert_eq!(from, topic("jobs/$next/get/accepted"));
    let text = String::from_utf8(payload.to_vec()).unwrap();
    assert!(text.contains("u0-00000000"), "{text}");
    connection.stop().await;
    assert_eq!(inbox.disconnected().await.0, 1);
    bench.cloud.shutdown().await;
}

#[tokio::test]
async fn a_subscription_to_another_thing_is_refused() {
    let bench = Bench::new().await;
    let connection = Connection::start(bench.config.clone()).unwrap();
    let inbox = Inbox::new();
    let mut transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    inbox.connected().await;
    transport.subscribe(1, &topic("jobs/notify-next"), Qos::AtLeastOnce);
    assert_eq!(inbox.done().await, (1, None));
    transport.subscribe(2, "$aws/things/other/jobs/notify-next", Qos::AtLeastOnce);
    // Refused in the SUBACK, or with the connection, as brokers do; but not granted.
    match inbox.next().await {
        Input::Done { token: 2, outcome } => {
            assert!(format!("{outcome:?}").contains("Failed"), "{outcome:?}");
        }
        Input::Disconnected { .. } => {}
        other => panic!("{other:?}"),
    }
    bench.cloud.shutdown().await;
}

#[tokio::test]
async fn a_cut_connection_comes_back_by_itself() {
    let bench = Bench::new().await;
    let connection = Connection::start(bench.config.clone()).unwrap();
    let inbox = Inbox::new();
    let _transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    inbox.connected().await;
    bench.cloud.cut();
    let (reason, detail) = inbox.disconnected().await;
    assert_eq!(reason, Reason::Peer.number(), "{detail}");
    inbox.connected().await;
    connection.stop().await;
    assert_eq!(connection.status().connections, 2);
    assert_eq!(connection.status().state, ConnectionState::Stopped);
    bench.cloud.shutdown().await;
}

#[tokio::test]
async fn two_clients_of_one_name_find_out_about_each_other() {
    let bench = Bench::new().await;
    let first = Connection::start(bench.config.clone()).unwrap();
    let inbox = Inbox::new();
    let _transport = first.attach(THING, inbox.mailbox.clone(), true).unwrap();
    inbox.connected().await;
    let second = Connection::start(bench.config.clone()).unwrap();
    let detail = loop {
        if let Input::Disconnected { reason, detail } = inbox.next().await
            && reason == Reason::TakenOver.number()
        {
            break detail;
        }
    };
    assert!(detail.contains(THING), "{detail}");
    first.stop().await;
    second.stop().await;
    bench.cloud.shutdown().await;
}

/// One process of so many devices, as a simulator of a fleet has them.
const FLEET: u64 = 200;

#[tokio::test]
async fn two_hundred_devices_come_back_one_after_the_other_each_with_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let at = |address| {
        let mut config = CloudConfig::new(dir.path());
        config.plain = Some(address);
        config
    };
    let cloud = Cloud::start(at(([127, 0, 0, 1], 0).into())).await.unwrap();
    let address = cloud.plain_addr().unwrap();
    let devices: Vec<_> = (0..FLEET)
        .map(|number| {
            let name = format!("device-{number}");
            let endpoint = Endpoint {
                host: "127.0.0.1".to_owned(),
                port: address.port(),
            };
            let mut config = ConnectionConfig::new(endpoint, &name, Security::PlaintextLoopback);
            config.back_off = BackOffLimits {
                base_ms: 400,
                cap_ms: 400,
            };
            let connection = Connection::start(config).unwrap();
            let inbox = Inbox::new();
            let transport = connection
                .attach(&name, inbox.mailbox.clone(), false)
                .unwrap();
            (connection, inbox, transport)
        })
        .collect();
    for (_, inbox, _) in &devices {
        inbox.connected().await;
    }
    cloud.shutdown().await;
    for (_, inbox, _) in &devices {
        inbox.disconnected().await;
    }
    let cloud = Cloud::start(at(address)).await.unwrap();
    for (_, inbox, _) in &devices {
        inbox.connected().await;
    }
    let now = cloud.stats();
    assert_eq!((now.connections, now.connected), (FLEET, FLEET));
    for (connection, _, _) in &devices {
        connection.stop().await;
    }
    cloud.shutdown().await;
}
