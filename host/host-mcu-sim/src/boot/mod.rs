//! The bootloader: which image runs, decided from headers and trailers as MCUboot decides it.
//!
//! Swap modes run one algorithm, the swap by moving; scratch differs from it in flash layout only. Nothing here waits:
//! operations take their time on the flash, and a cut ends the work with an error wherever it strikes.

mod swap;
#[cfg(test)]
mod tests;
pub(crate) mod trailer;

use crate::flash::{Flash, FlashError, Slot};
use crate::image::{Image, Key};
use trailer::{SwapInfo, Trailer};

/// How the bootloader changes images, numbered as `bootloader info` answers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BootMode {
    /// One slot; uploads overwrite nothing that can be started.
    SingleApplication,
    /// Swap with a scratch area.
    SwapScratch,
    /// The new image is copied over the old one: no way back.
    OverwriteOnly,
    /// Swap by moving up a sector.
    #[default]
    SwapMove,
    /// The higher version of both slots runs where it lies.
    DirectXip,
    /// The same, but an image that is not confirmed runs once.
    DirectXipRevert,
    /// The higher version of both slots is copied to memory.
    RamLoad,
}

impl BootMode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SingleApplication,
        Self::SwapScratch,
        Self::OverwriteOnly,
        Self::SwapMove,
        Self::DirectXip,
        Self::DirectXipRevert,
        Self::RamLoad,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::SingleApplication => 0,
            Self::SwapScratch => 1,
            Self::OverwriteOnly => 2,
            Self::SwapMove => 3,
            Self::DirectXip => 4,
            Self::DirectXipRevert => 5,
            Self::RamLoad => 6,
        }
    }

    /// Its name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SingleApplication => "single",
            Self::SwapScratch => "swap-scratch",
            Self::OverwriteOnly => "overwrite",
            Self::SwapMove => "swap-move",
            Self::DirectXip => "direct-xip",
            Self::DirectXipRevert => "direct-xip-revert",
            Self::RamLoad => "ram-load",
        }
    }

    /// Whether the application runs in whichever slot it lies.
    pub(crate) const fn runs_in_place(self) -> bool {
        matches!(
            self,
            Self::DirectXip | Self::DirectXipRevert | Self::RamLoad
        )
    }

    /// Whether the application has the handler that marks images: without it, state writes are not supported.
    pub(crate) const fn has_marks(self) -> bool {
        matches!(
            self,
            Self::SwapScratch | Self::SwapMove | Self::OverwriteOnly | Self::DirectXipRevert
        )
    }
}

/// What the next start would do with an image's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwapType {
    None,
    Test,
    Permanent,
    Revert,
}

/// What a start did with the slots of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootAction {
    /// Nothing.
    None,
    /// Went on with a swap that a cut interrupted.
    Resumed,
    /// Swapped, for one start.
    Tested,
    /// Swapped or copied for good.
    Upgraded,
    /// Swapped back, for nobody confirmed.
    Reverted,
    /// Erased the new image: it is not valid.
    Refused,
}

/// What a start ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// The slot that image 0 runs in; none if there is nothing to start.
    pub(crate) active: Option<Slot>,
    /// Per image.
    pub(crate) actions: Vec<BootAction>,
}

/// The decision from both trailers, first match.
pub(crate) fn swap_type(flash: &Flash, image: u8) -> SwapType {
    let secondary = Trailer::read(flash, image, Slot::Secondary);
    if secondary.magic_good {
        return if secondary.image_ok {
            SwapType::Permanent
        } else {
            SwapType::Test
        };
    }
    let primary = Trailer::read(flash, image, Slot::Primary);
    if primary.magic_good && primary.copy_done && !primary.image_ok {
        SwapType::Revert
    } else {
        SwapType::None
    }
}

/// Whether the image in a slot counts as confirmed there: marked so, or put there by a programmer and never marked.
pub(crate) fn is_confirmed(flash: &Flash, image: u8, slot: Slot) -> bool {
    let trailer = Trailer::read(flash, image, slot);
    !trailer.magic_good || trailer.image_ok
}

/// Marks the image of a slot for the next start. A slot that is marked stays as it is.
pub(crate) fn mark(
    flash: &mut Flash,
    image: u8,
    slot: Slot,
    permanent: bool,
) -> Result<(), FlashError> {
    let trailer = Trailer::read(flash, image, slot);
    if trailer.magic_good {
        return Ok(());
    }
    if !trailer.is_blank {
        trailer::erase(flash, image, slot)?;
    }
    let info = if permanent {
        SwapInfo::Permanent
    } else {
        SwapInfo::Test
    };
    // Of a permanent mark the flag goes first: the magic alone would be a test.
    trailer::write_swap_info(flash, image, slot, info)?;
    if permanent {
        trailer::write_image_ok(flash, image, slot)?;
    }
    trailer::write_magic(flash, image, slot)
}

/// Confirms the image that runs in a slot.
pub(crate) fn confirm(flash: &mut Flash, image: u8, slot: Slot) -> Result<(), FlashError> {
    let trailer = Trailer::read(flash, image, slot);
    if trailer.magic_good && !trailer.image_ok {
        trailer::write_image_ok(flash, image, slot)?;
    }
    Ok(())
}

/// Starts: goes on with what a cut interrupted, does what the marks say, and picks the slot that runs.
pub(crate) fn start(
    flash: &mut Flash,
    mode: BootMode,
    key: Option<&Key>,
) -> Result<Started, FlashError> {
    let mut actions = Vec::new();
    let mut active = None;
    for image in 0..flash.geometry().images() {
        let (slot, action) = start_image(flash, image, mode, key)?;
        actions.push(action);
        if image == 0 {
            active = slot;
        }
    }
    Ok(Started { active, actions })
}

