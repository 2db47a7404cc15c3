//! HTTP(S) ranges for devices: the part of the runtime's `Transport` that fetches images by URL.
//!
//! A URL comes from a job document and is nobody's friend: scheme, host, resolved address, redirects, status, range and
//! length are all checked, every wait has a deadline, and no more than the bytes asked for are kept. Connections are kept
//! and shared by the devices of the process; several ranges are under way at once, one on each connection.
//!
//! Not here: which protocol a job uses, what to do with a status (the agent asks for the job document again), MQTT, and
//! uploads of any kind.
//!
//! ```
//! use host_http::{HttpConfig, Networks};
//!
//! let config = HttpConfig {
//!     allow_networks: "10.1.0.0/16".parse::<Networks>()?,
//!     ..HttpConfig::default()
//! };
//! assert!(config.check_address("10.1.2.3".parse()?).is_ok());
//! assert!(config.check_address("10.2.2.3".parse()?).is_err());
//! assert!(config.check_address("::ffff:127.0.0.1".parse()?).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod ahead;
mod client;
mod config;
mod connect;
mod error;
mod fetch;
mod pool;
mod proxy;
mod range;
mod tls;
mod transport;
mod url;

pub use address::{AddressKind, Networks, NetworksError};
pub use client::HttpClient;
pub use config::{HttpConfig, Limits, Roots};
pub use error::{FetchError, HttpError, Wait};
pub use fetch::Answer;
pub use proxy::{Proxies, ProxyError};
pub use transport::HttpTransport;
