//! `bench edge`: from a request to the durable commit, through workerd, at 1, 50 and 500 events a request.

use catchment_harness::Result;

use crate::figures::Figures;
use crate::stand;

/// Events of a request, and requests in flight.
const LOADS: [(usize, usize); 3] = [(1, 256), (50, 96), (500, 24)];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How long each is measured.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// Measures; there is nothing that must hold.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    figures.say("measured_s", args.seconds);
    for (batch, connections) in LOADS {
        eprintln!("▸ {batch} events a request, {connections} requests in flight");
        let run = stand::run(batch, connections, None, args.seconds).await?;
        figures.measured(format!("b{batch}_events_per_s"), run.events_per_s);
        figures.measured(format!("b{batch}_requests_per_s"), run.events_per_s / batch as f64);
        figures.measured(format!("b{batch}_cpu_us_per_event"), run.cpu_us_per_event("edge"));
        figures.measured(format!("b{batch}_answered_p50_ms"), run.answered_p50_ms);
        figures.measured(format!("b{batch}_answered_p99_ms"), run.answered_p99_ms);
        figures.measured(format!("b{batch}_waited_for_cpu_percent"), run.waited_for_cpu_percent);
        figures.say(format!("b{batch}_requests_in_flight"), connections);
    }
    figures.print(args.json);
    Ok(true)
}
