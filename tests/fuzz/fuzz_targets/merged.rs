#![no_main]
//! The target `merged`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("merged", bytes);
});
