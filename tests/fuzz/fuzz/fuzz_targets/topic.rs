//! See `fuzz::targets::agent::topic`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::agent::topic(bytes);
});
