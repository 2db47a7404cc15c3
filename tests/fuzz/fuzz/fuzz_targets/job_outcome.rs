//! See `fuzz::targets::agent::job_outcome`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::agent::job_outcome(bytes);
});
