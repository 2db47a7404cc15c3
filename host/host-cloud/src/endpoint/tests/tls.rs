//! The endpoint with TLS: who is let in, and what each may use.

use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::*;
use crate::{Credentials, Pki};

pub(crate) fn config(root_pem: &str, own: Option<&Credentials>, alpn: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let certificate = CertificateDer::from_pem_slice(own.certificate_pem.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(own.private_key_pem.as_bytes());
            builder
                .with_client_auth_cert(vec![certificate.unwrap()], key.unwrap())
                .unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config
}

pub(super) fn client(cloud: &CloudHandle, id: &str, config: ClientConfig) -> Client {
    let port = cloud.tls_addr().unwrap().port();
    let mut options = MqttOptions::new(id, ("localhost", port));
    let tls = TlsConfiguration::Rustls(Arc::new(config));
    options.set_transport(Transport::Tls(tls));
    Client::new(options)
}

pub(super) async fn connect(cloud: &CloudHandle, own: &Credentials) -> Client {
    let mut client = client(cloud, "gw", config(&own.root_pem, Some(own), &[]));
    client.connected().await.unwrap();
    client
}

#[tokio::test]
async fn a_registered_certificate_uses_its_own_topics_with_and_without_alpn() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let own = cloud.thing_create(&thing("gw")).await.unwrap();
    for alpn in [&[][..], &[&b"x-amzn-mqtt-ca"[..]]] {
        let mut gw = client(&cloud, "gw", config(&own.root_pem, Some(&own), alpn));
        gw.connected().await.unwrap();
        let (reply, _) = gw.ask("$aws/things/gw/jobs/get", "{}").await;
        assert_eq!(reply, "$aws/things/gw/jobs/get/accepted");
        gw.subscribe("$aws/things/gw/jobs/#", QoS::AtLeastOnce)
            .await;
        gw.subscribe("telemetry", QoS::AtMostOnce).await;
    }
    assert_eq!(cloud.stats().things[&thing("gw")].traffic.connections, 2);
    cloud.shutdown().await;
}

#[tokio::test]
async fn another_things_topics_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let own = cloud.thing_create(&thing("gw")).await.unwrap();
    let strange = [
        "$aws/things/other/jobs/$next/get",
        "$aws/things/other/jobs/AFR_OTA-u/update",
        "$aws/things/other/streams/s/get/cbor",
        "$aws/events/x",
    ];
    for topic in strange {
        let mut gw = connect(&cloud, &own).await;
        gw.publish(topic, "{}", QoS::AtLeastOnce).await;
        gw.ended().await;
    }
    let filters = [
        "$aws/things/other/jobs/notify-next",
        "$aws/things/+/jobs/#",
        "$aws/#",
    ];
    for filter in filters {
        let mut gw = connect(&cloud, &own).await;
        gw.client.subscribe(filter, QoS::AtMostOnce).await.unwrap();
        gw.ended().await;
    }
    cloud.shutdown().await;
}

#[tokio::test]
async fn who_has_no_registered_certificate_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let own = cloud.thing_create(&thing("gw")).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Pki::open(elsewhere.path()).unwrap();
    let foreign = foreign.device(&thing("gw")).unwrap();
    // From the cloud's own root, but never registered.
    let unregistered = Pki::open(&dir.path().join("pki")).unwrap();
    let unregistered = unregistered.device(&thing("unregistered")).unwrap();
    for credentials in [None, Some(&foreign), Some(&unregistered)] {
        let config = config(&own.root_pem, credentials, &[]);
        let mut stranger = client(&cloud, "gw", config);
        assert!(stranger.connected().await.is_err(), "{credentials:?}");
    }
    // And who does not trust the cloud's root does not talk to it.
    let config = config(&foreign.root_pem, Some(&own), &[]);
    assert!(client(&cloud, "gw", config).connected().await.is_err());
    until(&cloud, |stats| stats.refused == 4).await;
    assert_eq!(cloud.stats().connections, 0);
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_detached_certificate_ends_at_once_and_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let own = cloud.thing_create(&thing("gw")).await.unwrap();
    let tls = config(&own.root_pem, Some(&own), &[]);
    let mut gw = client(&cloud, "gw", tls.clone());
    gw.connected().await.unwrap();
    let operator = cloud.operator();
    operator
        .detach_certificate(&thing("gw"), &own.fingerprint)
        .await
        .unwrap();
    gw.ended().await;
    // The same configuration, so that a kept session would be used.
    let mut again = client(&cloud, "gw", tls.clone());
    assert!(again.connected().await.is_err());
    // Nor when the thing gets credentials again, by an operator or at a start: they are others.
    let new = cloud.thing_create(&thing("gw")).await.unwrap();
    assert_ne!(new.fingerprint, own.fingerprint);
    assert_eq!(cloud.thing_create(&thing("gw")).await.unwrap(), new);
    cloud.shutdown().await;
    let cloud = super::cloud(dir.path()).await;
    assert!(client(&cloud, "gw", tls).connected().await.is_err());
    connect(&cloud, &new).await;
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_detached_certificate_ends_also_when_that_cannot_be_stored() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let gw = thing("gw");
    let own = cloud.thing_create(&gw).await.unwrap();
    let mut client = connect(&cloud, &own).await;
    pipe::break_disk(cloud.core_for_tests());
    let detached = cloud
        .operator()
        .detach_certificate(&gw, &own.fingerprint)
        .await;
    assert_eq!(detached.unwrap_err().code(), "unstored");
    client.ended().await;
}

