//! See `fuzz::targets::agent::saved_state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::agent::saved_state(bytes);
});
