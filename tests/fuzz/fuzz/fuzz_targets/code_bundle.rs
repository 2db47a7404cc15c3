//! See `fuzz::targets::host::code_bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::code_bundle(bytes);
});
