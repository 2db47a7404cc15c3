//! `ota_pal.h` for Rust: the same types, in the same order. The header is the authority on all of them.
//!
//! Text, like everything in `wit/`: the host and the plugins' SDK each include this file as a module. Here is no code;
//! `tests/versioning` compares sizes and offsets with those that a C compiler finds in the header.

use core::ffi::{c_char, c_void};

/// `OTA_PAL_ABI_VERSION`.
pub const ABI_VERSION: u32 = 1;
/// Name of the one symbol that a library exports.
pub const ENTRY: &str = "ota_pal_plugin_entry";
/// `OTA_PAL_DETAIL_BYTES`.
pub const DETAIL_BYTES: usize = 256;
/// `OTA_PAL_PRODUCT_BYTES`.
pub const PRODUCT_BYTES: usize = 128;
/// `OTA_PAL_REGION_NAME_BYTES`.
pub const REGION_NAME_BYTES: usize = 64;
/// `OTA_PAL_TRANSFER_MAX_BYTES`.
pub const TRANSFER_MAX_BYTES: u32 = 131_072;
/// `OTA_PAL_SAVED_MAX_BYTES`.
pub const SAVED_MAX_BYTES: usize = 65_536;
/// `OTA_PAL_EXTENTS_MAX`.
pub const EXTENTS_MAX: usize = 64;
/// `OTA_PAL_KINDS_MAX`.
pub const KINDS_MAX: usize = 16;
/// `OTA_PAL_CALL_MAX_MS`.
pub const CALL_MAX_MS: u64 = 5000;

/// Names of the interfaces, by the number of their bit in `needs` and `granted`.
pub const INTERFACES: [&str; 6] = [
    "block-device",
    "staged-image",
    "serial-line",
    "hardware-reset",
    "clock",
    "log",
];

/// Names of the capabilities, by the number of their bit in `capabilities`: `OTA_PAL_CAN_` and the name in capitals.
pub const CAPABILITIES: [&str; 6] = [
    "direct",
    "staged",
    "ahead",
    "revert",
    "self-test",
    "running-version",
];
/// Names of the states of an image, by their number: `OTA_PAL_STATE_` and the name in capitals.
pub const STATES: [&str; 6] = [
    "unknown",
    "pending-commit",
    "valid",
    "invalid",
    "armed",
    "foreign",
];

/// `OTA_PAL_FINISHED`.
pub const FINISHED: u32 = 0;
/// `OTA_PAL_WORKING`.
pub const WORKING: u32 = 1;
/// `OTA_PAL_WAKE_INPUT`.
pub const WAKE_INPUT: u32 = 0x01;
/// `OTA_PAL_WAKE_DATA`.
pub const WAKE_DATA: u32 = 0x02;
/// `OTA_PAL_WAKE_AFTER`.
pub const WAKE_AFTER: u32 = 0x04;
/// `OTA_PAL_NOTHING`.
pub const NOTHING: u32 = 0;
/// `OTA_PAL_INFO`.
pub const INFO: u32 = 1;
/// `OTA_PAL_STATE`.
pub const STATE: u32 = 2;
/// `OTA_PAL_HOST_RESETS`.
pub const HOST_RESETS: u32 = 3;
/// `OTA_PAL_CANNOT_TELL`.
pub const CANNOT_TELL: u32 = 0;
/// `OTA_PAL_YES`.
pub const YES: u32 = 1;
/// `OTA_PAL_NO`.
pub const NO: u32 = 2;

/// `OTA_PAL_TRACE`.
pub const TRACE: u32 = 0;
/// `OTA_PAL_DEBUG`.
pub const DEBUG: u32 = 1;
/// `OTA_PAL_INFORM`.
pub const INFORM: u32 = 2;
/// `OTA_PAL_WARN`.
pub const WARN: u32 = 3;
/// `OTA_PAL_ERROR`.
pub const ERROR: u32 = 4;

/// `ota_pal_failure`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// Main code.
    pub main: u32,
    /// The plugin's own.
    pub sub: u32,
    /// Text with NUL.
    pub detail: [c_char; DETAIL_BYTES],
}

/// `ota_pal_version`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Version {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub revision: u16,
    /// Fourth number.
    pub build: u32,
}

/// `ota_pal_setting`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Text.
    pub key: *const c_char,
    /// Text.
    pub value: *const c_char,
}

/// `ota_pal_saved`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// Encoding of the bytes.
    pub schema: u32,
    /// How many.
    pub length: u32,
    /// The state.
    pub bytes: *const u8,
}

