//! The MCU behind the serial line of a case: `host-mcu-sim`'s, on a line that takes no time and loses nothing. What goes
//! wrong on a line is judged in `tests/secondary`.

use host_mcu_sim::{Behaviour, Config, Geometry, MS, Mcu, sample};

/// What is marked and confirmed in an MCU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The next start tries another image.
    pub(super) marked: bool,
    /// The version that stays.
    pub(super) confirmed: Option<String>,
}

/// A simulated MCU, and what has come from it.
#[derive(Debug)]
pub(super) struct Board {
    mcu: Mcu,
    input: Vec<u8>,
}

/// Flash of the MCU: sectors, a slot, and the time of an erase, so that a swap can be watched.
const SECTOR_BYTES: u32 = 1024;
const SLOT_BYTES: u32 = 64 * 1024;
const ERASE_NS: u64 = 20 * MS;

/// Bytes of the image that it runs at first.
const FIRST_BYTES: usize = 3000;

/// Jobs whose images do what the case says.
const NEW_MAX: u8 = 9;

impl Board {
    /// One whose new images do this.
    pub(super) fn new(new: Behaviour) -> Result<Self, host_mcu_sim::Error> {
        let mut config = Config::new(Geometry::new(SECTOR_BYTES, SLOT_BYTES, 1)?);
        config.timing.flash.erase_sector_ns = ERASE_NS;
        config.factory.primary = vec![sample::image("1.0.0", FIRST_BYTES)];
        let versions = (1..=NEW_MAX).map(|minor| (format!("1.{minor}.0"), new));
        config.behaviours = versions.collect();
        Ok(Self {
            mcu: Mcu::new(config)?,
            input: Vec::new(),
        })
    }

    pub(super) fn receive(&mut self, now_ns: u64, data: &[u8]) {
        self.mcu.receive(now_ns, data);
    }

    /// It loses its power, and has it back at once.
    pub(super) fn power_cut(&mut self, now_ns: u64) {
        self.mcu.power_cut(now_ns);
    }

    /// Its reset input is pulsed.
    pub(super) fn reset(&mut self, now_ns: u64) {
        self.mcu.hardware_reset(now_ns);
    }

    /// Milliseconds until it does something by itself.
    pub(super) fn next_ms(&mut self, now_ns: u64) -> Option<u64> {
        self.mcu.advance(now_ns);
        let next = self.mcu.deadline_ns()?;
        Some(next.saturating_sub(now_ns).div_ceil(MS))
    }

    /// What its bootloader would do.
    pub(super) fn standing(&mut self, now_ns: u64) -> Standing {
        self.mcu.advance(now_ns);
        let slots = self.mcu.view().slots;
        let confirmed = slots.iter().find(|slot| slot.is_confirmed);
        Standing {
            marked: slots.iter().any(|slot| slot.is_pending),
            confirmed: confirmed.map(|slot| slot.version.clone()),
        }
    }

    /// What has come by now.
    pub(super) fn news(&mut self, now_ns: u64) -> &mut Vec<u8> {
        self.mcu.transmit(now_ns, &mut self.input);
        &mut self.input
    }
}
