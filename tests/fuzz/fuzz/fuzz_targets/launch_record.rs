//! See `fuzz::targets::host::launch_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::launch_record(bytes);
});
