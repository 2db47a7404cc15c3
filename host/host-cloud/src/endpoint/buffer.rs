//! What a connection reads into, and how it writes out the last of it.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes read at once. What devices send is small.
const READ_BYTES: usize = 16 * 1024;

/// Bytes read and not yet taken.
pub(super) struct Scratch {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; READ_BYTES].into(),
            start: 0,
            end: 0,
        }
    }

    /// What is left of the last read.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Takes that many bytes of the rest.
    pub(super) fn take(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// Reads; only when everything read before was taken.
    pub(super) fn poll_fill<S: AsyncRead>(
        &mut self,
        io: Pin<&mut S>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.bytes);
        match io.poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => {
                (self.start, self.end) = (0, buffer.filled().len());
                Poll::Ready(Ok(self.end))
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
