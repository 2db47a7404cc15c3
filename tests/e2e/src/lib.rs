//! What the end-to-end tests share: a cloud in the test's own process, a gateway's directory with configuration and
//! daemon, and images.
//!
//! The daemon is always the built `otad` as a child process: what is judged is the program, not the library. Everything
//! here fails the test that asked for it; nothing here judges an update.
//!
//! ```
//! let image = e2e::image::program("1.1.0", "echo hello", 4096);
//! assert_eq!(image.len(), 4096);
//! assert!(image.starts_with(b"#!/bin/sh\necho hello\n"));
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

mod carriers;
pub mod clock;
pub mod cloud;
pub mod gateway;
pub mod hostile;
pub mod image;
pub mod link;
pub mod mcu;
pub mod signer;

pub use clock::WallClock;
pub use cloud::{Cloud, Ended, Update};
pub use gateway::{Daemon, Gateway};
pub use mcu::Secondary;
pub use signer::Signer;
