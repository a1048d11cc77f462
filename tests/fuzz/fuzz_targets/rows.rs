#![no_main]
//! The target `rows`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("rows", bytes);
});
