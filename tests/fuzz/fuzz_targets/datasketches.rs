#![no_main]
//! The target `datasketches`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("datasketches", bytes);
});
