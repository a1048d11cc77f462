//! DuckDB, in one Python process that lives as long as the questions do.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use catchment_harness::{Failure, Result, paths};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long one statement may take.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Killed when dropped.
pub(crate) struct DuckDb {
    _process: Child,
    sql: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl DuckDb {
    /// Starts it with a Python that has it.
    pub(crate) fn start(python: &OsStr) -> Result<DuckDb> {
        let mut command = Command::new(python);
        command.arg(paths::root().join("tests/questions/pipe.py"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().map_err(Failure::at("starting DuckDB"))?;
        let (Some(sql), Some(told)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Failure("DuckDB has no pipes".into()));
        };
        Ok(DuckDb { _process: process, sql, told: BufReader::new(told) })
    }

    /// Runs a statement.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let run = async {
            self.sql.write_all(format!("{}\n", Value::from(sql)).as_bytes()).await?;
            self.sql.flush().await?;
            let mut line = String::new();
            self.told.read_line(&mut line).await?;
            Ok::<_, std::io::Error>(line)
        };
        let told = tokio::time::timeout(TIMEOUT, run).await.map_err(Failure::at("DuckDB"))?;
        let mut told: Value = serde_json::from_str(&told.map_err(Failure::at("DuckDB"))?)
            .map_err(Failure::at("reading what DuckDB says"))?;
        if let Some(error) = told["error"].as_str() {
            return Err(Failure(format!("DuckDB says {error} of {sql:.4000}")));
        }
        serde_json::from_value(told["rows"].take()).map_err(Failure::at("reading what DuckDB says"))
    }
}
