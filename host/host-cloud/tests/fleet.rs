//! A small fleet on real connections: a bad image stops at the canary and one batch, a good one reaches everybody.
//!
//! The example `fleet` does the same with a thousand things and says what it costs.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#[path = "../examples/light/mod.rs"]
mod light;

use std::{net::SocketAddr, time::Duration};

use host_cloud::{
    Cloud, CloudConfig, CloudHandle,
    operator::wire::{CreateUpdate, FileSpec, ImageInput},
    service::{AbortRule, JobView, Plan, Rollout, Threshold},
};
use light::{Life, Thing, Verdict};
use tokio::{net::TcpStream, sync::watch, time::timeout};

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The image: two windows and a short block.
const IMAGE_BYTES: usize = 40 * 4096 + 100;

fn name(number: usize) -> String {
    format!("thing-{number:04}")
}

async fn cloud(dir: &std::path::Path, things: usize) -> CloudHandle {
    Cloud::start(CloudConfig {
        tls: None,
        plain: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        things: (0..things).map(|n| name(n).parse().unwrap()).collect(),
        ..CloudConfig::new(dir)
    })
    .await
    .unwrap()
}

/// Connects `things` things, creates an update for their group with `plan`, and lets it end; the job as it ended, and what
/// each thing has lived through.
async fn roll_out(
    things: usize,
    plan: Plan,
    verdict: fn(usize) -> Verdict,
) -> (JobView, Vec<Life>) {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path(), things).await;
    let operator = cloud.operator();
    let fleet = "fleet".parse().unwrap();
    operator.create_group(&fleet, String::new()).await.unwrap();
    let members: Vec<_> = (0..things).map(|n| name(n).parse().unwrap()).collect();
    operator.join_group(&fleet, &members).await.unwrap();

    let (end, ended) = watch::channel(false);
    let mut lives = Vec::new();
    for number in 0..things {
        let stream = TcpStream::connect(cloud.plain_addr().unwrap())
            .await
            .unwrap();
        let thing = Thing::connect(&name(number), stream).await.unwrap();
        let mut ended = ended.clone();
        lives.push(tokio::spawn(async move {
            let over = async {
                ended.wait_for(|ended| *ended).await.unwrap();
            };
            thing
                .live("AFR_OTA-u", verdict(number), over)
                .await
                .unwrap()
        }));
    }
    let file = FileSpec {
        file_id: 0,
        image: ImageInput::Bytes(vec![7; IMAGE_BYTES].into()),
        sha256: None,
        file_type: None,
        file_path: "/fw.bin".to_owned(),
        cert_file: "/cert.pem".to_owned(),
        signature: None,
    };
    let update = CreateUpdate {
        update_id: Some("u".to_owned()),
        plan: Plan {
            groups: vec![fleet],
            ..plan
        },
        ..CreateUpdate::new(Vec::new(), vec![file])
    };
    let created = operator.create_update(update).await.unwrap();
    let mut watch = operator.watch(&created.job_id).unwrap();
    let all = async { while watch.next().await.is_some() {} };
    timeout(PATIENCE, all).await.expect("the job ends");
    end.send_replace(true);
    let mut lived = Vec::new();
    for life in lives {
        lived.push(life.await.unwrap());
    }
    let view = operator.show(&created.job_id).unwrap();
    cloud.shutdown().await;
    (view, lived)
}

fn plan(per_minute: u32, canary: Option<u32>, threshold: Threshold) -> Plan {
    Plan {
        rollout: Rollout {
            per_minute: Some(per_minute),
            canary,
        },
        abort: vec![AbortRule::new(threshold)],
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_image_reaches_the_canary_and_one_batch_of_a_connected_fleet() {
    // threshold, canary, most that may hear of it
    for (threshold, canary, most) in [
        (Threshold::Percent(20), Some(5), 5),
        (Threshold::Count(8), Some(5), 15),
        (Threshold::Count(3), None, 10),
    ] {
        let (view, lives) = roll_out(50, plan(10, canary, threshold), |_| Verdict::Fail).await;
        let reached = lives.iter().filter(|life| life.offered).count();
        assert!(reached <= most, "{reached} > {most}");
        assert_eq!(view.status.as_str(), "CANCELED");
        let progress = view.progress;
        assert!(progress.failed <= reached, "{progress:?}");
        assert_eq!(progress.failed + progress.canceled, 50, "{progress:?}");
        assert!(view.reason.unwrap().contains("failures"));
        for life in lives.iter().filter(|life| !life.offered) {
            assert_eq!(life.fetched, 0);
            let told = &life.told;
            assert!(
                told.starts_with("TerminalStateReached") && told.contains("CANCELED"),
                "{told}"
            );
        }
        let failed = lives
            .iter()
            .filter(|l| l.reported.as_deref() == Some("FAILED"));
        assert_eq!(failed.count(), progress.failed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_image_reaches_every_thing_of_a_connected_fleet_whole() {
    let plan = plan(1000, Some(5), Threshold::Percent(20));
    let (view, lives) = roll_out(50, plan, |_| Verdict::Succeed).await;
    assert_eq!(view.status.as_str(), "COMPLETED");
    assert_eq!(view.progress.succeeded, 50);
    for life in lives {
        assert_eq!(life.fetched, IMAGE_BYTES as u64);
        assert_eq!(life.reported.as_deref(), Some("SUCCEEDED"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_member_of_a_connected_group_has_a_status_of_its_own() {
    let verdict = |number: usize| match number % 3 {
        0 => Verdict::Fail,
        _ => Verdict::Succeed,
    };
    let (view, _) = roll_out(30, Plan::default(), verdict).await;
    assert_eq!(view.status.as_str(), "COMPLETED");
    for (number, execution) in view.executions.iter().enumerate() {
        assert_eq!(execution.thing.as_str(), name(number));
        let want = ["FAILED", "SUCCEEDED", "SUCCEEDED"][number % 3];
        assert_eq!(execution.status.as_str(), want, "{number}");
    }
    assert_eq!((view.progress.failed, view.progress.succeeded), (10, 20));
}