/// `ota_pal_description`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Size of this as the plugin knows it.
    pub struct_size: u32,
    /// Bits.
    pub capabilities: u32,
    /// Bytes.
    pub largest_write: u32,
    /// Bits.
    pub needs: u32,
    /// Text.
    pub name: *const c_char,
    /// Text.
    pub version: *const c_char,
    /// Texts, NULL behind the last.
    pub kinds: *const *const c_char,
    /// Numbers.
    pub schemas: *const u32,
    /// How many.
    pub schema_count: u32,
    /// 0.
    pub reserved: u32,
}

/// `ota_pal_transfer`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Size of this as the host knows it.
    pub struct_size: u32,
    /// The target's number.
    pub file_id: u32,
    /// Bytes in all.
    pub size: u64,
    /// Grid of the blocks.
    pub block_size: u32,
    /// `fileType`.
    pub file_type: u32,
    /// `attr`.
    pub attributes: u32,
    /// Bytes of the signature.
    pub signature_length: u32,
    /// The signature.
    pub signature: *const u8,
    /// Text.
    pub device: *const c_char,
    /// Text.
    pub job_id: *const c_char,
    /// Text.
    pub path: *const c_char,
    /// Text.
    pub certificate: *const c_char,
    /// Text.
    pub signature_kind: *const c_char,
}

/// `ota_pal_duty`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Duty {
    /// Size of this as the host knows it.
    pub struct_size: u32,
    /// Finished or working.
    pub status: u32,
    /// Bytes so far.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bits.
    pub wake: u32,
    /// Milliseconds.
    pub wake_after_ms: u32,
    /// Kind of answer.
    pub answer: u32,
    /// State of the target.
    pub state: u32,
    /// Cannot tell, yes, no.
    pub runs_new: u32,
    /// 1 = `version` counts.
    pub has_version: u32,
    /// Of the image or of what runs.
    pub version: Version,
    /// Text with NUL.
    pub product: [c_char; PRODUCT_BYTES],
}

/// `ota_pal_extent`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Index of the region.
    pub region: u32,
    /// 0.
    pub reserved: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// `ota_pal_region`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// Bytes.
    pub size: u64,
    /// Slot or record.
    pub kind: u32,
    /// Bytes.
    pub erase_size: u32,
    /// Bytes.
    pub write_size: u32,
    /// 1 = no writes at all.
    pub read_only: u32,
    /// Text with NUL.
    pub name: [c_char; REGION_NAME_BYTES],
}

/// `ota_pal_line`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Bits a second.
    pub baud: u32,
    /// None, odd, even.
    pub parity: u32,
    /// Stop bits.
    pub stop_bits: u32,
    /// None, RTS/CTS, XON/XOFF.
    pub flow_control: u32,
}

/// `ota_pal_lent`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Lent {
    /// Size of this as the host knows it.
    pub struct_size: u32,
    /// Bits.
    pub granted: u32,
    /// First argument of all functions.
    pub host: *mut c_void,
    /// `region_count`.
    pub region_count: unsafe extern "C" fn(*mut c_void) -> u32,
    /// `region`.
    pub region: unsafe extern "C" fn(*mut c_void, u32, *mut Region, *mut Failure) -> i32,
    /// `read_at`.
    pub read_at: unsafe extern "C" fn(*mut c_void, u32, u64, *mut u8, u32, *mut Failure) -> i32,
    /// `write_at`.
    pub write_at: unsafe extern "C" fn(*mut c_void, u32, u64, *const u8, u32, *mut Failure) -> i32,
    /// `erase`.
    pub erase: unsafe extern "C" fn(*mut c_void, u32, u64, u64, *mut Failure) -> i32,
    /// `sync`.
    pub sync: unsafe extern "C" fn(*mut c_void, u32, *mut Failure) -> i32,
    /// `staged_held`.
    pub staged_held: unsafe extern "C" fn(*mut c_void) -> u64,
    /// `staged_verified`.
    pub staged_verified: unsafe extern "C" fn(*mut c_void) -> u32,
    /// `staged_read`.
    pub staged_read: unsafe extern "C" fn(*mut c_void, u64, *mut u8, u32, *mut Failure) -> i32,
    /// `line_open`.
    pub line_open: unsafe extern "C" fn(*mut c_void, *const Line, *mut Failure) -> i32,
    /// `line_write`.
    pub line_write:
        unsafe extern "C" fn(*mut c_void, *const u8, u32, *mut u32, *mut Failure) -> i32,
    /// `line_read`.
    pub line_read: unsafe extern "C" fn(*mut c_void, *mut u8, u32, *mut u32, *mut Failure) -> i32,
    /// `line_unsent`.
    pub line_unsent: unsafe extern "C" fn(*mut c_void, *mut u32, *mut Failure) -> i32,
    /// `line_drain`.
    pub line_drain: unsafe extern "C" fn(*mut c_void, *mut Failure) -> i32,
    /// `line_set`.
    pub line_set: unsafe extern "C" fn(*mut c_void, i32, i32, i32, *mut Failure) -> i32,
    /// `line_close`.
    pub line_close: unsafe extern "C" fn(*mut c_void),
    /// `pulse`.
    pub pulse: unsafe extern "C" fn(*mut c_void, u32, *mut Failure) -> i32,
    /// `now_ms`.
    pub now_ms: unsafe extern "C" fn(*mut c_void) -> u64,
    /// `log`.
    pub log: unsafe extern "C" fn(*mut c_void, u32, *const c_char),
}

