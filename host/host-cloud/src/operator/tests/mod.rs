//! The operator socket: every call, from another connection, and what does not belong there.

mod remote;

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

use super::*;
use crate::{
    Cloud, CloudConfig, CloudHandle,
    operator::wire::{CreateJob, CreateUpdate, FileSpec, ImageInput},
    service::{ExecutionStatus, ImageId, ImageSource, JobStatus, QoS, ThingName},
};

fn gw() -> ThingName {
    ThingName::new("gw").unwrap()
}

async fn start(dir: &std::path::Path) -> (CloudHandle, OperatorClient) {
    let cloud = Cloud::start(CloudConfig::new(dir)).await.unwrap();
    let client = OperatorClient::connect(cloud.socket()).await.unwrap();
    (cloud, client)
}

fn file(path: std::path::PathBuf) -> FileSpec {
    FileSpec {
        file_id: 3,
        image: ImageInput::Path(path),
        sha256: None,
        file_type: Some(1),
        file_path: "/fw".to_owned(),
        cert_file: "/cert".to_owned(),
        signature: None,
    }
}

fn job(id: &str) -> CreateJob {
    CreateJob {
        job_id: id.parse().unwrap(),
        things: vec![gw()],
        document: json!({}),
        description: String::new(),
        timeout_minutes: None,
        plan: Default::default(),
    }
}

/// What `gw` reports, as if over MQTT.
async fn report(cloud: &CloudHandle, job: &str, payload: &str) {
    let topic = format!("$aws/things/gw/jobs/{job}/update");
    let answer = cloud
        .core_for_tests()
        .handle(&gw(), &topic, payload.as_bytes(), QoS::AtLeastOnce)
        .await
        .unwrap();
    assert!(answer.replies[0].topic.ends_with("/accepted"));
}

