//! The project's commands: `cargo xtask demo`, `bench`, `build` and `test`. Nothing but std, so that it builds in seconds.

mod builds;
mod checks;
mod fuzz;
mod steps;
mod tools;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use steps::{Step, root};

const USAGE: &str = "usage: cargo xtask demo [--speed N] [--json] [--regions 2] [--central] [FILE.ndjson[.gz]]
       cargo xtask demo --once [--json] [--measure M] [--regions 2] [--central] [FILE.ndjson[.gz]]
       cargo xtask bench collector [--events N] [--times N] [--json]
       cargo xtask bench store|ids [--events N] [--json]
       cargo xtask bench query [--events N] [--store FOLDER] [--json]
       cargo xtask bench bytes|edge|pipeline|overload|live|cost [--seconds N] [--json]
       cargo xtask bench relay|ingest [--times N] [--json]
       cargo xtask build [--release]
       cargo xtask test [--fast] [--install]
       cargo xtask test fuzz [--seconds N] [TARGET…]
       cargo xtask test sim [--runs N] [--seed S]
       cargo xtask test questions [--runs N] [--seed S] [--events N] [--traces FOLDER]";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let command = args.next();
    let args: Vec<String> = args.collect();
    let outcome = match command.as_deref() {
        Some(tool @ ("demo" | "bench")) => hand_over(tool, &args),
        Some("build") if args.is_empty() => build().map(|()| ExitCode::SUCCESS),
        Some("build") if args == ["--release"] => build().and_then(|()| builds::released()).map(|()| ExitCode::SUCCESS),
        Some("test") if args.first().is_some_and(|arg| arg == "fuzz") => fuzz::run(&args[1..]),
        Some("test") if args.first().is_some_and(|arg| arg == "sim") => checks::sim(&args[1..]),
        Some("test") if args.first().is_some_and(|arg| arg == "questions") => hand_over("questions", &args[1..]),
        Some("test") => checks::run(&args),
        _ => Err(USAGE.into()),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::from(2)
    })
}

/// Sets up, builds, and hands over to a tool of the harness.
fn hand_over(tool: &str, args: &[String]) -> Result<ExitCode, String> {
    let help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    if help {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    build()?;
    let mut run = Command::new(root().join("target/debug").join(tool));
    run.args(args);
    let what = args.first().map_or("", String::as_str);
    if tool == "bench" && what == "collector" {
        builds::workload()?;
    }
    if (tool == "questions" || tool == "bench" && matches!(what, "collector" | "query"))
        && let Some(python) = tools::duckdb()
    {
        run.env("CATCHMENT_DUCKDB_PYTHON", python);
    }
    if tool == "bench"
        && what == "query"
        && let Some(python) = tools::clickhouse()
    {
        run.env("CATCHMENT_CHDB_PYTHON", python);
    }
    Step::say(&format!("run the {tool}"));
    // It takes our place: who signals us, signals it, and its end is ours.
    let error = run.exec();
    Err(format!("the {tool} can't be started: {error}"))
}

/// Sets up, and builds all that the harness' tools and tests run.
fn build() -> Result<(), String> {
    tools::compiler()?;
    tools::wasm_target()?;
    tools::workerd()?;
    tools::node_packages()?;
    builds::programs(&[])?;
    builds::edge()?;
    builds::dashboard()
}
