//! The body of an answer: a text, or a part of an image that is read piece by piece as the client takes it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{images::ImageDir, images::ImagePin, service::ImageSource, stats::RangeCounters};

/// Read at once: what a connection holds in memory.
const PIECE_BYTES: u64 = 64 * 1024;

/// Pause between two bytes of a body that is slow on purpose.
const SLOW_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) enum ImageBody {
    /// A text.
    Text(Option<Bytes>),
    /// A part of an image.
    Part(Part),
}

/// From where to where.
pub(super) struct Part {
    pub(super) images: Arc<ImageDir>,
    /// Nobody removes it meanwhile.
    pub(super) pin: ImagePin,
    pub(super) counters: Arc<RangeCounters>,
    pub(super) next: u64,
    pub(super) end: u64,
    /// What the head promises beyond `end`, on purpose.
    pub(super) missing: u64,
    /// Byte by byte, on purpose.
    pub(super) slow: Option<Pin<Box<Sleep>>>,
    /// Before it breaks off, on purpose.
    pub(super) breaks: Option<Pin<Box<Sleep>>>,
}

impl Part {
    /// Makes it slow.
    pub(super) fn slowly(mut self) -> Self {
        self.slow = Some(Box::pin(sleep(SLOW_PAUSE)));
        self
    }

    fn read(&mut self, most: u64) -> io::Result<Bytes> {
        let count = most.min(self.end - self.next);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
        self.images
            .read_at(self.pin.image(), self.next, &mut bytes)
            .map_err(io::Error::other)?;
        self.next += count;
        self.counters.bytes(count);
        Ok(bytes.into())
    }
}

impl Body for ImageBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let part = match &mut *self {
            Self::Text(text) => return Poll::Ready(text.take().map(|t| Ok(Frame::data(t)))),
            Self::Part(part) => part,
        };
        let most = match &mut part.slow {
            None => PIECE_BYTES,
            Some(pause) => {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                *pause = Box::pin(sleep(SLOW_PAUSE));
                1
            }
        };
        if part.next >= part.end {
            if part.missing == 0 {
                return Poll::Ready(None);
            }
            // A body that ends before its length breaks the connection, which is what the fault is for; what there is of
            // it is sent first, since nothing is buffered while a body is waited for.
            let pause = part
                .breaks
                .get_or_insert_with(|| Box::pin(sleep(SLOW_PAUSE)));
            return pause
                .as_mut()
                .poll(cx)
                .map(|()| Some(Err(io::Error::other("short on purpose"))));
        }
        Poll::Ready(Some(part.read(most).map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Part(part) => part.next >= part.end && part.missing == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Text(text) => text.as_ref().map_or(0, |t| t.len() as u64),
            Self::Part(part) => part.end - part.next + part.missing,
        })
    }
}
