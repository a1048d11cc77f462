//! `bench query`: three months of 50 clients in one aggregator's store, and how soon it answers what dashboards ask; beside it DuckDB and
//! the ClickHouse engine, each from roll-ups of the same events.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use catchment_cells::{ClientId, Secret, cube};
use catchment_harness::{Api, Cluster, Failure, Question, Result, Row, paths};
use catchment_workload::{BODY_EVENTS, DAY_MS, Events, SHARDS, START_MS, Shards};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::collector::output;
use crate::figures::Figures;
use crate::intake::{Sender, link_client, send};
use crate::machine::{Usage, waited_for_cpu_s};
use crate::store::disk_bytes;

const CLIENTS: u64 = 50;
const DAYS: u64 = 90;
const HOUR_MS: u64 = 3_600_000;
/// Frames of one call: few, for each has events of an hour or more, which an aggregator has minute by minute until it flushes.
const CALL_FRAMES: usize = 6;
/// How long what was taken may take to be flushed and folded.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nothing must have been folded.
const QUIET: Duration = Duration::from_secs(3);
/// How often the process is started anew, after which every client asks each question for the first time.
const COLD_ROUNDS: usize = 4;
/// How often every client asks each question after that, and the biggest one alone.
const ROUNDS: usize = 4;
const BIGGEST_ROUNDS: usize = 100;
/// Fixed, so that a store that was kept can be opened again.
const SECRET: &str = "the secret of bench query, which is none";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Page views of the three months.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    events: u64,
    /// Keeps the store in this folder, or takes the one that is there: of the same events, and of a program that writes the same.
    #[arg(long)]
    store: Option<PathBuf>,
}

/// What is asked, by the names that figures have.
const ASKED: [&str; 3] = ["dau_country_30d", "single_cube", "top10"];

