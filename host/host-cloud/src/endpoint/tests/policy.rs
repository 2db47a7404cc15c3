//! Who may use what, in each direction: things among themselves, certificates from elsewhere, and detached ones.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

use super::{
    tls::{client, config, connect},
    *,
};
use crate::{Credentials, operator::wire::CreateJob};

/// A cloud in which `other` has an update with the stream `s` and a job `j`, and `gw` has nothing.
async fn world(dir: &std::path::Path) -> (CloudHandle, Credentials) {
    let cloud = cloud(dir).await;
    let own = cloud.thing_create(&thing("gw")).await.unwrap();
    let mut theirs = update(&[7; 5000]);
    theirs.things = vec![thing("other")];
    let operator = cloud.operator();
    operator.create_update(theirs).await.unwrap();
    let job = json!({"job_id": "j", "things": ["other"], "document": {"secret": 1}});
    let job: CreateJob = serde_json::from_value(job).unwrap();
    operator.create_job(job).await.unwrap();
    (cloud, own)
}

#[tokio::test]
async fn a_thing_cannot_read_update_or_stream_anothers_job_through_its_own_topics() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, own) = world(dir.path()).await;
    let mut gw = connect(&cloud, &own).await;
    let rows = [
        ("jobs/j/get", "{}", "ResourceNotFound"),
        ("jobs/AFR_OTA-u/get", "{}", "ResourceNotFound"),
        (
            "jobs/j/update",
            r#"{"status":"FAILED"}"#,
            "ResourceNotFound",
        ),
        ("streams/s/describe/json", "{}", "ResourceNotFound"),
        (
            "streams/s/get/json",
            r#"{"f":0,"l":256,"n":1}"#,
            "ResourceNotFound",
        ),
        // What only the service says.
        ("jobs/notify-next", r#"{"execution":{}}"#, "InvalidTopic"),
        ("jobs/j/get/accepted", "{}", "InvalidTopic"),
        ("streams/s/data/json", "{}", "InvalidTopic"),
    ];
    for (rest, payload, code) in rows {
        let (_, body) = gw.ask(&format!("$aws/things/gw/{rest}"), payload).await;
        assert_eq!(body["code"], code, "{rest}: {body}");
    }
    let (_, body) = gw.ask("$aws/things/gw/jobs/get", "{}").await;
    assert_eq!(body["queuedJobs"], json!([]), "{body}");
    let view = cloud.operator().show(&"j".parse().unwrap()).unwrap();
    assert_eq!(view.executions[0].status.as_str(), "QUEUED");
    assert_eq!(cloud.stats().blocks, 0);
    cloud.shutdown().await;
}

#[tokio::test]
async fn wildcards_shares_and_wills_do_not_reach_anothers_topics() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, own) = world(dir.path()).await;
    let filters = [
        "$aws/things/other/#",
        "$aws/things/other",
        "$aws/things/+/jobs/notify-next",
        "$aws/+/other/jobs/notify-next",
        "$aws/#",
        "$aws/things/#",
        "$share/g/$aws/things/other/#",
        "$SYS/#",
    ];
    for filter in filters {
        let mut gw = connect(&cloud, &own).await;
        gw.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        gw.ended().await;
    }
    // `#` and `+/…` are anybody's, and no reserved topic matches them.
    let mut gw = connect(&cloud, &own).await;
    gw.subscribe("#", QoS::AtLeastOnce).await;
    gw.subscribe("+/things/other/jobs/notify-next", QoS::AtLeastOnce)
        .await;
    let job = json!({"job_id": "k", "things": ["other"], "document": {}});
    let job: CreateJob = serde_json::from_value(job).unwrap();
    cloud.operator().create_job(job).await.unwrap();
    gw.publish("mine", "x", QoS::AtMostOnce).await;
    assert_eq!(gw.message().await.unwrap().topic, "mine");
    // A will is a message too.
    let port = cloud.tls_addr().unwrap().port();
    for topic in [
        "$aws/things/other/jobs/j/update",
        "$aws/things/gw/jobs/j/update",
    ] {
        let mut options = MqttOptions::new("gw", ("localhost", port));
        let tls = rumqttc::TlsConfiguration::Rustls(config(&own.root_pem, Some(&own), &[]).into());
        options.set_transport(rumqttc::Transport::Tls(tls));
        options.set_last_will(rumqttc::LastWill::new(topic, "{}", QoS::AtMostOnce, false));
        assert!(Client::new(options).connected().await.is_err(), "{topic}");
    }
    cloud.shutdown().await;
}