/// `describe`.
pub type Describe = unsafe extern "C" fn() -> *const Description;
/// `open`.
pub type Open = unsafe extern "C" fn(
    *const Lent,
    *const Setting,
    u32,
    *const Saved,
    *mut *mut c_void,
    *mut Failure,
) -> i32;
/// `close`.
pub type Close = unsafe extern "C" fn(*mut c_void);
/// `create`, `reopen`.
pub type Begin = unsafe extern "C" fn(*mut c_void, *const Transfer, *mut Duty, *mut Failure) -> i32;
/// `write_block`.
pub type WriteBlock =
    unsafe extern "C" fn(*mut c_void, u64, *const u8, u32, *mut Duty, *mut Failure) -> i32;
/// `extents`.
pub type Extents = unsafe extern "C" fn(*mut c_void, *mut Extent, *mut u32, *mut Failure) -> i32;
/// Duties without arguments.
pub type Plain = unsafe extern "C" fn(*mut c_void, *mut Duty, *mut Failure) -> i32;
/// `activate`.
pub type Activate = unsafe extern "C" fn(*mut c_void, *const u8, *mut Duty, *mut Failure) -> i32;
/// `step`.
pub type Step = unsafe extern "C" fn(*mut c_void, u32, *mut Duty, *mut Failure) -> i32;
/// `suspend`.
pub type Suspend =
    unsafe extern "C" fn(*mut c_void, *mut u32, *mut u8, *mut u32, *mut Failure) -> i32;
/// The exported symbol.
pub type Entry = unsafe extern "C" fn() -> *const Plugin;

/// `ota_pal_plugin`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Plugin {
    /// Size of this as the plugin knows it.
    pub struct_size: u32,
    /// The ABI it was built for.
    pub abi_version: u32,
    /// Required.
    pub describe: Option<Describe>,
    /// Required.
    pub open: Option<Open>,
    /// By choice.
    pub close: Option<Close>,
    /// Required.
    pub create: Option<Begin>,
    /// Required.
    pub reopen: Option<Begin>,
    /// By choice.
    pub write_block: Option<WriteBlock>,
    /// By choice.
    pub extents: Option<Extents>,
    /// By choice.
    pub examine: Option<Plain>,
    /// By choice.
    pub install: Option<Plain>,
    /// Required.
    pub activate: Option<Activate>,
    /// By choice.
    pub reset: Option<Plain>,
    /// By choice.
    pub self_test: Option<Plain>,
    /// Required.
    pub commit: Option<Plain>,
    /// Required.
    pub reject: Option<Plain>,
    /// Required.
    pub state: Option<Plain>,
    /// Required.
    pub abort: Option<Plain>,
    /// By choice.
    pub step: Option<Step>,
    /// By choice.
    pub suspend: Option<Suspend>,
}

const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Failure>() == 264);
    assert!(size_of::<Version>() == 8);
    assert!(size_of::<Setting>() == 16);
    assert!(size_of::<Saved>() == 16);
    assert!(size_of::<Description>() == 56);
    assert!(size_of::<Transfer>() == 80);
    assert!(size_of::<Duty>() == 184);
    assert!(size_of::<Extent>() == 24);
    assert!(size_of::<Region>() == 88);
    assert!(size_of::<Line>() == 16);
    assert!(size_of::<Lent>() == 168);
    assert!(size_of::<Plugin>() == 152);
};
