//! Real events the whole way: the answers equal exact ones that were computed without any of this code.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::limits::USERS_COUPONS_MAX;
use catchment_harness::figures::{Figures, users_outside};
use catchment_harness::{Api, Bucket, Cluster, Exact, Question, Random, Sender, Trace, paths};
use flate2::read::GzDecoder;
use jiff::Timestamp;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// The users' hashes, and with them every estimate, are the same in each run.
const SECRET: &str = "a secret that the whole path's test always uses";

/// Columns of a table beside the trace: the first is a time, the others are named.
fn table(answers: &Value) -> BTreeMap<i64, Bucket> {
    let rows = answers["rows"].as_array().unwrap();
    let row = |row: &Value| {
        let start: Timestamp = row[0].as_str().unwrap().parse().unwrap();
        (start.as_millisecond(), Bucket { events: row[1].as_u64().unwrap(), users: row[2].as_u64().unwrap() })
    };
    rows.iter().map(row).collect()
}

/// What was computed elsewhere, and per minute.
fn answers() -> (Value, Value) {
    let data = paths::root().join("tests/data");
    let answers = fs::read(data.join("nasa-1995-08-01.json")).unwrap();
    let mut minutes = String::new();
    let file = fs::File::open(data.join("nasa-1995-08-01.per_minute.json.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut minutes).unwrap();
    (serde_json::from_slice(&answers).unwrap(), serde_json::from_str(&minutes).unwrap())
}

fn client() -> ClientId {
    ClientId::new("nasa").unwrap()
}

fn sender(cluster: &Cluster, seed: u64) -> Sender {
    Sender { seed, ..Sender::new(cluster.edge_url().into(), cluster.trace_key(&client(), true)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_equal_the_exact_ones_and_stay_so() {
    let (answers, minutes) = answers();
    let trace = Trace::open(&paths::bundled_trace()).unwrap();
    let exact = Exact::of(&trace.lines);
    let span = exact.span().unwrap();
    // First the harness' own counting.
    assert_eq!((exact.per_minute.len(), &exact.per_minute), (766, &table(&minutes)));
    assert_eq!(exact.per_hour, table(&answers["per_hour"]));
    assert_eq!(exact.per_day, table(&answers["per_day"]));

    let mut cluster = Cluster::builder().secret(SECRET).start().await.unwrap();
    let api = cluster.api(&client());
    let outcome = sender(&cluster, 1).replay(&trace).await.unwrap();
    assert_eq!((outcome.accepted, outcome.duplicates, outcome.rejected.len()), (exact.events, 0, 0));
    api.reaches("events", span, exact.events, PATIENCE).await.unwrap();
    let figures = Figures::ask(&api, span, Some("bytes")).await.unwrap();
    assert_eq!(figures.differences(&exact), [""; 0]);
    check_users(&figures, &exact);
    check_quantiles(&figures, &answers);
    check_pages(&figures, &answers);
    check_sums(&api, span, &answers).await;

    // Again, each event twice more, in any order, in other batches: each is known.
    let seed = Random::seed();
    println!("CATCHMENT_SEED={seed}");
    let mut random = Random::new(seed);
    let again = trace.doubled().shuffled(&mut random);
    let outcome = Sender { batch_events: (1, 400), ..sender(&cluster, seed) }.replay(&again).await.unwrap();
    assert_eq!((outcome.accepted, outcome.duplicates), (0, 2 * exact.events));
    received(&api, "duplicate", 2 * exact.events).await;
    assert_eq!(Figures::ask(&api, span, Some("bytes")).await.unwrap(), figures);

    // What is stored says the same as what was in memory.
    for process in cluster.processes() {
        process.restart().await.unwrap();
    }
    assert_eq!(Figures::ask(&api, span, Some("bytes")).await.unwrap(), figures);
    let outcome = sender(&cluster, seed).replay(&trace.every(7)).await.unwrap();
    assert_eq!((outcome.accepted, outcome.duplicates), (0, trace.every(7).lines.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_arrival_in_disorder_gives_the_same_figures() {
    let trace = Trace::open(&paths::bundled_trace()).unwrap();
    let exact = Exact::of(&trace.lines);
    let span = exact.span().unwrap();
    let seed = Random::seed();
    println!("CATCHMENT_SEED={seed}");
    let shuffled = trace.doubled().shuffled(&mut Random::new(seed));
    let cluster = Cluster::builder().secret(SECRET).start().await.unwrap();
    let outcome = Sender { batch_events: (1, 300), ..sender(&cluster, seed) }.replay(&shuffled).await.unwrap();
    assert_eq!((outcome.accepted, outcome.duplicates), (exact.events, exact.events));
    let api = cluster.api(&client());
    api.reaches("events", span, exact.events, PATIENCE).await.unwrap();
    let figures = Figures::ask(&api, span, Some("bytes")).await.unwrap();
    assert_eq!(figures.differences(&exact), [""; 0]);
    check_users(&figures, &exact);
    check_quantiles(&figures, &answers().0);
}

/// Counters travel with the frames: once this one is there, nothing is on its way any more.
async fn received(api: &Api, reason: &str, expected: u64) {
    let now = Timestamp::now().as_millisecond();
    let span = (now - 3_600_000, now + 3_600_000);
    let minutes = (span.0.div_euclid(60_000) * 60_000, span.1.div_euclid(60_000) * 60_000);
    api.reaches(&format!("received:{reason}"), minutes, expected, PATIENCE).await.unwrap();
}

/// Few users are counted exactly, with this secret without any collision; more lie within their bounds.
fn check_users(figures: &Figures, exact: &Exact) {
    for (answered, exact) in [(&figures.per_minute, &exact.per_minute), (&figures.per_hour, &exact.per_hour)] {
        for (start, bucket) in exact {
            if bucket.users <= USERS_COUPONS_MAX as u64 {
                assert_eq!(answered[start].users.value, bucket.users as f64, "users at {start}");
            }
        }
        assert_eq!(users_outside(answered, exact), 0);
    }
    assert_eq!(users_outside(&figures.per_day, &exact.per_day), 0);
    let users = figures.total.users;
    assert!(users.lower <= exact.users as f64 && exact.users as f64 <= users.upper, "{users:?}");
    assert!(users.upper - users.lower < 0.2 * exact.users as f64, "{users:?}");
}

fn check_quantiles(figures: &Figures, answers: &Value) {
    assert_eq!(figures.quantiles.len(), 3);
    for (q, value) in &figures.quantiles {
        let truth = answers["numeric"]["disc"][q.to_string()].as_f64().unwrap();
        assert!(value.lower <= truth && truth <= value.upper, "p{q} is {truth}, not within {value:?}");
        assert!((value.value - truth).abs() <= 0.05 * truth, "p{q} is {truth}, far from {value:?}");
    }
}

fn check_pages(figures: &Figures, answers: &Value) {
    let rows = answers["top_pages"]["rows"].as_array().unwrap();
    let expected: Vec<(String, u64)> =
        rows.iter().map(|row| (row[0].as_str().unwrap().into(), row[1].as_u64().unwrap())).collect();
    assert_eq!(figures.top_pages, expected);
}

/// Sums in fixed point are exact, whatever the order.
async fn check_sums(api: &Api, (start, end): (i64, i64), answers: &Value) {
    let metrics = ["page_views", "count:asset", "sum:bytes", "min:bytes", "max:bytes", "avg:bytes"];
    let row = api.ask(&Question::of(&metrics, start, end, "all")).await.unwrap().results.remove(0);
    let numeric = &answers["numeric"];
    let types = &answers["event_types"]["rows"];
    let expected = [&types[1][1], &types[0][1], &numeric["sum"], &numeric["min"], &numeric["max"], &numeric["mean"]];
    for (metric, expected) in metrics.iter().zip(expected) {
        let (value, expected) = (row.get(metric).unwrap(), expected.as_f64().unwrap());
        assert!(value.exact && value.lower == value.upper, "{metric}: {value:?}");
        assert!((value.value - expected).abs() <= 1e-9 * expected.abs(), "{metric}: {value:?}, not {expected}");
    }
}
