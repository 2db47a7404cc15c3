//! What the slots hold, for who looks from outside: tests, demos and a command line. No client sees more than the wire.

use crate::boot::{self, SwapType};
use crate::flash::{FlashStats, Slot};
use crate::image::Image;

use super::{Mcu, ReceiveStats, State, Stats};

/// An image in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotView {
    /// Image number.
    pub image: u8,
    /// Which of its slots.
    pub slot: Slot,
    /// `major.minor.revision`, and the build if it is not 0.
    pub version: String,
    /// The hash that the image carries.
    pub hash: Vec<u8>,
    /// It runs.
    pub is_active: bool,
    /// It runs, or would run again, without a further mark.
    pub is_confirmed: bool,
    /// The next start tries it.
    pub is_pending: bool,
}

/// An MCU at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What it is doing.
    pub state: State,
    /// The images that are there.
    pub slots: Vec<SlotView>,
    /// What has happened.
    pub stats: Stats,
    /// What its receiver got and lost.
    pub received: ReceiveStats,
    /// What its flash went through.
    pub flash: FlashStats,
}

impl View {
    /// Version of the image that runs, or would run if the MCU did.
    #[must_use]
    pub fn active_version(&self) -> Option<&str> {
        let active = self
            .slots
            .iter()
            .find(|slot| slot.image == 0 && slot.is_active)?;
        Some(&active.version)
    }

    /// The image of a slot.
    #[must_use]
    pub fn slot(&self, image: u8, slot: Slot) -> Option<&SlotView> {
        self.slots
            .iter()
            .find(|view| view.image == image && view.slot == slot)
    }
}

impl Mcu {
    /// Looks at it, as of the last call.
    #[must_use]
    pub fn view(&self) -> View {
        let mut slots = Vec::new();
        for image in 0..self.flash.geometry().images() {
            for slot in [Slot::Primary, Slot::Secondary] {
                slots.extend(self.view_slot(image, slot));
            }
        }
        View {
            state: self.state,
            slots,
            stats: self.stats.clone(),
            received: self.inbox.stats(),
            flash: self.flash.stats(),
        }
    }

    /// What it is doing.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    fn view_slot(&self, image: u8, slot: Slot) -> Option<SlotView> {
        let found = Image::find(self.flash.slot(image, slot))?;
        let active = self.running.unwrap_or(Slot::Primary);
        let swap = boot::swap_type(&self.flash, image);
        let is_active = slot == active;
        let in_place = self.config.mode.runs_in_place();
        Some(SlotView {
            image,
            slot,
            version: found.version().to_string(),
            hash: found.hash().to_vec(),
            is_active,
            is_confirmed: if in_place {
                boot::is_confirmed(&self.flash, image, slot)
            } else {
                is_active != (swap == SwapType::Revert)
            },
            is_pending: !in_place
                && !is_active
                && matches!(swap, SwapType::Test | SwapType::Permanent),
        })
    }

    /// Whether the image of a slot has the bytes that its hash is of. Reads all of it.
    #[must_use]
    pub fn is_whole(&self, image: u8, slot: Slot) -> bool {
        Image::find(self.flash.slot(image, slot)).is_some_and(|found| found.is_valid(None))
    }

    /// A slot's bytes, as the medium holds them now.
    #[must_use]
    pub fn slot_bytes(&self, image: u8, slot: Slot) -> &[u8] {
        self.flash.held_slot(image, slot)
    }
}
