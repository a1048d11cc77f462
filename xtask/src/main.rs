//! The project's commands: `cargo xtask demo`, `cargo xtask build` and `cargo xtask test`. Nothing but std, so that it
//! builds in seconds.

mod builds;
mod checks;
mod steps;
mod tools;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use steps::{Step, root};

const USAGE: &str = "usage: cargo xtask demo [--speed N] [--json] [--regions 2] [--central] [FILE.ndjson[.gz]]
       cargo xtask demo --once [--json] [--measure M] [--regions 2] [--central] [FILE.ndjson[.gz]]
       cargo xtask build
       cargo xtask test [--fast] [--install]";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let command = args.next();
    let args: Vec<String> = args.collect();
    let outcome = match command.as_deref() {
        Some("demo") => demo(&args),
        Some("build") if args.is_empty() => build().map(|()| ExitCode::SUCCESS),
        Some("test") => checks::run(&args),
        _ => Err(USAGE.into()),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::from(2)
    })
}

/// Sets up, builds, and hands over to the harness' `demo`.
fn demo(args: &[String]) -> Result<ExitCode, String> {
    let help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    if help {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    build()?;
    Step::say("run the demo");
    // It takes our place: who signals us, signals it, and its end is ours.
    let error = Command::new(root().join("target/debug/demo")).args(args).exec();
    Err(format!("the demo can't be started: {error}"))
}

/// Sets up, and builds all that the demo and whole-system tests run.
fn build() -> Result<(), String> {
    tools::compiler()?;
    tools::wasm_target()?;
    tools::workerd()?;
    tools::node_packages()?;
    builds::programs(&[])?;
    builds::edge()?;
    builds::dashboard()
}
