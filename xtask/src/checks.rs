//! `cargo xtask test`: format, lints, documentation, then all tests, against the real processes.

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use crate::builds::{self, native};
use crate::steps::{Step, cargo, works};
use crate::tools;

/// The aggregator that tests run can be told where to die. Cargo keeps what it built with a feature and without, and
/// puts the one that was asked for last into `target/debug`: going back and forth builds nothing again.
const CRASH_POINTS: [&str; 2] = ["--features", "catchment-aggregator/crash-points"];
/// Kills at random instants of a replay: in full, and every day.
const KILLS: &str = "150";
const KILLS_FAST: &str = "12";

/// Runs every check; stops at the first that fails.
pub(crate) fn run(args: &[String]) -> Result<ExitCode, String> {
    let fast = match args {
        [] => false,
        [flag] if flag == "--fast" => true,
        _ => return Err("usage: cargo xtask test [--fast]".into()),
    };
    let started = Instant::now();
    tools::compiler()?;
    tools::wasm_target()?;
    Step::begin("check the format").run(cargo(&["fmt", "--all", "--check"]))?;
    let mut clippy = native("clippy", &["--all-targets"]);
    clippy.args(CRASH_POINTS).args(["--", "-D", "warnings"]);
    Step::begin("lint").run(clippy)?;
    let mut clippy = cargo(&["clippy", "-p", "catchment-edge-worker", "--target", "wasm32-unknown-unknown"]);
    clippy.args(["--", "-D", "warnings"]);
    Step::begin("lint the Worker").run(clippy)?;
    let mut doc = native("doc", &["--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    Step::begin("document").run(doc)?;
    let mut doc = cargo(&["doc", "--no-deps", "-p", "catchment-edge-worker", "--target", "wasm32-unknown-unknown"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    Step::begin("document the Worker").run(doc)?;
    tools::workerd()?;
    tools::node_packages()?;
    builds::programs(&CRASH_POINTS)?;
    builds::edge()?;

    let runner: &[&str] = if works(cargo(&["nextest", "--version"])) { &["nextest", "run"] } else { &["test"] };
    let mut tests = cargo(runner);
    tests.args(builds::NATIVE).args(CRASH_POINTS);
    tests.env("CATCHMENT_KILLS", if fast { KILLS_FAST } else { KILLS });
    match env::var_os("CATCHMENT_PYTHON").map(Into::into).or_else(tools::python) {
        Some(python) => _ = tests.env("CATCHMENT_PYTHON", python),
        None => Step::say("python3 with venv is missing: the cross-check with Python's datasketches is skipped"),
    }
    Step::begin("test").run(tests)?;
    eprintln!("all passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
