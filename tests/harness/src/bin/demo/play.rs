//! Without `--once`: a shop, a dashboard, a history that is filled in seconds, and traffic until it is stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use catchment_harness::{Cluster, Connection, Failure, Result, Sender, Shop, Trace, paths};
use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;

use crate::invitation::Invitation;
use crate::report::count;
use crate::traffic::{Hour, Traffic};
use crate::{Args, client, replay, write_key};

/// How long the history's count may stand still.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often what has fallen due is sent.
const TICK: Duration = Duration::from_millis(100);
/// How long the edge may be away before that is said.
const EDGE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a process that ended is missed.
const AWAY: Duration = Duration::from_secs(3);
const MINUTE_MS: i64 = 60_000;

/// Ends only with an error.
pub(crate) async fn run(args: &Args, file: &Path, trace: &Trace) -> Result<bool> {
    let (dashboard, pages) = (paths::dashboard()?, paths::shop()?);
    let bundled = args.file.is_none();
    let traffic = if bundled { Traffic::of_the_bundled_log(trace) } else { Traffic::of(trace) }?;
    let mut cluster = args.cluster(Some(dashboard)).await?;
    let key = write_key(&cluster, false)?;
    let shop = Shop::start(&pages, cluster.edge_url(), &key).await?;

    let history = traffic.history(now_ms() - 1_000)?;
    let (events, days) = (count(traffic.len() as u64), traffic.days());
    if bundled {
        eprintln!(
            "▸ fill {days} days of history: the {events} page views of a web server's day in 1995, moved to now,"
        );
        eprintln!("  and again for each day before with some users left out; which devices they had is made up");
    } else {
        eprintln!("▸ fill the history: the {events} events of {}, moved to now", file.display());
    }
    fill(&cluster, &history).await?;

    let mut hour = traffic.busiest_hour();
    let invitation = Invitation {
        shop: shop.url(),
        edge: cluster.edge_url(),
        write_key: &key,
        api: &cluster.api(&client()?),
        aggregator_pid: cluster.central.as_ref().unwrap_or(&cluster.regions[0].aggregator).pid(),
    };
    if args.json {
        println!("{}", invitation.json());
    } else {
        print!("{}", invitation.text());
    }
    let pace = format!("{} events of its busiest hour, {} times as fast as then", hour.len(), args.speed);
    eprintln!("▸ play the {pace}, over and over, until Ctrl-C");
    let status = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("  {spinner} {msg}").map_err(Failure::at("the status"))?;
    status.set_style(style);
    let connection =
        Sender { patience: EDGE_PATIENCE, ..Sender::new(cluster.edge_url().into(), key.clone()) }.connect()?;
    tokio::select! {
        ended = play(&mut hour, args.speed, &connection, &status) => ended,
        ended = tend(&mut cluster, &status) => ended,
    }
    .map(|()| true)
}

/// Sends the history, and waits until all of it is counted.
async fn fill(cluster: &Cluster, history: &Trace) -> Result<()> {
    let times = history.lines.iter().filter_map(|line| Some(catchment_harness::Event::read(&line.text)?.time_ms));
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)));
    let minute = |ms: i64| ms.div_euclid(MINUTE_MS) * MINUTE_MS;
    let sender = Sender::new(cluster.edge_url().into(), write_key(cluster, true)?);
    let outcome = replay(&sender, history, history.lines.len() as u64).await?;
    if let Some(rejected) = outcome.rejected.first() {
        eprintln!("  {} of them were rejected: {}, …", count(outcome.rejected.len() as u64), rejected.reason);
    }
    let span = (minute(first), minute(last) + MINUTE_MS);
    eprintln!("▸ wait until all of them are counted");
    cluster.api(&client()?).reaches("events", span, outcome.accepted, PATIENCE).await
}

/// Sends each event when it falls due.
async fn play(hour: &mut Hour<'_>, speed: u32, connection: &Connection, status: &ProgressBar) -> Result<()> {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    let mut sent = 0;
    loop {
        ticks.tick().await;
        let played_ms = started.elapsed().as_millis() as i64 * i64::from(speed);
        let due = hour.due(played_ms, now_ms())?;
        let outcomes = join_all(due.batches(|| 200).into_iter().map(|batch| connection.deliver(batch))).await;
        let failed = outcomes.iter().find_map(|outcome| outcome.as_ref().err()).cloned();
        sent += outcomes.iter().flatten().map(|outcome| outcome.accepted).sum::<u64>();
        let per_s = sent as f64 / started.elapsed().as_secs_f64().max(1.0);
        status.set_message(match failed {
            Some(failure) => failure.to_string(),
            None => format!("{} events played, {per_s:.1} a second", count(sent)),
        });
        status.tick();
    }
}

/// Starts again what has ended: somebody may have tried.
async fn tend(cluster: &mut Cluster, status: &ProgressBar) -> Result<()> {
    loop {
        tokio::time::sleep(TICK).await;
        for process in cluster.processes() {
            if process.is_running() {
                continue;
            }
            let name = process.name().to_owned();
            status.suspend(|| eprintln!("▸ {name} has ended; it is started again in {} s", AWAY.as_secs()));
            tokio::time::sleep(AWAY).await;
            process.start().await?;
            let pid = process.pid().unwrap_or_default();
            status.suspend(|| eprintln!("▸ {name} runs again, its id is {pid}"));
        }
    }
}

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
