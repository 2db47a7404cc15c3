//! The next client of a listener. Not here: how many there may be, and what is done with them.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Pause after a client that could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits for a client, and takes leave of those that have ended; `None` = told to stop.
pub(crate) async fn next_client(
    listener: &TcpListener,
    clients: &mut JoinSet<()>,
    stop: &mut watch::Receiver<bool>,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return None,
            Some(_) = clients.join_next() => continue,
        };
        match accepted {
            Ok(client) => return Some(client),
            Err(error) => {
                // Out of file descriptors, or the client is gone already: let others finish first.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
