//! See `fuzz::targets::host::device_state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::device_state(bytes);
});
