#![no_main]
//! The target `frame`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("frame", bytes);
});
