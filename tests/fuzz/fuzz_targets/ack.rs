#![no_main]
//! The target `ack`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("ack", bytes);
});
