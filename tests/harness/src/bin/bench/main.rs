//! `cargo xtask bench`: what the running system manages on this machine.

mod live;
mod load;
mod machine;
mod readers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures the real processes.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Readers of live views: how fresh they are, what they cost, and how they come back.
    Live(live::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let What::Live(args) = Args::parse().what;
    let outcome = tokio::select! {
        // What is dropped half-way stops its processes and removes its folder.
        outcome = live::run(args) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(false),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}
