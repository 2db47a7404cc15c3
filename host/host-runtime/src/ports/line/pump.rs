//! The task of a line: moves bytes until the port goes away or the line is closed.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::tty::Tty;
use super::{CONNECT_TIMEOUT, INPUT_MAX_BYTES, Link, Shared};

/// Bytes of one read or write of the port.
const PIECE_BYTES: usize = 4096;

/// A tty that is open.
pub(super) async fn tty(shared: Arc<Shared>, opening: u64, tty: Arc<Tty>) {
    let port = tty.port();
    let reads = async {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = port.read(&mut piece).await?;
            take_in(&shared, opening, &piece[..count])?;
        }
    };
    let writes = async {
        loop {
            let piece = next_piece(&shared).await;
            port.write_all(&piece).await?;
        }
    };
    let end: io::Result<()> = tokio::select! { end = reads => end, end = writes => end };
    // Others may have it from now on, or what is plugged in again under its name.
    tty.release();
    gone(&shared, opening, end);
}

/// A TCP port, which is connected to first.
pub(super) async fn tcp(shared: Arc<Shared>, opening: u64, address: String) {
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return gone(&shared, opening, Err(e)),
        Err(_) => {
            let text = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
            return gone(&shared, opening, Err(io::Error::other(text)));
        }
    };
    // Frames are small and each waits for its answer. One that cannot be told is only slower.
    stream.set_nodelay(true).ok();
    shared.change(|state| {
        if state.opening == opening {
            state.link = Link::Open(None);
            state.news = true;
        }
    });
    let (mut from, mut to) = stream.into_split();
    let reads = async {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = from.read(&mut piece).await?;
            take_in(&shared, opening, &piece[..count])?;
        }
    };
    let writes = async {
        loop {
            let piece = next_piece(&shared).await;
            to.write_all(&piece).await?;
        }
    };
    let end: io::Result<()> = tokio::select! { end = reads => end, end = writes => end };
    gone(&shared, opening, end);
}

/// Bytes have arrived; none is the end.
fn take_in(shared: &Shared, opening: u64, piece: &[u8]) -> io::Result<()> {
    if piece.is_empty() {
        return Err(io::Error::other("the other side has closed it"));
    }
    shared.change(|state| {
        if state.opening != opening {
            return;
        }
        state.input.extend(piece);
        let excess = state.input.len().saturating_sub(INPUT_MAX_BYTES);
        state.input.drain(..excess);
        state.lost += excess as u64;
    });
    Ok(())
}

/// The next bytes to send.
async fn next_piece(shared: &Shared) -> Vec<u8> {
    loop {
        {
            let mut state = shared.state();
            let count = state.output.len().min(PIECE_BYTES);
            state.moving = count;
            if count > 0 {
                return state.output.drain(..count).collect();
            }
        }
        // A permit is kept if output was queued meanwhile.
        shared.output.notified().await;
    }
}

fn gone(shared: &Shared, opening: u64, end: io::Result<()>) {
    let reason = end.map_or_else(|e| e.to_string(), |()| "it ended".to_owned());
    shared.change(|state| {
        if state.opening == opening {
            state.link = Link::Gone(reason);
            state.output.clear();
            state.news = true;
        }
    });
}
