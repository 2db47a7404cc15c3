//! Reading ahead: more bytes a system call than the MQTT client asks for, while there are more.
//!
//! The client reads into what is left of a buffer of 8 KiB: a call for each block or two, and a turn of the device for each
//! call. A stream that fills such a buffer has more to say, and is read with a large one; one that says little costs no
//! memory, which matters to a gateway with a thousand connections.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at once from a stream that has so many: half a window of the protocol, with its envelopes.
const AHEAD_BYTES: usize = 64 * 1024;

/// A stream that is read ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    stream: S,
    /// What was read ahead is at its front; none where the stream had no more than was asked for.
    buffer: Option<Box<[u8]>>,
    /// What of the buffer is still to be given away.
    begin: usize,
    end: usize,
}

impl<S> ReadAhead<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: None,
            begin: 0,
            end: 0,
        }
    }

    /// The stream itself.
    #[cfg(test)]
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let stream = Pin::new(&mut this.stream);
        let Some(buffer) = &mut this.buffer else {
            let before = into.filled().len();
            let polled = stream.poll_read(cx, into);
            if into.remaining() == 0 && into.filled().len() > before {
                this.buffer = Some(vec![0; AHEAD_BYTES].into_boxed_slice());
            }
            return polled;
        };
        if this.begin == this.end {
            let mut ahead = ReadBuf::new(buffer);
            let polled = stream.poll_read(cx, &mut ahead);
            (this.begin, this.end) = (0, ahead.filled().len());
            if this.end == 0 {
                this.buffer = None;
                return polled;
            }
        }
        let length = (this.end - this.begin).min(into.remaining());
        into.put_slice(&buffer[this.begin..this.begin + length]);
        this.begin += length;
        if this.begin == this.end && this.end < AHEAD_BYTES {
            this.buffer = None;
            (this.begin, this.end) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What the MQTT client asks for.
    const ASKED_BYTES: usize = 8 * 1024;

    /// A stream of so many bytes that gives as many as it is asked for, waits once when it has given `pause_at`, and counts.
    struct Source {
        given: usize,
        bytes: usize,
        pause_at: Option<usize>,
        calls: Arc<AtomicUsize>,
    }

    fn byte(at: usize) -> u8 {
        (at % 251) as u8
    }

    impl AsyncRead for Source {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let stop = match self.pause_at {
                Some(at) if at == self.given => {
                    self.pause_at = None;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(at) => at,
                None => self.bytes,
            };
            while self.given < stop && into.remaining() > 0 {
                into.put_slice(&[byte(self.given)]);
                self.given += 1;
            }
            Poll::Ready(Ok(()))
        }
    }

    async fn read_all(bytes: usize, pause_at: Option<usize>) -> usize {
        let calls = Arc::new(AtomicUsize::new(0));
        let mut stream = ReadAhead::new(Source {
            given: 0,
            bytes,
            pause_at,
            calls: Arc::clone(&calls),
        });
        let mut at = 0;
        let mut asked = vec![0; ASKED_BYTES];
        loop {
            let n = stream.read(&mut asked).await.unwrap();
            if n == 0 {
                break;
            }
            for got in &asked[..n] {
                assert_eq!(*got, byte(at), "byte {at} of {bytes}");
                at += 1;
            }
        }
        assert_eq!(at, bytes);
        assert!(
            stream.buffer.is_none(),
            "memory for a stream that is silent"
        );
        calls.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order() {
        let edge = ASKED_BYTES + AHEAD_BYTES;
        for bytes in [
            0,
            1,
            ASKED_BYTES - 1,
            ASKED_BYTES,
            ASKED_BYTES + 1,
            edge - 1,
            edge,
            edge + 1,
        ] {
            read_all(bytes, None).await;
            read_all(bytes + 5, Some(bytes)).await;
        }
    }

    #[tokio::test]
    async fn a_stream_with_much_to_say_is_read_with_few_calls() {
        let bytes = ASKED_BYTES + 10 * AHEAD_BYTES;
        // The first one, ten large ones, and the end.
        assert_eq!(read_all(bytes, None).await, 12);
    }

    #[tokio::test]
    async fn small_answers_are_read_without_a_buffer() {
        let (client, mut peer) = duplex(1024);
        let mut stream = ReadAhead::new(client);
        for _ in 0..3 {
            peer.write_all(b"answer").await.unwrap();
            let mut asked = vec![0; ASKED_BYTES];
            assert_eq!(stream.read(&mut asked).await.unwrap(), 6);
            assert!(stream.buffer.is_none());
            stream.write_all(b"question").await.unwrap();
            let mut heard = [0; 8];
            peer.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"question");
        }
    }
}
