//! What a program prints, as far as it is kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// After a program has exited, its output is read for so long at most: what it has started in the background may hold
/// the pipe open for ever. What was written before the exit is in the pipe and needs no waiting.
const DRAIN_MS: u64 = 100;

/// What comes out of a pipe: the beginning of standard output, and read on so that the program does not block.
pub(super) struct Tail {
    task: tokio::task::JoinHandle<()>,
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Tail {
    pub(super) fn read(mut pipe: impl AsyncRead + Unpin + Send + 'static, max: usize) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let kept = Arc::clone(&kept);
            async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = max.saturating_sub(kept.len()).min(count);
                    kept.extend_from_slice(&buffer[..room]);
                }
            }
        });
        Self { task, kept }
    }

    /// What came, once the pipe has ended or [`DRAIN_MS`] are over.
    pub(super) async fn end(tail: Option<Self>) -> Vec<u8> {
        let Some(mut tail) = tail else {
            return Vec::new();
        };
        let drained = tokio::time::timeout(Duration::from_millis(DRAIN_MS), &mut tail.task).await;
        if drained.is_err() {
            tail.task.abort();
        }
        std::mem::take(&mut *tail.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
