//! Where slots and trailers lie on the simulated flash. Numbers only; nothing here reads or writes.

use crate::Error;

/// Smallest unit that the flash writes, and the alignment of everything in a trailer, in bytes.
pub const WRITE_UNIT_BYTES: u32 = 8;

/// Fixed fields at the end of a trailer: swap size, swap info, copy done, image ok (8 bytes each) and 16 of magic.
pub(crate) const TRAILER_FIXED_BYTES: u32 = 4 * WRITE_UNIT_BYTES + 16;

/// Status entries of one sector in a swap by moving: moved up, new image in place, old image in place.
const STATUS_ENTRIES_PER_SECTOR: u32 = 3;

/// Largest flash, in bytes: what a user's mistake in a size may cost in memory, twice.
pub const FLASH_BYTES_MAX: u64 = 64 << 20;

/// Pairs of slots at most: image numbers that MCUmgr's tools know.
pub const IMAGES_MAX: u8 = 4;

/// One of the two slots of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Slot 0, which the bootloader starts.
    Primary,
    /// Slot 1, which uploads go to.
    Secondary,
}

impl Slot {
    /// As the protocol numbers it within its image.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Primary => 0,
            Self::Secondary => 1,
        }
    }

    /// The slot of a protocol number.
    #[must_use]
    pub const fn of_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Primary),
            1 => Some(Self::Secondary),
            _ => None,
        }
    }

    /// Its counterpart.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }
}

/// Sizes of the flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    sector_bytes: u32,
    slot_sectors: u32,
    images: u8,
}

impl Geometry {
    /// Checks and takes the sizes.
    ///
    /// # Errors
    /// Sectors that are no power of two from 256 bytes to 128 KiB, slots too small for a trailer, a spare sector and an
    /// image, or a flash larger than [`FLASH_BYTES_MAX`].
    pub fn new(sector_bytes: u32, slot_bytes: u32, images: u8) -> Result<Self, Error> {
        let bad = |what: String| Err(Error::Geometry(what));
        if !sector_bytes.is_power_of_two() || !(256..=128 << 10).contains(&sector_bytes) {
            return bad(format!(
                "a sector of {sector_bytes} bytes; give a power of two from 256 to 131072"
            ));
        }
        if !slot_bytes.is_multiple_of(sector_bytes) {
            return bad(format!(
                "a slot of {slot_bytes} bytes is no multiple of its sectors of {sector_bytes}"
            ));
        }
        if !(1..=IMAGES_MAX).contains(&images) {
            return bad(format!("{images} images; give 1 to {IMAGES_MAX}"));
        }
        let geometry = Self {
            sector_bytes,
            slot_sectors: slot_bytes / sector_bytes,
            images,
        };
        if geometry.slot_sectors < geometry.trailer_sectors() + 2 {
            return bad(format!(
                "a slot of {slot_bytes} bytes has no room for trailer, spare sector and image"
            ));
        }
        if u64::from(slot_bytes) * 2 * u64::from(images) > FLASH_BYTES_MAX {
            return bad(format!(
                "{images} pairs of slots of {slot_bytes} bytes are more than {FLASH_BYTES_MAX}"
            ));
        }
        Ok(geometry)
    }

    /// Smallest piece that is erased, in bytes.
    #[must_use]
    pub const fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// Sectors of one slot.
    #[must_use]
    pub const fn slot_sectors(&self) -> u32 {
        self.slot_sectors
    }

    /// One slot, in bytes.
    #[must_use]
    pub const fn slot_bytes(&self) -> u32 {
        self.slot_sectors * self.sector_bytes
    }

    /// Pairs of slots.
    #[must_use]
    pub const fn images(&self) -> u8 {
        self.images
    }

    /// The whole flash, in bytes: image after image, each with its primary and its secondary slot.
    #[must_use]
    pub const fn total_bytes(&self) -> u32 {
        self.slot_bytes() * 2 * self.images as u32
    }

    /// Where a slot begins on the flash.
    #[must_use]
    pub const fn slot_offset(&self, image: u8, slot: Slot) -> u32 {
        self.slot_bytes() * (2 * image as u32 + slot.number() as u32)
    }

    /// The trailer, in bytes: status of every sector, then the fixed fields.
    #[must_use]
    pub const fn trailer_bytes(&self) -> u32 {
        STATUS_ENTRIES_PER_SECTOR * self.slot_sectors * WRITE_UNIT_BYTES + TRAILER_FIXED_BYTES
    }

    /// Sectors that the trailer touches.
    #[must_use]
    pub const fn trailer_sectors(&self) -> u32 {
        self.trailer_bytes().div_ceil(self.sector_bytes)
    }

    /// Largest image file that can be swapped, in bytes: the slot without trailer and the spare sector of the move.
    #[must_use]
    pub const fn image_bytes_max(&self) -> u32 {
        (self.slot_sectors - self.trailer_sectors() - 1) * self.sector_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_one_after_the_other() {
        let geometry = Geometry::new(4096, 64 << 10, 2).unwrap();
        assert_eq!(geometry.total_bytes(), 256 << 10);
        assert_eq!(geometry.slot_offset(0, Slot::Primary), 0);
        assert_eq!(geometry.slot_offset(0, Slot::Secondary), 64 << 10);
        assert_eq!(geometry.slot_offset(1, Slot::Secondary), 192 << 10);
        // 3 * 16 * 8 + 48 bytes fit one sector; one more is spare.
        assert_eq!(geometry.trailer_bytes(), 432);
        assert_eq!(geometry.image_bytes_max(), 14 * 4096);
    }

    #[test]
    fn sizes_that_cannot_work_are_refused() {
        for (sector, slot, images) in [
            (1000, 64_000, 1),
            (128, 64 << 10, 1),
            (4096, 10_000, 1),
            (4096, 8192, 1),
            (4096, 64 << 10, 0),
            (4096, 64 << 10, 5),
            (4096, 64 << 20, 1),
        ] {
            assert!(
                Geometry::new(sector, slot, images).is_err(),
                "{sector} {slot}"
            );
        }
        assert!(Geometry::new(4096, 3 * 4096, 1).is_ok());
    }
}
