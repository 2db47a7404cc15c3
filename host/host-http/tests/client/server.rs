//! A server made by hand: it accepts, reads requests up to the empty line, and answers what the test gives it.

use std::sync::Arc;
use std::time::Duration;

use host_http::{Answer, FetchError, HttpClient, HttpConfig, Limits};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn patient<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) port: u16,
    tls: Option<TlsAcceptor>,
}

/// One connection at the server's end.
pub(crate) struct Peer(pub(crate) Box<dyn Duplex>);

impl Server {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            listener,
            port,
            tls: None,
        }
    }

    /// With a certificate for these names, and the certificate in PEM form.
    pub(crate) async fn with_tls(names: &[&str]) -> (Self, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = made.signing_key.serialize_der();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.try_into().unwrap())
            .unwrap();
        let mut server = Self::new().await;
        server.tls = Some(TlsAcceptor::from(Arc::new(config)));
        (server, made.cert.pem())
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/image?key=1", self.port)
    }

    pub(crate) async fn accept_socket(&self) -> TcpStream {
        patient("a client", self.listener.accept()).await.unwrap().0
    }

    pub(crate) async fn accept(&self) -> Peer {
        let stream = self.accept_socket().await;
        match &self.tls {
            None => Peer(Box::new(stream)),
            Some(tls) => Peer(Box::new(patient("TLS", tls.accept(stream)).await.unwrap())),
        }
    }

    /// A handshake that the client breaks off.
    pub(crate) async fn accept_tls_failing(&self) {
        let stream = self.accept_socket().await;
        let tls = self.tls.as_ref().expect("a server with TLS");
        assert!(patient("TLS", tls.accept(stream)).await.is_err());
    }

    /// Answers one request on a new connection, and keeps that open.
    pub(crate) async fn answer(&self, answer: &[u8]) -> (Peer, String) {
        let mut peer = self.accept().await;
        let request = peer.request().await;
        peer.send(answer).await;
        (peer, request)
    }
}

impl Peer {
    /// The head of the next request.
    pub(crate) async fn request(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(patient("a request", self.0.read_u8()).await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// The client may be gone by now, which some tests are about.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _gone = self.0.write_all(bytes).await;
        let _gone = self.0.flush().await;
    }

    /// Waits until the client has closed.
    pub(crate) async fn ended(&mut self) {
        let mut rest = Vec::new();
        let _reset = patient("the end", self.0.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"", "the client sent more");
    }
}

/// Plain URLs to this machine, and short waits for tests that are about waits.
pub(crate) fn config() -> HttpConfig {
    HttpConfig {
        allow_networks: "127.0.0.0/8".parse().unwrap(),
        allow_plain: true,
        ..HttpConfig::default()
    }
}

pub(crate) fn client(config: HttpConfig) -> HttpClient {
    HttpClient::new(config).unwrap()
}

pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> HttpConfig {
    let mut config = config();
    change(&mut config.limits);
    config
}

/// 206 with what it says about its body, and the body.
pub(crate) fn partial(range: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Bytes 4 to 7 of ten, which most tests ask for.
pub(crate) async fn fetch(client: &HttpClient, url: &str) -> Result<Answer, FetchError> {
    patient("a range", client.fetch(url, 4, 4)).await
}

pub(crate) fn range(body: &'static [u8]) -> Result<Answer, FetchError> {
    Ok(Answer::Range {
        total: Some(10),
        body: body.into(),
    })
}

pub(crate) const GOOD: &str = "bytes 4-7/10";
