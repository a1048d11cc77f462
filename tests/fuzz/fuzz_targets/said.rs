#![no_main]
//! The target `said`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("said", bytes);
});
