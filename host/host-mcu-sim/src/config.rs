//! Everything that makes one simulated MCU: flash, bootloader, servers, timing, images and faults. Values only.

use std::path::PathBuf;

use smp_core::frame::Framing;

use crate::boot::BootMode;
use crate::fault::{Chance, Rule};
use crate::flash::{FlashTiming, Geometry};
use crate::image::Key;
use crate::profile::Profile;

/// Nanoseconds of a millisecond.
pub const MS: u64 = 1_000_000;

/// What a byte costs on a line of 8N1: start bit, eight bits, stop bit.
const BITS_PER_BYTE: u64 = 10;

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Bits per second of the line; none is a line without a rate (USB, a network).
    pub baud: Option<u32>,
    /// From a request's last byte to its answer's first one, without flash, in nanoseconds.
    pub turnaround_ns: u64,
    /// From a line's end until its buffer is free again, in nanoseconds.
    pub line_drain_ns: u64,
    /// Whether the line is read while the flash erases and writes.
    pub receives_while_flashing: bool,
    /// From the answer to a reset until the reset, in nanoseconds.
    pub reset_ns: u64,
    /// From a start to the application's server, without swap, in nanoseconds.
    pub boot_ns: u64,
    /// How long the power is away in a cut, in nanoseconds.
    pub power_off_ns: u64,
    /// The flash.
    pub flash: FlashTiming,
}

impl Timing {
    /// Nothing takes time but what the protocol itself says: for tests of behaviour.
    #[must_use]
    pub const fn instant() -> Self {
        Self {
            baud: None,
            turnaround_ns: 0,
            line_drain_ns: 0,
            receives_while_flashing: true,
            reset_ns: 250 * MS,
            boot_ns: 100 * MS,
            power_off_ns: 10 * MS,
            flash: FlashTiming {
                erase_sector_ns: 0,
                write_byte_ns: 0,
            },
        }
    }

    /// A line of the given rate, a server that answers after a millisecond, and flash that takes no time.
    #[must_use]
    pub const fn line(baud: u32) -> Self {
        Self {
            baud: Some(baud),
            turnaround_ns: MS,
            ..Self::instant()
        }
    }

    /// The same with the flash of a small controller: 85 ms an erase, 5 ms for 512 bytes.
    #[must_use]
    pub const fn slow_flash(baud: u32) -> Self {
        Self {
            flash: FlashTiming {
                erase_sector_ns: 85 * MS,
                write_byte_ns: 5 * MS / 512,
            },
            ..Self::line(baud)
        }
    }

    /// Time of so many bytes on the line, in nanoseconds.
    #[must_use]
    pub fn bytes_ns(&self, bytes: usize) -> u64 {
        let bits = (bytes as u64).saturating_mul(BITS_PER_BYTE);
        self.baud.filter(|baud| *baud > 0).map_or(0, |baud| {
            bits.saturating_mul(1_000_000_000) / u64::from(baud)
        })
    }
}

/// What an image does once it runs. It is chosen by version, or by the image itself: a body that begins with
/// `mcu-sim:silent`, `mcu-sim:crash`, `mcu-sim:confirm` or `mcu-sim:bad` says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers SMP.
    #[default]
    Serves,
    /// Never answers SMP.
    Silent,
    /// Is reset by its watchdog so many nanoseconds after its start, again and again.
    Crashes {
        /// After how long.
        after_ns: u64,
    },
    /// Confirms itself, without being asked.
    ConfirmsItself,
}

/// What is in the slots when the flash is new.
#[derive(Debug, Clone, Default)]
pub struct Factory {
    /// The primary slot of each image.
    pub primary: Vec<Vec<u8>>,
    /// The secondary one.
    pub secondary: Vec<Vec<u8>>,
}

/// One simulated MCU.
#[derive(Debug, Clone)]
pub struct Config {
    /// The flash.
    pub geometry: Geometry,
    /// Where it is kept; in memory if nowhere.
    pub flash_file: Option<PathBuf>,
    /// How images are changed.
    pub mode: BootMode,
    /// The bootloader's key; without one, hashes are all it checks.
    pub key: Option<Key>,
    /// The application's server.
    pub server: Profile,
    /// The bootloader's own, where it has one.
    pub recovery: Option<Profile>,
    /// How packets travel.
    pub framing: Framing,
    /// How long things take.
    pub timing: Timing,
    /// What is on a new flash.
    pub factory: Factory,
    /// What images do, by `major.minor.revision`.
    pub behaviours: Vec<(String, Behaviour)>,
    /// What the bootloader prints at each start.
    pub banner: Vec<u8>,
    /// Chance on the line.
    pub chance: Chance,
    /// What happens at which request.
    pub rules: Vec<Rule>,
    /// The seed of all chance.
    pub seed: u64,
}

impl Config {
    /// An MCU of the given flash, with Zephyr 4.4's server and MCUboot's swap by moving, that takes no time.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            flash_file: None,
            mode: BootMode::SwapMove,
            key: None,
            server: Profile::zephyr_4_4(),
            recovery: None,
            framing: Framing::Console,
            timing: Timing::instant(),
            factory: Factory::default(),
            behaviours: Vec::new(),
            banner: BANNER.to_vec(),
            chance: Chance::default(),
            rules: Vec::new(),
            seed: 1,
        }
    }
}

/// Something of the kind that a bootloader prints; a client has to read past it.
const BANNER: &[u8] =
    b"*** Starting the simulated bootloader ***\r\nI: Jumping to the first image slot\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_costs_ten_bits() {
        assert_eq!(Timing::line(115_200).bytes_ns(11_520), 1_000_000_000);
        assert_eq!(Timing::line(3_000_000).bytes_ns(3), 10_000);
        assert_eq!(Timing::instant().bytes_ns(1000), 0);
    }
}
