//! Groups, plans and removals over the operator socket, and what a restart leaves of them.

use std::time::Duration;

use serde_json::json;

use super::wire::{CreateJob, CreateUpdate, Deleted, FileSpec, ImageInput, JobFilter};
use super::*;
use crate::{
    Cloud, CloudConfig, CloudHandle,
    service::{
        AbortRule, ExecutionStatus, GroupName, ImageId, JobStatus, Plan, QoS, Rollout, Selection,
        ThingName, Threshold,
    },
};

fn thing(name: &str) -> ThingName {
    name.parse().unwrap()
}

fn plant() -> GroupName {
    "plant".parse().unwrap()
}

fn file(bytes: &'static [u8], dir: &std::path::Path) -> FileSpec {
    let path = dir.join(format!("{}.bin", bytes.len()));
    std::fs::write(&path, bytes).unwrap();
    FileSpec {
        file_id: bytes.len() as u8,
        image: ImageInput::Path(path),
        sha256: None,
        file_type: None,
        file_path: "/fw".to_owned(),
        cert_file: "/cert".to_owned(),
        signature: None,
    }
}

async fn start(dir: &std::path::Path) -> (CloudHandle, OperatorClient) {
    let cloud = Cloud::start(CloudConfig::new(dir)).await.unwrap();
    let client = OperatorClient::connect(cloud.socket()).await.unwrap();
    (cloud, client)
}

fn code<T: std::fmt::Debug>(result: Result<T, OperatorError>) -> String {
    match result.unwrap_err() {
        OperatorError::Refused(refusal) => refusal.code,
        other => other.to_string(),
    }
}

/// A group of three, `a` to `c`.
async fn group_of_three(client: &mut OperatorClient) {
    for name in ["a", "b", "c"] {
        client.thing_create(thing(name)).await.unwrap();
    }
    client
        .group_create(plant(), "the first".to_owned())
        .await
        .unwrap();
    let members = vec![thing("a"), thing("b"), thing("c")];
    client.group_add(plant(), members).await.unwrap();
}

async fn report(cloud: &CloudHandle, name: &str, job: &str, status: &str) {
    let topic = format!("$aws/things/{name}/jobs/{job}/update");
    let payload = json!({"status": status}).to_string();
    let answer = cloud
        .core_for_tests()
        .handle(&thing(name), &topic, payload.as_bytes(), QoS::AtLeastOnce)
        .await
        .unwrap();
    assert!(answer.replies[0].topic.ends_with("/accepted"));
}

#[tokio::test]
async fn groups_are_made_filled_shown_and_forgotten_over_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    group_of_three(&mut client).await;
    assert_eq!(
        code(client.group_create(plant(), String::new()).await),
        "group_exists"
    );
    let view = client
        .group_remove(plant(), vec![thing("c")])
        .await
        .unwrap();
    assert_eq!(view.things, [thing("a"), thing("b")]);
    assert_eq!(
        client.group_list().await.unwrap(),
        std::slice::from_ref(&view)
    );
    assert_eq!(client.group_describe(plant()).await.unwrap(), view);
    let a = client.thing_describe(thing("a")).await.unwrap();
    assert_eq!((a.thing.groups, a.jobs), (vec![plant()], vec![]));
    client.group_delete(plant()).await.unwrap();
    assert_eq!(code(client.group_describe(plant()).await), "unknown_group");
    let lost = client.group_add(plant(), vec![thing("a")]).await;
    assert_eq!(code(lost), "unknown_group");
    cloud.shutdown().await;
}

#[tokio::test]
async fn an_update_for_a_group_with_a_plan_spreads_over_the_socket_and_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    group_of_three(&mut client).await;
    let mut update = CreateUpdate::new(Vec::new(), vec![file(b"1", dir.path())]);
    update.files.push(file(b"22", dir.path()));
    update.update_id = Some("u".to_owned());
    update.timeout_minutes = Some(30);
    update.plan = Plan {
        groups: vec![plant()],
        selection: Selection::Continuous,
        rollout: Rollout {
            per_minute: Some(1),
            canary: Some(1),
        },
        abort: vec![AbortRule::new(Threshold::Percent(50))],
    };
    let made = client.create_update(update.clone()).await.unwrap();
    let view = client.show(made.job_id.clone()).await.unwrap();
    assert_eq!(view.plan, update.plan);
    assert_eq!((view.progress.queued, view.progress.held), (1, 2));
    assert_eq!(view.timeout_minutes, Some(30));
    let of_group = JobFilter {
        group: Some(plant()),
        status: Some(JobStatus::InProgress),
        ..JobFilter::default()
    };
    let listed = client.list_where(of_group).await.unwrap();
    assert!(listed[0].continuous && listed[0].stream_id.as_ref() == Some(&made.stream_id));
    let elsewhere = JobFilter {
        status: Some(JobStatus::Completed),
        ..JobFilter::default()
    };
    assert_eq!(client.list_where(elsewhere).await.unwrap(), []);
    report(&cloud, "a", "AFR_OTA-u", "SUCCEEDED").await;
    report(&cloud, "b", "AFR_OTA-u", "FAILED").await;
    let view = client.show(made.job_id.clone()).await.unwrap();
    assert_eq!(
        (view.status, view.progress.canceled),
        (JobStatus::Canceled, 1)
    );
    let statuses: Vec<_> = view
        .executions
        .iter()
        .map(|e| (e.status, e.offered))
        .collect();
    use ExecutionStatus::{Canceled, Failed, Succeeded};
    assert_eq!(
        statuses,
        [(Succeeded, true), (Failed, true), (Canceled, false)]
    );
    assert!(view.has_ended() && view.reason.is_some());

    let streams = client.stream_list().await.unwrap();
    assert_eq!(
        (streams[0].files.len(), &streams[0].job_id),
        (2, &made.job_id)
    );
    let deleted = client.delete_job(made.job_id.clone(), false).await.unwrap();
    assert_eq!(deleted.stream_id, Some(made.stream_id.clone()));
    assert_eq!(deleted.images.len(), 2);
    let left = std::fs::read_dir(dir.path().join("images")).unwrap();
    assert_eq!(left.count(), 0, "images go with the last stream");
    assert_eq!(client.stream_list().await.unwrap(), []);
    assert_eq!(code(client.show(made.job_id).await), "unknown_job");
    let gone = client.stream_delete(made.stream_id, true).await;
    assert_eq!(code(gone), "unknown_stream");
    cloud.shutdown().await;
}

