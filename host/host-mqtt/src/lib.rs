//! MQTT for devices: the runtime's `Transport` over rumqttc.
//!
//! Either otad owns the connection ([`Connection`]: TLS, back-off, reconnect), or an application does and lets its
//! devices share it ([`SharedConnection`]). Both route messages by thing name, match acknowledgements to the tokens of
//! the calls, and end every call exactly once. A slow device never stops the event loop: its mailbox is bounded and
//! drops what it may.
//!
//! Not here: what a topic means (but that of replies which AWS IoT sends unasked), sessions that outlive a connection
//! (they are clean: devices subscribe again), HTTP.
//!
//! ```
//! use host_mqtt::{BackOff, BackOffLimits};
//!
//! let limits = BackOffLimits { base_ms: 500, cap_ms: 5000 };
//! let mut back_off = BackOff::new(limits, 7);
//! let bases: Vec<u64> = (0..5).map(|_| back_off.next_delay().base_ms).collect();
//! assert_eq!(bases, [500, 1000, 2000, 4000, 5000]);
//! ```

mod ahead;
mod back_off;
mod config;
mod connection;
mod core;
mod error;
mod login;
mod notice;
mod reason;
mod shared;
mod socket;
mod take_over;
mod tls;
mod transport;
mod turnstile;

pub use back_off::{BackOff, BackOffLimits, Delay};
pub use config::{
    Alpn, CLIENT_ID_MAX_BYTES, ConnectionConfig, Endpoint, Limits, ReplySubscriptions, Security,
    TlsFiles,
};
pub use connection::{Connection, ConnectionState, ConnectionStatus};
pub use error::MqttError;
pub use login::Login;
pub use notice::{Brings, Notice};
pub use reason::{Lost, Reason};
/// The MQTT client, in the version whose types [`SharedConnection`] takes.
pub use rumqttc;
pub use shared::SharedConnection;
pub use transport::MqttTransport;
pub use turnstile::Turnstile;
