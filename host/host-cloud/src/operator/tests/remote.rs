//! Operators of other machines: the token, what is sent in place of a path, and what stays refused.

use std::{net::SocketAddr, path::Path};

use super::{super::remote, *};

async fn cloud(dir: &Path) -> CloudHandle {
    let config = CloudConfig {
        operators: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..CloudConfig::new(dir)
    };
    Cloud::start(config).await.unwrap()
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
    let line = serde_json::to_string(&request).unwrap() + "\n";
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
    assert!(matches!(
        connected.await,
        Err(OperatorError::Connect { .. })
    ));
    cloud.shutdown().await;
}
