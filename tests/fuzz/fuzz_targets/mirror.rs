#![no_main]
//! The target `mirror`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("mirror", bytes);
});
