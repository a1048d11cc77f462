//! The aggregator: takes frames, keeps their cells, answers questions, and passes frames on to central.

mod cells;
mod clock;
mod config;
mod configs;
mod crash;
mod forward;
mod health;
mod http;
mod ingest;
mod keeper;
mod keys;
mod live;
mod metrics;
mod server;
mod store;
#[cfg(test)]
mod tests;
mod zones;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use catchment_cells::ClientId;
use clap::Parser;
use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::server::{Server, StartError};

/// What can't be started exits so.
const EXIT_NOT_STARTED: u8 = 2;

/// Takes frames, keeps their cells, answers questions.
#[derive(Debug, Parser)]
#[command(name = "catchment-aggregator", version)]
struct Arguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Prints the keys of this client, and does nothing else.
    #[arg(long, value_name = "CLIENT", value_parser = |text: &str| ClientId::new(text))]
    keys: Option<ClientId>,
    /// The generation of these keys: a client's config says from which one on they are good.
    #[arg(long, value_name = "N", requires = "keys", default_value_t = 1)]
    generation: u32,
    /// Prints the bytes that each cube takes in the store, of all clients, as one JSON object, and does nothing else.
    #[arg(long, conflicts_with_all = ["keys", "operator_key"])]
    sizes: bool,
    /// Prints the operator's key, with which clients' configs are set, and does nothing else.
    #[arg(long)]
    operator_key: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.keys.is_some() || arguments.operator_key {
        return match Config::load(&arguments.config).and_then(|config| config.secret()) {
            Ok(secret) => {
                if let Some(client) = &arguments.keys {
                    println!("{}", keys::of(client, arguments.generation, &secret));
                }
                if arguments.operator_key {
                    println!("{}", keys::of_operator(&secret));
                }
                ExitCode::SUCCESS
            }
            Err(error) => not_started(&error.to_string()),
        };
    }
    if arguments.sizes {
        return match sizes(&arguments) {
            Ok(sizes) => {
                println!("{sizes}");
                ExitCode::SUCCESS
            }
            Err(error) => not_started(&error.to_string()),
        };
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return not_started(&error.to_string()),
    };
    let code = runtime.block_on(async {
        let server = match start(&arguments).await {
            Ok(server) => server,
            Err(error) => return not_started(&error.to_string()),
        };
        // Whoever started us may have closed our stdout; that is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "{}", server.ready_line());
        match server.run(shutdown()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!(%error, "the aggregator stops");
                ExitCode::FAILURE
            }
        }
    });
    // Answers that took longer than they are waited for hold nobody up: they only read.
    runtime.shutdown_background();
    code
}

async fn start(arguments: &Arguments) -> Result<Server, StartError> {
    Server::start(Config::load(&arguments.config)?, metrics::install().map_err(StartError::Metrics)?).await
}

fn sizes(arguments: &Arguments) -> Result<serde_json::Value, StartError> {
    let store = store::Store::open(&Config::load(&arguments.config)?.data)?;
    let sizes = store.sizes()?.into_iter().map(|((cube, tier), bytes)| (format!("{cube}_{tier}_bytes"), bytes.into()));
    Ok(serde_json::Value::Object(sizes.collect()))
}

fn not_started(problem: &str) -> ExitCode {
    eprintln!("catchment-aggregator: {problem}");
    ExitCode::from(EXIT_NOT_STARTED)
}

/// Ends when the process is asked to.
async fn shutdown() {
    use tokio::signal::unix::{SignalKind, signal};
    // Without a handler the signal ends the process, which the store survives.
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
