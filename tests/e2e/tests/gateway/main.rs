//! The daemon as an operator has it: `otad run` as a process, with its files, commands and sockets, at a cloud in a box.
//!
//! One program for all of them, so that it is linked once; each module is one subject.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod agents;
mod builds;
mod cli;
mod console;
mod damage;
mod failures;
mod fleet;
mod hooks;
mod hostile;
mod interop;
mod kills;
mod link;
mod mosquitto;
mod names;
mod parked;
mod parts;
mod password;
mod planes;
mod quick_start;
mod shared;
mod sizes;
mod slow;
mod swap;
mod things;
mod troubles;
mod trust;
mod witness;
