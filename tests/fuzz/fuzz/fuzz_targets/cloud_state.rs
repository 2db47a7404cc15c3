//! See `fuzz::targets::cloud::state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::cloud::state(bytes);
});
