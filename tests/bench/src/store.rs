//! `bench store`: a day of page views in one aggregator: what it costs to take and to flush them, the room they need, and how soon
//! questions are answered from there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use catchment_cells::{ClientId, cube};
use catchment_harness::{Api, Cluster, Failure, Question, Result};
use catchment_workload::{BODY_EVENTS, Events, SHARDS, Shards};

use crate::figures::Figures;
use crate::intake::{Sender, link_client, send};
use crate::machine::Usage;

/// How soon the aggregator flushes, in seconds: several times while it takes the day.
const FLUSH_S: u32 = 2;
/// How long what was taken may take to be flushed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often each question is asked.
const ROUNDS: usize = 50;
/// The day of the workload: 1 June 2024, UTC.
const DAY: (i64, i64) = (1_717_200_000_000, 1_717_286_400_000);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Page views of the day.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: u64,
}

/// Measures; each event must be counted.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    let mut cluster = Cluster::builder().flush_s(FLUSH_S).start().await?;
    let client = ClientId::new("bench").map_err(Failure::at("the bench's client"))?;
    eprintln!("▸ make the frames of {} events", args.events);
    let mut frames = Vec::new();
    let mut shards = Shards::new(cluster.secret(), SHARDS, cube::DEFAULT);
    let mut events = Events::new(1, args.events);
    while let Some(body) = events.body(BODY_EVENTS) {
        shards.take(body.bytes().to_vec(), &mut |frame| frames.push(frame.into()));
    }
    shards.finish(&mut |frame| frames.push(frame.into()));
    figures.say("events", args.events);
    figures.say("frames", frames.len());

    eprintln!("▸ take them");
    let link = link_client(&cluster)?;
    let pid = cluster.regions[0].aggregator.pid().ok_or_else(|| Failure("the aggregator has ended".into()))?;
    let (before, began) = (Usage::of(pid)?, Instant::now());
    send(Sender::Link(link), frames).await?;
    let taken_s = began.elapsed().as_secs_f64();
    // What came last is flushed, too.
    while cluster.counter("catchment_memtable_bytes").await? > 0.0 {
        if began.elapsed() > PATIENCE {
            return Err(Failure(format!("not all is flushed {PATIENCE:?} after it was sent")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = Usage::of(pid)?;
    figures.measured("taken_events_per_s", args.events as f64 / taken_s);
    figures.measured("taken_and_flushed_cpu_us_per_event", after.cpu_s_since(&before) * 1e6 / args.events as f64);
    let [flush_s, flushes] = ["sum", "count"].map(|what| format!("catchment_flush_seconds_{what}"));
    let (flush_s, flushes) = (cluster.counter(&flush_s).await?, cluster.counter(&flushes).await?);
    figures.say("flushes", flushes as u64);
    figures.measured("flush_mean_s", flush_s / flushes);
    figures.measured("aggregator_memory_mib", after.memory_mib);
    figures.measured("disk_bytes", disk_bytes(&cluster.folder().join("data-eu")) as f64);

    eprintln!("▸ ask");
    let api = cluster.api(&client);
    let counted = api.count("events", DAY).await?;
    for (name, question) in questions() {
        let [p50_ms, p95_ms] = ask(&api, &question).await?;
        figures.measured(format!("{name}_p50_ms"), p50_ms);
        figures.measured(format!("{name}_p95_ms"), p95_ms);
    }

    let began = Instant::now();
    cluster.regions[0].aggregator.restart().await?;
    figures.measured("started_again_s", began.elapsed().as_secs_f64());
    let counted_again = cluster.api(&client).count("events", DAY).await?;
    figures.print(args.json);
    if (counted, counted_again) != (args.events, args.events) {
        eprintln!("not as it must be: {counted} events are counted, {counted_again} after a restart");
    }
    Ok((counted, counted_again) == (args.events, args.events))
}

/// What people ask of a day.
fn questions() -> [(&'static str, Question); 6] {
    let day = |metrics: &[&str], granularity: &str| Question::of(metrics, DAY.0, DAY.1, granularity);
    [
        ("whole_day", day(&["events", "users"], "all")),
        ("by_hour", day(&["events", "users"], "1h")),
        ("by_minute", day(&["events", "users"], "1m")),
        ("p95_by_hour", day(&["p95:duration_ms"], "1h")),
        ("top10_pages", day(&["events"], "all").with("group_by", "page").with("limit", 10)),
        ("top10_pages_by_hour", day(&["events", "users"], "1h").with("group_by", "page").with("limit", 10)),
    ]
}

/// p50 and p95 of the time from the question to the whole of its answer, in ms.
async fn ask(api: &Api, question: &Question) -> Result<[f64; 2]> {
    let mut took_ms = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let (status, body) = api.raw(question).await?;
        took_ms.push(began.elapsed().as_secs_f64() * 1e3);
        if status != 200 {
            return Err(Failure(format!("the aggregator answers {status}: {body}")));
        }
    }
    took_ms.sort_by(f64::total_cmp);
    Ok([took_ms[ROUNDS / 2], took_ms[ROUNDS * 95 / 100]])
}

/// Disk that a folder's files take, in bytes.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    // Files may go while we look.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => disk_bytes(&entry.path()),
        Ok(about) => about.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}
