//! The endpoint without TLS, with a client that others wrote.

use serde_json::json;

use super::*;
use crate::{
    fault::{Fault, FaultPlan},
    limits::Limits,
    service::{ExecutionStatus, JobId, RejectCode},
};

#[tokio::test]
async fn replies_reach_the_asking_client_without_a_subscription_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let mut asker = Client::plain(&cloud, "gw").await;
    let mut bystander = Client::plain(&cloud, "bystander").await;
    let topic = "$aws/things/gw/jobs/$next/get";
    let (reply, body) = asker.ask(topic, r#"{"clientToken":"0:gw"}"#).await;
    assert_eq!(reply, "$aws/things/gw/jobs/$next/get/accepted");
    assert_eq!(body["clientToken"], "0:gw");
    let (reply, body) = asker.ask("$aws/things/gw/jobs/none/get", "{}").await;
    assert_eq!(reply, "$aws/things/gw/jobs/none/get/rejected");
    assert_eq!(body["code"], "ResourceNotFound");
    // The bystander's first message is its own.
    let (reply, _) = bystander.ask("$aws/things/other/jobs/get", "{}").await;
    assert_eq!(reply, "$aws/things/other/jobs/get/accepted");
    cloud.shutdown().await;
}

#[tokio::test]
async fn an_update_is_announced_to_a_subscriber_downloaded_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let image: Vec<u8> = (0..300_000u32).map(|i| (i % 253) as u8).collect();
    let mut gw = Client::plain(&cloud, "gw").await;
    gw.subscribe("$aws/things/gw/jobs/notify-next", QoS::AtLeastOnce)
        .await;
    cloud
        .operator()
        .create_update(update(&image))
        .await
        .unwrap();
    let notice = gw.message().await.unwrap();
    assert_eq!(notice.topic, "$aws/things/gw/jobs/notify-next");
    assert_eq!(notice.qos, QoS::AtLeastOnce);
    let notice: serde_json::Value = serde_json::from_slice(&notice.payload).unwrap();
    assert_eq!(notice["execution"]["jobId"], "AFR_OTA-u");

    let mut file = Vec::new();
    for offset in 0..3 {
        let ask = json!({"f": 0, "l": 4096, "o": offset * 31, "n": 31});
        let get = "$aws/things/gw/streams/s/get/json";
        gw.publish(get, ask.to_string(), QoS::AtMostOnce).await;
        while file.len() < image.len().min((offset + 1) * 31 * 4096) {
            let block = gw.message().await.unwrap();
            assert_eq!(block.topic, "$aws/things/gw/streams/s/data/json");
            assert_eq!(block.qos, QoS::AtMostOnce);
            let body: serde_json::Value = serde_json::from_slice(&block.payload).unwrap();
            assert_eq!(body["i"], file.len() / 4096);
            let payload = body["p"].as_str().unwrap();
            use base64::Engine as _;
            let standard = base64::engine::general_purpose::STANDARD;
            file.extend(standard.decode(payload).unwrap());
        }
    }
    assert!(file == image);
    let report = "$aws/things/gw/jobs/AFR_OTA-u/update";
    let (reply, _) = gw.ask(report, r#"{"status":"SUCCEEDED"}"#).await;
    assert_eq!(reply, format!("{report}/accepted"));
    let next = gw.message().await.unwrap();
    assert_eq!(next.topic, "$aws/things/gw/jobs/notify-next");
    let stats = cloud.stats();
    assert_eq!((stats.blocks, stats.stream_requests), (74, 3));
    assert_eq!(stats.things[&thing("gw")].service.block_bytes, 300_000);
    assert_eq!(stats.things[&thing("gw")].traffic.connections, 1);
    cloud.shutdown().await;
}

