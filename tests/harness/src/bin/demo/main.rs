//! `cargo xtask demo`: with `--once`, replays a file through the real processes and holds their answers against the exact ones;
//! without it, plays the file as a site's traffic beside a small shop, until it is stopped.

mod invitation;
mod once;
mod play;
mod report;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_harness::{Cluster, Failure, Outcome, Result, Sender, Trace, paths};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

/// Plays events through an edge, relays and aggregators of its own.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo")]
struct Args {
    /// Events, one JSON object a line, gzipped or not; without it, a web server's log of 1995.
    file: Option<PathBuf>,
    /// Replays the file as it is, reports, and stops everything; without it, a shop and a dashboard run until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Prints one JSON object: the report, or else the addresses and keys.
    #[arg(long)]
    json: bool,
    /// The number whose quantiles are asked for; without it, the one that most events have.
    #[arg(long, requires = "once")]
    measure: Option<String>,
    /// How many times its own pace the file's busiest hour is played at.
    #[arg(long, default_value_t = 6, conflicts_with = "once", value_parser = clap::value_parser!(u32).range(1..=600))]
    speed: u32,
    /// Regions that users are split over; two imply --central.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    regions: u8,
    /// Adds a central aggregator, and asks it.
    #[arg(long)]
    central: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let once = args.once;
    let outcome = tokio::select! {
        // It listens before anything is started.
        biased;
        asked = asked_to_stop() => asked.map(|()| !once),
        // What is dropped half-way stops its processes and removes its folder.
        outcome = run(args) => outcome,
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

/// Whether all is as it should be.
async fn run(args: Args) -> Result<bool> {
    let file = args.file.clone().unwrap_or_else(paths::bundled_trace);
    let trace = Trace::open(&file)?;
    if trace.lines.is_empty() {
        return Err(Failure(format!("{} has no events.", file.display())));
    }
    if args.once { once::run(&args, &file, &trace).await } else { play::run(&args, &file, &trace).await }
}

/// Ctrl-C, a supervisor's word, or the terminal's end.
async fn asked_to_stop() -> Result<()> {
    let listen = |kind| signal(kind).map_err(Failure::at("listening to signals"));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::at("listening to signals"))?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}

impl Args {
    /// Starts what is asked for.
    async fn cluster(&self, dashboard: Option<PathBuf>) -> Result<Cluster> {
        let central = self.central || self.regions > 1;
        let aggregators = parts(self.regions + u8::from(central), "aggregator");
        eprintln!("▸ start workerd, {} and {aggregators}", parts(self.regions, "relay"));
        let mut cluster = Cluster::builder().regions(self.regions.into()).central(central);
        if let Some(folder) = dashboard {
            cluster = cluster.dashboard(folder);
        }
        cluster.start().await
    }
}

/// The one client that everything is sent as.
fn client() -> Result<ClientId> {
    ClientId::new("demo").map_err(Failure::at("the demo's client"))
}

fn write_key(cluster: &Cluster, backfill: bool) -> Result<String> {
    Ok(cluster.trace_key(&client()?, backfill))
}

/// Sends a whole trace under a progress bar.
async fn replay(sender: &Sender, trace: &Trace, events: u64) -> Result<Outcome> {
    let style = ProgressStyle::with_template("  {bar:40} {human_pos}/{human_len} events, {per_sec}, {elapsed}");
    let bar = ProgressBar::new(events).with_style(style.map_err(Failure::at("the progress bar"))?);
    let started = Instant::now();
    let mut replay = std::pin::pin!(sender.replay(trace));
    let outcome = loop {
        tokio::select! {
            outcome = &mut replay => break outcome?,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                bar.set_position(sender.accepted.load(std::sync::atomic::Ordering::Relaxed));
            }
        }
    };
    bar.finish_and_clear();
    eprintln!("  {} events accepted in {:.1} s", outcome.accepted, started.elapsed().as_secs_f64());
    Ok(outcome)
}

fn parts(n: u8, name: &str) -> String {
    if n == 1 { format!("one {name}") } else { format!("{n} {name}s") }
}
