//! Which server the simulated MCU imitates: sizes, dialect, commands and quirks, each seen in a real one.
//!
//! A profile is data. Nothing here answers a request.

/// How a server that understands SMP version 2 says that a group's command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"rc": n}`, translated to the generic codes, whatever the request's version.
    Rc,
    /// `{"ret": {"group": g, "rc": n}}`: Zephyr 3.3 and 3.4.
    Ret,
    /// `{"err": {"group": g, "rc": n}}`: Zephyr since 3.5.
    Err,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// How errors look.
    pub errors: ErrorShape,
    /// Requests of version 2 are dropped without an answer.
    pub ignores_v2: bool,
    /// Success carries `rc: 0`.
    pub legacy_rc: bool,
    /// False flags are left out of the list.
    pub frugal_list: bool,
    /// Images are listed with their hashes.
    pub lists_hash: bool,
    /// A recovery lists the primary slot's image as the one that runs.
    pub recovery_lists_active: bool,
    /// An empty slot is listed, as version 255.255.65535 without hash.
    pub lists_empty: bool,
    /// A build number stands behind the version without a dot between them: 1.2.3 build 4 is "1.2.34".
    pub glues_build: bool,
    /// Echo is there.
    pub has_echo: bool,
    /// `mcumgr params` is there.
    pub has_params: bool,
    /// `os info` is there.
    pub has_os_info: bool,
    /// `bootloader info` is there.
    pub has_bootloader_info: bool,
    /// Slot info is there.
    pub has_slot_info: bool,
    /// State write is there.
    pub has_state_write: bool,
    /// Erase is there.
    pub has_erase: bool,
    /// Uploads are compared with their `sha` and answered with `match`.
    pub has_image_check: bool,
    /// The first bytes of an upload must be an image header.
    pub checks_header: bool,
    /// Uploads that do not fit are refused.
    pub checks_size: bool,
    /// Sectors are erased when the upload comes to them, else all of them at offset 0.
    pub erases_progressively: bool,
    /// Only multiples of so many bytes are taken from an upload's piece, but for the last one.
    pub accepts_multiples_of: u32,
    /// Erasing an empty slot is an error.
    pub refuses_empty_erase: bool,
    /// Testing the running image is refused; older servers confirm it.
    pub refuses_test_of_active: bool,
    /// Image numbers of an upload name slots: 0 and 1 the primary, 2 the secondary one.
    pub uploads_to_slots: bool,
    /// Buffer of one packet with its length and checksum, in bytes.
    pub buf_size: u16,
    /// Such buffers, shared by requests and the answer in the making.
    pub buf_count: u8,
    /// Lines that wait to be read.
    pub line_buffers: u8,
    /// Longest line, in bytes, with marker and newline.
    pub line_bytes_max: u16,
    /// A reset with `boot_mode: 1` starts the recovery.
    pub has_boot_mode: bool,
}

impl Profile {
    /// The `smp_svr` sample of Zephyr 3.4.
    #[must_use]
    pub const fn zephyr_3_4() -> Self {
        Self {
            errors: ErrorShape::Ret,
            ignores_v2: false,
            legacy_rc: false,
            frugal_list: false,
            lists_hash: true,
            recovery_lists_active: false,
            lists_empty: false,
            glues_build: false,
            has_echo: true,
            has_params: true,
            has_os_info: true,
            has_bootloader_info: false,
            has_slot_info: false,
            has_state_write: true,
            has_erase: true,
            has_image_check: false,
            checks_header: true,
            checks_size: false,
            erases_progressively: false,
            accepts_multiples_of: 1,
            refuses_empty_erase: true,
            refuses_test_of_active: false,
            uploads_to_slots: false,
            buf_size: 384,
            buf_count: 4,
            line_buffers: 2,
            line_bytes_max: 127,
            has_boot_mode: false,
        }
    }

    /// A server of Zephyr 4.4.
    #[must_use]
    pub const fn zephyr_4_4() -> Self {
        Self {
            errors: ErrorShape::Err,
            has_bootloader_info: true,
            has_slot_info: true,
            checks_size: true,
            refuses_empty_erase: false,
            refuses_test_of_active: true,
            has_boot_mode: true,
            ..Self::zephyr_3_4()
        }
    }

    /// MCUboot's serial recovery of the age of Zephyr 3.4: version 1 only.
    #[must_use]
    pub const fn recovery_3_4() -> Self {
        Self {
            errors: ErrorShape::Rc,
            ignores_v2: true,
            legacy_rc: true,
            frugal_list: true,
            lists_hash: false,
            lists_empty: true,
            glues_build: true,
            has_echo: false,
            has_params: false,
            has_os_info: false,
            has_state_write: false,
            has_erase: false,
            checks_header: false,
            accepts_multiples_of: 4,
            refuses_empty_erase: false,
            uploads_to_slots: true,
            buf_size: 512,
            buf_count: 1,
            ..Self::zephyr_3_4()
        }
    }

    /// MCUboot's serial recovery of the age of Zephyr 4.4: both versions, errors as in version 1.
    #[must_use]
    pub const fn recovery_4_4() -> Self {
        Self {
            ignores_v2: false,
            lists_empty: false,
            lists_hash: true,
            has_params: true,
            buf_size: 1024,
            ..Self::recovery_3_4()
        }
    }

    /// Largest packet, in bytes: the buffer also holds length and checksum.
    #[must_use]
    pub const fn packet_bytes_max(&self) -> usize {
        self.buf_size as usize - 4
    }

    /// The profile of a name, as `otad mcu-sim` takes it.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        PROFILES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, profile)| profile())
    }

    /// The names that [`Profile::of_name`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROFILES.iter().map(|(name, _)| *name)
    }
}

type Make = fn() -> Profile;

const PROFILES: &[(&str, Make)] = &[
    ("zephyr-3.4", Profile::zephyr_3_4),
    ("zephyr-4.4", Profile::zephyr_4_4),
    ("recovery-3.4", Profile::recovery_3_4),
    ("recovery-4.4", Profile::recovery_4_4),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_a_name_and_room_for_a_packet() {
        for name in Profile::names() {
            let profile = Profile::of_name(name).unwrap();
            assert!(profile.packet_bytes_max() >= 380, "{name}");
        }
        assert_eq!(Profile::of_name("zephyr"), None);
    }
}
