//! A home that is away for long: the edge takes events up to its bound, says so there, and all it took is counted later.

#![cfg(test)]

use std::collections::BTreeSet;
use std::time::Duration;

use catchment_cells::ClientId;
use catchment_cells::credential::{Identity, WriteKey};
use catchment_harness::Cluster;
use jiff::Timestamp;
use reqwest::{Client, Response, StatusCode};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(120);
const HOUR_MS: i64 = 3_600_000;
/// Requests in flight at a time.
const PARALLEL: usize = 4;
/// More than the outbox takes, with a frame for a request or two.
const REQUESTS_MAX: usize = 1_000;
/// Events of a request, and what makes a value long: together, nearly as many bytes as a request may have.
const EVENTS: usize = 500;
const PADDING: usize = 170;

/// Events that each have long values of their own in every cube, so that few of them fill a frame.
fn batch(n: usize, at: &str) -> String {
    let event = |i: usize| {
        let id = format!("{n}-{i}-{:x<PADDING$}", "");
        format!(
            r#"{{"event_id":"{n}-{i}","event_type":"t{id}","timestamp":"{at}","page":"{id}","country":"{id}","device":"{id}","plan":"{id}","referrer":"{id}","category":"{id}","product":"{id}"}}"#
        )
    };
    format!("[{}]", (0..EVENTS).map(event).collect::<Vec<_>>().join(","))
}

async fn post(http: &Client, url: &str, n: usize, at: &str) -> Response {
    http.post(url).body(batch(n, at)).timeout(PATIENCE).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_home_is_away_says_when_it_is_full_and_loses_nothing() {
    // What a client may take of a pool is not what is looked at.
    let mut cluster = Cluster::builder().shard_requests_per_s(100_000).start().await.unwrap();
    let client = ClientId::new("flood").unwrap();
    let url = |client: &ClientId| {
        let key = WriteKey {
            client: client.clone(),
            identity: Identity::Daily,
            backfill: false,
            ignore_foreign_client: false,
            generation: 1,
        };
        format!("{}/v1/events?k={}", cluster.edge_url(), cluster.write_key(&key))
    };
    let (url, others) = (url(&client), url(&ClientId::new("other").unwrap()));
    let at = Timestamp::now().to_string();
    cluster.regions[0].relay.kill();

    let http = Client::new();
    let mut taken = BTreeSet::new();
    let mut refused = BTreeSet::new();
    let mut sending = JoinSet::new();
    for n in 0..REQUESTS_MAX {
        if !refused.is_empty() {
            break;
        }
        if sending.len() == PARALLEL {
            let (n, answer): (usize, Response) = sending.join_next().await.unwrap().unwrap();
            sort(n, &answer, &mut taken, &mut refused);
        }
        let (http, url, at) = (http.clone(), url.clone(), at.clone());
        sending.spawn(async move { (n, post(&http, &url, n, &at).await) });
    }
    for (n, answer) in sending.join_all().await {
        sort(n, &answer, &mut taken, &mut refused);
    }
    println!("{} requests of {EVENTS} events taken, {} refused", taken.len(), refused.len());
    assert!(!refused.is_empty(), "the edge never said that it is full");
    // One client alone fills no pool.
    assert_eq!(post(&http, &others, 0, &at).await.status(), StatusCode::ACCEPTED);

    // What it holds survives its death; then its home comes back, and takes all of it, and there is room again.
    cluster.edge.restart().await.unwrap();
    cluster.regions[0].relay.start().await.unwrap();
    let api = cluster.api(&client);
    let now = Timestamp::now().as_millisecond().div_euclid(HOUR_MS) * HOUR_MS;
    let span = (now - HOUR_MS, now + 2 * HOUR_MS);
    api.reaches("events", span, (taken.len() * EVENTS) as u64, PATIENCE).await.unwrap();
    for n in refused {
        assert_eq!(post(&http, &url, n, &at).await.status(), StatusCode::ACCEPTED);
        taken.insert(n);
    }
    api.reaches("events", span, (taken.len() * EVENTS) as u64, PATIENCE).await.unwrap();
}

fn sort(n: usize, answer: &Response, taken: &mut BTreeSet<usize>, refused: &mut BTreeSet<usize>) {
    match answer.status() {
        StatusCode::ACCEPTED => taken.insert(n),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let wait = answer.headers().get("retry-after").and_then(|wait| wait.to_str().ok()?.parse::<u64>().ok());
            assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{answer:?}");
            refused.insert(n)
        }
        _ => panic!("{answer:?}"),
    };
}
