//! Images by pre-signed URL, as S3 gives them to devices: HTTP/1.1 over TLS, ranges, 403 once a URL has expired.
//!
//! ```text
//! https://<host>/images/<sha256>?Expires=<seconds since 1970>&Signature=<hex>
//! ```
//!
//! Who has such a URL may read that image until then, and nothing else; there are no other ways in and no listing. A URL is
//! made whenever a job document leaves, as AWS does with its placeholder, so a document that is asked for again has a fresh
//! one. Not here: uploads, redirects to other regions (but as a fault), HTTP/2.

mod answer;
mod body;
mod fault;
mod range;
mod sign;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

pub use fault::{HttpFault, HttpFaults, UnknownFault};
pub(crate) use sign::Signer;

use crate::{
    accept::next_client, error::CloudError, images::ImageDir, pki::ServerIdentity,
    stats::RangeCounters,
};

/// Default of [`HttpConfig::valid_s`]: AWS's for pre-signed URLs of job documents.
pub const VALID_S: u32 = 1800;
/// Least and most of it, AWS's too.
pub const VALID_S_RANGE: std::ops::RangeInclusive<u32> = 60..=3600;

/// Time for a TLS handshake, and for the head of a request: longer than a kept connection may rest.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// A connection ends after this long, whatever it does: one client of many can hold none for ever by reading slowly.
const CONNECTION_TIME: Duration = Duration::from_secs(2 * 60 * 60);
/// Head of a request: a URL of ours has some 200 bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where and how images are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address to listen on; port 0 takes any.
    pub address: SocketAddr,
    /// Host name in the URLs; the first of the cloud's names, or the address, if left out.
    pub host: Option<String>,
    /// Port in the URLs, where a proxy or a router stands before the server; that of the address if left out.
    pub port: Option<u16>,
    /// Without TLS, at loopback only: for tests with a proxy that has to see the answers. The URLs begin with http then.
    pub plain: bool,
    /// Seconds for which a URL is valid, 60 to 3600.
    pub valid_s: u32,
}

impl HttpConfig {
    /// At an address, with AWS's validity.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            host: None,
            port: None,
            plain: false,
            valid_s: VALID_S,
        }
    }
}

/// What every connection shares.
pub(crate) struct Site {
    pub(crate) signer: Arc<Signer>,
    pub(crate) images: Arc<ImageDir>,
    pub(crate) faults: HttpFaults,
    pub(crate) ranges: Arc<RangeCounters>,
    /// Milliseconds since the epoch.
    pub(crate) now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// TLS without client certificates: the URL is the key.
pub(crate) fn server_config(server: ServerIdentity) -> Result<Arc<ServerConfig>, CloudError> {
    let failed = |error: &dyn std::fmt::Display| CloudError::pki("TLS of images", error);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_no_client_auth()
        .with_single_cert(server.chain, server.key)
        .map_err(|e| failed(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts clients until told to stop. Half of the connections are theirs at most: whoever has no URL may hold one as well,
/// and must not keep devices from MQTT.
pub(crate) async fn listen(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    site: Arc<Site>,
    seats: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let mut clients = JoinSet::new();
    let own_seats = Arc::new(Semaphore::new((seats.available_permits() / 2).max(1)));
    while let Some((stream, peer)) = next_client(&listener, &mut clients, &mut stop).await {
        let own_seat = Arc::clone(&own_seats).try_acquire_owned();
        let seat = Arc::clone(&seats).try_acquire_owned();
        let (Ok(own_seat), Ok(seat)) = (own_seat, seat) else {
            tracing::debug!(%peer, "too many connections");
            continue;
        };
        let (tls, site) = (tls.clone(), Arc::clone(&site));
        clients.spawn(async move {
            if timeout(CONNECTION_TIME, serve(stream, tls, site))
                .await
                .is_err()
            {
                tracing::debug!(%peer, "a client of images had its time");
            }
            drop((seat, own_seat));
        });
    }
    // A range that is cut off is asked for again.
    clients.shutdown().await;
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, site: Arc<Site>) {
    if site.faults.breaks_tls() || stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = tls else {
        return speak(stream, site).await;
    };
    if let Ok(Ok(stream)) = timeout(HEAD_TIME, tls.accept(stream)).await {
        speak(stream, site).await;
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, site: Arc<Site>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let site = Arc::clone(&site);
        async move { answer::answer(&site, &request) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of images ended");
    }
}
