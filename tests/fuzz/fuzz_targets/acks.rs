#![no_main]
//! The target `acks`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("acks", bytes);
});
