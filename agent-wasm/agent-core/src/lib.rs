//! The OTA agent without its surroundings: AWS IoT Jobs, job documents, MQTT file streams and the state machine.
//!
//! Bytes, events and the time come in as values, actions go out. There is no clock, socket, thread or random source in
//! here, and `no_std` keeps it so. Five parts, each usable alone: [`jobs`] (names, topics, tokens, statuses, replies),
//! [`document`] (job documents), [`stream`] (file streams and the downloader), [`code`] (numbers and their texts) and
//! the orchestrator on top of them.
//!
//! The leaves by themselves, from a job document to the first request for blocks:
//!
//! ```
//! use agent_core::document::parse_job;
//! use agent_core::jobs::Encoding;
//! use agent_core::stream::{BlockGrid, DownloadConfig, Downloader, Plane, Step};
//!
//! let job = parse_job(
//!     r#"{"afr_ota":{"protocols":["MQTT"],"streamname":"s1",
//!         "files":[{"filepath":"fw","filesize":2500,"fileid":0}]}}"#,
//! )?;
//! let mut downloader = Downloader::new(DownloadConfig {
//!     plane: Plane::Stream(Encoding::Cbor),
//!     file_id: job.files[0].file_id,
//!     grid: BlockGrid::new(job.files[0].size, 1024)?,
//!     blocks_per_request: 8,
//!     requests_in_flight: 1,
//!     request_timeout_ms: 10_000,
//!     momentum_max: 32,
//!     status_frequency: 64,
//! }, None)?;
//! assert!(matches!(downloader.poll(0), Step::Request(_)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

extern crate alloc;

#[macro_use]
pub mod mutant;

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
