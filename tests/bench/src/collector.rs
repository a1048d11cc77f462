//! `bench collector`: the same page views counted by shards, natively and as Wasm, and rolled up by DuckDB, on one thread each.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use catchment_harness::{Failure, Result, paths};

use crate::figures::Figures;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Page views of one day.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    events: u64,
    /// Rounds in which everybody counts in turn; of each, the least CPU is told.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    times: u32,
}

/// The file of events; removed when dropped.
struct Events(PathBuf);

impl Drop for Events {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// Whether everybody counted every event, in as many cells.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    let root = paths::root();
    let native = root.join("target/wasm/catchment-workload");
    let wasm = root.join("target/wasm32-unknown-unknown/wasm/catchment_workload.wasm");
    let file = Events(std::env::temp_dir().join(format!("catchment-bench-{}.ndjson", std::process::id())));
    eprintln!("▸ write {} page views", args.events);
    output(Command::new(&native).arg("write").arg(&file.0).arg(args.events.to_string()))?;
    let bytes = std::fs::metadata(&file.0).map_err(Failure::at("the events"))?.len();
    figures.measured("ndjson_bytes", bytes as f64);
    let native = |cubes: &str| command(native.as_os_str(), &["count".as_ref(), file.0.as_os_str(), cubes.as_ref()]);
    let script = root.join("tests/workload/run.mjs");
    let node = command("node".as_ref(), &[script.as_os_str(), wasm.as_os_str(), file.0.as_os_str()]);
    let mut counters = vec![("native", native("three")), ("native_default_cubes", native("default")), ("wasm", node)];
    let duckdb = std::env::var_os("CATCHMENT_DUCKDB_PYTHON");
    if let Some(python) = &duckdb {
        let script = root.join("tests/bench/duckdb_rollups.py");
        let roll_up = |ids: &str| command(python, &[script.as_os_str(), file.0.as_os_str(), ids.as_ref()]);
        counters.extend([("duckdb", roll_up("any")), ("duckdb_once", roll_up("once"))]);
    } else {
        eprintln!("  python3 with venv is missing: nothing is compared with DuckDB");
    }
    let mut least: Vec<Option<(f64, String)>> = vec![None; counters.len()];
    for round in 1..=args.times {
        for ((who, command), least) in counters.iter_mut().zip(&mut least) {
            eprintln!("▸ {who}, round {round}");
            let told = output(command)?;
            let cpu_s = Figures::of(&told)?.number("cpu_s").unwrap_or(f64::INFINITY);
            if least.as_ref().is_none_or(|(least_s, _)| cpu_s < *least_s) {
                *least = Some((cpu_s, told));
            }
        }
    }
    for ((who, _), (_, told)) in counters.iter().zip(least.into_iter().flatten()) {
        figures.adopt(&format!("{who}_"), &told)?;
    }
    let n = args.events as f64;
    for (who, _) in &counters {
        if let Some(cpu_s) = figures.number(&format!("{who}_cpu_s")) {
            figures.measured(format!("{who}_events_per_cpu_s"), n / cpu_s);
        }
    }
    let mut ok = true;
    let mut must = |what: String, holds: bool| {
        if !holds {
            eprintln!("not as it must be: {what}");
            ok = false;
        }
    };
    for who in ["native", "native_default_cubes", "wasm"] {
        must(format!("{who} counts every event"), figures.number(&format!("{who}_events")) == Some(n));
    }
    if duckdb.is_some() {
        for what in ["total_cells", "country_cells", "page_cells", "total_events", "country_events", "page_events"] {
            let all = ["native", "duckdb", "duckdb_once"].map(|who| figures.number(&format!("{who}_{what}")));
            must(format!("{what}: {all:?} here and by DuckDB"), all[0].is_some() && all == [all[0]; 3]);
        }
    }
    for (who, ratio) in [("duckdb", "ratio_to_duckdb"), ("duckdb_once", "once_ratio_to_duckdb")] {
        if let [Some(ours), Some(theirs)] = ["native", who].map(|who| figures.number(&format!("{who}_cpu_s"))) {
            // Above 1, DuckDB takes more CPU.
            figures.measured(ratio, theirs / ours);
        }
    }
    figures.print(args.json);
    Ok(ok)
}

fn command(program: &OsStr, args: &[&OsStr]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// What a command prints; an error says what it complained of.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let at = format!("{command:?}");
    let output = command.output().map_err(Failure::at(&at))?;
    if !output.status.success() {
        return Err(Failure(format!("{at} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
