//! `catchment-relay`: the life of the process.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use catchment_relay::{Config, run};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Takes frames over HTTP and passes them to their aggregators over QUIC.
#[derive(Parser)]
#[command(name = "catchment-relay")]
struct Arguments {
    /// The config file
    #[arg(long, value_name = "FILE.toml")]
    config: PathBuf,
}

/// What an operator has to put right.
const EXIT_CONFIG: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(mistakes) => return say(mistakes, EXIT_CONFIG),
    };
    let listening = TcpListener::bind(&config.listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = match listening {
        Ok(listening) => listening,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            return say(format_args!("{} is in use by another process", config.listen), EXIT_CONFIG);
        }
        Err(error) => return say(format_args!("can't listen on {}: {error}", config.listen), EXIT_CONFIG),
    };
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => return say(format_args!("can't wait for signals: {error}"), 1),
    };
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // Whoever started us may have closed our stdout; that is no reason not to serve.
    let _ = writeln!(std::io::stdout(), r#"{{"ready":true,"http":"{address}"}}"#);
    match run(listener, config, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(error, 1),
    }
}

fn say(sentence: impl Display, code: u8) -> ExitCode {
    eprintln!("{sentence}");
    ExitCode::from(code)
}
