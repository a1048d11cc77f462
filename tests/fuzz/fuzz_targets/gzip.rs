#![no_main]
//! The target `gzip`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("gzip", bytes);
});
