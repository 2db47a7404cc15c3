//! The runtime that hosts an OTA agent and its PAL plugins on a gateway.
//!
//! It knows the WIT contract and nothing else: no MQTT, no AWS topic, no agent state. See `README.md` of this crate
//! for the map; [`supervisor`] has the example.

pub mod agent;
pub mod bandwidth;
pub mod choice;
pub mod device;
pub mod engine;
pub mod events;
pub mod history;
pub mod mailbox;
pub mod plugin;
pub mod ports;
pub mod status;
pub mod supervisor;
pub mod target;
pub mod types;

mod common;
mod desk;
mod frames;
mod journal;
mod names;
mod packed;
#[cfg(test)]
mod testing;
