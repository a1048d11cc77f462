//! The same events are the same bytes, natively and in Wasm: what a browser or the edge merges, the aggregator could have.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use catchment_cells_wasm_check::run;

/// What the command prints, or its complaint as a panic.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn wasm_and_native_agree() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A folder of its own: whoever runs the tests may hold the lock of the other.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm-check");
    let cargo = std::env::var_os("CARGO").unwrap_or(OsString::from("cargo"));
    output(
        Command::new(cargo)
            .args(["build", "--locked", "--lib", "--profile", "wasm", "--target", "wasm32-unknown-unknown"])
            .arg("--manifest-path")
            .arg(package.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    );
    let module = target.join("wasm32-unknown-unknown/wasm/catchment_cells_wasm_check.wasm");
    let printed = output(Command::new("node").arg(package.join("tests/run.mjs")).arg(module));
    let (canonical, answers) = printed.split_once('\n').unwrap();
    let answers: Vec<f64> =
        answers.trim().trim_matches(['[', ']']).split(',').map(|number| number.parse().unwrap()).collect();

    let native = run();
    assert!(data_encoding::HEXLOWER.encode(&native.canonical) == canonical, "the canonical bytes differ");
    assert_eq!(native.answers.len(), answers.len());
    for (native, wasm) in native.answers.iter().zip(&answers) {
        assert!((native - wasm).abs() <= 1e-12 * native.abs(), "{native} natively, {wasm} in Wasm");
    }
    let differing = native.answers.iter().zip(&answers).filter(|(native, wasm)| native != wasm).count();
    println!(
        "{} bytes equal; {differing} of {} answers differ in their last bits",
        native.canonical.len(),
        answers.len()
    );
}