#[tokio::test]
async fn a_deleted_thing_ends_at_once_and_its_key_is_worth_nothing_when_the_name_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let old = cloud.thing_create(&thing("gw")).await.unwrap();
    let tls = config(&old.root_pem, Some(&old), &[]);
    let mut gw = client(&cloud, "gw", tls.clone());
    gw.connected().await.unwrap();
    let operator = cloud.operator();
    operator.delete_thing(&thing("gw"), false).await.unwrap();
    gw.ended().await;
    assert!(!old.private_key_path.exists());
    let new = cloud.thing_create(&thing("gw")).await.unwrap();
    assert_ne!(new.fingerprint, old.fingerprint);
    assert!(client(&cloud, "gw", tls).connected().await.is_err());
    let tls = config(&new.root_pem, Some(&new), &[]);
    client(&cloud, "gw", tls).connected().await.unwrap();
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_deleted_things_certificate_goes_on_for_its_other_things_only() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path()).await;
    let own = cloud.thing_create(&thing("gw")).await.unwrap();
    let operator = cloud.operator();
    let other = thing("other");
    let shared = operator.attach_certificate(&other, &own.certificate_pem, None);
    shared.await.unwrap();
    let mut gw = connect(&cloud, &own).await;
    operator.delete_thing(&thing("gw"), false).await.unwrap();
    gw.ended().await;
    // The name belongs to another device now.
    cloud.thing_create(&thing("gw")).await.unwrap();
    let mut gw = connect(&cloud, &own).await;
    let (reply, _) = gw.ask("$aws/things/other/jobs/get", "{}").await;
    assert_eq!(reply, "$aws/things/other/jobs/get/accepted");
    gw.publish("$aws/things/gw/jobs/get", "{}", QoS::AtLeastOnce)
        .await;
    gw.ended().await;
    cloud.shutdown().await;
}

#[tokio::test]
async fn an_update_downloads_over_tls_with_the_longest_names() {
    let dir = tempfile::tempdir().unwrap();
    let name = "t".repeat(128);
    let config = CloudConfig {
        things: vec![thing(&name)],
        ..CloudConfig::new(dir.path())
    };
    let cloud = Cloud::start(config).await.unwrap();
    let own = cloud.thing_create(&thing(&name)).await.unwrap();
    let mut long = update(&[5; 1000]);
    long.things = vec![thing(&name)];
    long.update_id = Some("j".repeat(56));
    long.stream_id = Some("s".repeat(128).parse().unwrap());
    let created = cloud.operator().create_update(long).await.unwrap();
    assert_eq!(created.job_id.as_str().len(), 64);
    let tls = super::tls::config(&own.root_pem, Some(&own), &[]);
    let mut gw = client(&cloud, &name, tls);
    gw.connected().await.unwrap();
    let stream = format!("$aws/things/{name}/streams/{}", created.stream_id);
    gw.subscribe(&format!("{stream}/data/json"), QoS::AtMostOnce)
        .await;
    let get = format!("{stream}/get/json");
    gw.publish(&get, r#"{"f":0,"l":1024,"n":1}"#, QoS::AtMostOnce)
        .await;
    let block = gw.message().await.unwrap();
    assert_eq!(block.topic, format!("{stream}/data/json"));
    let report = format!("$aws/things/{name}/jobs/{}/update", created.job_id);
    let (reply, _) = gw.ask(&report, r#"{"status":"FAILED"}"#).await;
    assert_eq!(reply, format!("{report}/accepted"));
    cloud.shutdown().await;
}
