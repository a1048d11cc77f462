#![no_main]
//! The target `hop`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("hop", bytes);
});
