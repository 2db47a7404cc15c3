//! A TCP proxy between daemon and cloud: it slows the line down so that there is something to see, and cuts it where a
//! scenario says so. It carries TLS that it cannot read.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    upstream: Option<SocketAddr>,
    /// Where it leads; none = nowhere.
    way: watch::Sender<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

/// Bytes moved at a time; at 2 MiB/s one of these is 8 ms.
const PIECE_BYTES: usize = 16 * 1024;

impl Proxy {
    /// Listen on loopback, lead nowhere yet; at most `bytes_per_s` towards the daemon on each connection.
    pub(super) async fn bind(bytes_per_s: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (way, led) = watch::channel(None);
        let task = tokio::spawn(accept(listener, bytes_per_s, led));
        Ok(Self {
            address,
            upstream: None,
            way,
            task,
        })
    }

    /// Forward to `upstream` from now on.
    pub(super) fn lead_to(&mut self, upstream: SocketAddr) {
        self.upstream = Some(upstream);
        self.set_up(true);
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Cut every connection and refuse new ones, or let them through again.
    pub(super) fn set_up(&self, up: bool) {
        self.way.send_replace(self.upstream.filter(|_| up));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.way.send_replace(None);
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, bytes_per_s: u64, way: watch::Receiver<Option<SocketAddr>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(upstream) = *way.borrow() else {
            // Dropped at once: the peer sees the connection close.
            continue;
        };
        let mut until_down = way.clone();
        tokio::spawn(async move {
            tokio::select! {
                result = carry(client, upstream, bytes_per_s) => {
                    if let Err(e) = result {
                        tracing::debug!("demo proxy: {e}");
                    }
                }
                _ = until_down.wait_for(Option::is_none) => {}
            }
        });
    }
}

async fn carry(client: TcpStream, upstream: SocketAddr, bytes_per_s: u64) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_reader, client_writer) = client.into_split();
    let (server_reader, server_writer) = server.into_split();
    tokio::select! {
        result = copy(client_reader, server_writer, None) => result,
        result = copy(server_reader, client_writer, Some(bytes_per_s)) => result,
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    bytes_per_s: Option<u64>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let n = from.read(&mut piece).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        if let Some(rate) = bytes_per_s {
            let ms = (n as u64 * 1000).div_ceil(rate.max(1));
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        to.write_all(&piece[..n]).await?;
    }
}
