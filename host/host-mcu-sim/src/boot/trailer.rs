//! The trailer at the end of a slot: magic, flags, and the status of a swap. Layout of MCUboot with an alignment of 8
//! (measured on a real flash file); what it means is decided in the parent.

use crate::flash::{ERASED, Flash, FlashError, Slot, TRAILER_FIXED_BYTES, WRITE_UNIT_BYTES};

/// MCUboot's mark of a valid trailer.
pub(crate) const MAGIC: [u8; 16] = [
    0x77, 0xc2, 0x95, 0xf3, 0x60, 0xd2, 0xef, 0x7f, 0x35, 0x52, 0x50, 0x0f, 0x2c, 0xb6, 0x79, 0x80,
];

const FLAG_SET: u8 = 1;

/// Distances from the end of the slot.
const MAGIC_FROM_END: u32 = 16;
const IMAGE_OK_FROM_END: u32 = 24;
const COPY_DONE_FROM_END: u32 = 32;
const SWAP_INFO_FROM_END: u32 = 40;
const SWAP_SIZE_FROM_END: u32 = 48;

/// What a swap is for, as `swap_info` holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwapInfo {
    Test = 2,
    Permanent = 3,
    Revert = 4,
}

/// The fixed fields of one trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) magic_good: bool,
    pub(crate) image_ok: bool,
    pub(crate) copy_done: bool,
    pub(crate) swap_info: Option<SwapInfo>,
    /// Bytes that the swap moves, if it was noted.
    pub(crate) swap_bytes: Option<u32>,
    /// Every byte of it, status included, is as erased.
    pub(crate) is_blank: bool,
}

impl Trailer {
    pub(crate) fn read(flash: &Flash, image: u8, slot: Slot) -> Self {
        let bytes = flash.slot(image, slot);
        let field = |from_end: u32, count: usize| {
            let begin = bytes.len().saturating_sub(from_end as usize);
            bytes.get(begin..begin + count).unwrap_or_default()
        };
        let flag = |from_end| field(from_end, 1) == [FLAG_SET];
        let swap_bytes = field(SWAP_SIZE_FROM_END, 4)
            .try_into()
            .map_or(u32::MAX, u32::from_le_bytes);
        let begin = bytes
            .len()
            .saturating_sub(flash.geometry().trailer_bytes() as usize);
        Self {
            magic_good: field(MAGIC_FROM_END, MAGIC.len()) == MAGIC,
            image_ok: flag(IMAGE_OK_FROM_END),
            copy_done: flag(COPY_DONE_FROM_END),
            swap_info: match field(SWAP_INFO_FROM_END, 1) {
                [2] => Some(SwapInfo::Test),
                [3] => Some(SwapInfo::Permanent),
                [4] => Some(SwapInfo::Revert),
                _ => None,
            },
            swap_bytes: (swap_bytes != u32::MAX).then_some(swap_bytes),
            is_blank: bytes
                .get(begin..)
                .is_some_and(|trailer| trailer.iter().all(|byte| *byte == ERASED)),
        }
    }
}

/// Erases the sectors that hold the trailer, the last one first: so the magic never outlives what it vouches for.
pub(crate) fn erase(flash: &mut Flash, image: u8, slot: Slot) -> Result<(), FlashError> {
    let geometry = flash.geometry();
    let sector = geometry.sector_bytes();
    let end = geometry.slot_offset(image, slot) + geometry.slot_bytes();
    for back in 1..=geometry.trailer_sectors() {
        flash.erase(end - back * sector)?;
    }
    Ok(())
}

pub(crate) fn write_magic(flash: &mut Flash, image: u8, slot: Slot) -> Result<(), FlashError> {
    flash.write(place(flash, image, slot, MAGIC_FROM_END), &MAGIC)
}

pub(crate) fn write_image_ok(flash: &mut Flash, image: u8, slot: Slot) -> Result<(), FlashError> {
    write_byte(flash, image, slot, IMAGE_OK_FROM_END, FLAG_SET)
}

pub(crate) fn write_copy_done(flash: &mut Flash, image: u8, slot: Slot) -> Result<(), FlashError> {
    write_byte(flash, image, slot, COPY_DONE_FROM_END, FLAG_SET)
}

pub(crate) fn write_swap_info(
    flash: &mut Flash,
    image: u8,
    slot: Slot,
    info: SwapInfo,
) -> Result<(), FlashError> {
    write_byte(flash, image, slot, SWAP_INFO_FROM_END, info as u8)
}

pub(crate) fn write_swap_bytes(
    flash: &mut Flash,
    image: u8,
    slot: Slot,
    bytes: u32,
) -> Result<(), FlashError> {
    let mut unit = [ERASED; WRITE_UNIT_BYTES as usize];
    unit[..4].copy_from_slice(&bytes.to_le_bytes());
    flash.write(place(flash, image, slot, SWAP_SIZE_FROM_END), &unit)
}

/// How many steps of a swap the primary slot's trailer says are done.
pub(crate) fn steps_done(flash: &Flash, image: u8) -> u32 {
    let bytes = flash.slot(image, Slot::Primary);
    let begin = bytes
        .len()
        .saturating_sub(flash.geometry().trailer_bytes() as usize);
    let end = bytes.len().saturating_sub(TRAILER_FIXED_BYTES as usize);
    let status = bytes.get(begin..end).unwrap_or_default();
    let done = status
        .chunks(WRITE_UNIT_BYTES as usize)
        .take_while(|unit| unit.first() != Some(&ERASED))
        .count();
    u32::try_from(done).unwrap_or_default()
}

/// Notes that step number `step`, counted from 0, is done.
pub(crate) fn write_step(flash: &mut Flash, image: u8, step: u32) -> Result<(), FlashError> {
    let geometry = flash.geometry();
    let begin = geometry.slot_offset(image, Slot::Primary) + geometry.slot_bytes()
        - geometry.trailer_bytes();
    let mut unit = [ERASED; WRITE_UNIT_BYTES as usize];
    unit[0] = FLAG_SET;
    flash.write(begin + step * WRITE_UNIT_BYTES, &unit)
}

fn write_byte(
    flash: &mut Flash,
    image: u8,
    slot: Slot,
    from_end: u32,
    byte: u8,
) -> Result<(), FlashError> {
    let mut unit = [ERASED; WRITE_UNIT_BYTES as usize];
    unit[0] = byte;
    flash.write(place(flash, image, slot, from_end), &unit)
}

const fn place(flash: &Flash, image: u8, slot: Slot, from_end: u32) -> u32 {
    let geometry = flash.geometry();
    geometry.slot_offset(image, slot) + geometry.slot_bytes() - from_end
}
