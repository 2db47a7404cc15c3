//! See `fuzz::targets::cloud::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::cloud::request(bytes);
});