#[tokio::test]
async fn ordinary_topics_are_an_ordinary_broker() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let mut a = Client::plain(&cloud, "a").await;
    let mut b = Client::plain(&cloud, "b").await;
    b.subscribe("site/+/temperature", QoS::AtLeastOnce).await;
    b.subscribe("log/#", QoS::AtMostOnce).await;
    a.publish("site/1/humidity", "no", QoS::AtLeastOnce).await;
    a.publish("site/1/temperature", "20", QoS::AtMostOnce).await;
    a.publish("log/a/b", "line", QoS::AtLeastOnce).await;
    a.publish("site/2/temperature", "21", QoS::AtLeastOnce)
        .await;
    // Three PUBACKs say that everything has been passed on.
    for _ in 0..3 {
        while !matches!(a.incoming().await.unwrap(), Incoming::PubAck(_)) {}
    }
    let want = [
        ("site/1/temperature", "20", QoS::AtMostOnce),
        ("log/a/b", "line", QoS::AtMostOnce),
        ("site/2/temperature", "21", QoS::AtLeastOnce),
    ];
    for (topic, payload, qos) in want {
        let want = Seen {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos,
        };
        assert_eq!(b.message().await.unwrap(), want);
    }
    // A publisher that subscribed hears itself.
    a.subscribe("echo", QoS::AtMostOnce).await;
    a.publish("echo", "me", QoS::AtMostOnce).await;
    assert_eq!(a.message().await.unwrap().payload, b"me");
    // Nobody plays the service.
    b.subscribe("$aws/things/gw/jobs/notify-next", QoS::AtMostOnce)
        .await;
    a.publish("$aws/things/gw/jobs/notify-next", "{}", QoS::AtLeastOnce)
        .await;
    let answer = a.message().await.unwrap();
    assert!(answer.topic.ends_with("/notify-next/rejected"));
    b.publish("log/end", "end", QoS::AtMostOnce).await;
    assert_eq!(b.message().await.unwrap().topic, "log/end");
    cloud.shutdown().await;
}

