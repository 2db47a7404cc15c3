//! See `fuzz::targets::agent::job_document`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::agent::job_document(bytes);
});
