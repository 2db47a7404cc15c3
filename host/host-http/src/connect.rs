//! From a server's name to a connection that takes requests: resolve once, check, connect to what was checked, TLS.
//!
//! Through a proxy the name is resolved there; then only what the URL itself says (an address, a list of hosts) can be
//! checked here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ahead::connect_ahead;
use crate::client::Shared;
use crate::error::FetchError;
use crate::proxy::Proxy;
use crate::tls::NoConfig;
use crate::url::Origin;

/// A connection that takes one request at a time. Dropping it closes it, in the middle of an answer too.
pub(crate) struct Connected {
    pub(crate) sender: SendRequest<Empty<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Connects, and lets others be connected ahead. Whoever calls it sets the deadline.
pub(crate) async fn connect(
    shared: &Arc<Shared>,
    origin: &Origin,
) -> Result<Connected, FetchError> {
    let (stream, round_trip) = open(shared, origin).await?;
    // As early as can be; but something near by may have answered for a server that is far.
    connect_ahead(shared, origin, round_trip);
    let began = Instant::now();
    let connection = speak(shared, origin, stream).await?;
    connect_ahead(shared, origin, began.elapsed());
    Ok(connection)
}

/// Connects. Whoever calls it sets the deadline.
pub(crate) async fn connect_only(
    shared: &Shared,
    origin: &Origin,
) -> Result<Connected, FetchError> {
    let (stream, _) = open(shared, origin).await?;
    speak(shared, origin, stream).await
}

/// The way to the server, and how long it took there and back.
async fn open(shared: &Shared, origin: &Origin) -> Result<(TcpStream, Duration), FetchError> {
    let config = &shared.config;
    if let Some(address) = origin.address() {
        config.check_address(address)?;
    }
    let proxy = if origin.is_tls {
        config.proxies.to(&origin.host)
    } else {
        None
    };
    let (stream, round_trip) = match proxy {
        Some(proxy) => through(proxy, origin).await?,
        None => straight(shared, origin).await?,
    };
    // Requests are small and written whole.
    stream.set_nodelay(true).map_err(|e| FetchError::Connect {
        peer: origin.to_string(),
        why: e.to_string(),
    })?;
    Ok((stream, round_trip))
}

/// TLS, and HTTP.
async fn speak(
    shared: &Shared,
    origin: &Origin,
    stream: TcpStream,
) -> Result<Connected, FetchError> {
    let stream = if origin.is_tls {
        Stream::Tls(Box::new(secure(shared, origin, stream).await?))
    } else {
        Stream::Plain(stream)
    };
    let (sender, connection) = Builder::new()
        .max_buf_size(shared.config.limits.head_max_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| broken(origin, &e))?;
    // What goes wrong on it is told to whoever waits for an answer.
    let driver = tokio::spawn(async move {
        let _told = connection.await;
    })
    .abort_handle();
    Ok(Connected { sender, driver })
}

pub(crate) fn broken(origin: &Origin, error: &hyper::Error) -> FetchError {
    let source = std::error::Error::source(error);
    FetchError::Broken {
        host: origin.to_string(),
        why: source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")),
    }
}

async fn straight(shared: &Shared, origin: &Origin) -> Result<(TcpStream, Duration), FetchError> {
    let addresses = resolve(&origin.host, origin.port).await?;
    let mut refused = None;
    let mut failed = None;
    for address in addresses {
        // Checked here and connected to here: a name that leads elsewhere a moment later leads nobody astray.
        if let Err(error) = shared.config.check_address(address.ip()) {
            refused = Some(error);
            continue;
        }
        let began = Instant::now();
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok((stream, began.elapsed())),
            Err(error) => {
                failed = Some(FetchError::Connect {
                    peer: address.to_string(),
                    why: error.to_string(),
                });
            }
        }
    }
    Err(failed.or(refused).unwrap_or_else(|| FetchError::Resolve {
        host: origin.host.clone(),
        why: "it has no address".to_owned(),
    }))
}

/// Addresses that are tried of one name; the others of a long list are no better.
const ADDRESSES_MAX: usize = 8;

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, FetchError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = tokio::net::lookup_host((host, port)).await;
    found
        .map(|addresses| addresses.take(ADDRESSES_MAX).collect())
        .map_err(|error| FetchError::Resolve {
            host: host.to_owned(),
            why: error.to_string(),
        })
}

async fn secure(
    shared: &Shared,
    origin: &Origin,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, FetchError> {
    let failed = |why: String| FetchError::Tls {
        host: origin.to_string(),
        why,
    };
    let config = shared.tls.config().map_err(|error| match error {
        NoConfig::NoRoots(why) => FetchError::NoRoots { why },
        NoConfig::Broken(why) => failed(why),
    })?;
    let name = ServerName::try_from(origin.host.clone()).map_err(|e| failed(e.to_string()))?;
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|e| failed(e.to_string()))
}

/// Longest head of a proxy's answer to CONNECT.
const PROXY_HEAD_MAX_BYTES: usize = 8 * 1024;

/// A tunnel to the origin (RFC 9110 section 9.3.6). The operator chose the proxy, so its address is not checked.
async fn through(proxy: &Proxy, origin: &Origin) -> Result<(TcpStream, Duration), FetchError> {
    let failed = |why: String| FetchError::Proxy {
        proxy: format!("{proxy:?}"),
        why,
    };
    if is_local_name(&origin.host) {
        // The proxy would take its own machine for ours.
        return Err(failed(format!("is not asked for {}", origin.host)));
    }
    let mut stream = TcpStream::connect((proxy.host.as_str(), proxy.port))
        .await
        .map_err(|e| failed(format!("cannot be connected to: {e}")))?;
    let authority = origin.authority(true);
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let io = |e: io::Error| failed(format!("broke the connection: {e}"));
    // The proxy answers once it has been connected to there.
    let began = Instant::now();
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head is the server's. It is one short answer for each connection.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= PROXY_HEAD_MAX_BYTES {
            return Err(failed("answers with too long a head".to_owned()));
        }
        head.push(stream.read_u8().await.map_err(io)?);
    }
    match proxy_status(&head) {
        Some(200..=299) => Ok((stream, began.elapsed())),
        Some(status) => Err(failed(format!("answers {status} for {authority}"))),
        None => Err(failed("does not answer in HTTP".to_owned())),
    }
}

fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host == "localhost" || host.ends_with(".localhost")
}

fn proxy_status(head: &[u8]) -> Option<u16> {
    let line = head.split(|b| *b == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("HTTP/1.")?;
    let mut words = rest.split(' ');
    words.next().filter(|minor| matches!(*minor, "0" | "1"))?;
    words.next().filter(|s| s.len() == 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_proxy_is_a_status_or_nothing() {
        let rows: &[(&[u8], Option<u16>)] = &[
            (b"HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            (b"HTTP/1.0 407 \r\n", Some(407)),
            (b"HTTP/1.1 200\r\n\r\n", Some(200)),
            (b"HTTP/2 200 \r\n", None),
            (b"HTTP/1.1 20 \r\n", None),
            (b"HTTP/1.1 +20 \r\n", Some(20)),
            (b"SSH-2.0-x\r\n", None),
            (b"\xff\xff", None),
            (b"", None),
        ];
        for (head, expected) in rows {
            assert_eq!(proxy_status(head), *expected, "{head:?}");
        }
    }

    #[test]
    fn a_proxy_is_never_asked_for_its_own_machine() {
        for (host, local) in [
            ("localhost", true),
            ("localhost.", true),
            ("x.localhost", true),
            ("localhost.example", false),
        ] {
            assert_eq!(is_local_name(host), local, "{host}");
        }
    }
}
