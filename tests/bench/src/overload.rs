//! `bench overload`: ten times as many senders as keep the edge busy. It takes as much as before, says to the others when to come again, and
//! counts all that it took.

use catchment_harness::Result;

use crate::figures::Figures;
use crate::stand;

/// Events of a request, and requests in flight that keep the edge busy.
const BATCH: usize = 50;
const CONNECTIONS: usize = 96;
const OVERLOAD: usize = 10;
/// What must hold: of the throughput at the peak, and of the memory of each process.
const THROUGHPUT_MIN: f64 = 0.8;
const MEMORY_MIB_MAX: f64 = 512.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How long the overload is measured, and the peak at most 10.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
}

/// Whether all is as it must be.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    figures.say("measured_s", args.seconds);
    eprintln!("▸ {CONNECTIONS} senders");
    let peak = stand::run(BATCH, CONNECTIONS, None, args.seconds.min(10)).await?;
    eprintln!("▸ {} senders", OVERLOAD * CONNECTIONS);
    let over = stand::run(BATCH, OVERLOAD * CONNECTIONS, None, args.seconds).await?;
    let ratio = over.events_per_s / peak.events_per_s;
    for (name, run) in [("peak", &peak), ("overload", &over)] {
        figures.measured(format!("{name}_events_per_s"), run.events_per_s);
        figures.measured(format!("{name}_answered_p99_ms"), run.answered_p99_ms);
        figures.say(format!("{name}_refused_requests"), run.refused);
        figures.say(format!("{name}_closed_connections"), run.closed);
        for (process, cpu_percent, memory_mib) in &run.used {
            figures.measured(format!("{name}_{process}_cpu_percent"), *cpu_percent);
            figures.measured(format!("{name}_{process}_memory_mib"), *memory_mib);
        }
    }
    figures.measured("throughput_percent", 100.0 * ratio);
    figures.print(args.json);
    let memory_mib = over.used.iter().filter(|(name, ..)| *name != "load").map(|used| used.2).fold(0.0, f64::max);
    let mut held = true;
    for (holds, what) in [
        (ratio >= THROUGHPUT_MIN, "the throughput falls"),
        (memory_mib <= MEMORY_MIB_MAX, "memory grows"),
        (over.refused > 0, "nobody was told to come again"),
        (over.visible.is_some(), "not all that was acknowledged was counted"),
    ] {
        if !holds {
            eprintln!("not as it must be: {what}");
            held = false;
        }
    }
    Ok(held)
}
