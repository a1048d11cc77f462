#![no_main]
//! The target `credential`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("credential", bytes);
});