#[tokio::test]
async fn removal_asks_for_force_where_devices_still_have_something_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    group_of_three(&mut client).await;
    let job = CreateJob {
        job_id: "j".parse().unwrap(),
        things: vec![thing("a"), thing("b")],
        document: json!({}),
        description: String::new(),
        timeout_minutes: None,
        plan: Plan::default(),
    };
    client.create_job(job).await.unwrap();
    let refused = client.thing_delete(thing("a"), false).await;
    assert_eq!(code(refused), "thing_busy");
    let gone = client.thing_delete(thing("a"), true).await.unwrap();
    assert_eq!(gone.executions, 1);
    assert_eq!(
        code(client.thing_describe(thing("a")).await),
        "unknown_thing"
    );
    let id: crate::service::JobId = "j".parse().unwrap();
    let refused = client.delete_job(id.clone(), false).await;
    assert_eq!(code(refused), "job_running");
    let why = Some("wrong one".to_owned());
    let view = client.cancel_because(id.clone(), false, why).await.unwrap();
    assert_eq!(view.reason.as_deref(), Some("wrong one"));
    let gone = client.delete_job(id, false).await.unwrap();
    assert_eq!(gone, Deleted::default());
    cloud.shutdown().await;
}

#[tokio::test]
async fn an_image_that_was_sent_is_used_by_its_digest_and_goes_when_nobody_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    group_of_three(&mut client).await;
    let operator = cloud.operator();
    let digest = ImageId::of(b"firmware");
    let announced = Some(digest.to_string());
    let (stored, pin) = operator
        .receive_image(&mut &b"firmware and more"[..], 8, announced.clone())
        .await
        .unwrap();
    assert_eq!((&stored.sha256, stored.size), (&digest, 8));
    let mut spec = file(b"1", dir.path());
    spec.image = ImageInput::Stored(digest.clone());
    let update = CreateUpdate::new(vec![thing("a")], vec![spec]);
    let made = client.create_update(update.clone()).await.unwrap();
    assert_eq!(made.files[0].sha256, digest.as_str());
    drop(pin);
    client.delete_job(made.job_id, true).await.unwrap();
    let refused = client.create_update(update).await;
    assert_eq!(code(refused), "unknown_image");

    let rows = [
        (&b"other"[..], 5, announced, "image_changed"),
        (&b"short"[..], 6, None, "io"),
        (&b""[..], u64::MAX, None, "io"),
    ];
    for (mut bytes, size, announced, code) in rows {
        let refused = operator.receive_image(&mut bytes, size, announced).await;
        assert_eq!(refused.unwrap_err().code(), code);
    }
    cloud.shutdown().await;
    let (cloud, _client) = start(dir.path()).await;
    let left = std::fs::read_dir(dir.path().join("images")).unwrap();
    assert_eq!(
        left.count(),
        0,
        "what no stream names goes at the next start"
    );
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_cloud_that_falls_in_mid_roll_out_has_what_it_acknowledged_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, mut client) = start(dir.path()).await;
    group_of_three(&mut client).await;
    let mut update = CreateUpdate::new(Vec::new(), vec![file(b"1", dir.path())]);
    update.update_id = Some("u".to_owned());
    update.plan.groups = vec![plant()];
    update.plan.rollout.canary = Some(2);
    let made = client.create_update(update).await.unwrap();
    report(&cloud, "a", "AFR_OTA-u", "SUCCEEDED").await;
    report(&cloud, "b", "AFR_OTA-u", "IN_PROGRESS").await;
    let before = client.show(made.job_id.clone()).await.unwrap();
    // Not shut down: its tasks stop where they are, and nothing is stored any more.
    drop((cloud, client));
    let cloud = loop {
        match Cloud::start(CloudConfig::new(dir.path())).await {
            Ok(cloud) => break cloud,
            Err(error) => assert_eq!(error.code(), "in_use", "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut client = OperatorClient::connect(cloud.socket()).await.unwrap();
    assert_eq!(client.show(made.job_id.clone()).await.unwrap(), before);
    report(&cloud, "b", "AFR_OTA-u", "SUCCEEDED").await;
    let after = client.show(made.job_id).await.unwrap();
    assert_eq!((after.progress.succeeded, after.progress.queued), (2, 1));
    cloud.shutdown().await;
}