#[tokio::test]
async fn every_call_works_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    let mode = std::fs::metadata(cloud.socket()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    let created = client.thing_create(gw()).await.unwrap();
    assert!(created.created && created.private_key_path.exists());
    let again = client.thing_create(gw()).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.fingerprint, created.fingerprint);
    let things = client.thing_list().await.unwrap();
    assert_eq!(things[0].certificates, [created.fingerprint]);

    let path = dir.path().join("fw.bin");
    std::fs::write(&path, b"firmware").unwrap();
    let mut update = CreateUpdate::new(vec![gw()], vec![file(path)]);
    update.update_id = Some("7".to_owned());
    update.files[0].sha256 = Some(ImageId::of(b"firmware").to_string());
    let made = client.create_update(update.clone()).await.unwrap();
    assert_eq!(made.job_id.as_str(), "AFR_OTA-7");
    assert_eq!((made.files[0].file_id, made.files[0].size), (3, 8));
    let error = client.create_update(update).await.unwrap_err();
    assert!(
        matches!(&error, OperatorError::Refused(r) if r.code == "job_exists"),
        "{error}"
    );

    let view = client.show(made.job_id.clone()).await.unwrap();
    assert_eq!(
        view.document["afr_ota"]["streamname"],
        made.stream_id.as_str()
    );
    assert_eq!(view.executions[0].status, ExecutionStatus::Queued);
    let job = CreateJob {
        job_id: "reboot".parse().unwrap(),
        things: vec![gw()],
        document: json!({"operation": "reboot"}),
        description: "by hand".to_owned(),
        timeout_minutes: None,
        plan: Default::default(),
    };
    client.create_job(job).await.unwrap();
    let list = client.list().await.unwrap();
    assert_eq!(list.len(), 2);
    let ended = client
        .cancel("reboot".parse().unwrap(), false)
        .await
        .unwrap();
    assert_eq!(ended.status, JobStatus::Canceled);

    let info = client.info().await.unwrap();
    assert_eq!(info.tls, cloud.tls_addr());
    assert!(info.signing_key_path.exists() && info.root_path.exists());
    assert_eq!(client.stats().await.unwrap().connections, 0);
    cloud.shutdown().await;
    let error = client.list().await.unwrap_err();
    assert!(!matches!(error, OperatorError::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_watch_tells_every_change_and_ends_with_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    client.thing_create(gw()).await.unwrap();
    client.create_job(job("j")).await.unwrap();
    client.create_job(job("k")).await.unwrap();
    let (told, mut heard) = tokio::sync::mpsc::channel(16);
    let watching = tokio::spawn(async move {
        client
            .watch("j".parse().unwrap(), |change| {
                told.try_send(change).unwrap();
            })
            .await
    });
    // Each report waits until the watcher has heard of the one before, the first until the watch has begun.
    let rows = [
        (
            r#"{"status":"IN_PROGRESS","statusDetails":{"self_test":"ready"}}"#,
            "IN_PROGRESS",
        ),
        (
            r#"{"status":"IN_PROGRESS","statusDetails":{"self_test":"active"}}"#,
            "IN_PROGRESS",
        ),
        (r#"{"status":"SUCCEEDED"}"#, "SUCCEEDED"),
    ];
    while cloud.core_for_tests().watchers() == 0 {
        tokio::task::yield_now().await;
    }
    for (payload, status) in rows {
        report(&cloud, "k", r#"{"status":"IN_PROGRESS"}"#).await;
        report(&cloud, "j", payload).await;
        let change = heard.recv().await.unwrap();
        assert_eq!(change.job_id.as_str(), "j");
        assert_eq!(change.status.as_str(), status);
    }
    let ended = watching.await.unwrap().unwrap();
    assert_eq!(ended.status, JobStatus::Completed);
    assert_eq!(ended.executions[0].status_details["self_test"], "active");

    let mut client = OperatorClient::connect(cloud.socket()).await.unwrap();
    let ended = client.watch("j".parse().unwrap(), |_| panic!("too late"));
    assert_eq!(ended.await.unwrap().status, JobStatus::Completed);
    let gone = client.watch("none".parse().unwrap(), |_| {}).await;
    assert!(matches!(gone, Err(OperatorError::Refused(r)) if r.code == "unknown_job"));
    cloud.shutdown().await;
}

#[tokio::test]
async fn an_image_that_another_update_names_by_the_time_it_would_go_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    client.thing_create(gw()).await.unwrap();
    let path = dir.path().join("fw.bin");
    std::fs::write(&path, b"firmware").unwrap();
    let update = CreateUpdate::new(vec![gw()], vec![file(path)]);
    let first = client.create_update(update.clone()).await.unwrap();
    // One operator deletes; before the disk has it, another one's update takes the same image in.
    let core = cloud.core_for_tests();
    let removal =
        core.operate(|service, _| Ok((service.delete_stream(&first.stream_id, true)?, Vec::new())));
    let gone = removal.await.unwrap().images;
    let image = ImageId::of(b"firmware");
    assert_eq!(gone, std::slice::from_ref(&image));
    let second = client.create_update(update).await.unwrap();
    core.remove_images(&gone);
    let mut out = [0; 8];
    core.images().read_at(&image, 0, &mut out).unwrap();
    assert_eq!(&out, b"firmware");
    client.stream_delete(second.stream_id, true).await.unwrap();
    assert!(core.images().find(&image).is_none());
    cloud.shutdown().await;
}

#[tokio::test]
async fn an_image_that_came_to_nothing_goes_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    client.thing_create(gw()).await.unwrap();
    let path = dir.path().join("fw.bin");
    std::fs::write(&path, b"firmware").unwrap();
    let update = CreateUpdate {
        stream_id: Some("s".parse().unwrap()),
        ..CreateUpdate::new(vec![gw()], vec![file(path.clone())])
    };
    client.create_update(update.clone()).await.unwrap();
    let images = dir.path().join("images");
    let stored = || std::fs::read_dir(&images).unwrap().count();
    assert_eq!(stored(), 1);
    // The stream's id is in use.
    std::fs::write(&path, b"another").unwrap();
    let error = client.create_update(update).await.unwrap_err();
    assert!(matches!(&error, OperatorError::Refused(r) if r.code == "stream_exists"));
    while stored() > 1 {
        tokio::task::yield_now().await;
    }
    // It was sent, and its sender has left.
    client.put_image(&path, None).await.unwrap();
    assert_eq!(stored(), 2);
    drop(client);
    while stored() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(images.join(ImageId::of(b"firmware").as_str()).exists());
    cloud.shutdown().await;
}

#[tokio::test]
async fn an_image_that_is_not_what_was_signed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    client.thing_create(gw()).await.unwrap();
    let path = dir.path().join("fw.bin");
    std::fs::write(&path, b"changed").unwrap();
    let mut spec = file(path.clone());
    spec.sha256 = Some(ImageId::of(b"signed").to_string());
    let update = CreateUpdate::new(vec![gw()], vec![spec]);
    let error = client.create_update(update).await.unwrap_err();
    assert!(matches!(&error, OperatorError::Refused(r) if r.code == "image_changed"));
    assert!(error.to_string().contains("fw.bin"), "{error}");
    // Bytes do not go over the socket.
    let mut spec = file(path.clone());
    spec.image = ImageInput::Bytes(b"changed"[..].into());
    let update = CreateUpdate::new(vec![gw()], vec![spec]);
    let error = client.create_update(update).await.unwrap_err();
    assert!(matches!(&error, OperatorError::Request(_)), "{error}");
    // Nothing is created for nobody, and the name is told.
    let update = CreateUpdate::new(vec!["nobody".parse().unwrap()], vec![file(path)]);
    let error = client.create_update(update).await.unwrap_err().to_string();
    assert!(error.contains("nobody"), "{error}");
    assert_eq!(client.list().await.unwrap(), []);
    cloud.shutdown().await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, _client) = start(dir.path()).await;
    let stream = UnixStream::connect(cloud.socket()).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    let rows = [
        ("", "bad_request"),
        ("{", "bad_request"),
        ("[1]", "bad_request"),
        (r#"{"op":"list"}"#, "bad_request"),
        (r#"{"v":2,"op":"anything","new":true}"#, "version"),
        (r#"{"v":1,"op":"no_such"}"#, "bad_request"),
        (r#"{"v":1,"op":"show","job_id":"a/b"}"#, "bad_request"),
        (r#"{"v":1,"op":"show","job_id":"none"}"#, "unknown_job"),
        ("\u{0}\u{1}", "bad_request"),
        (
            r#"{"v":1,"op":"create_update","things":["gw"],"files":[{"file_id":0,"path":"fw.bin","file_path":"a","cert_file":"b"}]}"#,
            "relative_path",
        ),
    ];
    for (line, code) in rows {
        writer
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        let answer: Value =
            serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(answer["v"], 1);
        assert_eq!(answer["error"]["code"], code, "{line}");
    }
    // The same connection still works, and the answer has its documented form.
    writer
        .write_all(b"{\"v\":1,\"op\":\"list\"}\n")
        .await
        .unwrap();
    let answer = lines.next_line().await.unwrap().unwrap();
    assert_eq!(answer, r#"{"v":1,"ok":[]}"#);
    // A line without end is cut off. The cloud may hang up before it has taken everything.
    let endless = vec![b'x'; wire::REQUEST_BYTES_MAX + 1];
    writer.write_all(&endless).await.ok();
    let answer: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    assert_eq!(answer["error"]["code"], "bad_request");
    cloud.shutdown().await;
}

#[tokio::test]
async fn where_no_cloud_is_the_error_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("operator.sock");
    let Err(error) = OperatorClient::connect(&path).await else {
        panic!("connected");
    };
    assert!(matches!(error, OperatorError::Absent { .. }));
    let text = error.to_string();
    assert!(
        text.contains("operator.sock") && text.contains("otad cloud"),
        "{text}"
    );
}
