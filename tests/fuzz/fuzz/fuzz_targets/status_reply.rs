//! See `fuzz::targets::agent::status_reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::agent::status_reply(bytes);
});
