//! One device's [`Transport`] with URLs: what it asks for by URL is fetched here, the rest is another adapter's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use host_runtime::mailbox::{Input, Mailbox};
use host_runtime::ports::transport::Transport;
use host_runtime::types::{Failure, Outcome, Qos, Token, code};
use tokio::task::AbortHandle;

use crate::client::Shared;
use crate::error::FetchError;
use crate::fetch::{self, Answer};
use crate::range::Range;

/// Ranges under way. Whoever takes an entry out tells its end, so that there is one end for each.
type Open = Arc<Mutex<BTreeMap<Token, Option<AbortHandle>>>>;

/// See [`HttpClient::join`](crate::HttpClient::join). Dropping it gives up what is under way.
pub struct HttpTransport<T> {
    inner: T,
    shared: Arc<Shared>,
    mailbox: Mailbox,
    open: Open,
}

impl<T> fmt::Debug for HttpTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport")
            .field("under_way", &lock(&self.open).len())
            .finish_non_exhaustive()
    }
}

impl<T> HttpTransport<T> {
    pub(crate) fn new(inner: T, shared: Arc<Shared>, mailbox: Mailbox) -> Self {
        Self {
            inner,
            shared,
            mailbox,
            open: Open::default(),
        }
    }
}

impl<T> Drop for HttpTransport<T> {
    fn drop(&mut self) {
        for task in std::mem::take(&mut *lock(&self.open))
            .into_values()
            .flatten()
        {
            task.abort();
        }
    }
}

impl<T: Transport> Transport for HttpTransport<T> {
    fn subscribe(&mut self, token: Token, filter: &str, qos: Qos) {
        self.inner.subscribe(token, filter, qos);
    }

    fn unsubscribe(&mut self, token: Token, filter: &str) {
        self.inner.unsubscribe(token, filter);
    }

    fn publish(&mut self, token: Token, topic: &str, payload: Vec<u8>, qos: Qos) {
        self.inner.publish(token, topic, payload, qos);
    }

    fn http_get(&mut self, token: Token, url: &str, offset: u64, length: u32) {
        let max = self.shared.config.limits.ranges_per_device_max;
        if lock(&self.open).len() >= max {
            let failure = FetchError::TooMany(max).failure();
            self.mailbox.send(failed(token, failure));
            return;
        }
        // The entry is there before the task, which may end before `spawn` returns.
        lock(&self.open).insert(token, None);
        let (shared, open) = (Arc::clone(&self.shared), Arc::clone(&self.open));
        let (mailbox, url) = (self.mailbox.clone(), url.to_owned());
        let task = self.shared.runtime.spawn(async move {
            let result = fetch::fetch(&shared, &url, Range { offset, length }).await;
            if let Err(error) = &result {
                tracing::debug!(token, offset, length, "no range: {error}");
            }
            if lock(&open).remove(&token).is_some() {
                mailbox.send(end(token, result));
            }
        });
        if let Some(entry) = lock(&self.open).get_mut(&token) {
            *entry = Some(task.abort_handle());
        }
    }

    fn cancel(&mut self, token: Token) {
        let Some(task) = lock(&self.open).remove(&token) else {
            return self.inner.cancel(token);
        };
        if let Some(task) = task {
            task.abort();
        }
        let failure = Failure::new(code::CANCELLED, 0, "cancelled");
        self.mailbox.send(failed(token, failure));
    }
}

fn lock(open: &Open) -> MutexGuard<'_, BTreeMap<Token, Option<AbortHandle>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(token: Token, failure: Failure) -> Input {
    let outcome = Outcome::Failed(failure);
    Input::Done { token, outcome }
}

/// A status is an answer, whatever it is; only what is no answer is a failure.
fn end(token: Token, result: Result<Answer, FetchError>) -> Input {
    match result {
        Ok(Answer::Range { total, body }) => Input::HttpResponse {
            token,
            status: 206,
            total,
            body,
        },
        Ok(Answer::Status(status)) => Input::HttpResponse {
            token,
            status,
            total: None,
            body: Bytes::new(),
        },
        Err(error) => failed(token, error.failure()),
    }
}