#[tokio::test]
async fn anothers_client_id_gives_neither_its_rights_nor_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, own) = world(dir.path()).await;
    let theirs = cloud.thing_create(&thing("other")).await.unwrap();
    let tls = |of: &Credentials| config(&of.root_pem, Some(of), &[]);
    let mut other = client(&cloud, "other", tls(&theirs));
    other.connected().await.unwrap();
    let mut liar = client(&cloud, "other", tls(&own));
    liar.connected().await.unwrap();
    // The first one is still there.
    let (topic, _) = other.ask("$aws/things/other/jobs/get", "{}").await;
    assert_eq!(topic, "$aws/things/other/jobs/get/accepted");
    liar.publish("$aws/things/other/jobs/get", "{}", QoS::AtLeastOnce)
        .await;
    liar.ended().await;
    // Its own second connection does take over.
    let mut again = client(&cloud, "other", tls(&theirs));
    again.connected().await.unwrap();
    other.ended().await;
    cloud.shutdown().await;
}

/// A customer's own authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A device's certificate; `cloud_root` is what the device trusts.
    fn device(&self, name: &str, cloud_root: &str) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        Credentials {
            certificate_pem: params.signed_by(&key, &self.issuer).unwrap().pem(),
            private_key_pem: key.serialize_pem(),
            root_pem: cloud_root.to_owned(),
            certificate_path: "".into(),
            private_key_path: "".into(),
            root_path: "".into(),
            fingerprint: String::new(),
        }
    }
}

#[tokio::test]
async fn a_certificate_of_a_customers_authority_is_let_in_once_it_is_registered_for_its_thing() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, own) = world(dir.path()).await;
    let operator = cloud.operator().clone();
    let customer = Authority::new("customer");
    let theirs = customer.device("gw", &own.root_pem);
    let twin = customer.device("gw", &own.root_pem);
    let gw = thing("gw");
    let tls = |of: &Credentials| config(&own.root_pem, Some(of), &[]);
    // Without its root it leads nowhere; nothing is registered.
    let refused = operator.attach_certificate(&gw, &theirs.certificate_pem, None);
    let refused = refused.await.unwrap_err().to_string();
    assert!(refused.contains("this cloud's root"), "{refused}");
    let foreign = Authority::new("foreign");
    let wrong_root = operator.attach_certificate(&gw, &theirs.certificate_pem, Some(&foreign.pem));
    assert!(wrong_root.await.is_err());
    let none = thing("none");
    let unknown = operator.attach_certificate(&none, &theirs.certificate_pem, None);
    assert!(unknown.await.unwrap_err().to_string().contains("none"));
    assert!(
        client(&cloud, "gw", tls(&theirs))
            .connected()
            .await
            .is_err()
    );

    let attached = operator
        .attach_certificate(&gw, &theirs.certificate_pem, Some(&customer.pem))
        .await
        .unwrap();
    assert_eq!(attached.thing.certificates.len(), 2);
    let mut device = client(&cloud, "gw", tls(&theirs));
    device.connected().await.unwrap();
    let (topic, _) = device.ask("$aws/things/gw/jobs/get", "{}").await;
    assert_eq!(topic, "$aws/things/gw/jobs/get/accepted");
    device
        .publish("$aws/things/other/jobs/get", "{}", QoS::AtLeastOnce)
        .await;
    device.ended().await;
    // The authority's other certificates, with the same name in them, are nobody's.
    assert!(client(&cloud, "gw", tls(&twin)).connected().await.is_err());

    // The root outlives a restart, and so does the register.
    drop(operator);
    cloud.shutdown().await;
    let cloud = super::cloud(dir.path()).await;
    client(&cloud, "gw", tls(&theirs))
        .connected()
        .await
        .unwrap();
    let known = attached.thing.certificates.iter();
    let fingerprint = known.clone().find(|f| **f != own.fingerprint).unwrap();
    let operator = cloud.operator().clone();
    let wrong = operator.detach_certificate(&gw, "00").await.unwrap_err();
    assert!(wrong.to_string().contains("thing show gw"), "{wrong}");
    let left = operator.detach_certificate(&gw, fingerprint).await.unwrap();
    assert_eq!(left.thing.certificates, [own.fingerprint.as_str()]);
    assert!(
        client(&cloud, "gw", tls(&theirs))
            .connected()
            .await
            .is_err()
    );
    client(&cloud, "gw", tls(&own)).connected().await.unwrap();
    cloud.shutdown().await;
}

#[tokio::test]
async fn a_certificate_detached_between_handshake_and_connect_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, own) = world(dir.path()).await;
    let identity = crate::endpoint::policy::Identity::Certificate {
        fingerprint: own.fingerprint.clone(),
        things: [thing("gw")].into(),
    };
    cloud
        .operator()
        .detach_certificate(&thing("gw"), &own.fingerprint)
        .await
        .unwrap();
    let (mut io, theirs) = tokio::io::duplex(4096);
    let core = cloud.core_arc_for_tests();
    let served = tokio::spawn(crate::endpoint::connection::serve(theirs, identity, core));
    let packet = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02gw";
    tokio::io::AsyncWriteExt::write_all(&mut io, packet)
        .await
        .unwrap();
    let end = timeout(PATIENCE, served).await.unwrap().unwrap();
    assert_eq!(end.to_string(), "its certificate was detached");
    assert_eq!(cloud.stats().connected, 0);
    cloud.shutdown().await;
}
