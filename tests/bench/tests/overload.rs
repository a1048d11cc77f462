//! The bench of an overload as a test: it fails by itself where something isn't as it must be.

#![cfg(test)]

use std::process::Command;

#[test]
fn an_edge_with_ten_times_its_senders_takes_as_much_as_before_and_loses_nothing() {
    // A stall of the machine in one of the two measurements makes their ratio meaningless: once more, then.
    let seconds = std::env::var("CATCHMENT_OVERLOAD_S").unwrap_or_else(|_| "8".into());
    let run = || Command::new(env!("CARGO_BIN_EXE_bench")).args(["overload", "--seconds", &seconds]).status().unwrap();
    assert!(run().success() || run().success());
}
