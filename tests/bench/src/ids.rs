//! `bench ids`: more events to one shard than it has ids of in memory: what that costs, and whether it knows them all, also after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catchment_cells::ClientId;
use catchment_cells::credential::{Identity, WriteKey};
use catchment_harness::{Cluster, Failure, Random, Result};
use catchment_workload::{Body, Events};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::figures::Figures;
use crate::http::Http;
use crate::machine::Usage;

/// Events of a request, and requests in flight.
const BATCH: u64 = 500;
const CONNECTIONS: u64 = 24;
/// Events after which it is said what they took.
const STEP: u64 = 500_000;
/// Requests that are sent once more, before and after a restart.
const AGAIN: u64 = 100;
/// How often a request is tried that is refused or not answered.
const TRIES: u32 = 100;
/// Where all routes of the first placement lead.
const SHARD: &str = "eu/pool/0";
/// What a shard of any number of ids may take beside an idle workerd, garbage that is not collected yet included.
const MEMORY_MIB_MAX: f64 = 512.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Events to send; a shard spills from 1,100,000 on, and remembers 21,000,000.
    #[arg(long, default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(500_000..=21_000_000))]
    events: u64,
}

/// What was said of a request.
#[derive(Debug, Default)]
struct Counted {
    accepted: u64,
    duplicates: u64,
}

/// Where to send, and what.
#[derive(Debug, Clone)]
struct Load {
    url: String,
    head: String,
    bodies: Vec<Body>,
}

impl Load {
    /// Sends requests of these numbers, several at a time.
    async fn send(&self, requests: Vec<u64>) -> Result<Counted> {
        let (requests, next) = (Arc::new(requests), Arc::new(AtomicU64::new(0)));
        let mut connections = JoinSet::new();
        for body in &self.bodies {
            let (load, requests, next, mut body) = (self.clone(), requests.clone(), next.clone(), body.clone());
            connections.spawn(async move {
                let (mut http, mut all) = (Http::connect(&load.url).await?, Counted::default());
                while let Some(n) = requests.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    body.stamp(n * BATCH, Timestamp::now().as_millisecond() as u64);
                    let counted = load.deliver(&mut http, &body).await?;
                    all.accepted += counted.accepted;
                    all.duplicates += counted.duplicates;
                }
                Ok::<_, Failure>(all)
            });
        }
        let mut all = Counted::default();
        while let Some(ended) = connections.join_next().await {
            let counted = ended.map_err(Failure::at("a connection of the load"))??;
            all.accepted += counted.accepted;
            all.duplicates += counted.duplicates;
        }
        Ok(all)
    }

    async fn deliver(&self, http: &mut Http, body: &Body) -> Result<Counted> {
        for _ in 0..TRIES {
            let answer = http.post(&self.head, body.bytes()).await?;
            match answer.status {
                202 => {
                    let said: Value = serde_json::from_slice(&answer.body).map_err(Failure::at("reading a 202"))?;
                    let number = |name: &str| said[name].as_u64().unwrap_or(0);
                    return Ok(Counted { accepted: number("accepted"), duplicates: number("duplicates") });
                }
                429 | 503 => tokio::time::sleep(answer.retry_after.unwrap_or(Duration::from_secs(1))).await,
                status => return Err(Failure(format!("the edge answers {status}"))),
            }
        }
        Err(Failure(format!("a request was refused {TRIES} times")))
    }
}

/// Whether each event counted once.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    // What a client may take of a pool is not what is looked for.
    let mut cluster = Cluster::builder().shard_requests_per_s(1_000_000).start().await?;
    let key = WriteKey {
        client: ClientId::new("bench").map_err(Failure::at("the bench's client"))?,
        identity: Identity::User,
        backfill: false,
        ignore_foreign_client: false,
        generation: 1,
    };
    let mut events = Events::new(1, CONNECTIONS * BATCH);
    let load = Load {
        url: cluster.edge_url().into(),
        head: Http::head(&format!("/v1/events?k={}&r=1.0", cluster.write_key(&key)), ""),
        bodies: std::iter::from_fn(|| events.body(BATCH as usize)).collect(),
    };
    let usage =
        |cluster: &Cluster| Usage::of(cluster.edge.pid().ok_or_else(|| Failure("the edge has no process".into()))?);
    let (mut sent, mut accepted, mut rows_before, mut memory_mib) = (0, 0, 0.0, 0f64);
    while sent < args.events {
        let until = (sent + STEP).min(args.events);
        let (began, before) = (Instant::now(), usage(&cluster)?);
        accepted += load.send((sent / BATCH..until / BATCH).collect()).await?.accepted;
        let (after, shown) = (usage(&cluster)?, cluster.shard(SHARD).await?);
        let (n, rows) = ((until - sent) as f64, shown["rows_written"].as_f64().unwrap_or(f64::NAN));
        let name = |what: &str| format!("until_{until}_{what}");
        figures.measured(name("events_per_s"), n / began.elapsed().as_secs_f64());
        figures.measured(name("edge_us_per_event"), 1e6 * after.cpu_s_since(&before) / n);
        figures.measured(name("edge_memory_mib"), after.memory_mib);
        figures.say(name("rows_written_per_million"), (1e6 * (rows - rows_before) / n).round());
        figures.say(name("ids_spilled"), shown["ids_spilled"].clone());
        (sent, rows_before, memory_mib) = (until, rows, memory_mib.max(after.memory_mib));
    }
    let requests = args.events / BATCH;
    let mut random = Random::new(1);
    let mut some = || (0..AGAIN).map(|_| random.between(0, requests)).collect();
    let began = Instant::now();
    let again = load.send(some()).await?;
    figures.measured("duplicates_per_s", (AGAIN * BATCH) as f64 / began.elapsed().as_secs_f64());
    cluster.edge.restart().await?;
    let began = Instant::now();
    let first = load.send(vec![0]).await?;
    figures.measured("first_answer_after_a_restart_ms", 1e3 * began.elapsed().as_secs_f64());
    let after_restart = load.send(some()).await?;
    figures.measured("memory_after_a_restart_mib", usage(&cluster)?.memory_mib);
    figures.print(args.json);
    let mut ok = true;
    for (holds, what) in [
        (accepted == args.events / BATCH * BATCH, "not each event was accepted once"),
        (again.duplicates == AGAIN * BATCH, "a duplicate was not known"),
        (
            first.duplicates + after_restart.duplicates == (AGAIN + 1) * BATCH,
            "a duplicate was not known after a restart",
        ),
        (memory_mib <= MEMORY_MIB_MAX, "memory grows"),
    ] {
        if !holds {
            eprintln!("not as it must be: {what}");
            ok = false;
        }
    }
    Ok(ok)
}
