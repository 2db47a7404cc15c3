//! What the host lends to a plugin instance: the interfaces of `wit/pal`, as far as the operator granted them.
//!
//! Traits for what the target engine owns (storage with its locks, the staged file) and for what hangs on the gateway
//! (a serial line, a reset input), so that a carrier needs to know nothing of transfers or devices; the log, cut and
//! limited, for everybody. The real lines and resets are ports ([`crate::ports`]). What is not granted is refused here,
//! for all carriers alike.

use std::sync::{Arc, Mutex, PoisonError};

use crate::agent::text::clean;
use crate::ports::clock::Clock;
use crate::ports::workers::Wake;
use crate::types::{Failure, Level, code};

/// Interfaces that this host can lend, by their WIT names. What a target really gets depends on its configuration.
pub const LENDABLE: [&str; 6] = [
    "block-device",
    "staged-image",
    "serial-line",
    "hardware-reset",
    "clock",
    "log",
];

/// Most bytes of one read or write through a lent interface (`wit/pal/block-device.wit`, `staged-image.wit`).
pub const TRANSFER_MAX_BYTES: u32 = 131_072;

/// Whether one call may move so many bytes.
///
/// # Errors
/// 0xd0: more than [`TRANSFER_MAX_BYTES`].
pub(crate) fn check_length(length: u64) -> Result<(), Failure> {
    if length > u64::from(TRANSFER_MAX_BYTES) {
        return Err(Failure::new(
            code::BAD_ARGUMENT,
            0,
            format!("{length} bytes in one call, at most {TRANSFER_MAX_BYTES} are moved"),
        ));
    }
    Ok(())
}

/// One region, as a plugin sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Region {
    /// Name from the configuration.
    pub name: String,
    /// 0 slot, 1 record.
    pub kind: u8,
    /// Bytes.
    pub size: u64,
    /// Smallest erase.
    pub erase_size: u32,
    /// Smallest write.
    pub write_size: u32,
    /// No writes at all.
    pub read_only: bool,
}

/// `block-device`: regions of storage, with bounds, locks and an account.
///
/// # Errors
/// Each call: a [`Failure`] with the codes of `wit/pal/types.wit`.
#[expect(clippy::missing_errors_doc, reason = "said once for the trait")]
pub trait BlockDevice: Send + Sync {
    /// What is granted.
    fn regions(&self) -> Vec<Region>;
    /// All `length` bytes from `offset`, or a failure.
    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure>;
    /// Write all of `data`.
    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure>;
    /// Erase whole erase units.
    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure>;
    /// Make the region's writes durable.
    fn sync(&self, region: u32) -> Result<(), Failure>;
}

/// `staged-image`: the file of a staged target as far as the host has it.
pub trait StagedImage: Send + Sync {
    /// Bytes held without a gap from the start.
    fn held(&self) -> u64;
    /// Whether the complete file was verified.
    fn verified(&self) -> bool;
    /// All `length` bytes from `offset`.
    ///
    /// # Errors
    /// 0xdb beyond what is held, 0xd0, 0xd1, 0xd6.
    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure>;
}

/// Parameters of a serial line, as a plugin asks for them; the operator's configuration comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// `serial-line`: one line. No call waits.
///
/// # Errors
/// Each call: 0xd4 sub 1 while the line is not there or not open; 0xda for what the carrier does not have.
#[expect(clippy::missing_errors_doc, reason = "said once for the trait")]
pub trait SerialLine: Send + Sync {
    /// Open it, or open it again; input of before is gone. `wake` is called when it has news.
    fn open(&self, parameters: &LineParameters, wake: Wake) -> Result<(), Failure>;
    /// Queue bytes for sending; how many were taken, 0 = full.
    fn write(&self, data: &[u8]) -> Result<u32, Failure>;
    /// What has arrived, at most `max` bytes.
    fn read(&self, max: u32) -> Result<Vec<u8>, Failure>;
    /// Bytes taken and not yet on the wire.
    fn unsent(&self) -> Result<u32, Failure>;
    /// Throw away what has arrived.
    fn drain(&self) -> Result<(), Failure>;
    /// Set control lines; `None` = leave as it is.
    fn set_line(
        &self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> Result<(), Failure>;
    /// Give it back.
    fn close(&self);
    /// Whether `read` would give something, or the line came or went since it was last used.
    fn has_news(&self) -> bool;
}

/// `hardware-reset`: the target's reset input, power switch or command.
pub trait HardwareReset: Send + Sync {
    /// Begin to reset the target; it ends by itself after `hold_ms`, 0 = as configured.
    ///
    /// # Errors
    /// 0xd4 sub 1 where it hangs on a line that is not open.
    fn pulse(&self, hold_ms: u32) -> Result<(), Failure>;
}

/// What one plugin instance is lent.
#[derive(Clone)]
pub struct Lent {
    /// Storage, if regions are granted.
    pub block_device: Option<Arc<dyn BlockDevice>>,
    /// The staged file, if there is staging.
    pub staged_image: Option<Arc<dyn StagedImage>>,
    /// The line, if one is configured.
    pub serial_line: Option<Arc<dyn SerialLine>>,
    /// The reset input. Lent without one, too: then it says that none is configured.
    pub hardware_reset: Option<Arc<dyn HardwareReset>>,
    /// Called by the line when it has news.
    pub wake: Wake,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The log.
    pub log: Arc<dyn Log>,
}

/// `sub` of 0xd4: nothing of the kind is configured (`wit/pal/types.wit`).
const NOT_CONFIGURED: u32 = 2;

impl Lent {
    /// The storage.
    ///
    /// # Errors
    /// 0xd1: not granted.
    pub fn storage(&self) -> Result<Arc<dyn BlockDevice>, Failure> {
        self.block_device.clone().ok_or_else(not_granted)
    }

