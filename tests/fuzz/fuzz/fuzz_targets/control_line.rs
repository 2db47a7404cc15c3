//! See `fuzz::targets::host::control_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::control_line(bytes);
});
