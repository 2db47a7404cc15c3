//! TLS with client certificates: what gets through, and what is said of what does not.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::*;
use host_mqtt::{Alpn, Connection, ConnectionConfig, Security, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn identity(name: &str, issuer: &Authority) -> Identity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Identity { certificate, key }
}

/// A broker's TLS for `localhost`, for clients of `clients`.
fn acceptor(issuer: &Authority, clients: &Authority, alpn: &[&str]) -> TlsAcceptor {
    acceptor_as(&identity("localhost", issuer), clients, alpn)
}

fn acceptor_as(server: &Identity, clients: &Authority, alpn: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(clients.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![server.certificate.der().clone()],
            PrivateKeyDer::try_from(server.key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn config(broker: &Broker, dir: &TempDir, ca: &Authority, device: &Identity) -> ConnectionConfig {
    let place = |name: &str, text: String| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut config = broker.config();
    config.endpoint.host = "localhost".to_owned();
    config.security = Security::Tls(TlsFiles {
        ca: place("ca.pem", ca.pem()),
        certificate: place("device.pem", device.certificate.pem()),
        key: place("device.key", device.key.serialize_pem()),
    });
    config
}

async fn accept(broker: &Broker, acceptor: &TlsAcceptor) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = broker.accept_socket().await;
    patient("TLS", acceptor.accept(socket)).await
}

async fn last_error(connection: &Connection) -> String {
    let mut watch = connection.watch();
    let told = patient("an error", async {
        let status = watch.wait_for(|s| s.last_error.is_some()).await.unwrap();
        status.last_error.clone()
    });
    told.await.unwrap()
}

#[tokio::test]
async fn a_device_proves_possession_of_its_key_and_names_its_protocol() {
    let (broker, dir, ca) = (Broker::new().await, TempDir::new().unwrap(), authority("a"));
    let mut config = config(&broker, &dir, &ca, &identity(THING, &ca));
    config.alpn = Alpn::Protocols(vec!["x-amzn-mqtt-ca".to_owned()]);
    let connection = Connection::start(config).unwrap();
    let inbox = Inbox::new();
    let _transport = connection
        .attach(THING, inbox.mailbox.clone(), true)
        .unwrap();
    let stream = accept(&broker, &acceptor(&ca, &ca, &["x-amzn-mqtt-ca"]))
        .await
        .unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.server_name(), Some("localhost"));
    assert_eq!(session.alpn_protocol(), Some(b"x-amzn-mqtt-ca".as_slice()));
    assert_eq!(session.peer_certificates().map(<[_]>::len), Some(1));
    let mut peer = Peer(stream);
    assert_eq!(peer.read().await.kind, CONNECT);
    peer.write(&[0x20, 2, 0, 0]).await;
    inbox.connected().await;
}

#[tokio::test]
async fn a_broker_of_another_authority_is_not_trusted() {
    let (broker, dir) = (Broker::new().await, TempDir::new().unwrap());
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let config = config(&broker, &dir, &ours, &identity(THING, &ours));
    let connection = Connection::start(config).unwrap();
    assert!(
        accept(&broker, &acceptor(&theirs, &ours, &[]))
            .await
            .is_err()
    );
    let told = last_error(&connection).await;
    assert!(told.contains("(TLS)") && told.contains("CA file"), "{told}");
}

/// What a clock that is years wrong looks like from here: the certificate of the broker lies years away.
#[tokio::test]
async fn a_clock_that_is_years_wrong_is_named_and_the_connection_is_made_once_it_is_right() {
    for (from, to, words) in [
        (2090, 2099, "not valid yet: the gateway's clock says 20"),
        (
            2001,
            2002,
            "not valid any more: the gateway's clock says 20",
        ),
    ] {
        let (broker, dir, ca) = (Broker::new().await, TempDir::new().unwrap(), authority("a"));
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &ca).unwrap();
        let other = Identity { certificate, key };
        let mut config = config(&broker, &dir, &ca, &identity(THING, &ca));
        config.back_off.base_ms = 10;
        config.back_off.cap_ms = 20;
        let connection = Connection::start(config).unwrap();
        let inbox = Inbox::new();
        let _transport = connection
            .attach(THING, inbox.mailbox.clone(), true)
            .unwrap();
        assert!(
            accept(&broker, &acceptor_as(&other, &ca, &[]))
                .await
                .is_err()
        );
        let told = last_error(&connection).await;
        assert!(
            told.contains(words) && told.contains("set the clock"),
            "{told}"
        );
        // The clock is right again.
        let mut peer = loop {
            if let Ok(stream) = accept(&broker, &acceptor(&ca, &ca, &[])).await {
                break Peer(stream);
            }
        };
        assert_eq!(peer.read().await.kind, CONNECT);
        peer.write(&[0x20, 2, 0, 0]).await;
        inbox.connected().await;
    }
}

#[tokio::test]
async fn a_client_certificate_that_the_broker_does_not_know_is_said_so() {
    let (broker, dir) = (Broker::new().await, TempDir::new().unwrap());
    let (ca, other) = (authority("broker"), authority("other"));
    let config = config(&broker, &dir, &ca, &identity(THING, &other));
    let connection = Connection::start(config).unwrap();
    assert!(accept(&broker, &acceptor(&ca, &ca, &[])).await.is_err());
    let told = last_error(&connection).await;
    assert!(
        told.contains("(TLS)") && told.contains("client certificate"),
        "{told}"
    );
}

#[tokio::test]
async fn a_broker_that_does_not_speak_tls_is_a_tls_failure() {
    let (broker, dir, ca) = (Broker::new().await, TempDir::new().unwrap(), authority("a"));
    let config = config(&broker, &dir, &ca, &identity(THING, &ca));
    let connection = Connection::start(config).unwrap();
    let mut peer = Peer(broker.accept_socket().await);
    peer.write(b"\x20\x02\x00\x00 this is no TLS record").await;
    let told = last_error(&connection).await;
    assert!(told.contains("(TLS)"), "{told}");
}
