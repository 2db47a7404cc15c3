//! The cloud's own MQTT 3.1.1 endpoint: what AWS IoT's broker is to devices.
//!
//! Ordinary topics are an ordinary broker's (QoS 0 and 1, wildcards, wills; no retained messages, no stored sessions, no
//! QoS 2, as far as AWS has neither or nobody here needs them). Topics under `$aws/` are requests of the service, whose
//! replies reach the asking client without a subscription.

mod buffer;
mod connection;
mod files;
mod filter;
mod hub;
mod policy;
pub(crate) mod protocol;
mod tls;

#[cfg(test)]
pub(crate) mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

pub(crate) use files::connections;
pub(crate) use hub::Hub;
pub(crate) use tls::server_config;

use crate::{accept::next_client, core::Core, pki};
use connection::{CONNECT_TIME, End};
use policy::Identity;

/// Connections at once, with and without TLS: a fleet of a few thousand things on one machine, and below the usual limit
/// of open files when that is raised for it.
pub(crate) const CONNECTIONS_MAX: usize = 8192;

/// Time that connections have to end when the cloud stops.
const STOP_TIME: Duration = Duration::from_secs(1);

/// Accepts clients until told to stop, then ends them.
pub(crate) async fn listen(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    core: Arc<Core>,
    seats: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
) {
    let mut clients = JoinSet::new();
    while let Some((stream, peer)) = next_client(&listener, &mut clients, &mut stop).await {
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            tracing::debug!(%peer, "too many connections");
            core.hub.count_refused();
            continue;
        };
        let (tls, core) = (tls.clone(), Arc::clone(&core));
        clients.spawn(async move {
            match welcome(stream, tls, core).await {
                End::Disconnected | End::Closed => {}
                end => tracing::info!(%peer, reason = %end, "client ended"),
            }
            drop(seat);
        });
    }
    core.hub.stop();
    let ended = async { while clients.join_next().await.is_some() {} };
    // Who is in the middle of a handshake has no seat to be told at, and is not worth more waiting.
    if timeout(STOP_TIME, ended).await.is_err() {
        clients.shutdown().await;
    }
}

async fn welcome(stream: TcpStream, tls: Option<TlsAcceptor>, core: Arc<Core>) -> End {
    // Answers are written whole; waiting for more of them only costs time.
    if let Err(error) = stream.set_nodelay(true) {
        return error.into();
    }
    let Some(tls) = tls else {
        return connection::serve(stream, Identity::Open, core).await;
    };
    let stream = match timeout(CONNECT_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            core.hub.count_refused();
            return error.into();
        }
        Err(_) => return End::NoConnect,
    };
    let peer = stream.get_ref().1.peer_certificates();
    let Some(certificate) = peer.and_then(<[_]>::first) else {
        // The handshake demands one.
        return End::Closed;
    };
    let fingerprint = pki::fingerprint(certificate);
    let identity = Identity::Certificate {
        things: core.things_of_certificate(&fingerprint),
        fingerprint,
    };
    connection::serve(stream, identity, core).await
}

/// Whether only this machine can reach an address.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
