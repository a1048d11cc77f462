#![no_main]
//! The target `digest`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("digest", bytes);
});
