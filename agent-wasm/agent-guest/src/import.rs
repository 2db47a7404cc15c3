//! The functions of the interface `pal`, and the one of `os` that takes a record in memory, called without generated
//! bindings.
//!
//! Twelve of them answer with the same `started`, and every generated binding lifts it with a copy of the code of its
//! own: 5.3 KB of the component's 96. Here it is lifted once. wit-component checks the signatures when it wraps the
//! module.

#![expect(unsafe_code, reason = "imports that answer through memory")]

use agent_core::types::{ApplicationEvent, Call, Failure, FileId, FileSpec, Outcome};

use crate::abi::{Kept, Layout, Lift, Lower, Place};
use crate::contract::Started;

mod raw {
    #[link(wasm_import_module = "ota:agent/pal@0.1.0")]
    unsafe extern "C" {
        pub(super) fn create(
            job_id: *const u8,
            job_id_bytes: usize,
            file_id: u32,
            size: u64,
            block_size: u32,
            file_type: u32,
            attributes: u32,
            path: *const u8,
            path_bytes: usize,
            certificate: *const u8,
            certificate_bytes: usize,
            signature_kind: *const u8,
            signature_kind_bytes: usize,
            signature: *const u8,
            signature_bytes: usize,
            answer: *mut u8,
        );
        pub(super) fn reopen(job_id: *const u8, bytes: usize, file: u32, answer: *mut u8);
        #[link_name = "write-block"]
        pub(super) fn write_block(
            file: u32,
            offset: u64,
            data: *const u8,
            bytes: usize,
            answer: *mut u8,
        );
        pub(super) fn close(file: u32, answer: *mut u8);
        pub(super) fn verified(file: u32, answer: *mut u8);
        pub(super) fn install(image: u32, answer: *mut u8);
        pub(super) fn activate(image: u32, answer: *mut u8);
        pub(super) fn reset(file: u32, answer: *mut u8);
        #[link_name = "self-test"]
        pub(super) fn self_test(file: u32, answer: *mut u8);
        pub(super) fn commit(file: u32, answer: *mut u8);
        pub(super) fn reject(file: u32, answer: *mut u8);
        pub(super) fn state(file: u32, answer: *mut u8);
        pub(super) fn abort(file: u32, answer: *mut u8);
        #[link_name = "[resource-drop]verified-image"]
        pub(super) fn drop_image(image: u32);
    }
}

mod os {
    #[link(wasm_import_module = "ota:agent/os@0.1.0")]
    unsafe extern "C" {
        pub(super) fn emit(event: *const u8);
    }
}

/// A function that takes one number, and where its answer goes.
type Import = unsafe extern "C" fn(u32, *mut u8);

pub(crate) fn create(spec: &FileSpec) -> Started {
    answer(|to| {
        // SAFETY: what is pointed to outlives the call, and there is room for the answer.
        unsafe {
            raw::create(
                spec.job_id.as_ptr(),
                spec.job_id.len(),
                spec.file_id,
                spec.size,
                spec.block_size,
                spec.file_type,
                spec.attributes,
                spec.path.as_ptr(),
                spec.path.len(),
                spec.certificate.as_ptr(),
                spec.certificate.len(),
                spec.signature_kind.as_ptr(),
                spec.signature_kind.len(),
                spec.signature.as_ptr(),
                spec.signature.len(),
                to,
            );
        }
    })
}

pub(crate) fn reopen(job_id: &str, file: FileId) -> Started {
    // SAFETY: as above.
    answer(|to| unsafe { raw::reopen(job_id.as_ptr(), job_id.len(), file, to) })
}

pub(crate) fn write_block(file: FileId, offset: u64, data: &[u8]) -> Started {
    // SAFETY: as above.
    answer(|to| unsafe { raw::write_block(file, offset, data.as_ptr(), data.len(), to) })
}

pub(crate) fn call(call: Call, file: FileId) -> Started {
    let import: Import = match call {
        Call::Close => raw::close,
        Call::Reset => raw::reset,
        Call::SelfTest => raw::self_test,
        Call::Commit => raw::commit,
        Call::Reject => raw::reject,
        Call::State => raw::state,
        Call::Abort => raw::abort,
        Call::Install => return with_image(raw::install, file),
        Call::Activate => return with_image(raw::activate, file),
    };
    // SAFETY: there is room for the answer.
    answer(|to| unsafe { import(file, to) })
}

/// The proof lives only for the call: it is the host's record that counts, not a handle kept here.
fn with_image(import: Import, file: FileId) -> Started {
    // SAFETY: there is room for the answer.
    match lifted(|to| unsafe { raw::verified(file, to) }) {
        Err(failure) => Started::Done(Outcome::Failed(failure)),
        Ok(image) => {
            // SAFETY: there is room for the answer, and the handle is ours and not used again.
            let started = answer(|to| unsafe { import(image, to) });
            unsafe { raw::drop_image(image) };
            started
        }
    }
}

pub(crate) fn emit(event: &ApplicationEvent) {
    const BYTES: usize = ApplicationEvent::SIZE;
    let mut area = [0u64; BYTES / 8];
    // SAFETY: there is room for the event, and it stays there until the call is over.
    unsafe {
        let place = Place::new(area.as_mut_ptr().cast());
        event.lower(place, &mut Kept::new());
        os::emit(place.address());
    }
}

/// Makes a call and lifts its answer, `started`.
fn answer(call: impl FnOnce(*mut u8)) -> Started {
    lifted(call)
}

fn lifted<T: Lift>(call: impl FnOnce(*mut u8)) -> T {
    let mut area = AREA;
    // SAFETY: there is room for the answer, and after the call that is what is there.
    let place = unsafe { Place::new(area.as_mut_ptr().cast()) };
    call(place.address());
    T::lift(place)
}

/// Room for the largest answer, aligned to 8.
const AREA: [u64; 8] = [0; 8];

const _: () =
    assert!(Started::SIZE == size_of_val(&AREA) && <Result<u32, Failure>>::SIZE < Started::SIZE);
