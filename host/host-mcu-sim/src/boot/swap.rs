//! Two slots change places, by moving the primary image up by a sector first (MCUboot's swap without scratch).
//!
//! Each step copies one sector to a place whose content is held elsewhere, then notes itself; so it can be cut anywhere and
//! is gone on with at the first step that is not noted. With `n` sectors to swap:
//!
//! ```text
//! step 0 .. n-1    primary[n-i] = primary[n-i-1]          for i = 0, 1, ..
//! step n+2i        primary[i]   = secondary[i]
//! step n+2i+1      secondary[i] = primary[i+1]
//! end              secondary's trailer is erased, primary's says copy done
//! ```

use super::trailer::{self, SwapInfo, Trailer};
use crate::flash::{Flash, FlashError, Slot};

/// Whether the primary slot's trailer says that a swap has begun and not ended; its bytes then.
pub(super) fn under_way(flash: &Flash, image: u8) -> Option<u32> {
    let primary = Trailer::read(flash, image, Slot::Primary);
    let bytes = primary.swap_bytes?;
    let begun = primary.magic_good && !primary.copy_done && primary.swap_info.is_some();
    (begun && bytes <= flash.geometry().image_bytes_max()).then_some(bytes)
}

/// Swaps `bytes` of both slots.
pub(super) fn begin(
    flash: &mut Flash,
    image: u8,
    info: SwapInfo,
    bytes: u32,
) -> Result<(), FlashError> {
    if info == SwapInfo::Revert {
        keep_decision(flash, image)?;
    }
    trailer::erase(flash, image, Slot::Primary)?;
    trailer::write_swap_bytes(flash, image, Slot::Primary, bytes)?;
    trailer::write_swap_info(flash, image, Slot::Primary, info)?;
    if info != SwapInfo::Test {
        trailer::write_image_ok(flash, image, Slot::Primary)?;
    }
    trailer::write_magic(flash, image, Slot::Primary)?;
    resume(flash, image, bytes)
}

/// Goes on with a swap at the first step that is not noted.
pub(super) fn resume(flash: &mut Flash, image: u8, bytes: u32) -> Result<(), FlashError> {
    let count = bytes.div_ceil(flash.geometry().sector_bytes());
    for step in trailer::steps_done(flash, image)..count * 3 {
        if step < count {
            let from = count - step - 1;
            copy(
                flash,
                image,
                (Slot::Primary, from),
                (Slot::Primary, from + 1),
            )?;
        } else {
            let sector = (step - count) / 2;
            if (step - count).is_multiple_of(2) {
                copy(
                    flash,
                    image,
                    (Slot::Secondary, sector),
                    (Slot::Primary, sector),
                )?;
            } else {
                copy(
                    flash,
                    image,
                    (Slot::Primary, sector + 1),
                    (Slot::Secondary, sector),
                )?;
            }
        }
        trailer::write_step(flash, image, step)?;
    }
    trailer::erase(flash, image, Slot::Secondary)?;
    trailer::write_copy_done(flash, image, Slot::Primary)
}

/// A revert is decided from the primary slot's trailer, which is erased next: the secondary's is made to say the same. The
/// flag goes before the magic, else a cut between the two would turn the revert into another test.
fn keep_decision(flash: &mut Flash, image: u8) -> Result<(), FlashError> {
    let secondary = Trailer::read(flash, image, Slot::Secondary);
    if secondary.magic_good {
        // A start before this one wrote it, and may have erased the primary's since.
        return Ok(());
    }
    if !secondary.is_blank {
        trailer::erase(flash, image, Slot::Secondary)?;
    }
    trailer::write_swap_info(flash, image, Slot::Secondary, SwapInfo::Revert)?;
    trailer::write_image_ok(flash, image, Slot::Secondary)?;
    trailer::write_magic(flash, image, Slot::Secondary)
}

/// Copies one sector of a slot over another.
pub(super) fn copy(
    flash: &mut Flash,
    image: u8,
    from: (Slot, u32),
    to: (Slot, u32),
) -> Result<(), FlashError> {
    let geometry = flash.geometry();
    let sector = geometry.sector_bytes();
    let begin = (from.1 * sector) as usize;
    let bytes = flash
        .slot(image, from.0)
        .get(begin..begin + sector as usize)
        .unwrap_or_default()
        .to_vec();
    let target = geometry.slot_offset(image, to.0) + to.1 * sector;
    flash.erase(target)?;
    flash.write(target, &bytes)
}
