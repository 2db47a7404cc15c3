//! Whom a configuration trusts, read from where it says: the signers of images, and who vouches for servers of images.
//!
//! A reload reads it before it ends anything, and goes back to what was read before: neither depends then on what lies on
//! disk by that time. Not here: which of the signers counts for what (`target.rs`, `code/`), and the files of MQTT
//! connections, which `config/check.rs` looks at and each connection reads when it is made.

use host_crypto::TrustStore;
use host_http::{HttpClient, Proxies};

use super::GatewayError;
use crate::config::Config;

/// See the module.
#[derive(Clone)]
pub(crate) struct Trusted {
    pub(super) store: TrustStore,
    pub(super) http: HttpClient,
}

impl Trusted {
    /// Read it. To be called on a tokio runtime.
    pub(crate) fn read(config: &Config) -> Result<Self, GatewayError> {
        Ok(Self {
            store: trust_store(config)?,
            http: http_client(config)?,
        })
    }
}

/// The operator's trust store; an empty one if none is configured.
fn trust_store(config: &Config) -> Result<TrustStore, GatewayError> {
    match &config.trust.directory {
        None => Ok(TrustStore::default()),
        Some(directory) => TrustStore::load(&directory.value).map_err(GatewayError::Trust),
    }
}

fn http_client(config: &Config) -> Result<HttpClient, GatewayError> {
    let mut http = config.http.config.clone();
    if config.http.uses_proxy {
        http.proxies = Proxies::from_environment(|name| std::env::var(name).ok())?;
    }
    Ok(HttpClient::new(http)?)
}