#[tokio::test]
async fn messages_at_the_limits_pass_and_beyond_them_end_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let image = vec![1; 131_072];
    cloud
        .operator()
        .create_update(update(&image))
        .await
        .unwrap();
    let mut gw = Client::plain(&cloud, "gw").await;
    // One block of 128 KiB, in JSON even larger on the wire.
    let ask = r#"{"f":0,"l":131072,"n":1}"#;
    gw.publish("$aws/things/gw/streams/s/get/json", ask, QoS::AtMostOnce)
        .await;
    assert!(gw.message().await.unwrap().payload.len() > 174_000);
    gw.subscribe("t", QoS::AtMostOnce).await;
    gw.publish("t", vec![0; 131_072], QoS::AtMostOnce).await;
    assert_eq!(gw.message().await.unwrap().payload.len(), 131_072);
    gw.publish("t", vec![0; 131_073], QoS::AtMostOnce).await;
    gw.ended().await;
    let mut gw = Client::plain(&cloud, "gw").await;
    gw.publish("t", vec![0; 170_000], QoS::AtMostOnce).await;
    gw.ended().await;
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_cloud_without_limits_takes_larger_messages() {
    let dir = tempfile::tempdir().unwrap();
    let config = CloudConfig {
        limits: Limits::None,
        ..CloudConfig::new(dir.path())
    };
    let cloud = cloud_with(config).await;
    let mut gw = Client::plain(&cloud, "gw").await;
    gw.subscribe("t", QoS::AtMostOnce).await;
    gw.publish("t", vec![0; 150_000], QoS::AtMostOnce).await;
    assert_eq!(gw.message().await.unwrap().payload.len(), 150_000);
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_restarted_cloud_keeps_its_jobs_and_images() {
    let dir = tempfile::tempdir().unwrap();
    let job: JobId = "AFR_OTA-u".parse().unwrap();
    let first = cloud(dir.path()).await;
    let root = first.operator().info().unwrap().root_path;
    let root = std::fs::read(root).unwrap();
    first
        .operator()
        .create_update(update(b"image"))
        .await
        .unwrap();
    let mut gw = Client::plain(&first, "gw").await;
    let report = r#"{"status":"IN_PROGRESS","statusDetails":{"self_test":"ready"}}"#;
    gw.ask("$aws/things/gw/jobs/AFR_OTA-u/update", report).await;
    let before = first.operator().show(&job).unwrap();
    // Not shut down in order: what was acknowledged is on disk already.
    drop(first);
    gw.ended().await;

    let second = cloud(dir.path()).await;
    assert_eq!(second.operator().show(&job).unwrap(), before);
    let mut gw = Client::plain(&second, "gw").await;
    let (_, next) = gw.ask("$aws/things/gw/jobs/$next/get", "{}").await;
    assert_eq!(next["execution"]["statusDetails"]["self_test"], "ready");
    let ask = r#"{"f":0,"l":256,"n":1}"#;
    gw.publish("$aws/things/gw/streams/s/get/json", ask, QoS::AtMostOnce)
        .await;
    let block = gw.message().await.unwrap();
    assert!(
        String::from_utf8(block.payload)
            .unwrap()
            .contains("aW1hZ2U=")
    );
    let again = second.operator().info().unwrap().root_path;
    assert_eq!(std::fs::read(again).unwrap(), root);
    second.shutdown().await;
}

#[tokio::test]
async fn faults_on_purpose_happen_at_the_block_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new(
        1,
        [
            Fault::DropBlock(2),
            Fault::DuplicateBlock(3),
            Fault::RejectUpdates(1, RejectCode::InternalError),
        ],
    );
    let config = CloudConfig {
        faults: Box::new(plan),
        ..CloudConfig::new(dir.path())
    };
    let cloud = cloud_with(config).await;
    cloud
        .operator()
        .create_update(update(&[9; 8 * 256]))
        .await
        .unwrap();
    let mut gw = Client::plain(&cloud, "gw").await;
    let (reply, body) = gw
        .ask(
            "$aws/things/gw/jobs/AFR_OTA-u/update",
            r#"{"status":"IN_PROGRESS","clientToken":"u1"}"#,
        )
        .await;
    assert!(reply.ends_with("/rejected"));
    assert_eq!(
        (&body["code"], &body["clientToken"]),
        (&json!("InternalError"), &json!("u1"))
    );
    let ask = r#"{"f":0,"l":256,"n":8}"#;
    gw.publish("$aws/things/gw/streams/s/get/json", ask, QoS::AtMostOnce)
        .await;
    let mut indices = Vec::new();
    for _ in 0..8 {
        let block = gw.message().await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&block.payload).unwrap();
        indices.push(body["i"].as_u64().unwrap());
    }
    assert_eq!(
        indices,
        [0, 2, 2, 3, 4, 5, 6, 7],
        "the second lost, the third twice"
    );
    // A cut on purpose from outside ends everybody, and they may come back.
    cloud.cut();
    gw.ended().await;
    let mut gw = Client::plain(&cloud, "gw").await;
    let (reply, _) = gw.ask("$aws/things/gw/jobs/get", "{}").await;
    assert!(reply.ends_with("/accepted"));
    assert_eq!(cloud.stats().things[&thing("gw")].traffic.connections, 2);
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_update_is_told_to_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    cloud.operator().create_update(update(b"x")).await.unwrap();
    let mut gw = Client::plain(&cloud, "gw").await;
    gw.subscribe("$aws/things/gw/jobs/notify-next", QoS::AtLeastOnce)
        .await;
    let report = "$aws/things/gw/jobs/AFR_OTA-u/update";
    gw.ask(report, r#"{"status":"IN_PROGRESS"}"#).await;
    let job: JobId = "AFR_OTA-u".parse().unwrap();
    let view = cloud.operator().cancel(&job, true, None).await.unwrap();
    assert_eq!(view.executions[0].status, ExecutionStatus::Canceled);
    let next: serde_json::Value =
        serde_json::from_slice(&gw.message().await.unwrap().payload).unwrap();
    assert_eq!(next.get("execution"), None);
    let (reply, body) = gw.ask(report, r#"{"status":"SUCCEEDED"}"#).await;
    assert_eq!(reply, format!("{report}/rejected"));
    assert_eq!(body["executionState"]["status"], "CANCELED");
    cloud.shutdown().await;
}

#[tokio::test]
async fn addresses_that_cannot_be_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let start = |edit: fn(&mut CloudConfig)| {
        let mut config = CloudConfig::new(dir.path());
        edit(&mut config);
        async {
            match Cloud::start(config).await {
                Ok(_) => panic!("started"),
                Err(error) => error.code(),
            }
        }
    };
    assert_eq!(start(|c| c.tls = None).await, "no_listener");
    let open = start(|c| c.plain = Some(([0, 0, 0, 0], 0).into())).await;
    assert_eq!(open, "plain_beyond_loopback");
    // An address of nobody here (TEST-NET-1, RFC 5737).
    assert_eq!(
        start(|c| c.tls = Some(([192, 0, 2, 1], 1).into())).await,
        "listen"
    );
}
