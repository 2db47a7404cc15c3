//! Everything that an application needs to give its device updates: a gateway, its own connection, commands and events.
//!
//! `examples/shared_connection.rs` is such an application. The connection is made with the `rumqttc` that is re-exported
//! here. Not here: anything of its own; the rooms behind it document what they give.
//!
//! ```no_run
//! use otad::application::{DeviceHandle, Gateway, SharedConnection};
//!
//! fn updates(client: rumqttc::AsyncClient) -> Result<DeviceHandle, Box<dyn std::error::Error>> {
//!     let gateway = Gateway::open(otad::config::load("otad.toml".as_ref())?)?;
//!     let connection = SharedConnection::new(client)?;
//!     Ok(gateway.share("pump-1", &connection)?)
//! }
//! ```

pub use host_mqtt::{SharedConnection, rumqttc};
pub use host_runtime::agent::{ApplicationEvent, Command};
pub use host_runtime::events::StoredEvent;
pub use host_runtime::status::{DeviceStatus, event, event_name};
pub use host_runtime::supervisor::DeviceHandle;
pub use host_runtime::types::{Failure, FileId};

pub use crate::exit::chain;
pub use crate::gateway::{ConnectedDevice, Gateway, GatewayError};
