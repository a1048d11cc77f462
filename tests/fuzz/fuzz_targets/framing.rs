#![no_main]
//! The target `framing`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("framing", bytes);
});