    /// The regions of the storage; none where it is not granted.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        let device = self.block_device.as_ref();
        device.map(|device| device.regions()).unwrap_or_default()
    }

    /// The staged file.
    ///
    /// # Errors
    /// 0xd1: not granted.
    pub fn staged(&self) -> Result<Arc<dyn StagedImage>, Failure> {
        self.staged_image.clone().ok_or_else(not_granted)
    }

    /// The line.
    ///
    /// # Errors
    /// 0xd1: not granted.
    pub fn line(&self) -> Result<Arc<dyn SerialLine>, Failure> {
        self.serial_line.clone().ok_or_else(not_granted)
    }

    /// What has arrived on the line, at most `max` bytes and never more than [`TRANSFER_MAX_BYTES`].
    ///
    /// # Errors
    /// 0xd1: not granted; what the line says.
    pub fn read_line(&self, max: u32) -> Result<Vec<u8>, Failure> {
        self.line()?.read(max.min(TRANSFER_MAX_BYTES))
    }

    /// Begin to reset the target.
    ///
    /// # Errors
    /// 0xd4 sub 2: no reset is configured; what the output says.
    pub fn pulse(&self, hold_ms: u32) -> Result<(), Failure> {
        match &self.hardware_reset {
            Some(reset) => reset.pulse(hold_ms),
            None => Err(Failure::new(
                code::UNREACHABLE,
                NOT_CONFIGURED,
                "no reset of the target is configured",
            )),
        }
    }

    /// Whether an interface of [`LENDABLE`] is lent.
    #[must_use]
    pub fn lends(&self, interface: &str) -> bool {
        match interface {
            "block-device" => self.block_device.is_some(),
            "staged-image" => self.staged_image.is_some(),
            "serial-line" => self.serial_line.is_some(),
            "hardware-reset" | "clock" | "log" => true,
            _ => false,
        }
    }
}

fn not_granted() -> Failure {
    Failure::new(
        code::LIMIT,
        0,
        "this interface is not granted to the target",
    )
}

/// `log`: a plugin's way to say something.
pub trait Log: Send + Sync {
    /// Take one line.
    fn log(&self, level: Level, text: &str);
}

/// Most bytes of a log line of a plugin's.
const LINE_MAX_BYTES: usize = 1024;

/// Lines that a plugin may log in one second; a transfer logs some ten in all, a chatty one a line a step.
const LINES_PER_SECOND: u32 = 50;

/// A plugin's way into the host's log: cut, without control characters, limited in rate.
pub struct PluginLog {
    /// `device/target`.
    name: String,
    clock: Arc<dyn Clock>,
    rate: Mutex<Rate>,
}

#[derive(Default)]
struct Rate {
    second: u64,
    lines: u32,
    lost: u64,
}

impl PluginLog {
    /// A log for the plugin of `name` (`device/target`).
    #[must_use]
    pub fn new(name: String, clock: Arc<dyn Clock>) -> Self {
        Self {
            name,
            clock,
            rate: Mutex::default(),
        }
    }

    /// Whether a line may be logged now; `Some(n)`: yes, after `n` lines that were not.
    fn admit(&self) -> Option<u64> {
        let second = self.clock.now_ms() / 1000;
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.second != second {
            rate.second = second;
            rate.lines = 0;
        }
        if rate.lines == LINES_PER_SECOND {
            rate.lost += 1;
            return None;
        }
        rate.lines += 1;
        Some(std::mem::take(&mut rate.lost))
    }
}

impl Log for PluginLog {
    fn log(&self, level: Level, text: &str) {
        let Some(lost) = self.admit() else { return };
        if lost > 0 {
            tracing::warn!(plugin = %self.name, "{lost} log lines were too many and are lost");
        }
        let line = clean(text, LINE_MAX_BYTES);
        match level {
            Level::Trace => tracing::trace!(plugin = %self.name, "{line}"),
            Level::Debug => tracing::debug!(plugin = %self.name, "{line}"),
            Level::Info => tracing::info!(plugin = %self.name, "{line}"),
            Level::Warn => tracing::warn!(plugin = %self.name, "{line}"),
            Level::Error => tracing::error!(plugin = %self.name, "{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
        fn wall_s(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_flood_of_lines_is_cut_to_the_rate_and_counted() {
        let clock = Arc::new(Hands::default());
        let log = PluginLog::new("d/t".into(), clock.clone());
        let admitted = (0..1000).filter(|_| log.admit().is_some()).count();
        assert_eq!(admitted, LINES_PER_SECOND as usize);
        clock.0.store(1000, Ordering::Relaxed);
        assert_eq!(log.admit(), Some(1000 - u64::from(LINES_PER_SECOND)));
        assert_eq!(log.admit(), Some(0));
    }
}
