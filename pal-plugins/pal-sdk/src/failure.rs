//! Why a duty or a lent call did not work.

/// `failure.main`: the codes that a plugin gives or sees. The table in `wit/pal/types.wit` is the authority.
pub mod code {
    /// Bad argument: bounds, alignment, unknown region, call out of order.
    pub const BAD_ARGUMENT: u8 = 0xd0;
    /// A limit or a grant is used up.
    pub const LIMIT: u8 = 0xd1;
    /// The image is for another product or hardware.
    pub const WRONG_PRODUCT: u8 = 0xd3;
    /// Target unreachable; sub 0 silent, 1 unplugged, 2 not configured.
    pub const UNREACHABLE: u8 = 0xd4;
    /// Storage; sub = errno.
    pub const STORAGE: u8 = 0xd6;
    /// This target cannot do that.
    pub const UNSUPPORTED: u8 = 0xda;
    /// Not found: the bytes are not there yet, nothing is held.
    pub const NOT_FOUND: u8 = 0xdb;
    /// Busy, or not to be written now.
    pub const BUSY: u8 = 0xdc;
    /// The bootloader cannot revert.
    pub const NO_REVERT: u8 = 0xdd;
    /// Saved state of a schema that this build does not read.
    pub const SCHEMA: u8 = 0xdf;
    /// Out of memory (`OtaPalOutOfMemory`).
    pub const OUT_OF_MEMORY: u8 = 0xe1;
    /// The target itself refused the signature (`OtaPalSignatureCheckFailed`).
    pub const SIGNATURE: u8 = 0xe3;
    /// Cannot receive (`OtaPalRxFileCreateFailed`).
    pub const CREATE_FAILED: u8 = 0xe4;
    /// File too large (`OtaPalRxFileTooLarge`).
    pub const TOO_LARGE: u8 = 0xe5;
    /// Boot record cannot be written (`OtaPalBootInfoCreateFailed`).
    pub const BOOT_INFO: u8 = 0xe6;
    /// Wrong state for this, for example an uncommitted image runs (`OtaPalBadImageState`).
    pub const BAD_IMAGE_STATE: u8 = 0xe8;
    /// Abort failed.
    pub const ABORT_FAILED: u8 = 0xe9;
    /// Reject failed.
    pub const REJECT_FAILED: u8 = 0xea;
    /// Commit failed.
    pub const COMMIT_FAILED: u8 = 0xeb;
    /// Activate failed.
    pub const ACTIVATE_FAILED: u8 = 0xec;
    /// The block or the push failed (`OtaPalFileAbort`).
    pub const BLOCK_FAILED: u8 = 0xed;
}

/// Why something failed: `main` as in the C PAL's status, `sub` is the plugin's own number (24 bits), `detail` is one
/// line for people, lower case, at most 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One of [`code`].
    pub main: u8,
    /// The plugin's own number; document it.
    pub sub: u32,
    /// For people.
    pub detail: String,
}

impl Failure {
    /// A failure.
    // Out of line, here and in what builds on it: copied into every duty it makes a component half as large again.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub fn new(main: u8, sub: u32, detail: &str) -> Self {
        Self {
            main,
            sub,
            detail: detail.to_owned(),
        }
    }

    /// The host passed something that cannot be, or called out of order. The host's fault.
    #[must_use]
    pub fn bad_argument(detail: &str) -> Self {
        Self::new(code::BAD_ARGUMENT, 0, detail)
    }

    /// This target has no such duty.
    #[must_use]
    pub fn unsupported(detail: &str) -> Self {
        Self::new(code::UNSUPPORTED, 0, detail)
    }

    /// The target is not in a state for this.
    #[must_use]
    pub fn bad_state(detail: &str) -> Self {
        Self::new(code::BAD_IMAGE_STATE, 0, detail)
    }

    /// Saved state that this build does not read.
    #[must_use]
    pub fn schema(schema: u32) -> Self {
        Self::new(code::SCHEMA, schema, "saved state of an unknown schema")
    }
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} (0x{:02x}:{})", self.detail, self.main, self.sub)
    }
}

impl std::error::Error for Failure {}
