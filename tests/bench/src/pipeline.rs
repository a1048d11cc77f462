//! `bench pipeline`: the most events a second that all processes take on this machine while answers stay fresh.

use catchment_harness::Result;

use crate::figures::Figures;
use crate::stand::{self, Run};

/// What must hold of a rate that counts as sustained.
const VISIBLE_P99_MS_MAX: f64 = 1_000.0;
/// Of the offered rate, what must be taken.
const TAKEN_MIN: f64 = 0.98;
/// Rates tried below what the edge takes at most, until one is sustained.
const STEPS: [f64; 4] = [0.9, 0.8, 0.65, 0.5];
/// Events of a request, and requests in flight: enough that each commit has many.
const LOADS: [(usize, usize); 2] = [(50, 96), (500, 24)];
/// What is asked of a whole pipeline.
const FLOOR_EVENTS_PER_S: f64 = 30_000.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How long each rate is measured.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// Whether a rate above the floor is sustained.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    figures.say("measured_s", args.seconds);
    let mut best: f64 = 0.0;
    for (batch, connections) in LOADS {
        let (offered, run) = sustained(batch, connections, args.seconds).await?;
        let mut say = |name: &str, value| figures.measured(format!("b{batch}_{name}"), value);
        let fresh = run.visible.unwrap_or_default();
        if is_sustained(offered, &run) {
            say("events_per_s", run.events_per_s);
            best = best.max(run.events_per_s);
        } else {
            say("not_sustained_events_per_s", run.events_per_s);
        }
        say("visible_p50_ms", fresh.p50_ms);
        say("visible_p99_ms", fresh.p99_ms);
        say("answered_p50_ms", run.answered_p50_ms);
        say("answered_p99_ms", run.answered_p99_ms);
        say("waited_for_cpu_percent", run.waited_for_cpu_percent);
        for (process, cpu_percent, memory_mib) in &run.used {
            say(&format!("{process}_cpu_percent"), *cpu_percent);
            say(&format!("{process}_cpu_us_per_event"), run.cpu_us_per_event(process));
            say(&format!("{process}_memory_mib"), *memory_mib);
        }
        figures.say(format!("b{batch}_refused_requests"), run.refused);
    }
    figures.print(args.json);
    if best < FLOOR_EVENTS_PER_S {
        eprintln!("not as it must be: {best:.0} events/s, not {FLOOR_EVENTS_PER_S:.0}; close what else runs");
    }
    Ok(best >= FLOOR_EVENTS_PER_S)
}

/// The highest rate that is sustained, and the rate that was offered for it; else the last that was tried.
async fn sustained(batch: usize, connections: usize, seconds: u64) -> Result<(Option<f64>, Run)> {
    eprintln!("▸ {batch} events a request: as many as are taken");
    let most = stand::run(batch, connections, None, seconds).await?;
    tell(&most);
    if is_sustained(None, &most) {
        return Ok((None, most));
    }
    let mut last = (None, most);
    let most_per_s = last.1.events_per_s;
    for step in STEPS {
        let rate = most_per_s * step;
        eprintln!("▸ {batch} events a request: {rate:.0} events/s");
        let run = stand::run(batch, connections, Some(rate), seconds).await?;
        tell(&run);
        last = (Some(rate), run);
        if is_sustained(last.0, &last.1) {
            break;
        }
    }
    Ok(last)
}

fn is_sustained(offered: Option<f64>, run: &Run) -> bool {
    run.visible.is_some_and(|visible| visible.p99_ms < VISIBLE_P99_MS_MAX)
        && offered.is_none_or(|offered| run.events_per_s >= TAKEN_MIN * offered)
}

fn tell(run: &Run) {
    let p99 = run.visible.map_or("never".into(), |visible| format!("{:.0} ms", visible.p99_ms));
    eprintln!("  {:.0} events/s, visible at p99 after {p99}", run.events_per_s);
}
