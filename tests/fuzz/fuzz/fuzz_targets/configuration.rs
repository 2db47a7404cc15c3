//! See `fuzz::targets::host::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::configuration(bytes);
});
