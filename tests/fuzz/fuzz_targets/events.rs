#![no_main]
//! The target `events`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("events", bytes);
});
