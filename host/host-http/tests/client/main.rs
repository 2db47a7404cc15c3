//! The client against servers made by hand: the tests say each byte that comes back.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod cloud;
mod devices;
mod hostile;
mod kept;
mod server;
mod way;
