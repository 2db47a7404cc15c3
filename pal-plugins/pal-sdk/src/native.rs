//! The native carrier: the C ABI of `wit/native/ota_pal.h` round a [`Plugin`]. Only with feature `native`, for a shared
//! library; what the component carrier does with generated types is done by hand here. `native/lent.rs` has what is lent.
//!
//! A panic of the plugin's is said through the host's log and aborts; in its own process that is a crash like any other.

#![expect(unsafe_code, reason = "a C ABI is about raw memory")]

use core::cell::Cell;
use core::ffi::{CStr, c_char, c_void};
use std::ffi::CString;
use std::sync::{Once, OnceLock};

use crate::lent::{Level, Log as _};
use crate::{
    Answer, Blob, Description, Duty, Extent, Failure, Plugin, Setting, TargetState, Transfer,
    Version,
};

mod lent;

/// `ota_pal.h`.
#[path = "../../../wit/native/ota_pal.rs"]
pub mod abi;

/// What the host lends to a library.
#[derive(Clone, Copy, Debug)]
pub struct Lent(&'static abi::Lent);

/// What must be lent, written by [`export_plugin!`](crate::export_plugin).
pub trait Needs {
    /// Bits of [`need`](crate::lent::need).
    const BITS: u32;
}

/// The functions of the table, for any plugin.
#[derive(Debug)]
pub struct Native<P>(core::marker::PhantomData<P>);

impl<P: Plugin<Lent = Lent> + Needs> Native<P> {
    /// The table of this plugin; a constant, for every function in it is one.
    pub const TABLE: abi::Plugin = abi::Plugin {
        struct_size: size_of::<abi::Plugin>() as u32,
        abi_version: abi::ABI_VERSION,
        describe: Some(Self::describe),
        open: Some(Self::open),
        close: Some(Self::close),
        create: Some(Self::create),
        reopen: Some(Self::reopen),
        write_block: Some(Self::write_block),
        extents: Some(Self::extents),
        examine: Some(Self::examine),
        install: Some(Self::install),
        activate: Some(Self::activate),
        reset: Some(Self::reset),
        self_test: Some(Self::self_test),
        commit: Some(Self::commit),
        reject: Some(Self::reject),
        state: Some(Self::state),
        abort: Some(Self::abort),
        step: Some(Self::step),
        suspend: Some(Self::suspend),
    };

    unsafe extern "C" fn describe() -> *const abi::Description {
        // One library, one plugin.
        static DESCRIBED: OnceLock<Described> = OnceLock::new();
        &raw const DESCRIBED
            .get_or_init(|| Described::new(P::describe(), P::BITS))
            .abi
    }

    unsafe extern "C" fn open(
        lent: *const abi::Lent,
        settings: *const abi::Setting,
        count: u32,
        saved: *const abi::Saved,
        me: *mut *mut c_void,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: the host's, by the rules of the header; what is lent lives until `close`.
        unsafe {
            let lent = Lent(&*lent);
            log_panics();
            let settings = slice(settings, count)
                .iter()
                .map(|setting| Setting {
                    key: text(setting.key),
                    value: text(setting.value),
                })
                .collect();
            let saved = saved.as_ref().map(|saved| Blob {
                schema: saved.schema,
                bytes: slice(saved.bytes, saved.length).to_vec(),
            });
            let opened = called(lent, || P::open(lent, settings, saved));
            end(opened, failure, |plugin| {
                *me = Box::into_raw(Box::new(Opened { lent, plugin })).cast();
            })
        }
    }

    unsafe extern "C" fn close(me: *mut c_void) {
        // SAFETY: from `open`, and not used again.
        let Opened { lent, plugin } = *unsafe { Box::from_raw(me.cast::<Opened<P>>()) };
        called(lent, || drop(plugin));
    }

    unsafe extern "C" fn create(
        me: *mut c_void,
        transfer: *const abi::Transfer,
        duty: *mut abi::Duty,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: the host's, by the rules of the header.
        unsafe {
            Self::duty(me, duty, failure, |plugin| {
                plugin.create(transfer_in(transfer))
            })
        }
    }

    unsafe extern "C" fn reopen(
        me: *mut c_void,
        transfer: *const abi::Transfer,
        duty: *mut abi::Duty,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: as above.
        unsafe {
            Self::duty(me, duty, failure, |plugin| {
                plugin.reopen(transfer_in(transfer))
            })
        }
    }

    unsafe extern "C" fn write_block(
        me: *mut c_void,
        offset: u64,
        data: *const u8,
        length: u32,
        duty: *mut abi::Duty,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: as above.
        unsafe {
            let data = slice(data, length).to_vec();
            Self::duty(me, duty, failure, |plugin| plugin.write_block(offset, data))
        }
    }

    unsafe extern "C" fn extents(
        me: *mut c_void,
        extents: *mut abi::Extent,
        count: *mut u32,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: as above; `count` says how much room there is.
        unsafe {
            let room = *count;
            let named = Self::call(me, P::extents).and_then(|named| {
                if named.len() > room as usize {
                    return Err(Failure::bad_argument("more extents than there is room for"));
                }
                Ok(named)
            });
            end(named, failure, |named| {
                *count = named.len() as u32;
                for (n, extent) in named.into_iter().enumerate() {
                    let Extent {
                        region,
                        offset,
                        length,
                    } = extent;
                    *extents.add(n) = abi::Extent {
                        region,
                        reserved: 0,
                        offset,
                        length,
                    };
                }
            })
        }
    }

    unsafe extern "C" fn activate(
        me: *mut c_void,
        sha256: *const u8,
        duty: *mut abi::Duty,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: as above; a digest has 32 bytes.
        unsafe {
            let sha256 = *sha256.cast::<[u8; 32]>();
            Self::duty(me, duty, failure, |plugin| plugin.activate(sha256))
        }
    }

    unsafe extern "C" fn step(
        me: *mut c_void,
        budget_bytes: u32,
        duty: *mut abi::Duty,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: as above.
        unsafe { Self::duty(me, duty, failure, |plugin| plugin.step(budget_bytes)) }
    }

    unsafe extern "C" fn suspend(
        me: *mut c_void,
        schema: *mut u32,
        bytes: *mut u8,
        length: *mut u32,
        failure: *mut abi::Failure,
    ) -> i32 {
        // SAFETY: as above; `length` says how much room there is.
        unsafe {
            let room = *length;
            let saved = Self::call(me, P::suspend).and_then(|saved| {
                if saved.bytes.len() > room as usize {
                    return Err(Failure::bad_argument("more to save than there is room for"));
                }
                Ok(saved)
            });
            end(saved, failure, |saved| {
                *schema = saved.schema;
                *length = saved.bytes.len() as u32;
                core::ptr::copy_nonoverlapping(saved.bytes.as_ptr(), bytes, saved.bytes.len());
            })
        }
    }

    /// # Safety
    /// As of every function of the table.
    unsafe fn duty(
        me: *mut c_void,
        place: *mut abi::Duty,
        failure: *mut abi::Failure,
        duty: impl FnOnce(&mut P) -> Result<Duty, Failure>,
    ) -> i32 {
        // SAFETY: the caller's.
        unsafe {
            end(Self::call(me, duty), failure, |duty| {
                duty_out(duty, &mut *place)
            })
        }
    }

    /// # Safety
    /// `me` is from `open`, and not closed.
    unsafe fn call<T>(me: *mut c_void, call: impl FnOnce(&mut P) -> T) -> T {
        // SAFETY: the caller's; one call of an instance at a time.
        let opened = unsafe { &mut *me.cast::<Opened<P>>() };
        called(opened.lent, || call(&mut opened.plugin))
    }
}

/// What `me` of the table is: an open instance and what it is lent.
struct Opened<P> {
    lent: Lent,
    plugin: P,
}

macro_rules! plain {
    ($($name:ident)*) => {
        impl<P: Plugin<Lent = Lent> + Needs> Native<P> {
            $(
                unsafe extern "C" fn $name(
                    me: *mut c_void,
                    duty: *mut abi::Duty,
                    failure: *mut abi::Failure,
                ) -> i32 {
                    // SAFETY: the host's, by the rules of the header.
                    unsafe { Self::duty(me, duty, failure, P::$name) }
                }
            )*
        }
    };
}

plain! { examine install reset self_test commit reject state abort }

/// A description as C has it, with what it points to.
struct Described {
    abi: abi::Description,
    _texts: Vec<CString>,
    _kinds: Vec<*const c_char>,
    _schemas: Vec<u32>,
}

// SAFETY: nothing in it is written again.
unsafe impl Send for Described {}
// SAFETY: as above.
unsafe impl Sync for Described {}

impl Described {
    fn new(from: Description, needs: u32) -> Self {
        let c = |text: String| CString::new(text).unwrap_or_default();
        let mut texts = vec![c(from.name), c(from.version)];
        texts.extend(from.kinds.into_iter().map(c));
        let mut kinds: Vec<_> = texts[2..].iter().map(|kind| kind.as_ptr()).collect();
        kinds.push(core::ptr::null());
        let schemas = from.schemas;
        Self {
            abi: abi::Description {
                struct_size: size_of::<abi::Description>() as u32,
                capabilities: from.capabilities,
                largest_write: from.largest_write,
                needs,
                name: texts[0].as_ptr(),
                version: texts[1].as_ptr(),
                kinds: kinds.as_ptr(),
                schemas: schemas.as_ptr(),
                schema_count: schemas.len() as u32,
                reserved: 0,
            },
            _texts: texts,
            _kinds: kinds,
            _schemas: schemas,
        }
    }
}

thread_local! {
    /// What is lent to the instance that is called on this thread, for a panic's last words. One library may have several
    /// instances open, each with a host and a life of its own.
    static CALLED: Cell<*const abi::Lent> = const { Cell::new(core::ptr::null()) };
}

/// Calls an instance, to which this is lent.
fn called<T>(lent: Lent, call: impl FnOnce() -> T) -> T {
    let before = CALLED.replace(core::ptr::from_ref(lent.0));
    let result = call();
    CALLED.set(before);
    result
}

/// The host of the instance that is called is told.
fn say_last(text: &str) {
    let lent = CALLED.try_with(Cell::get).unwrap_or(core::ptr::null());
    // SAFETY: it lives as long as the call, which is what put it there.
    if let Some(lent) = unsafe { lent.as_ref() } {
        Lent(lent).log(Level::Error, text);
    }
}

fn log_panics() {
    static ONCE: Once = Once::new();
    if cfg!(test) {
        // A test that fails has something to say to whoever runs it.
        return;
    }
    ONCE.call_once(|| std::panic::set_hook(Box::new(|info| say_last(&info.to_string()))));
}

/// # Safety
/// NULL, or `length` of them lie there while the result is used.
unsafe fn slice<'a, T>(from: *const T, length: u32) -> &'a [T] {
    if from.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: the caller's.
    unsafe { core::slice::from_raw_parts(from, length as usize) }
}

/// # Safety
/// NULL, or a text with NUL.
unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(from) }
        .to_string_lossy()
        .into_owned()
}

