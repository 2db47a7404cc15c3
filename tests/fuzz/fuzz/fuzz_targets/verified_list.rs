//! See `fuzz::targets::host::verified_list`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::verified_list(bytes);
});
