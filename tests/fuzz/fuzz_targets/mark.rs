#![no_main]
//! The target `mark`, driven by libFuzzer.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    catchment_fuzz::run("mark", bytes);
});
