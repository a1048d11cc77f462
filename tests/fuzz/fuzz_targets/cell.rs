#![no_main]
//! The target `cell`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("cell", bytes);
});
