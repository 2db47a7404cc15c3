//! See `fuzz::targets::agent::job_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::agent::job_message(bytes);
});
