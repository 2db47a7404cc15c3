//! Groups, commands and return codes, with their texts and how codes of a group were told before they had groups.

/// Groups of commands.
pub mod group {
    /// The system's own.
    pub const OS: u16 = 0;
    /// Images.
    pub const IMAGE: u16 = 1;
    /// From here on they are the application's.
    pub const USER: u16 = 64;
}

/// Commands of the OS group.
pub mod os {
    /// Echo.
    pub const ECHO: u8 = 0;
    /// Console echo on or off.
    pub const CONSOLE_ECHO: u8 = 1;
    /// Restart.
    pub const RESET: u8 = 5;
    /// Sizes of the server's buffers.
    pub const PARAMETERS: u8 = 6;
    /// Text about the system.
    pub const INFO: u8 = 7;
    /// What the bootloader is.
    pub const BOOTLOADER: u8 = 8;
}

/// Commands of the image group.
pub mod image {
    /// State of all images, read or changed.
    pub const STATE: u8 = 0;
    /// Upload.
    pub const UPLOAD: u8 = 1;
    /// Erase a slot.
    pub const ERASE: u8 = 5;
    /// Sizes of the slots.
    pub const SLOTS: u8 = 6;
}

/// Codes that are the same in every group, told as `rc`.
pub mod rc {
    /// Fine.
    pub const OK: u32 = 0;
    /// Unknown error.
    pub const UNKNOWN: u32 = 1;
    /// Out of memory.
    pub const NO_MEMORY: u32 = 2;
    /// The request's payload is wrong.
    pub const INVALID: u32 = 3;
    /// Nothing answered.
    pub const TIMEOUT: u32 = 4;
    /// There is no such thing.
    pub const NO_ENTRY: u32 = 5;
    /// Not in this state.
    pub const BAD_STATE: u32 = 6;
    /// The answer does not fit.
    pub const TOO_LARGE: u32 = 7;
    /// No such group, command or operation.
    pub const UNSUPPORTED: u32 = 8;
    /// The packet is damaged.
    pub const CORRUPT: u32 = 9;
    /// Busy.
    pub const BUSY: u32 = 10;
    /// Not allowed.
    pub const DENIED: u32 = 11;
    /// A version of the protocol that is gone.
    pub const TOO_OLD: u32 = 12;
    /// A version of the protocol that is not there yet.
    pub const TOO_NEW: u32 = 13;
}

/// Codes of the image group.
pub mod image_rc {
    /// Unknown error.
    pub const UNKNOWN: u32 = 1;
    /// The slot holds no image.
    pub const NO_IMAGE: u32 = 3;
    /// No image has this hash.
    pub const HASH_NOT_FOUND: u32 = 8;
    /// No slot is free: one is pending, or the running image is not confirmed.
    pub const NO_FREE_SLOT: u32 = 9;
    /// Writing the flash failed; the upload is gone.
    pub const FLASH_WRITE_FAILED: u32 = 12;
    /// Erasing the flash failed.
    pub const FLASH_ERASE_FAILED: u32 = 13;
    /// There is no such slot.
    pub const INVALID_SLOT: u32 = 14;
    /// `off` is missing.
    pub const INVALID_OFFSET: u32 = 20;
    /// `len` is missing where `off` is 0.
    pub const INVALID_LENGTH: u32 = 21;
    /// The first chunk is shorter than a header.
    pub const INVALID_HEADER: u32 = 22;
    /// It does not begin with the magic number.
    pub const INVALID_MAGIC: u32 = 23;
    /// The hash is missing or cannot be one.
    pub const INVALID_HASH: u32 = 24;
    /// The running version is newer.
    pub const RUNNING_IS_NEWER: u32 = 27;
    /// An image is pending already.
    pub const ALREADY_PENDING: u32 = 28;
    /// Larger than the slot.
    pub const TOO_LARGE: u32 = 30;
    /// More data than was announced.
    pub const OVERRUN: u32 = 31;
    /// Confirming is not allowed.
    pub const CONFIRM_DENIED: u32 = 32;
    /// The running image cannot be put to test.
    pub const TEST_ACTIVE_DENIED: u32 = 33;
}

/// How the mode of an MCUboot is told, and what it means for an update.
pub mod mode {
    /// Cannot be told.
    pub const UNKNOWN: i32 = -1;
    /// Swap by way of a scratch area.
    pub const SWAP_SCRATCH: i32 = 1;
    /// The new image is copied over the old one.
    pub const OVERWRITE: i32 = 2;
    /// Swap by moving.
    pub const SWAP_MOVE: i32 = 3;
    /// Runs in place from either slot.
    pub const DIRECT_XIP: i32 = 4;
    /// Runs in place from either slot, with a way back.
    pub const DIRECT_XIP_REVERT: i32 = 5;
    /// Copied to RAM.
    pub const RAM_LOAD: i32 = 6;
    /// Swap by moving, the new image one sector further back: Zephyr's own choice since 4.3.
    pub const SWAP_OFFSET: i32 = 9;
}

