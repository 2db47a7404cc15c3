//! What operators do with a cloud: in this process through [`Operator`], from another through a unix socket with
//! [`OperatorClient`].
//!
//! Both speak the same calls. The socket carries one JSON object a line, versioned; it has mode 0600 and asks the kernel
//! who is at the other end. Access from other machines is not built.

mod client;
#[cfg(test)]
mod fleet_tests;
mod local;
mod server;
#[cfg(test)]
mod tests;
mod watch;
pub mod wire;

pub use client::{OperatorClient, OperatorError};
pub use local::Operator;
pub(crate) use server::{bind, serve};
pub use watch::Watch;
