#![no_main]
//! The target `dictionary`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("dictionary", bytes);
});
