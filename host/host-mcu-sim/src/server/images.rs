//! Listing and marking images: `image list`, `test` and `confirm`, with the refusals that real servers were seen to make.

use smp_core::code::{Refusal, image_rc};
use smp_core::reply::ImageState;
use smp_core::server::Outcome;

use super::Desk;
use crate::boot::{self, BootMode, SwapType};
use crate::flash::Slot;
use crate::image::Image;

/// What an old recovery says of an empty slot: erased flash, printed.
const EMPTY_VERSION: &str = "255.255.655354294967295";

impl Desk<'_> {
    pub(super) fn list(&self) -> Vec<ImageState> {
        let mut list = Vec::new();
        for image in 0..self.running.flash.geometry().images() {
            for slot in [Slot::Primary, Slot::Secondary] {
                let found = Image::find(self.running.flash.slot(image, slot));
                if let Some(found) = found {
                    list.push(self.state(image, slot, &found));
                } else if self.profile.lists_empty {
                    list.push(ImageState {
                        image: image.into(),
                        slot: slot.number().into(),
                        version: EMPTY_VERSION.to_owned(),
                        ..ImageState::default()
                    });
                }
            }
        }
        list
    }

    fn version(&self, found: &Image<'_>) -> String {
        let mut version = found.version();
        if !self.profile.glues_build || version.build == 0 {
            return version.to_string();
        }
        let build = std::mem::take(&mut version.build);
        format!("{version}{build}")
    }

    fn state(&self, image: u8, slot: Slot, found: &Image<'_>) -> ImageState {
        let running = &self.running;
        let mut state = ImageState {
            image: image.into(),
            slot: slot.number().into(),
            version: self.version(found),
            bootable: found.is_bootable(),
            ..ImageState::default()
        };
        if self.profile.lists_hash {
            found.hash().clone_into(&mut state.hash);
        }
        // The recovery knows what lies there, not what runs.
        let seen = self.profile.recovery_lists_active;
        let Some(active) = running.active.or_else(|| seen.then_some(Slot::Primary)) else {
            state.bootable = false;
            return state;
        };
        let is_active = slot == active;
        state.active = is_active;
        if self.lists_other_hashes
            && !is_active
            && let Some(byte) = state.hash.first_mut()
        {
            *byte ^= 0xff;
        }
        if running.mode.runs_in_place() {
            state.confirmed = running.mode != BootMode::DirectXipRevert
                || boot::is_confirmed(running.flash, image, slot);
            state.pending = !is_active && !state.confirmed;
            return state;
        }
        match boot::swap_type(running.flash, image) {
            SwapType::None => state.confirmed = is_active,
            SwapType::Test => {
                state.confirmed = is_active;
                state.pending = !is_active;
            }
            SwapType::Permanent => {
                state.confirmed = is_active;
                state.pending = !is_active;
                state.permanent = !is_active;
            }
            SwapType::Revert => state.confirmed = !is_active,
        }
        state
    }

    pub(super) fn mark(&mut self, hash: Option<&[u8]>, confirm: bool) -> Outcome<()> {
        let active = self.active();
        let Some(hash) = hash else {
            return self.confirm(0, active);
        };
        let found = self.find_hash(hash);
        let (image, slot) = found.ok_or(Refusal::image(image_rc::HASH_NOT_FOUND))?;
        if slot != active {
            return boot::mark(self.running.flash, image, slot, confirm)
                .map_err(|_| Refusal::image(image_rc::FLASH_WRITE_FAILED));
        }
        if !confirm && self.profile.refuses_test_of_active {
            return Err(Refusal::image(image_rc::TEST_ACTIVE_DENIED));
        }
        self.confirm(image, slot)
    }

    fn confirm(&mut self, image: u8, slot: Slot) -> Outcome<()> {
        let swap = boot::swap_type(self.running.flash, image);
        let is_pending = matches!(swap, SwapType::Test | SwapType::Permanent);
        if is_pending && !self.running.mode.runs_in_place() {
            return Err(Refusal::image(image_rc::ALREADY_PENDING));
        }
        boot::confirm(self.running.flash, image, slot)
            .map_err(|_| Refusal::image(image_rc::FLASH_WRITE_FAILED))
    }

    /// The first slot whose image carries the hash.
    fn find_hash(&self, hash: &[u8]) -> Option<(u8, Slot)> {
        let flash = &*self.running.flash;
        (0..flash.geometry().images())
            .flat_map(|image| [(image, Slot::Primary), (image, Slot::Secondary)])
            .find(|(image, slot)| {
                Image::find(flash.slot(*image, *slot)).is_some_and(|found| found.hash() == hash)
            })
    }
}
