//! What a build is lent that is only tried: all that it will be lent, and nothing behind it.
//!
//! A probe runs beside the build that is in charge, on a thread of its own: whatever it touches is refused, as in
//! `open`, but for log and clock.

use std::sync::Arc;

use super::slot::{opened, sane};
use crate::agent::text::clean;
use crate::plugin::lend::{
    BlockDevice, HardwareReset, Lent, LineParameters, Log, Region, SerialLine, StagedImage,
};
use crate::plugin::{PluginError, PluginFactory};
use crate::ports::clock::Clock;
use crate::ports::workers::Wake;
use crate::types::{DETAIL_MAX_BYTES, Failure, Level, Setting, code};

/// Whether a build takes these settings, by its own word: an instance is opened with them, and thrown away. `image.open`
/// touches nothing of what is lent but the log, and what is lent here leads nowhere: so this may be asked of a component
/// beside whatever serves the target, and where there is no target.
///
/// # Errors
/// What the build says, or how it broke, which is none of the settings' fault.
pub fn takes_settings(
    build: &dyn PluginFactory,
    settings: &[Setting],
    clock: Arc<dyn Clock>,
) -> Result<(), PluginError> {
    let lent = Lent {
        block_device: Some(none()),
        staged_image: Some(none()),
        serial_line: Some(none()),
        hardware_reset: Some(none()),
        wake: Arc::new(|| {}),
        clock,
        log: none(),
    };
    opened(build, lent, settings, None)
        .map(drop)
        .map_err(|error| match error {
            PluginError::Failed(failure) => PluginError::Failed(sane(failure)),
            PluginError::Broken(reason) => PluginError::Broken(clean(&reason, DETAIL_MAX_BYTES)),
        })
}

/// The same interfaces, sealed.
pub(super) fn sealed(lent: &Lent) -> Lent {
    let regions = lent.block_device.as_ref().map(|device| device.regions());
    Lent {
        block_device: regions.map(|regions| Arc::new(Sealed { regions }) as _),
        staged_image: lent.staged_image.as_ref().map(|_| none() as _),
        serial_line: lent.serial_line.as_ref().map(|_| none() as _),
        hardware_reset: lent.hardware_reset.as_ref().map(|_| none() as _),
        ..lent.clone()
    }
}

struct Sealed {
    regions: Vec<Region>,
}

fn none() -> Arc<Sealed> {
    Arc::new(Sealed {
        regions: Vec::new(),
    })
}

fn refuse<R>() -> Result<R, Failure> {
    Err(Failure::new(
        code::BUSY,
        0,
        "nothing is lent in `open`: another instance may own the target",
    ))
}

impl BlockDevice for Sealed {
    fn regions(&self) -> Vec<Region> {
        self.regions.clone()
    }
    fn read_at(&self, _: u32, _: u64, _: u32) -> Result<Vec<u8>, Failure> {
        refuse()
    }
    fn write_at(&self, _: u32, _: u64, _: &[u8]) -> Result<(), Failure> {
        refuse()
    }
    fn erase(&self, _: u32, _: u64, _: u64) -> Result<(), Failure> {
        refuse()
    }
    fn sync(&self, _: u32) -> Result<(), Failure> {
        refuse()
    }
}

impl StagedImage for Sealed {
    fn held(&self) -> u64 {
        0
    }
    fn verified(&self) -> bool {
        false
    }
    fn read_at(&self, _: u64, _: u32) -> Result<Vec<u8>, Failure> {
        refuse()
    }
}

impl SerialLine for Sealed {
    fn open(&self, _: &LineParameters, _: Wake) -> Result<(), Failure> {
        refuse()
    }
    fn write(&self, _: &[u8]) -> Result<u32, Failure> {
        refuse()
    }
    fn read(&self, _: u32) -> Result<Vec<u8>, Failure> {
        refuse()
    }
    fn unsent(&self) -> Result<u32, Failure> {
        refuse()
    }
    fn drain(&self) -> Result<(), Failure> {
        refuse()
    }
    fn set_line(&self, _: Option<bool>, _: Option<bool>, _: Option<bool>) -> Result<(), Failure> {
        refuse()
    }
    fn close(&self) {}
    fn has_news(&self) -> bool {
        false
    }
}

impl HardwareReset for Sealed {
    fn pulse(&self, _: u32) -> Result<(), Failure> {
        refuse()
    }
}

/// What it has to say, it says in its answer.
impl Log for Sealed {
    fn log(&self, _: Level, _: &str) {}
}