fn array(from: &[c_char]) -> String {
    let bytes: Vec<u8> = from
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| c.cast_unsigned())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A text with its NUL, cut at a character to the room.
fn copy(text: &str, room: &mut [c_char]) {
    let most = text.floor_char_boundary(room.len().saturating_sub(1));
    for (place, byte) in room.iter_mut().zip(text[..most].bytes()) {
        *place = byte.cast_signed();
    }
}

/// # Safety
/// `place` is NULL or a failure's.
unsafe fn end<T>(result: Result<T, Failure>, place: *mut abi::Failure, put: impl FnOnce(T)) -> i32 {
    match result {
        Ok(value) => {
            put(value);
            0
        }
        Err(failure) => {
            // SAFETY: the caller's.
            if let Some(place) = unsafe { place.as_mut() } {
                place.main = u32::from(failure.main);
                place.sub = failure.sub;
                place.detail = [0; abi::DETAIL_BYTES];
                copy(&failure.detail, &mut place.detail);
            }
            -1
        }
    }
}

/// # Safety
/// As the header says of `create`.
unsafe fn transfer_in(from: *const abi::Transfer) -> Transfer {
    // SAFETY: the caller's.
    unsafe {
        let from = &*from;
        Transfer {
            device: text(from.device),
            job_id: text(from.job_id),
            file_id: from.file_id,
            size: from.size,
            block_size: from.block_size,
            file_type: from.file_type,
            attributes: from.attributes,
            path: text(from.path),
            certificate: text(from.certificate),
            signature_kind: text(from.signature_kind),
            signature: slice(from.signature, from.signature_length).to_vec(),
        }
    }
}

