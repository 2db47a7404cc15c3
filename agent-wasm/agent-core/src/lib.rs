//! The OTA agent without its surroundings: AWS IoT Jobs, job documents, MQTT file streams and the state machine.
//!
//! Bytes, events and the time come in as values, actions go out. There is no clock, socket, thread or random source in
//! here, and `no_std` keeps it so. Five parts, each usable alone: [`jobs`] (names, topics, tokens, statuses, replies),
//! [`document`] (job documents), [`stream`] (file streams and the downloader), [`code`] (numbers and their texts) and
//! the orchestrator on top of them.

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

extern crate alloc;

pub mod agent;
pub mod code;
pub mod document;
pub mod jobs;
pub mod settings;
pub mod stream;
pub mod types;

mod base64;
mod cbor;
mod json;
mod text;
