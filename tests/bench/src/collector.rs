//! `bench collector`: the same page views counted by shards, natively and as Wasm, and rolled up by DuckDB, on one thread each.

use std::path::{Path, PathBuf};
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
    eprintln!("▸ count them natively: three cubes, then the default ones");
    figures.adopt("native_", &output(Command::new(&native).arg("count").arg(&file.0))?)?;
    figures.adopt("native_default_cubes_", &output(Command::new(&native).arg("count").arg(&file.0).arg("default"))?)?;
    eprintln!("▸ count them as Wasm, in Node");
    let script = root.join("tests/workload/run.mjs");
    figures.adopt("wasm_", &output(Command::new("node").arg(&script).arg(&wasm).arg(&file.0))?)?;
    let duckdb = std::env::var_os("CATCHMENT_DUCKDB_PYTHON").map(PathBuf::from);
    if let Some(python) = &duckdb {
        eprintln!("▸ roll them up by DuckDB, on one thread");
        let script: &Path = &root.join("tests/bench/duckdb_rollups.py");
        figures.adopt("duckdb_", &output(Command::new(python).arg(script).arg(&file.0))?)?;
    } else {
        eprintln!("  python3 with venv is missing: nothing is compared with DuckDB");
    }
    let n = args.events as f64;
    for who in ["native", "native_default_cubes", "wasm", "duckdb"] {
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
            let [ours, theirs] = ["native", "duckdb"].map(|who| figures.number(&format!("{who}_{what}")));
            must(format!("{what}: {ours:?} here, {theirs:?} by DuckDB"), ours.is_some() && ours == theirs);
        }
    }
    if let (Some(ours), Some(theirs)) = (figures.number("native_cpu_s"), figures.number("duckdb_cpu_s")) {
        // Above 1, DuckDB takes more CPU.
        figures.measured("ratio_to_duckdb", theirs / ours);
    }
    figures.print(args.json);
    Ok(ok)
}

/// What a command prints; an error says what it complained of.
fn output(command: &mut Command) -> Result<String> {
    let at = format!("{command:?}");
    let output = command.output().map_err(Failure::at(&at))?;
    if !output.status.success() {
        return Err(Failure(format!("{at} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
