//! `cargo xtask test questions`: random questions, answered by Catchment and exactly, by DuckDB.

mod asked;
mod compare;
mod dirty;
mod duckdb;
mod rates;
mod sets;
mod sql;
mod told;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use catchment_harness::{Cluster, Failure, Random, Result};
use clap::Parser;

use asked::{Facts, Metric, Stat};
use compare::{Seen, Top};
use duckdb::DuckDb;
use rates::Rates;
use sets::Set;
use sql::Sql;
use told::{Request, Told};

/// The users' hashes, and with them every estimate, are the same in each run.
const SECRET: &str = "a secret that all runs of the questions use";
/// Failures after which no more is asked.
const FAILURES_MAX: usize = 20;
/// Quantiles of one question whose ranks are looked up.
const RANKS_MAX: usize = 300;
const RANK_ERROR_MAX: f64 = 0.005;

/// Asks random questions about real and made events, and compares the answers with DuckDB's.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask test questions")]
struct Args {
    /// The first question's seed; each further one's is one more.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Questions.
    #[arg(long, default_value_t = 2_000)]
    runs: u64,
    /// Plain events that are made; beside them half as many dirty ones, and a quarter that are live.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=20_000_000))]
    events: u64,
    /// Decides what events are made.
    #[arg(long, default_value_t = 1)]
    events_seed: u64,
    /// A folder of traces (.ndjson.gz) to ask about, too; else that in CATCHMENT_TRACES.
    #[arg(long)]
    traces: Option<PathBuf>,
    /// Says what is asked, and how DuckDB is.
    #[arg(long)]
    verbose: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = Args::parse();
    args.traces = args.traces.or_else(|| std::env::var_os("CATCHMENT_TRACES").map(PathBuf::from));
    let outcome = tokio::select! {
        // What is dropped half-way stops its processes and removes its folder.
        outcome = run(&args) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(false),
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

/// Whether all answers are right.
async fn run(args: &Args) -> Result<bool> {
    let python = std::env::var_os("CATCHMENT_DUCKDB_PYTHON");
    let python: OsString =
        python.ok_or_else(|| Failure("CATCHMENT_DUCKDB_PYTHON names no Python that has DuckDB".into()))?;
    let mut duckdb = DuckDb::start(&python)?;
    let cluster = Cluster::builder().secret(SECRET).flush_s(2).start().await?;
    let mut asking = Vec::new();
    for set in Set::all(args.traces.as_deref(), args.events_seed, args.events)? {
        let started = Instant::now();
        let [events, received] = set.load(&cluster, &mut duckdb).await?;
        eprintln!("  {} in {:.1} s", events.facts.table, started.elapsed().as_secs_f64());
        asking.extend([events, received]);
    }
    let started = Instant::now();
    let mut rates = Rates::default();
    let mut failed = 0;
    for seed in args.seed..args.seed.saturating_add(args.runs) {
        let mut random = Random::new(seed);
        // Neighbouring seeds begin alike.
        let mut random = Random::new(random.bits());
        // What was received is asked about now and then.
        let received = usize::from(random.between(0, 20) == 0);
        let of = &asking[2 * random.between(0, asking.len() as u64 / 2) as usize + received];
        let request = Request::random(&mut random, &of.facts);
        let mut wrong = Vec::new();
        for told in request.ask(&of.api).await? {
            match told {
                Ok(told) => wrong.extend(check(args, &of.facts, &told, &mut duckdb, &mut rates).await?),
                Err(refused) => wrong.push(refused),
            }
        }
        rates.add_request(&request);
        if !wrong.is_empty() {
            failed += 1;
            println!("seed {seed} failed, about {}: {request}", of.facts.table);
            wrong.iter().for_each(|wrong| println!("  {wrong}"));
            let (events, events_seed) = (args.events, args.events_seed);
            println!(
                "again: cargo xtask test questions --seed {seed} --runs 1 --events {events} --events-seed {events_seed} --verbose{}",
                args.traces.as_ref().map(|folder| format!(" --traces {}", folder.display())).unwrap_or_default()
            );
            if failed >= FAILURES_MAX {
                break;
            }
        }
    }
    println!(
        "{} requests from seed {} in {:.1} s, {failed} answered wrong",
        rates.requests(),
        args.seed,
        started.elapsed().as_secs_f64()
    );
    println!("{rates}");
    let broken = rates.broken();
    broken.iter().for_each(|broken| println!("{broken}"));
    Ok(failed == 0 && broken.is_empty())
}

/// Holds what is told of a question against what DuckDB says, and says what is wrong.
async fn check(args: &Args, facts: &Facts, told: &Told, duckdb: &mut DuckDb, rates: &mut Rates) -> Result<Vec<String>> {
    let Told { asked, minutes, answer, .. } = told;
    let sql = Sql { asked, facts, minutes: *minutes };
    let answered = compare::groups(answer);
    let mut wrong = Vec::new();
    if let Some(top) = sql.top(&answered) {
        let top = compare::top(asked, &answered, &compare::ranked(&duckdb.rows(&top).await?)?);
        rates.add_top(&top);
        if let Top::Wrong(what) = top {
            wrong.push(what);
        }
    }
    wrong.extend(compare::order(asked, told.order, answer));
    let rows = sql.rows(&answered);
    let mut truths = compare::truths(&duckdb.rows(&rows).await?)?;
    let mut before = None;
    if let Some([previous, changes]) = &told.before {
        let sql = Sql { minutes: asked.before(*minutes), ..sql };
        let rows = duckdb.rows(&sql.rows(&answered)).await?;
        let mut earlier = compare::beside(asked, *minutes, compare::truths(&rows)?);
        compare::fill(asked, &mut truths, &mut earlier);
        before = Some((sql, previous, changes, earlier));
    }
    let mut seen = compare::rows(asked, answer, &truths);
    wrong.extend(ranks(&sql, &answered, &seen, &truths, duckdb, rates).await?);
    if let Some((sql, previous, changes, earlier)) = &before {
        let of_before = compare::rows(asked, previous, earlier);
        wrong.extend(ranks(sql, &answered, &of_before, earlier, duckdb, rates).await?);
        seen.add(of_before);
        seen.add(compare::changes(asked, [changes, previous], [&truths, earlier]));
    }
    rates.add(&facts.table, &seen);
    wrong.extend(seen.wrong.iter().cloned());
    if args.verbose {
        println!("of {}: {}", facts.table, asked.question().text());
        println!("{} rows; {}", truths.len(), answer.meta);
        println!("{rows}");
        for users in seen.users.iter().filter(|users| !users.answered.exact) {
            println!("  {users:?}");
        }
    }
    Ok(wrong)
}

/// How far the ranks of quantiles are off.
async fn ranks(
    sql: &Sql<'_>,
    kept: &[&str],
    seen: &Seen,
    truths: &[compare::Truth],
    duckdb: &mut DuckDb,
    rates: &mut Rates,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (metric, asked) in sql.asked.metrics.iter().enumerate() {
        let Metric::Of(Stat::Quantile(hundredths), of) = asked else { continue };
        let quantiles: Vec<_> =
            seen.quantiles.iter().filter(|quantile| quantile.metric == metric).take(RANKS_MAX).collect();
        if quantiles.is_empty() {
            continue;
        }
        let values: Vec<_> = quantiles
            .iter()
            .map(|quantile| {
                let (truth, (below, above)) = (&truths[quantile.row], quantile.around());
                (truth.events_in, truth.group.as_deref(), below, above)
            })
            .collect();
        for row in duckdb.rows(&sql.ranks(kept, of, &values)).await? {
            let [at, less, not_more, n] = [0, 1, 2, 3].map(|column| row[column].as_u64().unwrap_or_default());
            let quantile = quantiles[at as usize];
            let error = compare::rank_error(*hundredths, n, less, not_more);
            rates.add_quantile(quantile, error);
            if error >= RANK_ERROR_MAX {
                wrong.push(format!(
                    "p{hundredths}:{of} is {:?}: {:.2} % of the ranks of {n} values off",
                    quantile.answered,
                    100.0 * error
                ));
            }
        }
    }
    Ok(wrong)
}
