//! Operators of other machines: the token, what is sent in place of a path, and what stays refused.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{super::remote, *};

async fn cloud(dir: &Path) -> CloudHandle {
    let config = CloudConfig {
        operators: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..CloudConfig::new(dir)
    };
    Cloud::start(config).await.unwrap()
}

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the operators' TLS endpoint of who speaks for himself.
async fn by_hand(cloud: &CloudHandle) -> impl AsyncRead + AsyncWrite + Unpin {
    let root = std::fs::read_to_string(cloud.operator().info().unwrap().root_path).unwrap();
    let tls = TlsConnector::from(Arc::new(crate::endpoint::tests::tls::config(
        &root,
        None,
        &[],
    )));
    let stream = TcpStream::connect(cloud.operators_addr().unwrap());
    let name = ServerName::try_from("localhost").unwrap();
    tls.connect(name, stream.await.unwrap()).await.unwrap()
}

fn line(request: &impl serde::Serialize) -> String {
    serde_json::to_string(request).unwrap() + "\n"
}

async fn connect(cloud: &CloudHandle, token: &str) -> Result<OperatorClient, OperatorError> {
    let root = std::fs::read_to_string(cloud.operator().info().unwrap().root_path).unwrap();
    let port = cloud.operators_addr().unwrap().port();
    OperatorClient::connect_tls("localhost", port, &root, token).await
}

#[tokio::test]
async fn with_the_token_an_update_is_made_from_another_machine_without_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let kit = dir.path().join(KIT_DIR);
    let mut client = OperatorClient::connect_kit(&kit).await.unwrap();
    let thing = client.thing_create(gw()).await.unwrap();
    assert!(thing.private_key_pem.contains("PRIVATE KEY") && !thing.root_pem.is_empty());
    // Larger than what is sent at once.
    let bytes: Vec<u8> = (0..700_001u32).map(|i| (i % 251) as u8).collect();
    let path = dir.path().join("fw.bin");
    std::fs::write(&path, &bytes).unwrap();
    let mut spec = file(path.clone());
    spec.sha256 = Some(ImageId::of(&bytes).to_string());
    let update = CreateUpdate::new(vec![gw()], vec![spec]);
    let created = client.create_update(update).await.unwrap();
    assert_eq!(created.files[0].size, bytes.len() as u64);
    let job = client.show(created.job_id).await.unwrap();
    assert_eq!(job.executions.len(), 1);
    // A file that changed since it was signed is refused, and the connection ends with it.
    let mut spec = file(path);
    spec.sha256 = Some(ImageId::of(b"else").to_string());
    let update = CreateUpdate::new(vec![gw()], vec![spec]);
    let error = client.create_update(update).await.unwrap_err();
    assert!(
        matches!(&error, OperatorError::Refused(r) if r.code == "image_changed"),
        "{error}"
    );
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_path_on_the_clouds_machine_is_not_read_for_who_only_has_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    cloud.thing_create(&gw()).await.unwrap();
    let update = CreateUpdate::new(vec![gw()], vec![file("/etc/hostname".into())]);
    let request = wire::Request {
        v: wire::VERSION,
        op: wire::Op::CreateUpdate(update),
    };
    let line = line(&request);
    let mut answer = Vec::new();
    let mut reader = BufReader::new(line.as_bytes());
    let operator = cloud.operator();
    server::session(&mut reader, &mut answer, operator, server::Origin::Token)
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["error"]["code"], "path");
    assert_eq!(operator.list(), []);
    cloud.shutdown().await;
}

