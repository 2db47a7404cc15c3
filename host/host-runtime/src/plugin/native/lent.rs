//! What is lent, as the table of C functions that a library calls: each finds the host's traits behind its first
//! argument. Addresses come from the library and are trusted as far as the library's process is.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

use super::abi;
use crate::plugin::lend::{Lent, LineParameters};
use crate::types::{Failure, Level, code};

/// The table, and what stands behind it. It must not move: the table points to its neighbour.
pub(super) struct Table {
    abi: abi::Lent,
    lent: Lent,
}

impl Table {
    pub(super) fn new(lent: Lent) -> Box<Self> {
        let granted = bits(|name| lent.lends(name));
        let mut table = Box::new(Self {
            abi: abi::Lent {
                struct_size: size_of::<abi::Lent>() as u32,
                granted,
                host: std::ptr::null_mut(),
                region_count,
                region,
                read_at,
                write_at,
                erase,
                sync,
                staged_held,
                staged_verified,
                staged_read,
                line_open,
                line_write,
                line_read,
                line_unsent,
                line_drain,
                line_set,
                line_close,
                pulse,
                now_ms,
                log,
            },
            lent,
        });
        table.abi.host = (&raw mut table.lent).cast();
        table
    }

    pub(super) fn address(&self) -> *const abi::Lent {
        &raw const self.abi
    }
}

/// The bits of those interfaces for which it is true.
pub(super) fn bits(lends: impl Fn(&str) -> bool) -> u32 {
    let names = abi::INTERFACES.iter().enumerate();
    names
        .filter(|(_, name)| lends(name))
        .map(|(n, _)| 1 << n)
        .sum()
}

/// The names of these bits.
///
/// # Errors
/// One of them is of a later version, in words.
pub(super) fn names(bits: u32) -> Result<Vec<String>, String> {
    let later = bits >> abi::INTERFACES.len() << abi::INTERFACES.len();
    if later != 0 {
        return Err(format!(
            "it needs interfaces that this host does not have (bits {later:#x} of `needs`); a later otad may have them"
        ));
    }
    let names = abi::INTERFACES.iter().enumerate();
    Ok(names
        .filter(|(n, _)| bits & (1 << n) != 0)
        .map(|(_, name)| (*name).to_owned())
        .collect())
}

#[expect(
    unsafe_code,
    reason = "it is the first argument of every lent function"
)]
/// # Safety
/// `host` is the member of that name of a table that lives.
unsafe fn lent<'a>(host: *mut c_void) -> &'a Lent {
    // SAFETY: the caller's.
    unsafe { &*host.cast::<Lent>() }
}

#[expect(unsafe_code, reason = "addresses of the library's")]
/// Say how it ended.
///
/// # Safety
/// `place` is NULL or a failure's.
unsafe fn end<T>(result: Result<T, Failure>, place: *mut abi::Failure, put: impl FnOnce(T)) -> i32 {
    match result {
        Ok(value) => {
            put(value);
            0
        }
        Err(failure) => {
            if !place.is_null() {
                let mut detail = [0; abi::DETAIL_BYTES];
                copy(&failure.detail, &mut detail);
                // SAFETY: the caller's.
                unsafe {
                    *place = abi::Failure {
                        main: u32::from(failure.main),
                        sub: failure.sub,
                        detail,
                    };
                }
            }
            -1
        }
    }
}

/// A text with its NUL, cut at a character to the room.
fn copy(text: &str, room: &mut [c_char]) {
    let most = text.floor_char_boundary(room.len().saturating_sub(1));
    for (place, byte) in room.iter_mut().zip(text[..most].bytes()) {
        *place = byte.cast_signed();
    }
}

#[expect(unsafe_code, reason = "addresses of the library's")]
/// # Safety
/// There is room for `bytes`.
unsafe fn put(bytes: &[u8], data: *mut u8) {
    // SAFETY: the caller's; they do not overlap, for the host's are its own.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
}

#[expect(unsafe_code, reason = "addresses of the library's")]
/// # Safety
/// `length` bytes lie there.
unsafe fn take<'a>(data: *const u8, length: u32) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts(data, length as usize) }
}

/// What was read, of which there must not be more than was asked for.
fn fits(bytes: Vec<u8>, max: u32) -> Result<Vec<u8>, Failure> {
    if bytes.len() > max as usize {
        return Err(Failure::new(
            code::STORAGE,
            0,
            "more was read than was asked for",
        ));
    }
    Ok(bytes)
}

