//! `cargo xtask test`: format, lints, documentation, then all tests, against the real processes.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs, thread};

use crate::builds::{self, native};
use crate::steps::{Step, cargo, command, root, works};
use crate::tools;

/// The aggregator that tests run can be told where to die. Cargo keeps what it built with a feature and without, and
/// puts the one that was asked for last into `target/debug`: going back and forth builds nothing again.
const CRASH_POINTS: [&str; 2] = ["--features", "catchment-aggregator/crash-points"];
/// Kills at random instants of a replay: in full, and every day.
const KILLS: &str = "150";
const KILLS_FAST: &str = "12";
/// Seconds of an overload: in full, and every day.
const OVERLOAD_S: &str = "60";
const OVERLOAD_S_FAST: &str = "8";
const NO_CHROMIUM: &str =
    "browser tests are skipped: Chromium is missing; `cargo xtask test --install` installs it by apt";

/// Runs of the simulation in the everyday test.
const SIM_RUNS: &str = "3000";
/// Questions of the everyday test, and the events that they are about.
const QUESTIONS: [&str; 4] = ["--runs", "300", "--events", "20000"];

/// Runs the simulation alone: `--runs N` and `--seed S` are its own.
pub(crate) fn sim(args: &[String]) -> Result<ExitCode, String> {
    tools::compiler()?;
    Step::begin("build the simulation").run(native("build", &["--bins"]))?;
    let status = command("target/debug/sim", &[]).args(args).status().map_err(|error| format!("sim: {error}."))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs every check; stops at the first that fails.
pub(crate) fn run(args: &[String]) -> Result<ExitCode, String> {
    let (mut fast, mut install) = (false, false);
    for arg in args {
        match arg.as_str() {
            "--fast" => fast = true,
            "--install" => install = true,
            _ => return Err("usage: cargo xtask test [--fast] [--install]".into()),
        }
    }
    let started = Instant::now();
    let chromium = tools::chromium(install)?;
    if chromium.is_none() {
        Step::say(NO_CHROMIUM);
    }
    tools::compiler()?;
    tools::wasm_target()?;
    Step::begin("check the format").run(cargo(&["fmt", "--all", "--check"]))?;
    let mut clippy = native("clippy", &["--all-targets"]);
    clippy.args(CRASH_POINTS).args(["--", "-D", "warnings"]);
    Step::begin("lint").run(clippy)?;
    let mut clippy = cargo(&["clippy", "-p", "catchment-edge-worker", "--target", "wasm32-unknown-unknown"]);
    clippy.args(["--", "-D", "warnings"]);
    Step::begin("lint the Worker").run(clippy)?;
    let mut clippy = cargo(&["clippy", "-p", "catchment-dashboard", "--target", "wasm32-unknown-unknown"]);
    clippy.args(["--", "-D", "warnings"]);
    Step::begin("lint the dashboard").run(clippy)?;
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
    let simulation = command("target/debug/sim", &["--runs", SIM_RUNS]);
    Step::begin("simulate").run(simulation)?;
    match tools::duckdb() {
        Some(python) => {
            let mut questions = command("target/debug/questions", &QUESTIONS);
            questions.env("CATCHMENT_DUCKDB_PYTHON", python);
            Step::begin("hold answers against DuckDB's").run(questions)?;
        }
        None => Step::say("python3 with venv is missing: no answer is held against DuckDB's"),
    }
    tools::wrangler()?;
    builds::dashboard()?;

    let mut tests = if works(cargo(&["nextest", "--version"])) {
        // One more at a time than there are cores, since the longest mostly wait.
        let threads = 1 + thread::available_parallelism().map_or(1, NonZero::get);
        cargo(&["nextest", "run", "--test-threads", &threads.to_string()])
    } else {
        cargo(&["test"])
    };
    tests.args(builds::NATIVE).args(CRASH_POINTS);
    tests.env("CATCHMENT_KILLS", if fast { KILLS_FAST } else { KILLS });
    tests.env("CATCHMENT_OVERLOAD_S", if fast { OVERLOAD_S_FAST } else { OVERLOAD_S });
    match env::var_os("CATCHMENT_PYTHON").map(Into::into).or_else(tools::python) {
        Some(python) => _ = tests.env("CATCHMENT_PYTHON", python),
        None => Step::say("python3 with venv is missing: the cross-check with Python's datasketches is skipped"),
    }
    Step::begin("test").run(tests)?;
    scripts(chromium.as_deref())?;
    eprintln!("all passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// What takes its time, and has the others beside it; and what is measured, alone.
const LONG: &str = "sessions.test.mjs";
const MEASURED: &str = "paint.test.mjs";

/// What Node tests: the SDK's parts, what wrangler would deploy, and SDK and dashboard in a real Chromium, against the real processes.
fn scripts(chromium: Option<&Path>) -> Result<(), String> {
    let mut files = test_files("tests/browser")?;
    if chromium.is_none() {
        Step::say(NO_CHROMIUM);
        files.clear();
    }
    files.sort_by_key(|file| !file.ends_with(LONG));
    let (measured, mut files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.ends_with(MEASURED));
    files.extend(test_files("sdk/test")?);
    files.extend(test_files("tests/cloudflare")?);
    for (step, files) in [("test in Node and in a browser", files), ("measure in a browser", measured)] {
        if files.is_empty() {
            continue;
        }
        let mut node = command("node", &["--test", "--test-reporter=spec", "--test-concurrency=2"]);
        node.args(files);
        if let Some(chromium) = chromium {
            node.env("CATCHMENT_CHROMIUM", chromium);
        }
        Step::begin(step).run(node)?;
    }
    Ok(())
}

/// A folder's tests for Node, by name.
fn test_files(folder: &str) -> Result<Vec<PathBuf>, String> {
    let folder = root().join(folder);
    let read = |error| format!("{} can't be read: {error}.", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.to_string_lossy().ends_with(".test.mjs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
