//! `sim [--runs N] [--seed S]`: runs N seeds from S on, and says what they saw; a seed that fails is told with its last steps.

use std::process::ExitCode;
use std::time::Instant;

use catchment_sim::runs::{KINDS, guarded, runs};

const USAGE: &str = "usage: sim [--runs N] [--seed S]";
/// Runs that see every kind of thing, surely.
const RUNS_FOR_ALL: u64 = 5_000;

fn main() -> ExitCode {
    let (mut count, mut seed) = (20_000, 1);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let number = args.next().and_then(|number| number.parse().ok());
        match (flag.as_str(), number) {
            ("--runs", Some(number)) => count = number,
            ("--seed", Some(number)) => seed = number,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let started = Instant::now();
    let total = runs(seed, count);
    if let Some((seed, what)) = total.failed {
        println!("seed {seed} failed: {what}");
        if let Err(failure) = guarded(seed, true) {
            println!("at step {}; the last of them:", failure.step);
            for line in failure.trace {
                println!("{line}");
            }
        }
        println!("again: cargo xtask test sim --runs 1 --seed {seed}");
        return ExitCode::FAILURE;
    }
    println!(
        "{} runs from seed {seed} in {:.1} s: {} steps, {} events acknowledged, {} counted, 0 lost, 0 doubled",
        total.runs,
        started.elapsed().as_secs_f64(),
        total.steps,
        total.acked,
        total.counted,
    );
    println!("runs that saw");
    for (kind, runs) in &total.seen {
        println!("{runs:>9} {kind}");
    }
    let missed: Vec<_> = KINDS.iter().filter(|kind| !total.seen.contains_key(**kind)).collect();
    if count >= RUNS_FOR_ALL && !missed.is_empty() {
        println!("never seen: {missed:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