macro_rules! lent_functions {
    ($($(#[$doc:meta])* fn $name:ident($lent:ident $(, $arg:ident: $ty:ty)*) -> $out:ty $body:block)*) => {
        $(
            $(#[$doc])*
            #[expect(unsafe_code, reason = "called by the library, by the rules of ota_pal.h")]
            unsafe extern "C" fn $name(host: *mut c_void $(, $arg: $ty)*) -> $out {
                // SAFETY: by the rules of ota_pal.h: `host` is the table's, every address is what its name says.
                unsafe {
                    let $lent = lent(host);
                    $body
                }
            }
        )*
    };
}

lent_functions! {
    fn region_count(lent) -> u32 {
        u32::try_from(lent.regions().len()).unwrap_or(u32::MAX)
    }

    fn region(lent, index: u32, place: *mut abi::Region, failure: *mut abi::Failure) -> i32 {
        let none = || Failure::new(code::BAD_ARGUMENT, 0, format!("there is no region {index}"));
        let region = lent.regions().into_iter().nth(index as usize).ok_or_else(none);
        end(region, failure, |region| {
            let mut name = [0; abi::REGION_NAME_BYTES];
            copy(&region.name, &mut name);
            *place = abi::Region {
                size: region.size,
                kind: u32::from(region.kind),
                erase_size: region.erase_size,
                write_size: region.write_size,
                read_only: u32::from(region.read_only),
                name,
            };
        })
    }

    fn read_at(lent, region: u32, offset: u64, data: *mut u8, length: u32, failure: *mut abi::Failure) -> i32 {
        let read = lent.storage().and_then(|s| s.read_at(region, offset, length));
        end(read.and_then(|bytes| fits(bytes, length)), failure, |bytes| put(&bytes, data))
    }

    fn write_at(lent, region: u32, offset: u64, data: *const u8, length: u32, failure: *mut abi::Failure) -> i32 {
        let written = lent.storage().and_then(|s| s.write_at(region, offset, take(data, length)));
        end(written, failure, |()| ())
    }

    fn erase(lent, region: u32, offset: u64, length: u64, failure: *mut abi::Failure) -> i32 {
        end(lent.storage().and_then(|s| s.erase(region, offset, length)), failure, |()| ())
    }

    fn sync(lent, region: u32, failure: *mut abi::Failure) -> i32 {
        end(lent.storage().and_then(|s| s.sync(region)), failure, |()| ())
    }

    fn staged_held(lent) -> u64 {
        lent.staged().map_or(0, |staged| staged.held())
    }

    fn staged_verified(lent) -> u32 {
        u32::from(lent.staged().is_ok_and(|staged| staged.verified()))
    }

    fn staged_read(lent, offset: u64, data: *mut u8, length: u32, failure: *mut abi::Failure) -> i32 {
        let read = lent.staged().and_then(|s| s.read_at(offset, length));
        end(read.and_then(|bytes| fits(bytes, length)), failure, |bytes| put(&bytes, data))
    }

    fn line_open(lent, line: *const abi::Line, failure: *mut abi::Failure) -> i32 {
        let line = *line;
        let narrow = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
        let parameters = LineParameters {
            baud: line.baud,
            parity: narrow(line.parity),
            stop_bits: narrow(line.stop_bits),
            flow_control: narrow(line.flow_control),
        };
        let opened = lent.line().and_then(|l| l.open(&parameters, Arc::clone(&lent.wake)));
        end(opened, failure, |()| ())
    }

    fn line_write(lent, data: *const u8, length: u32, taken: *mut u32, failure: *mut abi::Failure) -> i32 {
        end(lent.line().and_then(|l| l.write(take(data, length))), failure, |n| *taken = n)
    }

    fn line_read(lent, data: *mut u8, max: u32, length: *mut u32, failure: *mut abi::Failure) -> i32 {
        let read = lent.read_line(max).and_then(|bytes| fits(bytes, max));
        end(read, failure, |bytes| {
            put(&bytes, data);
            *length = u32::try_from(bytes.len()).unwrap_or(0);
        })
    }

    fn line_unsent(lent, bytes: *mut u32, failure: *mut abi::Failure) -> i32 {
        end(lent.line().and_then(|l| l.unsent()), failure, |n| *bytes = n)
    }

    fn line_drain(lent, failure: *mut abi::Failure) -> i32 {
        end(lent.line().and_then(|l| l.drain()), failure, |()| ())
    }

    fn line_set(lent, dtr: i32, rts: i32, break_condition: i32, failure: *mut abi::Failure) -> i32 {
        let wish = |value: i32| (value >= 0).then_some(value != 0);
        let set = lent.line().and_then(|l| l.set_line(wish(dtr), wish(rts), wish(break_condition)));
        end(set, failure, |()| ())
    }

    fn line_close(lent) -> () {
        if let Ok(line) = lent.line() {
            line.close();
        }
    }

    fn pulse(lent, hold_ms: u32, failure: *mut abi::Failure) -> i32 {
        end(lent.pulse(hold_ms), failure, |()| ())
    }

    fn now_ms(lent) -> u64 {
        lent.clock.now_ms()
    }

    fn log(lent, level: u32, text: *const c_char) -> () {
        let level = match level {
            abi::TRACE => Level::Trace,
            abi::DEBUG => Level::Debug,
            abi::INFORM => Level::Info,
            abi::WARN => Level::Warn,
            // `OTA_PAL_ERROR`, and what no header names: nobody's cry is lost.
            _ => Level::Error,
        };
        if !text.is_null() {
            lent.log.log(level, &CStr::from_ptr(text).to_string_lossy());
        }
    }
}