#[tokio::test]
async fn operators_who_left_while_they_watched_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    cloud.thing_create(&gw()).await.unwrap();
    cloud.operator().create_job(job("j")).await.unwrap();
    let token = remote::read_token(&dir.path().join("operator/token")).unwrap();
    let greeting = line(&wire::Authenticate {
        v: wire::VERSION,
        token,
    });
    let watch = line(&wire::Request {
        v: wire::VERSION,
        op: wire::Op::Watch {
            job_id: "j".parse().unwrap(),
        },
    });
    // The job does not end: its device is away. Some ask for more before they leave.
    for at in 0..socket::OPERATORS_MAX {
        let watch = match at % 2 {
            0 => watch.clone(),
            _ => watch.repeat(2) + "\n",
        };
        let mut here = UnixStream::connect(cloud.socket()).await.unwrap();
        here.write_all(watch.as_bytes()).await.unwrap();
        let mut there = BufReader::new(by_hand(&cloud).await);
        there.write_all(greeting.as_bytes()).await.unwrap();
        there.flush().await.unwrap();
        there.read_until(b'\n', &mut Vec::new()).await.unwrap();
        there.write_all(watch.as_bytes()).await.unwrap();
        there.flush().await.unwrap();
    }
    let listed = async {
        let mut here = OperatorClient::connect(cloud.socket()).await.unwrap();
        assert_eq!(here.list().await.unwrap().len(), 1);
        // Told at once while the last of them are about to leave.
        let kit = dir.path().join(KIT_DIR);
        let mut there = loop {
            match OperatorClient::connect_kit(&kit).await {
                Ok(client) => break client,
                Err(OperatorError::Refused(refusal)) => assert_eq!(refusal.code, "busy"),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(there.list().await.unwrap().len(), 1);
    };
    timeout(PATIENCE, listed).await.unwrap();
    cloud.shutdown().await;
}

#[tokio::test]
async fn the_kit_names_what_was_said_and_else_where_operators_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let start = async |names: &[&str]| {
        let config = CloudConfig {
            // Devices come in elsewhere.
            tls: Some(SocketAddr::from(([127, 0, 0, 2], 0))),
            operators: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            server_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..CloudConfig::new(dir.path())
        };
        Cloud::start(config).await.unwrap()
    };
    let cloud = start(&[]).await;
    let kit = dir.path().join(KIT_DIR);
    let mut client = OperatorClient::connect_kit(&kit).await.unwrap();
    assert_eq!(client.info().await.unwrap().host, None);
    cloud.shutdown().await;
    // A router's address, for example, that this machine does not have.
    for said in ["203.0.113.7", "cloud.lan"] {
        let cloud = start(&[said, "another.lan"]).await;
        let address = std::fs::read_to_string(kit.join("address")).unwrap();
        assert!(address.starts_with(&format!("{said}:")), "{address}");
        let info = cloud.operator().info().unwrap();
        assert_eq!(info.host.as_deref(), Some(said));
        cloud.shutdown().await;
    }
}

#[tokio::test]
async fn an_update_without_the_token_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    cloud.thing_create(&gw()).await.unwrap();
    let image = dir.path().join("fw.bin");
    std::fs::write(&image, b"firmware").unwrap();
    let update = CreateUpdate::new(vec![gw()], vec![file(image)]);
    let create = line(&wire::Request {
        v: wire::VERSION,
        op: wire::Op::CreateUpdate(update),
    });
    let greeting = line(&wire::Authenticate {
        v: wire::VERSION,
        token: "0123456789abcdef0123".to_owned(),
    });
    for said in [create.clone(), greeting + &create] {
        let mut stream = by_hand(&cloud).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"]["code"], "unauthorized", "{said}");
        assert_eq!(cloud.operator().list(), []);
        let stored = std::fs::read_dir(dir.path().join("images")).unwrap();
        assert_eq!(stored.count(), 0);
    }
    cloud.shutdown().await;
}

#[tokio::test]
async fn without_the_token_nobody_is_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let token = remote::read_token(&dir.path().join("operator/token")).unwrap();
    for wrong in ["", &token[..63], &format!("{token}0")] {
        let Err(error) = connect(&cloud, wrong).await else {
            panic!("let in with {wrong}");
        };
        let code = |error: &OperatorError| match error {
            OperatorError::Refused(refusal) => refusal.code.clone(),
            other => other.to_string(),
        };
        assert_eq!(code(&error), "unauthorized");
    }
    // Another cloud's root does not vouch for this one, so the token is not shown.
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = crate::Pki::open(elsewhere.path()).unwrap();
    let port = cloud.operators_addr().unwrap().port();
    let connected = OperatorClient::connect_tls("localhost", port, foreign.root_pem(), &token);
    let Err(OperatorError::Untrusted { path, source }) = connected.await else {
        panic!("another cloud was trusted");
    };
    assert_eq!(path, format!("localhost:{port}"));
    assert!(source.to_string().contains("certificate"), "{source}");
    cloud.shutdown().await;
}
