//! See `fuzz::targets::cloud::operator_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::cloud::operator_line(bytes);
});