/// Measures; each event must be counted.
pub(crate) async fn run(args: Args) -> Result<bool> {
    let mut figures = Figures::begin();
    figures.say("events", args.events);
    figures.say("clients", CLIENTS);
    figures.say("clients_skew", "the k-th has 1/k of the events of the first");
    figures.say("biggest_client_events", share(args.events, 1));
    figures.say(
        "cold",
        "the first time that a client asks after the process started: nothing of its cells is in the process; the system has the files in memory",
    );
    let raw = Raw(std::env::temp_dir().join(format!("catchment-bench-{}.csv", std::process::id())));
    let mut cluster = Cluster::builder().secret(SECRET).start().await?;
    let data = cluster.folder().join("data-eu");
    match args.store.as_deref().filter(|store| store.exists()) {
        Some(store) => {
            cluster.regions[0].aggregator.kill();
            copy(store, &data)?;
            write_raw(&raw.0, args.events)?;
        }
        None => {
            fill(&mut figures, &mut cluster, args.events, &raw.0).await?;
            cluster.regions[0].aggregator.terminate(PATIENCE).await?;
            if let Some(store) = &args.store {
                copy(&data, store)?;
            }
        }
    }
    figures.measured("disk_bytes", disk_bytes(&data) as f64);
    let mut sizes = Command::new(paths::program("catchment-aggregator")?);
    sizes.arg("--config").arg(cluster.folder().join("aggregator-eu.toml")).arg("--sizes");
    figures.adopt("cube_", &output(&mut sizes)?)?;

    let clients: Vec<Api> = (1..=CLIENTS).map(|k| Ok(cluster.api(&client(k)?))).collect::<Result<_>>()?;
    eprintln!("▸ ask, cold");
    let waited_before_s = waited_for_cpu_s();
    let began = Instant::now();
    let mut cold: [Vec<f64>; 3] = Default::default();
    for _ in 0..COLD_ROUNDS {
        cluster.regions[0].aggregator.kill();
        cluster.regions[0].aggregator.start().await?;
        // The connection is made; nothing is asked of the store.
        for api in &clients {
            api.raw(&Question::of(&["events"], 0, 60_000, "all")).await?;
        }
        for (n, api) in clients.iter().enumerate() {
            for (asked, took_ms) in cold.iter_mut().enumerate() {
                took_ms.push(ask(api, &question(asked, n)).await?);
            }
        }
    }
    eprintln!("▸ ask");
    let pid = cluster.regions[0].aggregator.pid().ok_or_else(|| Failure("the aggregator has ended".into()))?;
    let before = Usage::of(pid)?;
    let (mut all, mut biggest): ([Vec<f64>; 3], [Vec<f64>; 3]) = Default::default();
    for round in 0..ROUNDS {
        for api in &clients {
            for (asked, took_ms) in all.iter_mut().enumerate() {
                took_ms.push(ask(api, &question(asked, round)).await?);
            }
        }
    }
    for round in 0..BIGGEST_ROUNDS {
        for (asked, took_ms) in biggest.iter_mut().enumerate() {
            took_ms.push(ask(&clients[0], &question(asked, round)).await?);
        }
    }
    let after = Usage::of(pid)?;
    let questions = all.iter().chain(&biggest).map(Vec::len).sum::<usize>() as f64;
    figures.measured("question_cpu_ms", after.cpu_s_since(&before) * 1e3 / questions);
    figures.measured("aggregator_memory_mib", after.memory_mib);
    let waited_s = waited_for_cpu_s() - waited_before_s;
    figures.measured("waited_for_cpu_percent", 100.0 * waited_s / began.elapsed().as_secs_f64());
    for (asked, name) in ASKED.iter().enumerate() {
        let biggest_cold: Vec<f64> = cold[asked].iter().step_by(CLIENTS as usize).copied().collect();
        for (who, ms) in [("", &biggest[asked]), ("all_clients_", &all[asked])] {
            figures.measured(format!("{who}{name}_ms_p50"), quantile(ms, 50));
            figures.measured(format!("{who}{name}_ms_p95"), quantile(ms, 95));
        }
        figures.measured(format!("{name}_ms_p95_cold"), quantile(&cold[asked], 95));
        figures.measured(format!("biggest_{name}_ms_max_cold"), quantile(&biggest_cold, 100));
    }

    let mut ok = true;
    let mut must = |what: String, holds: bool| {
        if !holds {
            eprintln!("not as it must be: {what}");
            ok = false;
        }
    };
    let mut counted = 0;
    for api in &clients {
        counted += api.count("events", (START_MS as i64, (START_MS + DAYS * DAY_MS) as i64)).await?;
    }
    must(format!("{counted} events are counted"), counted == args.events);
    let top: Vec<(String, u64)> = clients[0].ask(&question(2, 0)).await?.results.iter().filter_map(page).collect();
    for (engine, variable) in [("duckdb", "CATCHMENT_DUCKDB_PYTHON"), ("clickhouse", "CATCHMENT_CHDB_PYTHON")] {
        let Some(python) = std::env::var_os(variable) else {
            eprintln!("  {engine} could not be installed from PyPI: nothing is compared with it");
            figures.say(format!("{engine}_is_missing"), true);
            continue;
        };
        eprintln!("▸ {engine}");
        let script = paths::root().join("tests/bench/rollup_questions.py");
        let told = output(Command::new(python).arg(script).arg(engine).arg(&raw.0).arg(client(1)?.as_str()))?;
        let mut told: serde_json::Map<String, Value> =
            serde_json::from_str(told.trim()).map_err(Failure::at("reading an engine's figures"))?;
        let theirs = told.remove("top10").unwrap_or_default();
        must(format!("{engine} has the same top 10 pages: {theirs} and {top:?}"), theirs == serde_json::json!(top));
        figures.adopt(&format!("{engine}_"), &Value::Object(told).to_string())?;
    }
    figures.print(args.json);
    Ok(ok)
}

