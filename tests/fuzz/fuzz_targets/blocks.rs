#![no_main]
//! The target `blocks`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("blocks", bytes);
});
