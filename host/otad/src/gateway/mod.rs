//! The host library: from a configuration to running devices.
//!
//! ```text
//! Config -> Gateway (engine, agent build, plugins, trust store, state directory) -> one device after the other
//! ```
//!
//! An application that owns its MQTT connection takes [`Gateway::prepare`] and brings its own transport; `otad run` lets
//! [`connect`] do it. Not here: the daemon's process life (`daemon.rs`).

mod target;
