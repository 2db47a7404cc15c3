//! The image server over real sockets and TLS, spoken to in bytes.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{HttpConfig, HttpFault};
use crate::{
    Cloud, CloudConfig, CloudHandle,
    operator::wire::{CreateUpdate, FileSpec, ImageInput},
    service::{Protocol, ThingName},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn image() -> Vec<u8> {
    (0..200_000_u32).map(|i| (i / 7 + i % 251) as u8).collect()
}

async fn cloud(dir: &std::path::Path) -> CloudHandle {
    let mut config = CloudConfig::new(dir);
    config.http = Some(HttpConfig::new(([127, 0, 0, 1], 0).into()));
    config.things = vec![ThingName::new("gw").unwrap()];
    Cloud::start(config).await.unwrap()
}

/// Creates an update and returns path and query of its URL, as a device gets it.
async fn announced(cloud: &CloudHandle, protocols: Vec<Protocol>) -> serde_json::Value {
    let gw = ThingName::new("gw").unwrap();
    let file = FileSpec {
        file_id: 0,
        image: ImageInput::Bytes(image().into()),
        sha256: None,
        file_type: None,
        file_path: "/fw.bin".into(),
        cert_file: "/signer.pem".into(),
        signature: None,
    };
    let mut update = CreateUpdate::new(vec![gw.clone()], vec![file]);
    update.protocols = protocols;
    cloud.operator().create_update(update).await.unwrap();
    document(cloud).await
}

async fn document(cloud: &CloudHandle) -> serde_json::Value {
    let gw = ThingName::new("gw").unwrap();
    let topic = "$aws/things/gw/jobs/$next/get";
    let core = cloud.core_for_tests();
    let answer = core
        .handle(&gw, topic, b"", crate::service::QoS::AtLeastOnce)
        .await
        .unwrap();
    let reply: serde_json::Value = serde_json::from_slice(&answer.replies[0].payload).unwrap();
    reply["execution"]["jobDocument"]["afr_ota"].clone()
}

fn url(document: &serde_json::Value) -> String {
    document["files"][0]["update_data_url"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn connect(cloud: &CloudHandle) -> std::io::Result<TlsStream<TcpStream>> {
    let base = cloud.http_url().unwrap();
    let port: u16 = base.rsplit(':').next().unwrap().parse().unwrap();
    let mut roots = RootCertStore::empty();
    let pem = cloud.core_for_tests().pki().root_pem().to_owned();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Head and body of one answer, on a connection of its own.
async fn ask(cloud: &CloudHandle, url: &str, more: &str) -> (String, Vec<u8>) {
    let path = url.strip_prefix(cloud.http_url().unwrap()).unwrap_or(url);
    let mut stream = connect(cloud).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // A body that is short on purpose ends the connection without a word.
    let _end = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    (
        String::from_utf8(bytes[..end].to_vec()).unwrap(),
        bytes[end..].to_vec(),
    )
}

#[tokio::test]
async fn a_url_of_a_document_gives_ranges_of_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let document = announced(&cloud, vec![Protocol::Mqtt, Protocol::Http]).await;
    assert_eq!(document["protocols"], serde_json::json!(["MQTT", "HTTP"]));
    assert!(document["streamname"].is_string());
    assert_eq!(document["files"][0]["auth_scheme"], "aws.s3.presigned");
    let url = url(&document);
    let image = image();
    let rows: [(&str, &str, &[u8]); 4] = [
        ("Range: bytes=0-99\r\n", "206", &image[..100]),
        ("Range: bytes=70000-199999\r\n", "206", &image[70_000..]),
        ("Range: bytes=199000-999999\r\n", "206", &image[199_000..]),
        ("", "200", &image),
    ];
    for (range, status, expected) in rows {
        let (head, body) = ask(&cloud, &url, range).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(body == expected, "{range}: {} bytes", body.len());
    }
    let (head, _) = ask(&cloud, &url, "Range: bytes=70000-199999\r\n").await;
    assert!(
        head.contains("content-range: bytes 70000-199999/200000\r\n"),
        "{head}"
    );
    let (head, _) = ask(&cloud, &url, "Range: bytes=200000-\r\n").await;
    assert!(head.starts_with("HTTP/1.1 416 "), "{head}");
    assert!(head.contains("content-range: bytes */200000\r\n"), "{head}");
    cloud.shutdown().await;
}

#[tokio::test]
async fn what_was_not_signed_is_refused_as_s3_refuses_it() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let url = url(&announced(&cloud, vec![Protocol::Http]).await);
    let other = format!(
        "/images/{}?Expires=1&Signature={}",
        "0".repeat(64),
        "0".repeat(64)
    );
    let rows = [
        (url.replace("Signature=", "Signature=0"), "400"),
        (url.replace("Expires=", "Expires=9"), "403"),
        (other, "403"),
        ("/".to_owned(), "404"),
        ("/images".to_owned(), "404"),
        (url.split('?').next().unwrap().to_owned(), "400"),
    ];
    for (url, status) in rows {
        let (head, body) = ask(&cloud, &url, "").await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{url}: {head}"
        );
        assert!(body.starts_with(b"<?xml"), "{url}");
    }
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_job_without_streams_names_none_and_each_asking_makes_a_new_url_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let first = cloud(dir.path()).await;
    let document = announced(&first, vec![Protocol::Http]).await;
    assert_eq!(document["streamname"], serde_json::Value::Null);
    let old = url(&document);
    first.shutdown().await;
    let again = cloud(dir.path()).await;
    // The old one still opens the image: only the port may be another.
    let path = old[old.find("/images/").unwrap()..].to_owned();
    let (head, _) = ask(&again, &path, "Range: bytes=0-0\r\n").await;
    assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
    let new = url(&self::document(&again).await);
    assert!(new.starts_with(again.http_url().unwrap()), "{new}");
    again.shutdown().await;
    // A cloud without URLs offers the job without them.
    let mut config = CloudConfig::new(dir.path());
    config.http = None;
    let without = Cloud::start(config).await.unwrap();
    let file = self::document(&without).await["files"][0].clone();
    assert_eq!(file["update_data_url"], serde_json::Value::Null);
    assert_eq!(file["auth_scheme"], serde_json::Value::Null);
    without.shutdown().await;
}

#[tokio::test]
async fn each_fault_strikes_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let url = url(&announced(&cloud, vec![Protocol::Http]).await);
    let range = "Range: bytes=10-19\r\n";
    let rows: [(HttpFault, &str, &str, usize); 7] = [
        (HttpFault::Expired, "403", "content-length: ", usize::MAX),
        (
            HttpFault::Status(503),
            "503",
            "content-length: ",
            usize::MAX,
        ),
        (
            HttpFault::WrongRange,
            "206",
            "content-range: bytes 11-19/200000",
            9,
        ),
        (HttpFault::Whole, "200", "content-length: 200000", 200_000),
        (HttpFault::Short, "206", "content-length: 10", 5),
        (HttpFault::Long, "206", "content-length: 11", 10),
        (
            HttpFault::RedirectLoop,
            "307",
            "location: https://localhost/images/",
            usize::MAX,
        ),
    ];
    for (fault, status, expected, length) in rows {
        cloud.http_faults().set([(fault, 1)]);
        let (head, body) = ask(&cloud, &url, range).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{fault:?}: {head}"
        );
        assert!(head.contains(expected), "{fault:?}: {head}");
        assert!(
            length == usize::MAX || body.len() == length,
            "{fault:?}: {}",
            body.len()
        );
    }
    cloud
        .http_faults()
        .set([(HttpFault::RedirectPlain, 1), (HttpFault::BrokenTls, 1)]);
    let (head, _) = ask(&cloud, &url, range).await;
    assert!(
        head.contains("location: http://localhost/images/"),
        "{head}"
    );
    assert!(connect(&cloud).await.is_err());
    cloud.http_faults().set([(HttpFault::Slow, 1)]);
    let begin = tokio::time::Instant::now();
    let (_, body) = ask(&cloud, &url, "Range: bytes=0-1\r\n").await;
    assert_eq!(body, image()[..2]);
    assert!(
        begin.elapsed() >= Duration::from_millis(200),
        "a byte every 100 ms"
    );
    assert_eq!(cloud.http_faults().left(), []);
    cloud.shutdown().await;
}
