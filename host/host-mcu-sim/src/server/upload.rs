//! What an upload does to the flash: the slot it goes to, what is erased when, and how bytes that are no whole unit wait.
//! The order of its pieces is smp-core's matter.

use smp_core::code::{Refusal, image_rc};
use smp_core::mcuboot::{self, ImageHeader};
use smp_core::request::Upload;
use smp_core::server::Outcome;

use super::Desk;
use crate::boot::trailer;
use crate::flash::{ERASED, Flash, FlashError, Slot, WRITE_UNIT_BYTES};
use crate::image::Image;

/// An upload under way.
#[derive(Debug)]
pub(super) struct Transfer {
    image: u8,
    slot: Slot,
    size: u64,
    /// Taken and not written: less than a unit of the flash.
    rest: Vec<u8>,
    /// Sectors erased so far, of the slot.
    erased_sectors: u32,
}

impl Desk<'_> {
    pub(super) fn begin(&mut self, upload: &Upload<'_>, size: u64, first: &[u8]) -> Outcome<()> {
        *self.transfer = None;
        let (image, slot) = self.target(upload)?;
        if upload.upgrade && !self.is_upgrade(image, first) {
            return Err(Refusal::image(image_rc::RUNNING_IS_NEWER));
        }
        let geometry = self.running.flash.geometry();
        if self.profile.checks_size && size > u64::from(geometry.image_bytes_max()) {
            return Err(Refusal::image(image_rc::TOO_LARGE));
        }
        // The recovery overwrites whatever is there.
        if self.running.active.is_some() && !self.is_settled(image) {
            return Err(Refusal::image(image_rc::NO_FREE_SLOT));
        }
        let mut transfer = Transfer {
            image,
            slot,
            size,
            rest: Vec::new(),
            erased_sectors: 0,
        };
        let flash = &mut *self.running.flash;
        trailer::erase(flash, image, slot).map_err(erase_failed)?;
        if !self.profile.erases_progressively {
            let bytes = size.min(geometry.slot_bytes().into());
            transfer.erase_up_to(flash, bytes).map_err(erase_failed)?;
        }
        *self.transfer = Some(transfer);
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Outcome<usize> {
        let Some(transfer) = &mut *self.transfer else {
            return Err(Refusal::image(image_rc::FLASH_WRITE_FAILED));
        };
        let end = offset.saturating_add(data.len() as u64);
        let unit = self.profile.accepts_multiples_of.max(1) as usize;
        // Short of a whole unit nothing would move, and the client would ask for ever.
        let taken = if end >= transfer.size || data.len() < unit {
            data.len()
        } else {
            data.len() / unit * unit
        };
        let data = data.get(..taken).unwrap_or_default();
        transfer.write(self.running.flash, offset, data)?;
        *self.running.uploaded_bytes += taken as u64;
        Ok(taken)
    }

    /// Where an upload goes.
    fn target(&self, upload: &Upload<'_>) -> Outcome<(u8, Slot)> {
        let images = u32::from(self.running.flash.geometry().images());
        let number = upload.image.unwrap_or(0);
        let (image, slot) = if self.profile.uploads_to_slots {
            // 0 and 1 are the first image's primary slot; from there on they count.
            let slot = number.saturating_sub(1);
            let is_primary = slot.is_multiple_of(2);
            (
                slot / 2,
                if is_primary {
                    Slot::Primary
                } else {
                    Slot::Secondary
                },
            )
        } else {
            // A server of one image does not look at the number.
            (if images == 1 { 0 } else { number }, self.active().other())
        };
        if image >= images {
            return Err(Refusal::image(image_rc::INVALID_SLOT));
        }
        Ok((u8::try_from(image).unwrap_or_default(), slot))
    }

    fn is_upgrade(&self, image: u8, first: &[u8]) -> bool {
        let current = Image::find(self.running.flash.slot(image, self.active()));
        let Some(current) = current else {
            return true;
        };
        ImageHeader::parse(first).is_ok_and(|new| new.version > current.version())
    }
}

impl Transfer {
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Takes bytes; whole units go to the flash, with the last bytes of the file the rest too.
    fn write(&mut self, flash: &mut Flash, offset: u64, data: &[u8]) -> Outcome<()> {
        let unit = WRITE_UNIT_BYTES as usize;
        let begin = offset.saturating_sub(self.rest.len() as u64);
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(data);
        if offset.saturating_add(data.len() as u64) >= self.size {
            bytes.resize(bytes.len().next_multiple_of(unit), ERASED);
        } else {
            self.rest = bytes.split_off(bytes.len() / unit * unit);
        }
        let geometry = flash.geometry();
        let end = begin + bytes.len() as u64;
        let place = u32::try_from(begin)
            .ok()
            .filter(|_| end <= u64::from(geometry.slot_bytes()));
        let place = place.ok_or(Refusal::image(image_rc::FLASH_WRITE_FAILED))?;
        self.erase_up_to(flash, end).map_err(erase_failed)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let slot_begin = geometry.slot_offset(self.image, self.slot);
        flash
            .write(slot_begin + place, &bytes)
            .map_err(|_| Refusal::image(image_rc::FLASH_WRITE_FAILED))
    }

    /// Erases the sectors that the first `bytes` of the slot touch, but for those that hold the trailer: they were first.
    fn erase_up_to(&mut self, flash: &mut Flash, bytes: u64) -> Result<(), FlashError> {
        let geometry = flash.geometry();
        let sector = geometry.sector_bytes();
        let body_sectors = geometry.slot_sectors() - geometry.trailer_sectors();
        while u64::from(self.erased_sectors) * u64::from(sector) < bytes
            && self.erased_sectors < body_sectors
        {
            let place = geometry.slot_offset(self.image, self.slot) + self.erased_sectors * sector;
            flash.erase(place)?;
            self.erased_sectors += 1;
        }
        Ok(())
    }

    /// Whether the bytes on the flash have the digest that the client sent.
    pub(super) fn matches(&self, flash: &Flash, sha: &[u8]) -> bool {
        holds(flash, (self.image, self.slot), self.size, sha)
    }
}

/// Whether the first `size` bytes of a slot have this digest, or one that begins with it.
pub(super) fn holds(flash: &Flash, place: (u8, Slot), size: u64, sha: &[u8]) -> bool {
    let slot = flash.slot(place.0, place.1);
    let file = usize::try_from(size).ok().and_then(|size| slot.get(..size));
    !sha.is_empty() && file.is_some_and(|file| mcuboot::sha256(file).starts_with(sha))
}

const fn erase_failed(_: FlashError) -> Refusal {
    Refusal::image(image_rc::FLASH_ERASE_FAILED)
}
