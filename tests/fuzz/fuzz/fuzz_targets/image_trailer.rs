//! See `fuzz::targets::host::image_trailer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::targets::host::image_trailer(bytes);
});
