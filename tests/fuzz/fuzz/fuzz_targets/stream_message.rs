//! See `fuzz::targets::agent::stream_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::agent::stream_message(bytes);
});
