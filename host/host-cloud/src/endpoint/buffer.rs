//! What a connection reads into, and how it writes out the last of it.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once. What devices send is small.
const READ_BYTES: usize = 16 * 1024;

/// Bytes read and not yet taken. Holds nothing while a client is silent: most of a thousand connections are.
#[derive(Default)]
pub(super) struct Scratch {
    bytes: Vec<u8>,
    start: usize,
}

impl Scratch {
    /// What is left of the last read.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Takes that many bytes of the rest.
    pub(super) fn take(&mut self, count: usize) {
        self.start += count;
        if self.start >= self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Reads; only when everything read before was taken.
    pub(super) fn poll_fill<S: AsyncRead>(
        &mut self,
        io: Pin<&mut S>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // On the stack: waiting for a client takes no memory of its own.
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut space);
        match io.poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                self.bytes = buffer.filled().to_vec();
                self.start = 0;
                Poll::Ready(Ok(self.bytes.len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Writes and flushes everything.
pub(super) async fn write_all<S>(io: &mut S, out: &mut BytesMut) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    while !out.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, out)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        out.advance(written);
    }
    poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await
}