fn start_image(
    flash: &mut Flash,
    image: u8,
    mode: BootMode,
    key: Option<&Key>,
) -> Result<(Option<Slot>, BootAction), FlashError> {
    if mode.runs_in_place() {
        return start_in_place(flash, image, mode, key);
    }
    let action = match mode {
        BootMode::SwapMove | BootMode::SwapScratch => start_by_swap(flash, image, key)?,
        BootMode::OverwriteOnly => start_by_copy(flash, image, key)?,
        _ => BootAction::None,
    };
    let runs = is_valid(flash, image, Slot::Primary, key);
    Ok((runs.then_some(Slot::Primary), action))
}

fn start_by_swap(
    flash: &mut Flash,
    image: u8,
    key: Option<&Key>,
) -> Result<BootAction, FlashError> {
    if let Some(bytes) = swap::under_way(flash, image) {
        swap::resume(flash, image, bytes)?;
        return Ok(BootAction::Resumed);
    }
    let (info, action) = match swap_type(flash, image) {
        SwapType::None => return Ok(BootAction::None),
        SwapType::Test => (SwapInfo::Test, BootAction::Tested),
        SwapType::Permanent => match Trailer::read(flash, image, Slot::Secondary).swap_info {
            Some(SwapInfo::Revert) => (SwapInfo::Revert, BootAction::Reverted),
            _ => (SwapInfo::Permanent, BootAction::Upgraded),
        },
        SwapType::Revert => (SwapInfo::Revert, BootAction::Reverted),
    };
    if !is_valid(flash, image, Slot::Secondary, key) {
        refuse(flash, image)?;
        return Ok(BootAction::Refused);
    }
    let bytes =
        used_bytes(flash, image, Slot::Primary).max(used_bytes(flash, image, Slot::Secondary));
    swap::begin(flash, image, info, bytes)?;
    Ok(action)
}

fn start_by_copy(
    flash: &mut Flash,
    image: u8,
    key: Option<&Key>,
) -> Result<BootAction, FlashError> {
    if !Trailer::read(flash, image, Slot::Secondary).magic_good {
        return Ok(BootAction::None);
    }
    if !is_valid(flash, image, Slot::Secondary, key) {
        refuse(flash, image)?;
        return Ok(BootAction::Refused);
    }
    let sectors =
        used_bytes(flash, image, Slot::Secondary).div_ceil(flash.geometry().sector_bytes());
    trailer::erase(flash, image, Slot::Primary)?;
    for sector in 0..sectors {
        swap::copy(
            flash,
            image,
            (Slot::Secondary, sector),
            (Slot::Primary, sector),
        )?;
    }
    erase_slot(flash, image, Slot::Secondary)?;
    Ok(BootAction::Upgraded)
}

fn start_in_place(
    flash: &mut Flash,
    image: u8,
    mode: BootMode,
    key: Option<&Key>,
) -> Result<(Option<Slot>, BootAction), FlashError> {
    let mut action = BootAction::None;
    for _ in 0..2 {
        let Some(slot) = highest(flash, image, key) else {
            break;
        };
        if mode != BootMode::DirectXipRevert {
            return Ok((Some(slot), action));
        }
        let trailer = Trailer::read(flash, image, slot);
        if !trailer.magic_good || trailer.image_ok {
            return Ok((Some(slot), action));
        }
        if !trailer.copy_done {
            trailer::write_copy_done(flash, image, slot)?;
            return Ok((Some(slot), BootAction::Tested));
        }
        // It had its one start.
        erase_slot(flash, image, slot)?;
        action = BootAction::Reverted;
    }
    Ok((highest(flash, image, key), action))
}

fn highest(flash: &Flash, image: u8, key: Option<&Key>) -> Option<Slot> {
    let version = |slot| {
        let found = Image::find(flash.slot(image, slot)).filter(|image| image.is_valid(key));
        found.map(|image| image.version())
    };
    match (version(Slot::Primary), version(Slot::Secondary)) {
        (None, None) => None,
        (primary, secondary) if secondary > primary => Some(Slot::Secondary),
        _ => Some(Slot::Primary),
    }
}

/// Erases a new image that is not valid, and vouches for the old one.
fn refuse(flash: &mut Flash, image: u8) -> Result<(), FlashError> {
    erase_slot(flash, image, Slot::Secondary)?;
    confirm(flash, image, Slot::Primary)
}

/// Erases a whole slot, its marks first.
pub(crate) fn erase_slot(flash: &mut Flash, image: u8, slot: Slot) -> Result<(), FlashError> {
    let geometry = flash.geometry();
    trailer::erase(flash, image, slot)?;
    for sector in 0..geometry.slot_sectors() - geometry.trailer_sectors() {
        flash.erase(geometry.slot_offset(image, slot) + sector * geometry.sector_bytes())?;
    }
    Ok(())
}

fn is_valid(flash: &Flash, image: u8, slot: Slot, key: Option<&Key>) -> bool {
    let limit = u64::from(flash.geometry().image_bytes_max());
    Image::find(flash.slot(image, slot))
        .is_some_and(|image| image.end() <= limit && image.is_valid(key))
}

/// Bytes of a slot that its image takes; all that an image may take if there is none to be read.
fn used_bytes(flash: &Flash, image: u8, slot: Slot) -> u32 {
    let limit = flash.geometry().image_bytes_max();
    Image::find(flash.slot(image, slot))
        .and_then(|image| u32::try_from(image.end()).ok())
        .map_or(limit, |end| end.min(limit))
}
