//! The client that the devices of a process share.

use std::fmt;
use std::sync::Arc;

use host_runtime::mailbox::Mailbox;
use host_runtime::ports::transport::Transport;
use tokio::runtime::Handle;

use crate::config::HttpConfig;
use crate::error::{FetchError, HttpError};
use crate::fetch::{self, Answer};
use crate::pool::Pool;
use crate::range::Range;
use crate::tls::Tls;
use crate::transport::HttpTransport;

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: HttpConfig,
    pub(crate) tls: Tls,
    pub(crate) pool: Arc<Pool>,
    pub(crate) runtime: Handle,
}

/// Fetches ranges for the devices of a process. Clones are the same client.
#[derive(Clone)]
pub struct HttpClient {
    shared: Arc<Shared>,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl HttpClient {
    /// Checks the configuration and reads root certificates that are files. To be called on a tokio runtime.
    ///
    /// # Errors
    /// [`HttpError`]: the operator's to mend.
    pub fn new(config: HttpConfig) -> Result<Self, HttpError> {
        config.check()?;
        let runtime = Handle::try_current().map_err(|_| HttpError::NoRuntime)?;
        let tls = Tls::new(&config.roots)?;
        let pool = Arc::new(Pool::new(&config.limits));
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                tls,
                pool,
                runtime,
            }),
        })
    }

    /// Adds fetching by URL to a device's transport: `http_get` comes here, everything else goes on to `inner`.
    pub fn join<T: Transport>(&self, inner: T, mailbox: Mailbox) -> HttpTransport<T> {
        HttpTransport::new(inner, Arc::clone(&self.shared), mailbox)
    }

    /// Fetches `length` bytes (at least 1) at `offset`. Dropping the future gives it up, with its connection.
    ///
    /// # Errors
    /// [`FetchError`]; a status other than 206 is an [`Answer`].
    pub async fn fetch(&self, url: &str, offset: u64, length: u32) -> Result<Answer, FetchError> {
        fetch::fetch(&self.shared, url, Range { offset, length }).await
    }
}
