//! What the host lends, one trait an interface, so that a plugin names only what it uses: a component imports exactly
//! the functions that are called, and each import must be granted by the operator; a shared library lists what it needs
//! ([`need`]). In both `pal_sdk::Lent` implements all of them; in a unit test [`fake::Fake`](crate::fake::Fake) does.
//!
//! Doc comments here are one line each; `wit/pal/*.wit` is the authority.

use crate::Failure;

/// What a plugin needs, as bits for [`export_plugin!`](crate::export_plugin).
pub mod need {
    /// [`BlockDevice`](super::BlockDevice).
    pub const BLOCK_DEVICE: u32 = 0x01;
    /// [`StagedImage`](super::StagedImage).
    pub const STAGED_IMAGE: u32 = 0x02;
    /// [`SerialLine`](super::SerialLine).
    pub const SERIAL_LINE: u32 = 0x04;
    /// [`HardwareReset`](super::HardwareReset).
    pub const HARDWARE_RESET: u32 = 0x08;
    /// [`Clock`](super::Clock).
    pub const CLOCK: u32 = 0x10;
    /// [`Log`](super::Log).
    pub const LOG: u32 = 0x20;
}

/// One region of lent storage; its index in [`BlockDevice::regions`] is its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Name from the configuration, such as `slot-a`.
    pub name: String,
    /// 0 slot, 1 record.
    pub kind: u8,
    /// Bytes.
    pub size: u64,
    /// Smallest erase, a power of two; 1 = need not be erased.
    pub erase_size: u32,
    /// Smallest write, a power of two.
    pub write_size: u32,
    /// No writes at all.
    pub read_only: bool,
}

impl Region {
    /// `kind` of a region for images.
    pub const SLOT: u8 = 0;
    /// `kind` of a region for what the boot reader reads.
    pub const RECORD: u8 = 1;
}

/// Storage that the operator granted.
pub trait BlockDevice {
    /// What is granted; the list does not change while an instance lives.
    fn regions(&self) -> Vec<Region>;
    /// Read up to 128 KiB.
    ///
    /// # Errors
    /// Bounds, or what the medium says; nothing is read.
    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure>;
    /// Write up to 128 KiB; durable after `sync`.
    ///
    /// # Errors
    /// Bounds, alignment, not to be written now (0xdc), or what the medium says.
    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure>;
    /// Erase whole erase units; they read as 0xff.
    ///
    /// # Errors
    /// As `write_at`.
    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure>;
    /// Make all writes of the region durable.
    ///
    /// # Errors
    /// What the medium says; what was written may or may not be durable.
    fn sync(&self, region: u32) -> Result<(), Failure>;
}

/// The file as the host has it (staged targets).
pub trait StagedImage {
    /// Bytes held without a gap from the start.
    fn held(&self) -> u64;
    /// Whether the host has verified the complete file.
    fn verified(&self) -> bool;
    /// Read up to 128 KiB below `held`.
    ///
    /// # Errors
    /// 0xdb: not there yet.
    fn read_staged(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure>;
}

/// Parameters of a serial line; ignored where the carrier has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineParameters {
    /// Bits a second, 0 = as configured.
    pub baud: u32,
    /// 0 none, 1 odd, 2 even.
    pub parity: u8,
    /// 1 or 2.
    pub stop_bits: u8,
    /// 0 none, 1 RTS/CTS, 2 XON/XOFF.
    pub flow_control: u8,
}

/// One serial line. Nothing waits; return [`Wake::on_input`](crate::Wake::on_input) to wait.
pub trait SerialLine {
    /// Open it, or open it again; input of before is gone.
    ///
    /// # Errors
    /// 0xd4 sub 1: unplugged.
    fn open_line(&self, parameters: LineParameters) -> Result<(), Failure>;
    /// Queue bytes for sending; returns how many were taken, 0 = full.
    ///
    /// # Errors
    /// 0xd4 sub 1: unplugged.
    fn write_line(&self, data: &[u8]) -> Result<u32, Failure>;
    /// What has arrived, at most `max` bytes, perhaps nothing.
    ///
    /// # Errors
    /// 0xd4 sub 1: unplugged.
    fn read_line(&self, max: u32) -> Result<Vec<u8>, Failure>;
    /// Bytes taken and not yet on the wire.
    ///
    /// # Errors
    /// 0xd4 sub 1: unplugged.
    fn unsent(&self) -> Result<u32, Failure>;
    /// Throw away what has arrived so far.
    ///
    /// # Errors
    /// 0xd4 sub 1: unplugged.
    fn drain(&self) -> Result<(), Failure>;
    /// Set control lines; `None` = leave as it is.
    ///
    /// # Errors
    /// 0xda where the carrier has none.
    fn set_line(
        &self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> Result<(), Failure>;
    /// Give the line back.
    fn close_line(&self);
}

/// The target's reset input, power switch or command.
pub trait HardwareReset {
    /// Reset the target; 0 = hold it as long as configured.
    ///
    /// # Errors
    /// What the output says.
    fn pulse(&self, hold_ms: u32) -> Result<(), Failure>;
}

/// Time for time-outs and rates.
pub trait Clock {
    /// Milliseconds; never goes back while an instance lives.
    fn now_ms(&self) -> u64;
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every frame.
    Trace,
    /// Every command.
    Debug,
    /// What an operator wants to read.
    Info,
    /// Someone should look.
    Warn,
    /// It does not work.
    Error,
}

/// The host's log.
pub trait Log {
    /// One line of at most 1 KiB.
    fn log(&self, level: Level, text: &str);
}
