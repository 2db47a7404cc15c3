//! The adapter against the cloud in a box, over TLS with the cloud's own root: what both sides were built for, and each
//! fault that the cloud can play.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use host_cloud::http::{HttpConfig as CloudHttp, HttpFault};
use host_cloud::operator::wire::{CreateUpdate, FileSpec, ImageInput};
use host_cloud::service::{ImageId, Protocol, ThingName};
use host_cloud::{Cloud, CloudConfig, CloudHandle};
use host_http::{Answer, FetchError, HttpClient, HttpConfig, Limits, Roots, Wait};
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::ports::transport::Transport;
use tokio::sync::Notify;

use crate::devices::Other;
use crate::server::patient;

/// Not a multiple of a range, so that the last one is short.
const IMAGE_BYTES: u32 = 1_000_003;

/// As large as an agent may ask for.
const RANGE_BYTES: u32 = 128 * 1024;

struct Served {
    cloud: CloudHandle,
    client: HttpClient,
    url: String,
    image: Vec<u8>,
}

async fn served(dir: &Path, change: impl FnOnce(&mut Limits)) -> Served {
    let mut config = CloudConfig::new(dir);
    config.http = Some(CloudHttp::new(([127, 0, 0, 1], 0).into()));
    let gw = ThingName::new("gw").unwrap();
    config.things = vec![gw.clone()];
    let cloud = Cloud::start(config).await.unwrap();
    let image: Vec<u8> = (0..IMAGE_BYTES).map(|i| (i / 7 + i % 251) as u8).collect();
    let file = FileSpec {
        file_id: 0,
        image: ImageInput::Bytes(image.clone().into()),
        sha256: None,
        file_type: None,
        file_path: "/fw.bin".into(),
        cert_file: "/signer.pem".into(),
        signature: None,
    };
    let mut update = CreateUpdate::new(vec![gw], vec![file]);
    update.protocols = vec![Protocol::Mqtt, Protocol::Http];
    cloud.operator().create_update(update).await.unwrap();
    let mut limits = Limits::default();
    change(&mut limits);
    let client = HttpClient::new(HttpConfig {
        roots: Roots::Files(vec![cloud.operator().info().unwrap().root_path]),
        allow_networks: "127.0.0.1,::1".parse().unwrap(),
        limits,
        ..HttpConfig::default()
    });
    Served {
        url: cloud.image_url(&ImageId::of(&image)).unwrap(),
        client: client.unwrap(),
        cloud,
        image,
    }
}

impl Served {
    async fn fetch(&self) -> Result<Answer, FetchError> {
        patient("a range", self.client.fetch(&self.url, 10, 30)).await
    }
}

#[tokio::test]
async fn a_device_fetches_an_image_whole_with_all_its_ranges_under_way_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path(), |_| {}).await;
    let woken = Arc::new(Notify::new());
    let wake = Arc::clone(&woken);
    let mailbox = Mailbox::new(Arc::new(move || wake.notify_one()));
    let mut device = served.client.join(Other::default(), mailbox.clone());
    let offsets: Vec<u32> = (0..IMAGE_BYTES).step_by(RANGE_BYTES as usize).collect();
    for (token, offset) in (1..).zip(&offsets) {
        device.http_get(token, &served.url, u64::from(*offset), RANGE_BYTES);
    }
    let mut held = BTreeMap::new();
    while held.len() < offsets.len() {
        match mailbox.take() {
            Some(Input::HttpResponse {
                token,
                status: 206,
                total,
                body,
            }) => {
                assert_eq!(total, Some(u64::from(IMAGE_BYTES)));
                assert!(
                    held.insert(token, body).is_none(),
                    "{token} has ended twice"
                );
            }
            Some(other) => panic!("{other:?}"),
            None => patient("a range", woken.notified()).await,
        }
    }
    let fetched: Vec<u8> = held.into_values().flatten().collect();
    assert!(fetched == served.image);
    served.cloud.shutdown().await;
}

#[tokio::test]
async fn each_fault_of_the_cloud_is_told_as_what_it_is_and_the_next_range_is_fine() {
    type Is = fn(&Result<Answer, FetchError>) -> bool;
    let rows: [(HttpFault, u32, Is); 10] = [
        (HttpFault::Expired, 1, |r| *r == Ok(Answer::Status(403))),
        (HttpFault::Status(503), 1, |r| *r == Ok(Answer::Status(503))),
        (HttpFault::Whole, 1, |r| *r == Ok(Answer::Status(200))),
        (HttpFault::WrongRange, 1, |r| {
            matches!(r, Err(FetchError::WrongRange { first: 11, .. }))
        }),
        (HttpFault::Short, 1, |r| {
            matches!(r, Err(FetchError::Short { expected: 30, .. }))
        }),
        (HttpFault::Long, 1, |r| {
            matches!(
                r,
                Err(FetchError::Length {
                    said: 31,
                    expected: 30
                })
            )
        }),
        (HttpFault::Slow, 1, |r| {
            matches!(
                r,
                Err(FetchError::TimedOut {
                    wait: Wait::Range,
                    ..
                })
            )
        }),
        (HttpFault::RedirectLoop, 4, |r| {
            *r == Err(FetchError::Redirects(3))
        }),
        (HttpFault::RedirectPlain, 1, |r| {
            matches!(r, Err(FetchError::Redirect { .. }))
        }),
        (HttpFault::BrokenTls, 1, |r| {
            matches!(r, Err(FetchError::Tls { .. }))
        }),
    ];
    for (fault, count, is) in rows {
        let dir = tempfile::tempdir().unwrap();
        let served = served(dir.path(), |limits| {
            // A byte every 100 ms is 3 s for the range; the others may take what they need.
            if fault == HttpFault::Slow {
                limits.range_timeout = Duration::from_millis(1500);
            }
        })
        .await;
        served.cloud.http_faults().set([(fault, count)]);
        let result = served.fetch().await;
        assert!(is(&result), "{fault:?}: {result:?}");
        assert_eq!(served.cloud.http_faults().left(), [], "{fault:?}");
        let Ok(Answer::Range { body, .. }) = served.fetch().await else {
            panic!("after {fault:?}");
        };
        assert_eq!(body, served.image[10..40], "after {fault:?}");
        served.cloud.shutdown().await;
    }
}

#[tokio::test]
async fn redirects_up_to_the_third_are_followed_to_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(dir.path(), |_| {}).await;
    served
        .cloud
        .http_faults()
        .set([(HttpFault::RedirectLoop, 3)]);
    let Ok(Answer::Range { body, .. }) = served.fetch().await else {
        panic!("no range");
    };
    assert_eq!(body, served.image[10..40]);
    served.cloud.shutdown().await;
}
