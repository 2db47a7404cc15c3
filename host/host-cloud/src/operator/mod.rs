//! What operators do with a cloud: in this process through [`Operator`], from another through a unix socket or, with a
//! token, over TLS from another machine, both with [`OperatorClient`].
//!
//! All speak the same calls: one JSON object a line, versioned. The socket has mode 0600 and asks the kernel who is at the
//! other end; who comes over TLS shows the token first, and cannot name files of the cloud's machine.

mod certificate;
mod client;
#[cfg(test)]
mod fleet_tests;
mod local;
mod remote;
mod server;
mod socket;
#[cfg(test)]
mod tests;
mod watch;
pub mod wire;

pub use client::{OperatorClient, OperatorError};
pub use local::Operator;
pub(crate) use remote::Remote;
pub use remote::{ADDRESS_FILE, KIT_DIR};
pub(crate) use socket::{bind, serve};
pub use watch::Watch;