fn duty_out(duty: Duty, place: &mut abi::Duty) {
    match duty {
        Duty::Working(working) => {
            place.status = abi::WORKING;
            place.done = working.done;
            place.total = working.total;
            let wake = working.wake;
            for (is_set, bit) in [
                (wake.on_input, abi::WAKE_INPUT),
                (wake.on_data, abi::WAKE_DATA),
                (wake.after_ms.is_some(), abi::WAKE_AFTER),
            ] {
                if is_set {
                    place.wake |= bit;
                }
            }
            place.wake_after_ms = wake.after_ms.unwrap_or(0);
        }
        Duty::Finished(answer) => {
            place.status = abi::FINISHED;
            place.answer = match answer {
                // The C ABI has no duties of later interfaces.
                Answer::Nothing | Answer::Other(_) => abi::NOTHING,
                Answer::HostResets => abi::HOST_RESETS,
                Answer::Info(info) => {
                    set_version(info.version, place);
                    copy(&info.product.unwrap_or_default(), &mut place.product);
                    abi::INFO
                }
                Answer::State(state) => {
                    let TargetState {
                        code,
                        running,
                        runs_new,
                    } = state;
                    set_version(running, place);
                    place.state = u32::from(code);
                    place.runs_new = match runs_new {
                        None => abi::CANNOT_TELL,
                        Some(true) => abi::YES,
                        Some(false) => abi::NO,
                    };
                    abi::STATE
                }
            };
        }
    }
}

fn set_version(version: Option<Version>, place: &mut abi::Duty) {
    if let Some(Version {
        major,
        minor,
        revision,
        build,
    }) = version
    {
        place.has_version = 1;
        place.version = abi::Version {
            major,
            minor,
            revision,
            build,
        };
    }
}

#[cfg(test)]
mod tests;
