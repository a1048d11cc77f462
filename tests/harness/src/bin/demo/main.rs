//! `cargo xtask demo`: replays a file through the real processes, asks for its figures, and holds them against the exact ones.

mod report;
mod visible;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_cells::credential::{Identity, WriteKey};
use catchment_harness::figures::Figures;
use catchment_harness::{Cluster, Event, Exact, Failure, Line, Outcome, Result, Sender, Trace, paths};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use report::Report;
use visible::Watcher;

/// How long the count may stand still before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Replays events through an edge, relays and aggregators of its own, and prints what they answer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo")]
struct Args {
    /// Events, one JSON object a line, gzipped or not; without it, a web server's log of 1995.
    file: Option<PathBuf>,
    /// Stops everything after the report; without it, all keeps running until Ctrl-C.
    #[arg(long)]
    once: bool,
    /// Prints one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// The number whose quantiles are asked for; without it, the one that most events have.
    #[arg(long)]
    measure: Option<String>,
    /// Regions that users are split over; two imply --central.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    regions: u8,
    /// Adds a central aggregator, and asks it.
    #[arg(long)]
    central: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}

/// Whether every distinct valid event was counted once.
async fn run(args: Args) -> Result<bool> {
    let file = args.file.clone().unwrap_or_else(paths::bundled_trace);
    let trace = Trace::open(&file)?;
    if trace.lines.is_empty() {
        return Err(Failure(format!("{} has no events.", file.display())));
    }
    let central = args.central || args.regions > 1;
    eprintln!(
        "▸ start workerd, {} and {}",
        parts(args.regions, "relay"),
        parts(args.regions + u8::from(central), "aggregator")
    );
    let cluster = Cluster::builder().regions(args.regions.into()).central(central).start().await?;
    let client = ClientId::new("demo").map_err(Failure::at("the demo's client"))?;
    let key = cluster.write_key(&WriteKey {
        client: client.clone(),
        identity: Identity::User,
        backfill: true,
        ignore_foreign_client: true,
        generation: 1,
    });
    let api = cluster.api(&client);
    let all = Exact::of(&trace.lines);
    let Some(span) = all.span() else {
        return Err(Failure(format!("{} has no line with event_id, event_type and timestamp.", file.display())));
    };

    eprintln!("▸ replay {} ({} lines)", file.display(), trace.lines.len());
    let watcher = Watcher::start(api.clone(), span);
    let outcome = replay(&Sender::new(cluster.edge_url().into(), key.clone()), &trace, all.events).await?;
    // What is valid is judged here, not by what the edge took. Only of what lies ahead it knows better: it was there at the time.
    let future: HashSet<usize> =
        outcome.rejected.iter().filter(|rejected| rejected.reason == "future").map(|rejected| rejected.line).collect();
    let now = jiff::Timestamp::now().as_millisecond();
    let ahead = |line: &Line| Event::read(&line.text).is_some_and(|event| event.time_ms > now);
    let exact = Exact::of(trace.lines.iter().filter(|line| !(future.contains(&line.number) && ahead(line))));
    eprintln!("▸ wait until {} events are counted", exact.events);
    let counted = watcher.counted(exact.events, PATIENCE).await?;

    eprintln!("▸ ask");
    let measure = args.measure.as_deref().or(exact.main_measure());
    let figures = Figures::ask(&api, exact.span().unwrap_or(span), measure).await?;
    let report = Report {
        differences: figures.differences(&exact),
        visible: counted.visible(&outcome.acks),
        shipped_bytes: cluster.counter("catchment_relay_received_bytes_total").await? as u64,
        raw_bytes: trace.bytes(),
        raw_gzip_bytes: trace.gzip_bytes()?,
        measure,
        figures,
        exact: &exact,
        outcome: &outcome,
    };
    if args.json {
        println!("{}", report.json())
    } else {
        print!("{}", report.tables())
    }
    for difference in &report.differences {
        eprintln!("not as it should be: {difference}");
    }
    let ok = report.differences.is_empty();
    if !args.once {
        let (url, read_key) = api.credentials();
        eprint!("{}", report::invitation(cluster.edge_url(), &key, url, read_key, exact.span().unwrap_or(span)));
        tokio::signal::ctrl_c().await.map_err(Failure::at("waiting for Ctrl-C"))?;
    }
    Ok(ok)
}

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
