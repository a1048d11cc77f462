#![no_main]
//! The target `cube`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("cube", bytes);
});