/// Why a server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Group whose code it is; `None` = one of [`rc`].
    pub group: Option<u16>,
    /// The code, never 0.
    pub code: u32,
}

impl Refusal {
    /// A code of [`rc`].
    #[must_use]
    pub const fn generic(code: u32) -> Self {
        Self { group: None, code }
    }

    /// A code of [`image_rc`].
    #[must_use]
    pub const fn image(code: u32) -> Self {
        Self {
            group: Some(group::IMAGE),
            code,
        }
    }

    /// Whether it is this code of the image group, or the generic one that a server of version 1 tells in its place.
    #[must_use]
    pub fn is_image(&self, code: u32) -> bool {
        match self.group {
            Some(group) => group == group::IMAGE && self.code == code,
            None => self.code == Self::image(code).as_generic(),
        }
    }

    /// The server does not know the command.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        *self == Self::generic(rc::UNSUPPORTED)
    }

    /// The code of [`rc`] that stands for it where errors have no group.
    #[must_use]
    pub const fn as_generic(&self) -> u32 {
        match (self.group, self.code) {
            (None, code) => code,
            (Some(group::IMAGE), 3 | 4) => rc::NO_ENTRY,
            (Some(group::IMAGE), 9 | 27 | 28) => rc::BAD_STATE,
            (Some(group::IMAGE), 15) => rc::NO_MEMORY,
            (Some(group::IMAGE), 14 | 19..=22 | 24 | 25) => rc::INVALID,
            (Some(group::OS), 2) => rc::INVALID,
            (Some(_), _) => rc::UNKNOWN,
        }
    }

    /// What it means, in a few words.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        match self.group {
            None => generic_text(self.code),
            Some(group::IMAGE) => image_text(self.code),
            Some(group::OS) => os_text(self.code),
            Some(_) => "a code of the application's own",
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.group {
            Some(group) => write!(f, "{} (group {group} rc {})", self.text(), self.code),
            None => write!(f, "{} (rc {})", self.text(), self.code),
        }
    }
}

const fn generic_text(code: u32) -> &'static str {
    match code {
        0 => "fine",
        1 => "unknown error",
        2 => "out of memory",
        3 => "invalid request",
        4 => "timed out inside the server",
        5 => "no such entry",
        6 => "not possible in this state",
        7 => "the answer does not fit",
        8 => "the server does not know this command",
        9 => "the packet is damaged",
        10 => "busy",
        11 => "not allowed",
        12 => "the protocol version is too old",
        13 => "the protocol version is too new",
        _ => "an unknown code",
    }
}

const fn os_text(code: u32) -> &'static str {
    match code {
        1 => "unknown error",
        2 => "invalid format",
        3 => "the query yields no answer",
        4 => "the clock was not set",
        5 => "the clock failed",
        _ => "an unknown code",
    }
}

const fn image_text(code: u32) -> &'static str {
    match code {
        1 => "unknown error",
        2 => "the flash configuration cannot be read",
        3 => "no image",
        4 => "the image has no TLVs",
        5 => "an invalid TLV",
        6 => "more than one hash TLV",
        7 => "a TLV of the wrong size",
        8 => "no image has this hash",
        9 => "no slot is free: an image is pending or not confirmed",
        10 => "the flash cannot be opened",
        11 => "the flash cannot be read",
        12 => "the flash cannot be written",
        13 => "the flash cannot be erased",
        14 => "no such slot",
        15 => "out of memory",
        16 => "an upload is under way",
        17 => "no upload is under way",
        18 => "no flash device",
        19 => "an invalid page offset",
        20 => "the offset is missing",
        21 => "the length is missing",
        22 => "the first chunk is shorter than the image header",
        23 => "no MCUboot image",
        24 => "an invalid hash",
        25 => "an invalid flash address",
        26 => "the running version cannot be read",
        27 => "the running version is newer",
        28 => "an image is pending already",
        29 => "an invalid vector table",
        30 => "the image is larger than the slot",
        31 => "more data than announced",
        32 => "confirming is not allowed",
        33 => "the running image cannot be put to test",
        _ => "an unknown code",
    }
}

#[cfg(test)]
mod tests {
    use super::{Refusal, image_rc, rc};

    #[test]
    fn codes_of_the_image_group_have_a_generic_one() {
        let rows = [
            (3, 5),
            (4, 5),
            (9, 6),
            (27, 6),
            (28, 6),
            (15, 2),
            (14, 3),
            (19, 3),
            (20, 3),
            (21, 3),
            (22, 3),
            (24, 3),
            (25, 3),
            (1, 1),
            (8, 1),
            (12, 1),
            (30, 1),
        ];
        for (code, generic) in rows {
            assert_eq!(Refusal::image(code).as_generic(), generic, "{code}");
            assert!(Refusal::generic(generic).is_image(code));
        }
        assert!(!Refusal::generic(rc::BUSY).is_image(image_rc::NO_FREE_SLOT));
    }
}
