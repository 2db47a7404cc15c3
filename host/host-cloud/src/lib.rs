//! AWS in a box: the AWS IoT services that an over-the-air update needs, without an account and without AWS.
//!
//! [`service`] is Jobs and MQTT file streams as a sans-I/O value, fit for a simulation. [`Cloud`] puts it on a network: an
//! MQTT 3.1.1 endpoint with TLS and client certificates, a durable store, certificates of its own, and a socket for
//! operators. [`fault`] makes it misbehave on purpose.
//!
//! ```
//! # use host_cloud::{Cloud, CloudConfig, operator::wire::{CreateUpdate, FileSpec, ImageInput}, service::ThingName};
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let dir = tempfile::tempdir()?;
//! let cloud = Cloud::start(CloudConfig::new(dir.path())).await?;
//! let gateway: ThingName = "gateway-1".parse()?;
//! let credentials = cloud.thing_create(&gateway).await?;
//! assert!(credentials.private_key_path.exists());
//!
//! let image = FileSpec {
//!     file_id: 0,
//!     image: ImageInput::Bytes(b"firmware"[..].into()),
//!     sha256: None,
//!     file_type: None,
//!     file_path: "/fw.bin".into(),
//!     cert_file: "/signer.pem".into(),
//!     signature: None,
//! };
//! let update = CreateUpdate::new(vec![gateway], vec![image]);
//! let created = cloud.operator().create_update(update).await?;
//! assert_eq!(cloud.operator().show(&created.job_id)?.executions.len(), 1);
//! cloud.shutdown().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod accept;
mod broker;
mod clock;
mod cloud;
mod core;
mod endpoint;
mod error;
pub mod fault;
mod file;
pub mod http;
pub mod id;
mod images;
pub mod limits;
pub mod operator;
mod pki;
pub mod service;
mod stats;
mod store;

pub use broker::{BrokerConfig, BrokerStatus, BrokerUrl, Login};
pub use cloud::{Cloud, CloudConfig, CloudHandle};
pub use error::CloudError;
pub use images::ImagePin;
pub use limits::Limits;
pub use pki::{Credentials, Pki, fingerprint};
pub use stats::{CloudStats, ThingStats, ThingTraffic};
