//! See `fuzz::targets::host::plugin_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::plugin_frame(bytes);
});
