//! What the runtime needs from the world, one file a port.
//!
//! Each port is a trait with the real implementation beside it where it needs only files or processes; network adapters
//! (`host-mqtt`, `host-http`) and the sandbox implement them from outside. No port waits: what takes time is handed a
//! [`Reply`](workers::Reply) or a token, and its end comes back through the device's [`Mailbox`](crate::mailbox).
//! Faults are wrappers round a port, never an `if` inside one.

pub mod clock;
pub mod commands;
pub mod line;
pub mod reset;
pub mod seed;
pub mod state_dir;
pub mod storage;
pub mod transport;
pub mod workers;
