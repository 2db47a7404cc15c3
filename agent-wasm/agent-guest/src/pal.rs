//! The functions of the interface `pal`, called without generated bindings.
//!
//! Twelve of them answer with the same `started`, and every generated binding lifts it with a copy of the code of its
//! own: 5.3 KB of the component's 96. Here it is lifted once. The numbers are offsets and cases of the canonical ABI, in
//! the order of `wit/agent/types.wit`; wit-component checks the signatures when it wraps the module.

#![expect(unsafe_code, reason = "imports that answer through memory")]

use alloc::string::String;
use alloc::vec::Vec;

use agent_core::types::{Failure, FileId, FileSpec, ImageInfo, Outcome, TargetState, Version};

use crate::order::Begun;

mod import {
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

/// A function that takes one number, and where its answer goes.
type Import = unsafe extern "C" fn(u32, *mut u8);

/// A function that takes a file id.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    Close,
    Reset,
    SelfTest,
    Commit,
    Reject,
    State,
    Abort,
    /// With the proof that the file is verified, as the next one.
    Install,
    Activate,
}

pub(crate) fn create(spec: &FileSpec) -> Begun {
    answer(|to| {
        // SAFETY: what is pointed to outlives the call, and there is room for the answer.
        unsafe {
            import::create(
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

pub(crate) fn reopen(job_id: &str, file: FileId) -> Begun {
    // SAFETY: as above.
    answer(|to| unsafe { import::reopen(job_id.as_ptr(), job_id.len(), file, to) })
}

pub(crate) fn write_block(file: FileId, offset: u64, data: &[u8]) -> Begun {
    // SAFETY: as above.
    answer(|to| unsafe { import::write_block(file, offset, data.as_ptr(), data.len(), to) })
}

pub(crate) fn call(call: Call, file: FileId) -> Begun {
    let import: Import = match call {
        Call::Close => import::close,
        Call::Reset => import::reset,
        Call::SelfTest => import::self_test,
        Call::Commit => import::commit,
        Call::Reject => import::reject,
        Call::State => import::state,
        Call::Abort => import::abort,
        Call::Install => return with_image(import::install, file),
        Call::Activate => return with_image(import::activate, file),
    };
    // SAFETY: there is room for the answer.
    answer(|to| unsafe { import(file, to) })
}

/// The proof lives only for the call: it is the host's record that counts, not a handle kept here.
fn with_image(import: Import, file: FileId) -> Begun {
    let mut area = AREA;
    let to = area.as_mut_ptr().cast();
    // SAFETY: there is room for `result<verified-image, failure>`, and that is what is there then.
    let at = unsafe {
        import::verified(file, to);
        Area(to)
    };
    if at.u8(0) != 0 {
        return Begun::Over(Outcome::Failed(at.at(4).failure()));
    }
    let image = at.u32(4);
    // SAFETY: there is room for the answer.
    let begun = answer(|to| unsafe { import(image, to) });
    // SAFETY: the handle is ours and not used again.
    unsafe { import::drop_image(image) };
    begun
}

/// Room for the largest answer: `started` has 64 bytes, aligned to 8.
const AREA: [u64; 8] = [0; 8];

/// Makes a call and lifts its answer.
fn answer(call: impl FnOnce(*mut u8)) -> Begun {
    let mut area = AREA;
    let to = area.as_mut_ptr().cast();
    call(to);
    Area(to).started()
}

/// A value as the host has laid it out, lifted once: its texts and lists change hands.
#[derive(Clone, Copy)]
struct Area(*mut u8);

impl Area {
    const fn at(self, offset: usize) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    fn read<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the value is there, and the canonical ABI aligns it.
        unsafe { self.0.wrapping_add(offset).cast::<T>().read() }
    }

    fn u8(self, offset: usize) -> u8 {
        self.read(offset)
    }

    fn u32(self, offset: usize) -> u32 {
        self.read(offset)
    }

    /// A list of bytes: where, and how many.
    fn bytes(self, offset: usize) -> Vec<u8> {
        let (start, length) = (self.read(offset), self.u32(offset + 4) as usize);
        // SAFETY: it was allocated for the host by `cabi_realloc` with this size, and is nobody else's.
        unsafe { Vec::from_raw_parts(start, length, length) }
    }

    fn text(self, offset: usize) -> String {
        // SAFETY: a string of the component model is UTF-8; the host has checked it.
        unsafe { String::from_utf8_unchecked(self.bytes(offset)) }
    }

    /// The case in the first byte, what it carries at the alignment of the largest.
    fn option(self, offset: usize, alignment: usize) -> Option<Self> {
        (self.u8(offset) != 0).then(|| self.at(offset + alignment))
    }

    #[inline(never)]
    fn started(self) -> Begun {
        match self.u8(0) {
            0 => Begun::Over(self.at(8).outcome()),
            _ => Begun::Pending(self.read(8)),
        }
    }

    fn outcome(self) -> Outcome {
        let value = self.at(8);
        match self.u8(0) {
            0 => Outcome::Nothing,
            1 => Outcome::Held(value.bytes(0)),
            2 => Outcome::Verified(ImageInfo {
                size: value.read(0),
                sha256: value.bytes(8),
                version: value.option(16, 4).map(Self::version),
                product: value.option(28, 4).map(|at| at.text(0)),
                signer: value.text(40),
            }),
            3 => Outcome::State(TargetState {
                code: value.u8(0),
                running: value.option(4, 4).map(Self::version),
                runs_new: value.option(16, 1).map(|at| at.u8(0) != 0),
            }),
            4 => Outcome::Other(value.bytes(0)),
            _ => Outcome::Failed(value.failure()),
        }
    }

    fn failure(self) -> Failure {
        Failure {
            main: self.u8(0),
            sub: self.u32(4),
            detail: self.text(8),
        }
    }

    fn version(self) -> Version {
        Version {
            major: self.u8(0),
            minor: self.u8(1),
            revision: self.read(2),
            build: self.u32(4),
        }
    }
}