/// Sends all events as shards count them that the clients share, and waits until the aggregator has written and folded them.
async fn fill(figures: &mut Figures, cluster: &mut Cluster, events: u64, raw: &Path) -> Result<()> {
    eprintln!("▸ make and take {events} events");
    let (link, secret) = (link_client(cluster)?, cluster.secret().clone());
    let pid = cluster.regions[0].aggregator.pid().ok_or_else(|| Failure("the aggregator has ended".into()))?;
    let (before, began) = (Usage::of(pid)?, Instant::now());
    let (frames, mut made) = mpsc::channel::<Bytes>(CALL_FRAMES);
    let raw = raw.to_owned();
    let making = tokio::task::spawn_blocking(move || make(&secret, events, &raw, &frames));
    let mut count = 0;
    let mut batch = Vec::new();
    while made.recv_many(&mut batch, CALL_FRAMES).await > 0 {
        count += batch.len();
        send(Sender::Link(link.clone()), std::mem::take(&mut batch)).await?;
    }
    making.await.map_err(Failure::at("making the events"))??;
    figures.say("frames", count);
    figures.measured("taken_events_per_s", events as f64 / began.elapsed().as_secs_f64());
    let sent = Instant::now();
    let (mut folded, mut quiet_since) = (0.0, sent);
    while cluster.counter("catchment_memtable_bytes").await? > 0.0 || quiet_since.elapsed() < QUIET {
        if sent.elapsed() > PATIENCE {
            return Err(Failure(format!("not all is flushed and folded {PATIENCE:?} after it was sent")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = cluster.counter("catchment_folded_rows_total").await?;
        if now != folded {
            (folded, quiet_since) = (now, Instant::now());
        }
    }
    let after = Usage::of(pid)?;
    figures.measured("taken_and_folded_s", began.elapsed().as_secs_f64());
    figures.measured("taken_and_folded_cpu_us_per_event", after.cpu_s_since(&before) * 1e6 / events as f64);
    Ok(())
}

/// Frames of all events, and the events themselves in a file: `client,ms,user,page,country`.
fn make(secret: &Secret, events: u64, raw: &Path, frames: &mpsc::Sender<Bytes>) -> Result<()> {
    let mut shards = Shards::new(secret, SHARDS, cube::DEFAULT);
    // An error says that nobody takes them any more, who has said why.
    let mut frame = |frame: Vec<u8>| _ = frames.blocking_send(frame.into());
    for_each_body(events, raw, |client, body| shards.take_of(client.clone(), body, &mut frame))?;
    shards.finish(&mut frame);
    Ok(())
}

fn write_raw(raw: &Path, events: u64) -> Result<()> {
    for_each_body(events, raw, |_, _| {})
}

/// Hour by hour, each client's events of it, in bodies.
fn for_each_body(events: u64, raw: &Path, mut take: impl FnMut(&ClientId, Vec<u8>)) -> Result<()> {
    let at = || Failure::at("writing the events");
    let mut out = BufWriter::new(File::create(raw).map_err(at())?);
    let mut of_clients: Vec<(ClientId, Events)> =
        (1..=CLIENTS).map(|k| Ok((client(k)?, Events::over(k, share(events, k), DAYS)))).collect::<Result<_>>()?;
    for hour in 1..=DAYS * 24 {
        for (client, events) in &mut of_clients {
            while let Some(body) = events.body_before(START_MS + hour * HOUR_MS, BODY_EVENTS) {
                let text = str::from_utf8(body.bytes()).map_err(Failure::at("reading a body"))?;
                for line in text.lines() {
                    // The workload's lines always have the same fields.
                    let parts: Vec<&str> = line.split('"').collect();
                    if let [.., time, _, _, user, _, _, _, page, _, _, _, country, _, _, _, _, _] = parts[..] {
                        let ms = time.trim_matches([':', ',']);
                        writeln!(out, "{client},{ms},{user},{page},{country}").map_err(at())?;
                    }
                }
                take(client, body.bytes().to_vec());
            }
        }
    }
    out.flush().map_err(at())
}

fn client(k: u64) -> Result<ClientId> {
    ClientId::new(&format!("c{k:02}")).map_err(Failure::at("a client of the bench"))
}

/// How many of the events the k-th client has.
fn share(events: u64, k: u64) -> u64 {
    let weights = |n| (1..=n).map(|k| 1.0 / k as f64).sum::<f64>();
    let until = |k| (events as f64 * weights(k) / weights(CLIENTS)).round() as u64;
    until(k) - until(k - 1)
}

/// What is asked; a few questions have the same name, and take turns.
fn question(asked: usize, turn: usize) -> Question {
    let end = (START_MS + DAYS * DAY_MS) as i64;
    let (day, hour) = (DAY_MS as i64, HOUR_MS as i64);
    // As `last=24h` at six in the evening: whole hours of two days.
    let day_of_hours =
        |metrics: &[&str], granularity| Question::of(metrics, end - 30 * hour, end - 6 * hour, granularity);
    match (asked, turn % 3) {
        (0, _) => Question::of(&["users"], end - 30 * day, end, "1d").with("group_by", "country").with("limit", 200),
        (1, 0) => day_of_hours(&["events", "users"], "1h"),
        (1, 1) => Question::of(&["events", "users"], end - 90 * day, end, "1d"),
        (1, _) => Question::of(&["events"], end - 2 * day, end - day, "all").with("group_by", "country"),
        _ => day_of_hours(&["events"], "all").with("group_by", "page"),
    }
}

/// How long the whole answer takes, in ms.
async fn ask(api: &Api, question: &Question) -> Result<f64> {
    let began = Instant::now();
    let (status, body) = api.raw(question).await?;
    let took_ms = began.elapsed().as_secs_f64() * 1e3;
    if status != 200 {
        return Err(Failure(format!("the aggregator answers {status}: {body}")));
    }
    Ok(took_ms)
}

fn page(row: &Row) -> Option<(String, u64)> {
    let page = row.group.clone().filter(|page| page != "(other)")?;
    Some((page, row.count("events")))
}

fn quantile(took_ms: &[f64], percent: usize) -> f64 {
    let mut sorted = took_ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let at = || Failure::at("copying the store");
    fs::remove_dir_all(to).ok();
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().map_err(at())?;
    if status.success() { Ok(()) } else { Err(Failure(format!("the store can't be copied to {}", to.display()))) }
}

/// The file of events; removed when dropped.
struct Raw(PathBuf);

impl Drop for Raw {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}
