#![no_main]
//! The target `dashboard`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("dashboard", bytes);
});
