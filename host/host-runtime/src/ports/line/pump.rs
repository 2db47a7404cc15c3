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
            let piece = next_piece(&shared, opening).await;
            port.write_all(&piece).await?;
        }
    };
    let end: io::Result<()> = tokio::select! { end = reads => end, end = writes => end };
    // Others may have it from then on, or what is plugged in again under its name.
    gone(&shared, opening, end, || tty.release());
}

/// A TCP port, which is connected to first.
pub(super) async fn tcp(shared: Arc<Shared>, opening: u64, address: String) {
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return gone(&shared, opening, Err(e), || ()),
        Err(_) => {
            let text = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs());
            return gone(&shared, opening, Err(io::Error::other(text)), || ());
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
            let piece = next_piece(&shared, opening).await;
            to.write_all(&piece).await?;
        }
    };
    let end: io::Result<()> = tokio::select! { end = reads => end, end = writes => end };
    gone(&shared, opening, end, || ());
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

/// The next bytes to send. A task whose opening is over gets none of a later one's: it is ended only where it waits next.
async fn next_piece(shared: &Shared, opening: u64) -> Vec<u8> {
    loop {
        {
            let mut state = shared.state();
            if state.opening != opening {
                break;
            }
            let count = state.output.len().min(PIECE_BYTES);
            state.moving = count;
            if count > 0 {
                return state.output.drain(..count).collect();
            }
        }
        // A permit is kept if output was queued meanwhile.
        shared.output.notified().await;
    }
    // The permit that woke this one was meant for the task of the later opening.
    shared.output.notify_one();
    std::future::pending().await
}

/// The port of this opening is gone. If the line was opened again meanwhile, `release` would take it from that opening.
fn gone(shared: &Shared, opening: u64, end: io::Result<()>, release: impl FnOnce()) {
    let reason = end.map_or_else(|e| e.to_string(), |()| "it ended".to_owned());
    shared.change(|state| {
        if state.opening == opening {
            release();
            state.link = Link::Gone(reason);
            state.output.clear();
            state.news = true;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_task_of_an_earlier_opening_takes_nothing_and_gives_nothing_back() {
        let shared = Shared::default();
        shared.change(|state| {
            state.opening = 2;
            state.link = Link::Open(None);
            state.output.extend(b"question");
        });
        let mut context = Context::from_waker(Waker::noop());
        let mut earlier = Box::pin(next_piece(&shared, 1));
        assert_eq!(earlier.as_mut().poll(&mut context), Poll::Pending);
        take_in(&shared, 1, b"late").unwrap();
        gone(&shared, 1, Ok(()), || panic!("it is not its own any more"));
        let mut own = Box::pin(next_piece(&shared, 2));
        assert_eq!(
            own.as_mut().poll(&mut context),
            Poll::Ready(b"question".to_vec())
        );
        let state = shared.state();
        assert!(state.input.is_empty());
        assert!(matches!(state.link, Link::Open(None)));
    }
}
