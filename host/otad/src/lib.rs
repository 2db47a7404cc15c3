//! otad: the over-the-air update runtime for gateways, as a library for its one binary, its demo and applications that
//! link it.
//!
//! The rooms behind it know nothing of each other: `host-runtime` runs agents and plugins, `host-mqtt` connects them,
//! `host-cloud` is the service in a box, `host-crypto` judges signatures. Here they are wired together from one
//! configuration file ([`config`], [`gateway`]), started, watched and commanded ([`control`], [`cli`]), and shown
//! ([`demo`]). An application finds what it needs in [`application`]. Not here: any decision about a job; those are the
//! agent's.

pub mod application;
pub mod aws;
pub mod cli;
pub mod code;
pub mod config;
pub mod console;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod exit;
pub mod explain;
pub mod gateway;
pub mod hooks;
pub mod image;
pub mod launch;
pub mod lock;
pub mod mcu;
pub mod past;
pub mod progress;
mod restart_script;
pub mod target_init;
