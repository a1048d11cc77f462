//! `--once`: a file as it is, and whether every distinct valid event was counted once.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use catchment_harness::figures::Figures;
use catchment_harness::{Event, Exact, Failure, Line, Result, Sender, Trace, Watcher};

use crate::report::Report;
use crate::{Args, client, replay, write_key};

/// How long the count may stand still before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether every distinct valid event was counted once.
pub(crate) async fn run(args: &Args, file: &Path, trace: &Trace) -> Result<bool> {
    let cluster = args.cluster(None).await?;
    let api = cluster.api(&client()?);
    let all = Exact::of(&trace.lines);
    let Some(span) = all.span() else {
        return Err(Failure(format!("{} has no line with event_id, event_type and timestamp.", file.display())));
    };

    eprintln!("▸ replay {} ({} lines)", file.display(), trace.lines.len());
    let watcher = Watcher::start(api.clone(), span);
    let sender = Sender::new(cluster.edge_url().into(), write_key(&cluster, true)?);
    let outcome = replay(&sender, trace, all.events).await?;
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
    Ok(report.differences.is_empty())
}
