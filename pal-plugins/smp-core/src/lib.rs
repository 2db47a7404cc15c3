//! MCUmgr's Simple Management Protocol, and MCUboot's image files, without their surroundings.
//!
//! Bytes, events and the time come in as values, bytes go out; no clock, port or thread is in here, and `no_std` keeps it
//! so. The parts, each usable alone: framing ([`frame`], [`console`], [`raw`]), packets ([`header`], [`request`],
//! [`reply`], [`code`]), the two ends ([`client`], [`server`]) and images ([`mcuboot`]).
//!
//! A request from packet to line and back:
//!
//! ```
//! use smp_core::frame::{Decoder, Framing};
//! use smp_core::header::{Header, Version};
//! use smp_core::request::Request;
//!
//! let packet = Request::Echo("hi").encode(Version::V2, 0);
//! let wire = Framing::Console.encode(&packet);
//! assert_eq!(wire, b"\x06\tABAKAAAGAAAAAKFhZGJoaeJ8\n");
//!
//! let mut packets = Vec::new();
//! Decoder::new(Framing::Console, 380).push(0, &wire, &mut packets);
//! let header = Header::parse(&packets[0]).expect("eight bytes");
//! let payload = header.payload(&packets[0]).expect("as long as it says");
//! assert_eq!(Request::decode(&header, payload), Ok(Request::Echo("hi")));
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod client;
pub mod code;
pub mod console;
pub mod frame;
pub mod header;
pub mod mcuboot;
pub mod raw;
pub mod reply;
pub mod request;
pub mod server;

mod base64;
mod cbor;
mod crc;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod vectors;

pub use crc::crc16;
