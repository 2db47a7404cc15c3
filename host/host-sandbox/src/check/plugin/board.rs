//! The MCU behind the serial line of a case: `host-mcu-sim`'s, on a line that takes no time. What goes wrong is a rule of
//! its own (`host_mcu_sim::fault`). That the shipped plugin survives it at every request is judged in `tests/secondary`.

use host_mcu_sim::fault::Rule;
use host_mcu_sim::{Behaviour, BootMode, Config, Geometry, MS, Mcu, Profile, sample};

/// What kind of MCU it is, and what its new images do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breed {
    /// Nothing is wrong with it.
    Sound,
    /// Its new images do not answer.
    Silent,
    /// They crash.
    Crashes,
    /// Its server is Zephyr 3.4's, which takes the mark of what runs for its confirmation.
    Old,
    /// Its bootloader starts signed images only, and the new ones are not.
    Strict,
    /// Its bootloader overwrites, and knows no way back.
    Overwrites,
}

/// What is marked and confirmed in an MCU, and what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The next start tries another image.
    pub(super) marked: bool,
    /// Versions of all images, in the order of slots.
    pub(super) versions: Vec<String>,
    /// The version that stays.
    pub(super) confirmed: Option<String>,
}

/// A simulated MCU, and what has come from it.
#[derive(Debug)]
pub(super) struct Board {
    mcu: Mcu,
    input: Vec<u8>,
    /// Bytes that have come so far, and those of which somebody was woken.
    come: usize,
    told: usize,
}

/// Flash of the MCU: sectors, a slot, and the time of an erase, so that a swap can be watched.
const SECTOR_BYTES: u32 = 1024;
const SLOT_BYTES: u32 = 64 * 1024;
const ERASE_NS: u64 = 20 * MS;

/// How long an image runs that crashes.
const LIFE_NS: u64 = 2000 * MS;

/// Bytes of the image that it runs at first.
const FIRST_BYTES: usize = 3000;

/// Jobs whose images do what the case says.
const NEW_MAX: u8 = 9;

impl Board {
    /// One of this kind.
    pub(super) fn new(breed: Breed) -> Result<Self, host_mcu_sim::Error> {
        let mut config = Config::new(Geometry::new(SECTOR_BYTES, SLOT_BYTES, 1)?);
        config.timing.flash.erase_sector_ns = ERASE_NS;
        config.factory.primary = vec![sample::image("1.0.0", FIRST_BYTES)];
        let new = match breed {
            Breed::Silent => Behaviour::Silent,
            Breed::Crashes => Behaviour::Crashes { after_ns: LIFE_NS },
            Breed::Sound | Breed::Old | Breed::Strict | Breed::Overwrites => Behaviour::Serves,
        };
        let versions = (1..=NEW_MAX).map(|minor| (format!("1.{minor}.0"), new));
        config.behaviours = versions.collect();
        match breed {
            Breed::Old => config.server = Profile::zephyr_3_4(),
            Breed::Strict => {
                let signer = sample::Signer::of_seed(1);
                config.key = Some(signer.key());
                let body = sample::noise("1.0.0", FIRST_BYTES);
                config.factory.primary = vec![signer.image("1.0.0", &body)];
            }
            Breed::Overwrites => config.mode = BootMode::OverwriteOnly,
            Breed::Sound | Breed::Silent | Breed::Crashes => {}
        }
        Ok(Self {
            mcu: Mcu::new(config)?,
            input: Vec::new(),
            come: 0,
            told: 0,
        })
    }

    /// Something goes wrong from now on.
    pub(super) fn spoil(&mut self, rule: Rule) {
        self.mcu.add_rule(rule);
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
            versions: slots.iter().map(|slot| slot.version.clone()).collect(),
            confirmed: confirmed.map(|slot| slot.version.clone()),
        }
    }

    /// What has come by now.
    pub(super) fn news(&mut self, now_ns: u64) -> &mut Vec<u8> {
        let before = self.input.len();
        self.mcu.transmit(now_ns, &mut self.input);
        self.come += self.input.len() - before;
        &mut self.input
    }

    /// Whether something has come since this was asked last: who does not read is woken once.
    pub(super) fn wakes(&mut self, now_ns: u64) -> bool {
        self.news(now_ns);
        std::mem::replace(&mut self.told, self.come) != self.come
    }
}
