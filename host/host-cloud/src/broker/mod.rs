//! The cloud as a client of somebody else's broker.
//!
//! ```text
//!            ┌── link: connect, subscribe, poll ──┐      lane of the thing        Core (service)
//!  broker ──▶│  reserved request topics           │──▶  [ ][ ][ ]  ─────────────▶  handle
//!         ◀──│  replies, blocks                   │◀──────────────────────────────  answer
//!         ◀──│  notifications, acknowledged       │◀──  outbox  ◀─────────────────  Hub
//!            └────────────────────────────────────┘
//! ```
//!
//! A thing is whoever publishes to its topics: the broker has asked for the certificate, and its access list alone keeps
//! one thing from speaking for another (README, "At somebody else's broker"). Replies are published, so devices must
//! subscribe to them. The session is clean: what devices asked while the cloud was away they ask again, and a backlog of
//! stale questions would only delay that.
//!
//! Not here: ordinary topics, which are the broker's own business; sessions; MQTT 5.

mod config;
mod dial;
mod lane;
mod link;
mod outbox;

#[cfg(test)]
mod tests;

pub use config::{BrokerConfig, BrokerUrl, Login};
pub(crate) use link::Link;
pub(crate) use outbox::Outbox;

use serde::{Deserialize, Serialize};

/// Filters of every request of the service, one level exact, so that no reply matches.
pub(crate) const FILTERS: [&str; 6] = [
    "$aws/things/+/jobs/get",
    "$aws/things/+/jobs/start-next",
    "$aws/things/+/jobs/+/get",
    "$aws/things/+/jobs/+/update",
    "$aws/things/+/streams/+/describe/+",
    "$aws/things/+/streams/+/get/+",
];

/// How the connection to a broker stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Where it is.
    pub url: String,
    /// Whether the cloud is connected and subscribed.
    pub connected: bool,
    /// Connections made so far.
    pub connections: u64,
    /// Why the last attempt failed, or the last connection ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Requests that were not looked at: too many at once, or too large.
    pub dropped: u64,
}
