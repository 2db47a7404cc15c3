//! A simulated MCU: an SMP server as real ones behave, MCUboot's swap, test and revert, and flash in a file.
//!
//! [`Mcu`] is a value in virtual time: bytes and `now` come in, bytes and a deadline go out. [`Simulation`] puts one on a
//! pseudo terminal or a TCP port in real time. What goes wrong on purpose is in [`fault`]; which server it imitates is a
//! [`Profile`].
//!
//! ```
//! use host_mcu_sim::{Config, Geometry, Mcu, sample};
//!
//! let mut config = Config::new(Geometry::new(4096, 128 << 10, 1)?);
//! config.factory.primary = vec![sample::image("1.0.0", 20_000)];
//! let mut mcu = Mcu::new(config)?;
//! mcu.advance(1_000_000_000);
//! // An echo with the text "hi", as PyPI's smp writes it.
//! mcu.receive(1_000_000_000, b"\x06\tABAKAAAGAAAAAKFhZGJoaeJ8\n");
//! let mut answer = Vec::new();
//! mcu.transmit(1_000_000_000, &mut answer);
//! assert!(answer.ends_with(b"\n"));
//! assert_eq!(mcu.view().active_version(), Some("1.0.0"));
//! # Ok::<(), host_mcu_sim::Error>(())
//! ```

mod boot;
mod config;
mod error;
pub mod fault;
mod flash;
mod image;
mod mcu;
mod profile;
mod random;
mod run;
pub mod sample;
mod server;
pub mod talk;

pub use boot::{BootAction, BootMode};
pub use config::{Behaviour, Config, Factory, MS, Timing};
pub use error::Error;
pub use flash::{
    CutPoint, FLASH_BYTES_MAX, FlashStats, FlashTiming, Geometry, IMAGES_MAX, Slot,
    WRITE_UNIT_BYTES,
};
pub use image::Key;
pub use mcu::{Mcu, ReceiveStats, SlotView, State, Stats, View};
pub use profile::{ErrorShape, Profile};
pub use run::{Port, Simulation};
pub use smp_core::frame::Framing;
