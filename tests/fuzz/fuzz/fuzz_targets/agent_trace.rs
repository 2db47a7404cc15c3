//! See `fuzz::targets::host::agent_trace`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::agent_trace(bytes);
});
