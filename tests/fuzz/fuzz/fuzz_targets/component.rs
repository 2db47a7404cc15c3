//! See `fuzz::targets::host::component`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::component(bytes);
});
