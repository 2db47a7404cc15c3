//! What an operator may set; README.md has the table. A wrong value or an unknown key is refused at `open`.

use pal_sdk::lent::LineParameters;
use pal_sdk::{Failure, Setting};
use smp_core::client::WINDOW_MAX;
use smp_core::frame::Framing;

/// Longest of all durations: an hour.
const DURATION_MAX_MS: u64 = 3_600_000;
/// After an upload no seconds are told, and the host ends a duty that stands still for ten minutes: two less than that.
const SILENCE_MAX_MS: u64 = 480_000;

/// The settings, with their defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) framing: Framing,
    pub(crate) line: LineParameters,
    /// Chunks under way at most.
    pub(crate) window: u8,
    /// Number of the image; `None` = the only one, and not sent.
    pub(crate) image: Option<u32>,
    /// Bytes of the slot, where the server does not tell; 0 = not known.
    pub(crate) slot_bytes: u64,
    /// What the image's product TLV has to say; empty = anything.
    pub(crate) product: String,
    /// Type of that TLV.
    pub(crate) product_tlv: u16,
    /// A bootloader without revert that is taken all the same, by name.
    pub(crate) allow_no_revert: String,
    /// Longest that a swap takes.
    pub(crate) swap_timeout_ms: u64,
    /// Longest that a target may be silent before a duty fails.
    pub(crate) silence_ms: u64,
    /// How long a new image has to stay as it is.
    pub(crate) soak_ms: u64,
    /// Group and command of the application's own test.
    pub(crate) test_command: Option<(u16, u8)>,
    /// Longest that it takes.
    pub(crate) test_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            framing: Framing::Console,
            line: LineParameters {
                baud: 0,
                parity: 0,
                stop_bits: 1,
                flow_control: 0,
            },
            window: 3,
            image: None,
            slot_bytes: 0,
            product: String::new(),
            product_tlv: 0xa0,
            allow_no_revert: String::new(),
            swap_timeout_ms: 180_000,
            silence_ms: 60_000,
            soak_ms: 5_000,
            test_command: None,
            test_timeout_ms: 10_000,
        }
    }
}

impl Settings {
    /// Longest silence of a target that may be swapping.
    pub(crate) fn patience_ms(&self) -> u64 {
        self.silence_ms.max(self.swap_timeout_ms)
    }

    /// # Errors
    /// 0xd0: an unknown key, or a value that cannot be.
    pub(crate) fn read(settings: &[Setting]) -> Result<Self, Failure> {
        let mut read = Self::default();
        for setting in settings {
            if read.set(setting).is_none() {
                let text = [
                    "setting `",
                    &setting.key,
                    "` cannot be `",
                    &setting.value,
                    "`",
                ];
                return Err(Failure::bad_argument(&text.concat()));
            }
        }
        Ok(read)
    }

    fn set(&mut self, setting: &Setting) -> Option<()> {
        let value = setting.value.as_str();
        let choice = |names: &[&str]| names.iter().position(|name| *name == value);
        let number = |max: u64| value.parse().ok().filter(|n| *n <= max);
        match setting.key.as_str() {
            "framing" => {
                self.framing = [Framing::Console, Framing::Raw][choice(&["console", "raw"])?];
            }
            "baud" => self.line.baud = value.parse().ok()?,
            "parity" => self.line.parity = choice(&["none", "odd", "even"])? as u8,
            "stop_bits" => self.line.stop_bits = choice(&["1", "2"])? as u8 + 1,
            "flow_control" => {
                self.line.flow_control = choice(&["none", "rts-cts", "xon-xoff"])? as u8;
            }
            "window" => {
                let window = number(WINDOW_MAX as u64).filter(|n| *n > 0)?;
                self.window = u8::try_from(window).ok()?;
            }
            "image" => self.image = Some(u32::try_from(number(7)?).ok()?),
            "slot_bytes" => self.slot_bytes = number(u32::MAX.into())?,
            "product" => value.clone_into(&mut self.product),
            "product_tlv" => self.product_tlv = value.parse().ok()?,
            "allow_no_revert" => {
                choice(&[
                    "",
                    "single",
                    "overwrite",
                    "direct-xip",
                    "ram-load",
                    "recovery",
                    "unknown",
                ])?;
                value.clone_into(&mut self.allow_no_revert);
            }
            "swap_timeout_ms" => self.swap_timeout_ms = number(DURATION_MAX_MS)?,
            "silence_ms" => self.silence_ms = number(SILENCE_MAX_MS)?,
            "soak_ms" => self.soak_ms = number(DURATION_MAX_MS)?,
            "test_command" => {
                let (group, id) = value.split_once(':')?;
                let group = group
                    .parse()
                    .ok()
                    .filter(|g| *g >= smp_core::code::group::USER)?;
                self.test_command = Some((group, id.parse().ok()?));
            }
            "test_timeout_ms" => self.test_timeout_ms = number(DURATION_MAX_MS)?,
            _ => return None,
        }
        Some(())
    }
}
