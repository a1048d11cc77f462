#![no_main]
//! The target `stretch`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("stretch", bytes);
});
