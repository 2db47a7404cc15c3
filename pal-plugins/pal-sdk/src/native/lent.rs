//! What the host lends, by way of its table of C functions. Failures come back with their codes; nothing is decided here.

use core::ffi::c_void;
use std::ffi::CString;

use super::{Lent, abi, array};
use crate::lent::{
    BlockDevice, Clock, HardwareReset, Level, LineParameters, Log, Region, SerialLine, StagedImage,
};
use crate::{Failure, TRANSFER_MAX_BYTES};

impl Lent {
    /// Call something that is lent.
    fn call(
        self,
        call: impl FnOnce(&abi::Lent, *mut c_void, *mut abi::Failure) -> i32,
    ) -> Result<(), Failure> {
        let mut failure = abi::Failure {
            main: 0,
            sub: 0,
            detail: [0; abi::DETAIL_BYTES],
        };
        if call(self.0, self.0.host, &raw mut failure) == 0 {
            return Ok(());
        }
        Err(Failure::new(
            u8::try_from(failure.main).unwrap_or(0),
            failure.sub,
            &array(&failure.detail),
        ))
    }
}

impl BlockDevice for Lent {
    fn regions(&self) -> Vec<Region> {
        // SAFETY: `Lent` is what the host gave; so below.
        let count = unsafe { (self.0.region_count)(self.0.host) };
        let mut regions = Vec::new();
        for index in 0..count {
            let mut region = abi::Region {
                size: 0,
                kind: 0,
                erase_size: 1,
                write_size: 1,
                read_only: 0,
                name: [0; abi::REGION_NAME_BYTES],
            };
            let end = self.call(|lent, host, failure| unsafe {
                (lent.region)(host, index, &raw mut region, failure)
            });
            if end.is_err() {
                break;
            }
            regions.push(Region {
                name: array(&region.name),
                kind: u8::try_from(region.kind).unwrap_or(u8::MAX),
                size: region.size,
                erase_size: region.erase_size,
                write_size: region.write_size,
                read_only: region.read_only != 0,
            });
        }
        regions
    }

    fn read_at(&self, region: u32, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let mut data = room(length)?;
        self.call(|lent, host, failure| unsafe {
            (lent.read_at)(host, region, offset, data.as_mut_ptr(), length, failure)
        })?;
        Ok(data)
    }

    fn write_at(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), Failure> {
        let length = data.len() as u32;
        self.call(|lent, host, failure| unsafe {
            (lent.write_at)(host, region, offset, data.as_ptr(), length, failure)
        })
    }

    fn erase(&self, region: u32, offset: u64, length: u64) -> Result<(), Failure> {
        self.call(|lent, host, failure| unsafe {
            (lent.erase)(host, region, offset, length, failure)
        })
    }

    fn sync(&self, region: u32) -> Result<(), Failure> {
        self.call(|lent, host, failure| unsafe { (lent.sync)(host, region, failure) })
    }
}

impl StagedImage for Lent {
    fn held(&self) -> u64 {
        unsafe { (self.0.staged_held)(self.0.host) }
    }

    fn verified(&self) -> bool {
        unsafe { (self.0.staged_verified)(self.0.host) == 1 }
    }

    fn read_staged(&self, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let mut data = room(length)?;
        self.call(|lent, host, failure| unsafe {
            (lent.staged_read)(host, offset, data.as_mut_ptr(), length, failure)
        })?;
        Ok(data)
    }
}

/// Room for what is read: not for more than any read gives, whatever is asked for.
fn room(length: u32) -> Result<Vec<u8>, Failure> {
    if length > TRANSFER_MAX_BYTES {
        return Err(Failure::bad_argument("a read has at most 131072 bytes"));
    }
    Ok(vec![0; length as usize])
}

impl SerialLine for Lent {
    fn open_line(&self, parameters: LineParameters) -> Result<(), Failure> {
        let line = abi::Line {
            baud: parameters.baud,
            parity: u32::from(parameters.parity),
            stop_bits: u32::from(parameters.stop_bits),
            flow_control: u32::from(parameters.flow_control),
        };
        self.call(|lent, host, failure| unsafe { (lent.line_open)(host, &raw const line, failure) })
    }

    fn write_line(&self, data: &[u8]) -> Result<u32, Failure> {
        let (mut taken, length) = (0, data.len() as u32);
        self.call(|lent, host, failure| unsafe {
            (lent.line_write)(host, data.as_ptr(), length, &raw mut taken, failure)
        })?;
        Ok(taken)
    }

    fn read_line(&self, max: u32) -> Result<Vec<u8>, Failure> {
        let mut data = room(max.min(TRANSFER_MAX_BYTES))?;
        let (mut length, max) = (0, data.len() as u32);
        self.call(|lent, host, failure| unsafe {
            (lent.line_read)(host, data.as_mut_ptr(), max, &raw mut length, failure)
        })?;
        data.truncate(length as usize);
        Ok(data)
    }

    fn unsent(&self) -> Result<u32, Failure> {
        let mut bytes = 0;
        self.call(|lent, host, failure| unsafe {
            (lent.line_unsent)(host, &raw mut bytes, failure)
        })?;
        Ok(bytes)
    }

    fn drain(&self) -> Result<(), Failure> {
        self.call(|lent, host, failure| unsafe { (lent.line_drain)(host, failure) })
    }

    fn set_line(
        &self,
        dtr: Option<bool>,
        rts: Option<bool>,
        break_condition: Option<bool>,
    ) -> Result<(), Failure> {
        let level = |wish: Option<bool>| wish.map_or(-1, i32::from);
        let (dtr, rts, break_condition) = (level(dtr), level(rts), level(break_condition));
        self.call(|lent, host, failure| unsafe {
            (lent.line_set)(host, dtr, rts, break_condition, failure)
        })
    }

    fn close_line(&self) {
        unsafe { (self.0.line_close)(self.0.host) }
    }
}

impl HardwareReset for Lent {
    fn pulse(&self, hold_ms: u32) -> Result<(), Failure> {
        self.call(|lent, host, failure| unsafe { (lent.pulse)(host, hold_ms, failure) })
    }
}

impl Clock for Lent {
    fn now_ms(&self) -> u64 {
        unsafe { (self.0.now_ms)(self.0.host) }
    }
}

impl Log for Lent {
    fn log(&self, level: Level, text: &str) {
        let level = match level {
            Level::Trace => abi::TRACE,
            Level::Debug => abi::DEBUG,
            Level::Info => abi::INFORM,
            Level::Warn => abi::WARN,
            Level::Error => abi::ERROR,
        };
        let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
        unsafe { (self.0.log)(self.0.host, level, text.as_ptr()) }
    }
}
