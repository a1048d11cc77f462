//! `bench cost`: what Cloudflare would bill, by a formula ([`bill`](crate::bill)) over what the real edge is seen to do.

use catchment_harness::{Failure, Result};

use crate::bill::{Bill, Load, Measured, PRICES, commits_per_s, fewest_events_per_request, per_million, slices};
use crate::figures::Figures;
use crate::{shipped, stand};

/// What is compared with, in dollars a month.
const COMPARED_USD_PER_MONTH: f64 = 10_285.0;
/// Events of a request, requests in flight at most, and events a second at which a shard is watched.
const SEEN: [(usize, usize, f64); 3] = [(1, 128, 200.0), (10, 64, 1_000.0), (50, 32, 2_500.0)];
/// Events a second of one client.
const RATES_PER_S: [u32; 2] = [10_000, 50_000];
/// Small sites of an event a second each, one a request, and pools that they share.
const SITES: u32 = 10_000;
const POOLS: [usize; 3] = [21, 34, 100];
/// How fast, and how many events of the seeded workload, when it is looked after how many a cut is due by size.
const FULL: (u64, u64) = (2_000, 40_000);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How long each kind of request is watched.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(4..=60))]
    seconds: u64,
}

/// Measures and works out; there is nothing that must hold.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    figures.say("prices_of", PRICES.on);
    figures.measured("compared_usd_per_month", COMPARED_USD_PER_MONTH);
    let events_per_cut = FULL.1 as f64 / shipped::frames_by_size(FULL.0, FULL.1)? as f64;
    figures.say("full_cut_events", events_per_cut.round());
    let mut rows = Vec::new();
    let mut tell = |figures: &mut Figures, name: &str, load: Load, measured: &Measured| {
        let bill = Bill::of(&PRICES, &load, measured);
        figures.say(format!("{name}_shards"), load.shards);
        figures.measured(format!("{name}_usd_per_million"), per_million(bill.month(), load.events_per_s));
        figures.measured(format!("{name}_usd_per_month"), bill.month());
        rows.push((load, bill));
    };
    for (batch, connections, rate) in SEEN {
        eprintln!("▸ {batch} events a request, {rate:.0} events/s to one shard");
        let run = stand::run(batch, connections, Some(rate), args.seconds).await?;
        let seen = run.shard.ok_or_else(|| Failure("the shard was not asked".into()))?;
        let measured = Measured {
            rows_per_cut: (seen.rows_written - seen.commits + seen.alarms_set) / seen.frames,
            alarms_per_cut: seen.alarms / seen.frames,
            events_per_cut,
            cpu_ms_per_request: run.cpu_us_per_event("edge") * batch as f64 / 1e3,
        };
        let mut say = |name: &str, value: f64| figures.measured(format!("b{batch}_{name}"), value);
        say("requests_per_s", run.events_per_s / batch as f64);
        say("object_requests_per_request_ratio", seen.requests * batch as f64 / (run.events_per_s * seen.seconds));
        say("commits_per_s", seen.commits / seen.seconds);
        say("formula_commits_per_s", commits_per_s(run.events_per_s / batch as f64, batch));
        say("frames_per_s", seen.frames / seen.seconds);
        say("alarms_per_s", seen.alarms / seen.seconds);
        say("rows_written_per_s", seen.rows_written / seen.seconds);
        say("rows_per_cut_ratio", measured.rows_per_cut);
        say("alarms_per_cut_ratio", measured.alarms_per_cut);
        say("request_cpu_ms", measured.cpu_ms_per_request);
        for rate in RATES_PER_S {
            let events_per_s = f64::from(rate);
            let shards = slices(events_per_s, batch);
            let load = Load { events_per_s, events_per_request: batch, shards, watched: true };
            tell(&mut figures, &format!("r{rate}_b{batch}"), load, &measured);
            // As dear a request as of ten: those of fewer events cost less CPU, which is the least part.
            if batch == 10
                && let Some(n) = fewest_events_per_request(&PRICES, events_per_s, COMPARED_USD_PER_MONTH, &measured)
            {
                figures.say(format!("r{rate}_below_from_events_per_request"), n);
            }
        }
        if batch == 1 {
            for shards in POOLS {
                let load = Load { events_per_s: f64::from(SITES), events_per_request: 1, shards, watched: true };
                tell(&mut figures, &format!("sites{SITES}_pools{shards}"), load, &measured);
            }
        }
    }
    figures.print(args.json);
    if !args.json {
        table(&rows);
    }
    Ok(true)
}

/// The bills by part, in dollars a month.
fn table(rows: &[(Load, Bill)]) {
    println!(
        "\n| events/s | a request | shards | requests | to objects | CPU | objects | rows | a month | below {COMPARED_USD_PER_MONTH:.0} |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (load, bill) in rows {
        println!(
            "| {:.0} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} |",
            load.events_per_s,
            load.events_per_request,
            load.shards,
            bill.requests,
            bill.object_requests,
            bill.cpu,
            bill.objects,
            bill.rows,
            bill.month(),
            if bill.month() < COMPARED_USD_PER_MONTH { "yes" } else { "no" },
        );
    }
}
